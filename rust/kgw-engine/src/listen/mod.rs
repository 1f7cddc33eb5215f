//! Listening sockets and accepting.

pub(crate) mod accept;
pub(crate) mod balance;
pub(crate) mod call;
pub(crate) mod limit;
pub(crate) mod reserve;
pub(crate) mod socket;
