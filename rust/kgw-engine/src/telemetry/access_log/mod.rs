//! Access logs: one line per request, in Envoy's operators.
//!
//! A format is compiled once into a [`LogProgram`]. At the end of a request the worker fills a
//! [`Record`], which borrows everything, and renders it straight into its queue of a [`Sink`]; the
//! one thread of the [`LogWriter`] appends the queues to the files. A worker never waits: when a sink
//! does not keep up, lines are dropped and counted. A [`Tap`] is the same for a reader in this process.

mod arguments;
mod error;
mod field;
mod format;
mod json;
mod operators;
mod queue;
mod record;
mod sample;
mod tap;
mod time_format;
mod timings;
mod token;
mod writer;

pub use error::FormatError;
pub use format::{FormatOptions, LogProgram};
pub use operators::names as operator_names;
pub use record::{
    Downstream, HeaderLookup, Record, Request, Response, Subject, Upstream, WireBytes,
};
pub use sample::sample;
pub use tap::Tap;
pub(crate) use tap::Taps;
pub use timings::{Point, Timings};
pub use writer::{LogWriter, OpenError, Sink, SinkCounters, WriterOptions};

use crate::config::ir;
pub use crate::tls::TlsInfo;

/// One access log of a listener: a format and where its lines go.
#[derive(Clone, Debug)]
pub struct AccessLog {
    program: LogProgram,
    sink: Sink,
}

/// An access log that cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccessLogError {
    /// The format is wrong.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The file cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
}

impl AccessLog {
    /// Compiles the format and opens the sink; a path that is already open is shared.
    pub fn new(config: &ir::AccessLog, writer: &LogWriter) -> Result<Self, AccessLogError> {
        Ok(Self {
            program: compile(&config.format)?,
            sink: writer.open(&config.path)?,
        })
    }

    /// Queues the line of `record`; never waits, and drops the line when the queue is full.
    pub fn log(&self, worker: usize, record: &Record<'_>) {
        self.sink
            .push(worker, |out| self.program.render(record, out));
    }

    /// Returns where the lines go.
    pub fn sink(&self) -> &Sink {
        &self.sink
    }
}

/// Compiles the format of an access log of the IR.
pub fn compile(format: &ir::AccessLogFormat) -> Result<LogProgram, FormatError> {
    let options = FormatOptions::default();
    match format {
        ir::AccessLogFormat::Json(format) => LogProgram::json(format, options),
        ir::AccessLogFormat::Text(format) => LogProgram::text(format, options),
    }
}

#[cfg(test)]
mod tests;
