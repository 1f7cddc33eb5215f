//! What the data plane tells about itself.
//!
//! [`flags`] names how a request ended, [`access_log`] writes one line about each,
//! `tracing` tells what traces it is a part of, `grpc` tells gRPC calls from others.

pub mod access_log;
pub mod flags;
pub(crate) mod grpc;
pub(crate) mod tracing;
