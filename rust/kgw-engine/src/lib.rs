//! The kgw data plane.

pub mod config;
pub mod telemetry;
