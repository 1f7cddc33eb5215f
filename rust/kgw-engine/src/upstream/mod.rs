//! Upstream connections.

pub(crate) mod connect;
pub(crate) mod pool;
