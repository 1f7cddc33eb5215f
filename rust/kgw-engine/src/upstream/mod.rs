//! Upstream connections.

pub(crate) mod acquire;
pub(crate) mod breaker;
pub(crate) mod call;
pub(crate) mod connect;
pub(crate) mod dns;
pub(crate) mod endpoint;
pub(crate) mod forward_proxy;
pub(crate) mod health;
pub(crate) mod http2;
pub(crate) mod in_process;
mod keepalive;
pub(crate) mod options;
pub(crate) mod pool;
pub(crate) mod proxy_protocol;
pub(crate) mod redis;
pub(crate) mod stream;
