//! What the data plane tells about itself.
//!
//! [`flags`] names how a request ended, [`access_log`] writes one line about each.

pub mod access_log;
pub mod flags;
