//! Upstream connections.

pub(crate) mod connect;
pub(crate) mod pool;
pub(crate) mod proxy_protocol;
