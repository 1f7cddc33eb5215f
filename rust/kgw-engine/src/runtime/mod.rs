//! Threads: the engine that supervises and the workers that serve.

mod engine;
mod memory;
mod shared;
pub(crate) mod worker;

pub use crate::listen::call::{Caller, Within};
pub use engine::{Doorbell, Engine, EngineError, ListeningSocket, Options};
pub(crate) use memory::Pressure;
pub use memory::{MemoryLimit, MemoryUsage};
pub(crate) use shared::{ListenerCounts, Phase, Shared};
pub(crate) use worker::{Registration, Worker};
