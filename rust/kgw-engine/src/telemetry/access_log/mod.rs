//! Access logs: one line per request, in Envoy's operators.
//!
//! A format is compiled once into a [`LogProgram`]. At the end of a request the worker fills a
//! [`Record`], which borrows everything, and renders it straight into its queue of a [`Sink`]; the
//! one thread of the [`LogWriter`] appends the queues to the files. A worker never waits: when a sink
//! does not keep up, lines are dropped and counted. A [`Tap`] is the same for a reader in this process.

mod arguments;
mod error;
mod expression;
mod field;
mod filter;
mod format;
mod json;
mod operators;
mod queue;
mod record;
mod sample;
pub(crate) mod service;
mod status;
mod tap;
mod time_format;
mod timings;
mod token;
mod writer;

pub use error::FormatError;
pub use filter::{Filter, FilterError};
pub use format::{FormatOptions, LogProgram};
pub use operators::names as operator_names;
pub use record::{
    Downstream, HeaderLookup, Record, Request, Response, Subject, Upstream, WireBytes,
};
pub use sample::sample;
pub(crate) use status::grpc_status;
pub use tap::Tap;
pub(crate) use tap::Taps;
pub use timings::{Point, Timings};
pub use writer::{LogWriter, OpenError, Sink, SinkCounters, WriterOptions};

use std::sync::Arc;

use self::service::{Service, ServiceLog};
use crate::config::ir;
pub use crate::tls::TlsInfo;

/// One access log of a listener: what is logged, in which form, and where that goes.
#[derive(Debug)]
pub struct AccessLog(To);

#[derive(Debug)]
enum To {
    File {
        filter: Option<Filter>,
        program: LogProgram,
        sink: Sink,
    },
    Service(ServiceLog),
}

/// An access log that cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccessLogError {
    /// The format is wrong.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The filter is wrong.
    #[error("the filter of an access log cannot be used: {0}")]
    Filter(#[from] FilterError),
    /// The file cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
}

impl AccessLog {
    /// Compiles the format and opens the sink; a path that is already open is shared.
    pub fn new(config: &ir::AccessLog, writer: &LogWriter) -> Result<Self, AccessLogError> {
        Ok(Self(To::File {
            filter: config.filter.as_ref().map(Filter::compile).transpose()?,
            program: compile(&config.format)?,
            sink: writer.open(&config.path)?,
        }))
    }

    /// Queues the line of `record`, if it is to be logged; never waits, and drops the line when the queue
    /// is full.
    pub fn log(&self, worker: usize, record: &Record<'_>) {
        match &self.0 {
            To::File {
                filter,
                program,
                sink,
            } => {
                if filter.as_ref().is_none_or(|filter| filter.holds(record)) {
                    sink.push(worker, |out| program.render(record, out));
                }
            }
            To::Service(log) => log.log(worker, record),
        }
    }

    /// Returns the file that lines go to, if they do.
    pub fn sink(&self) -> Option<&Sink> {
        match &self.0 {
            To::File { sink, .. } => Some(sink),
            To::Service(_) => None,
        }
    }

    /// The service that is told, if one is.
    pub(crate) fn service(&self) -> Option<&Arc<Service>> {
        match &self.0 {
            To::File { .. } => None,
            To::Service(log) => Some(log.service()),
        }
    }
}

impl From<ServiceLog> for AccessLog {
    fn from(log: ServiceLog) -> Self {
        Self(To::Service(log))
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
