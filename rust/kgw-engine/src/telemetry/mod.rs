//! What the data plane tells about itself.
//!
//! [`flags`] names how a request ended, [`access_log`] writes one line about each,
//! [`grpc`] tells gRPC calls from others.

pub mod access_log;
pub mod flags;
pub(crate) mod grpc;
