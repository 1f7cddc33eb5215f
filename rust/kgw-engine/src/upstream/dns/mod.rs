//! Endpoints by name: looked up off the workers' threads, again and again.
//!
//! Names are resolved as the system resolves them (`getaddrinfo`): with its hosts file, search domains,
//! caches and order of sources, which a resolver of our own would have to imitate. It does not tell how
//! long an answer holds, so names are looked up at an interval, as Envoy's `STRICT_DNS` does by default.
//!
//! Invariants:
//! 1. A [`Host`] has the addresses of the last answer of each of its names. A look-up that fails leaves them as
//!    they are, and those of other names.
//! 2. A host lives as long as a snapshot uses it, and keeps its addresses across reloads ([`Hosts`]).
//! 3. At most [`THREADS`](resolver::THREADS) look-ups run at a time, and at most one for each name of a host.

mod host;
mod resolver;
mod system;

pub(crate) use self::host::{Endpoints, Host, Hosts};
pub(crate) use self::resolver::Resolver;
