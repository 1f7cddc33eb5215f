//! Configuration: the intermediate representation and its compilation into a snapshot.

pub mod check;
pub mod compile;
pub mod delta;
pub mod ir;
pub(crate) mod snapshot;
