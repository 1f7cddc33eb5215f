//! Listening sockets and accepting.

pub(crate) mod accept;
pub(crate) mod socket;
