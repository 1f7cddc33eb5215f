//! What happens to a request between its head and its answer, apart from I/O.

pub(crate) mod connection_log;
pub(crate) mod edge;
pub(crate) mod exchange_log;
#[cfg_attr(
    not(test),
    allow(
        dead_code,
        reason = "called by HTTP/2 connections, which are not here yet"
    )
)]
pub(crate) mod grpc;
pub(crate) mod redirect;
pub(crate) mod reply;
pub(crate) mod rewrite;
pub(crate) mod route_view;
