//! The bridge to filters in another language: Python code that decides about requests.
//!
//! A worker puts a [`Job`] into a bounded queue and goes on with other connections; whoever runs the
//! filters (an event loop) is woken by a file descriptor, takes jobs with [`Bridge::pop`], and sends
//! each one's [`Verdict`] back through a channel of its own. Nothing here knows Python, and no thread of
//! the engine ever attaches to an interpreter: a filter is a number here.
//!
//! Invariants:
//! 1. Every job gets exactly one verdict. One that is dropped, in the queue or by whoever took it, gets
//!    [`Failure::Closed`].
//! 2. At most `capacity` jobs exist, waiting and running; one more is refused with
//!    [`Failure::Overflow`].
//! 3. Nothing blocks: not a full queue, not a reader that never comes. How long a verdict may take is
//!    up to the worker that waits for it, which [cancels](Bridge::cancel) what it no longer waits for.
//! 4. One wake covers all jobs up to the next [`Bridge::begin`].
//! 5. Jobs that one filter gets about one exchange have a session in common, whose end the reader is told.

mod declaration;
mod head;
mod job;
mod queue;
mod session;
mod verdict;

pub use declaration::{BadDeclaration, Declaration};
pub use head::{BadEdit, RequestHead, ResponseHead};
pub use job::{Chunk, Job, Message};
pub use queue::Bridge;
pub use verdict::{Answer, Edits, Failure, FieldEdit, Verdict};

pub(crate) use head::{About, Body, note};
pub use kgw_h1::Headers as Fields;
pub(crate) use queue::{OpenSession, Waiting};
