//! Threads: the engine that supervises and the workers that serve.

mod engine;
mod shared;
pub(crate) mod worker;

pub use engine::{Engine, EngineError, Options};
pub(crate) use shared::{Phase, Shared};
pub(crate) use worker::{Registration, Worker};
