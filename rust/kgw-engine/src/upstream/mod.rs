//! Upstream connections.

pub(crate) mod acquire;
pub(crate) mod call;
pub(crate) mod connect;
pub(crate) mod dns;
pub(crate) mod http2;
pub(crate) mod in_process;
pub(crate) mod pool;
pub(crate) mod proxy_protocol;
