//! The kgw data plane.
//!
//! An [`Engine`](runtime::Engine) compiles a configuration ([`config::ir`]) into an immutable snapshot
//! and serves it with one thread per CPU. The way of a connection through the modules:
//!
//! `listen` accepts it → `conn` reads what it says, a PROXY header (`conn::proxy_header`), requests
//! (`conn::http1`) or just bytes (`conn::tcp`) → `pipeline` decides where a request goes → `filter`s let
//! it pass, change it or answer it (those in Python through the `bridge`) → `upstream` lends a connection to an endpoint → `conn::relay` or
//! `conn::tunnel` moves the bytes → `telemetry` writes down what happened. Datagrams have no connections:
//! `udp` keeps sessions of them instead.

#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench;
pub mod bridge;
pub mod cel;
mod clock;
pub mod config;
mod conn;
mod filter;
#[cfg(fuzzing)]
pub mod fuzzing;
mod listen;
mod pipeline;
mod protobuf;
mod room;
pub mod runtime;
mod stats;
pub mod telemetry;
pub mod tls;
mod udp;
mod upstream;
mod wake;
