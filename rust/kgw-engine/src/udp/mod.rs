//! Datagrams: sessions in the place of connections.
//!
//! 1. The kernel picks a worker's socket by a hash of both addresses, so all datagrams of a client
//!    reach the same worker. One task for each socket takes them ([`listening`]).
//! 2. A session is for one client and the address of this host that it sends to. It has a socket of
//!    its own, connected to the endpoint, and a task that takes the answers ([`session`]). The first
//!    datagram chooses the endpoint; the others follow it.
//! 3. Nothing is queued: a datagram that cannot be sent at once is dropped, and counted. One buffer
//!    serves all datagrams of a socket.
//! 4. Nothing tells the end of a session but time. It is over when no datagram came for its idle
//!    time-out, in either direction; when its endpoint refuses datagrams, so that the next one may go to
//!    another; when a new configuration has its endpoint no longer.
//! 5. Sessions are bounded, for each listener and client, and leave in an order that keeps those alive
//!    which are in use ([`sessions`]): anybody can send datagrams in anybody's name.
//! 6. What would come back to the proxy goes nowhere: not to an endpoint that is one of its own
//!    addresses, nor for a client that pretends to be ([`own`]).
//! 7. A worker that drains opens no sessions. Those that are there go on until nothing came for
//!    [`DRAIN_IDLE_MS`]. Once another process may have the sockets, they are no longer read: both
//!    would take datagrams of the same clients.

pub(crate) mod datagram;
mod listening;
pub(crate) mod own;
mod session;
mod sessions;

pub(crate) use self::listening::run;

/// Sessions that a listener may have at once, over all workers, unless it says otherwise. Each has a
/// file descriptor, a task, and no buffer.
pub(crate) const MAX_SESSIONS: u64 = 16_384;

/// Time without a datagram after which a session is over while the worker drains. Milliseconds.
const DRAIN_IDLE_MS: u64 = 5_000;

/// The largest datagram there can be, and one byte.
const BUFFER: usize = 65_536;

/// Datagrams taken from a socket before others have their turn.
const AT_ONCE: usize = 64;
