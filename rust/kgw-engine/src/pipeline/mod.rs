//! What happens to a request between its head and its answer, apart from I/O.

pub(crate) mod connection_log;
pub(crate) mod direct;
pub(crate) mod early;
pub(crate) mod edge;
pub(crate) mod exchange_log;
pub(crate) mod grpc;
pub(crate) mod local_reply;
pub(crate) mod redirect;
pub(crate) mod reply;
pub(crate) mod retry;
pub(crate) mod rewrite;
pub(crate) mod route_view;
pub(crate) mod session;
pub(crate) mod session_log;
