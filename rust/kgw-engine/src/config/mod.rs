//! Configuration: the intermediate representation and its compilation into a snapshot.

pub mod ir;
