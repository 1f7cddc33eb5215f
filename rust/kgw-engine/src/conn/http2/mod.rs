//! HTTP/2: everything that knows the `h2` crate, save for the upstream connections themselves.

mod data;
mod downstream;
mod fields;
pub(crate) mod guard;
pub(crate) mod server;
mod stream;
mod tasks;
mod upstream;

pub(crate) use data::Data;
pub(crate) use tasks::StreamTasks;
pub(crate) use upstream::ServerStream;
