//! Bodies that are sequences of events, transformed an event at a time.
//!
//! An event goes on as soon as its last byte is there. What is kept is never more than one event, of a bounded
//! length. What is no data (comments, names and numbers of events, blank lines) is passed on byte for byte.

mod json_lines;
mod server_sent;

use json_lines::JsonLines;
use server_sent::ServerSent;
use thiserror::Error;

/// How events follow one another.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Framing {
    /// Server-sent events (WHATWG HTML §9.2): what is transformed is the data of an event, its `data` lines
    /// with line feeds between.
    ServerSent,
    /// A JSON text in each line: what is transformed is the line.
    JsonLines,
}

/// What becomes of an event.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Change {
    /// It passes as it is.
    Keep,
    /// It is left out.
    Drop,
    /// It has this data now.
    Replace(String),
}

/// An event is longer than it may be.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("an event is longer than {limit} bytes")]
pub struct EventTooLong {
    /// The longest that is taken. Bytes, with the ends of lines.
    pub limit: usize,
}

/// A body that comes in in pieces, and goes out event by event.
#[derive(Debug)]
pub struct EventStream {
    limit: usize,
    cutter: Cutter,
}

#[derive(Debug)]
enum Cutter {
    ServerSent(ServerSent),
    JsonLines(JsonLines),
}

/// The data that ends streams of chat completions. No template sees it.
const DONE: &str = "[DONE]";

// === impl Framing ===

impl Framing {
    /// Whether bodies of a media type (the value of `content-type`) have this framing.
    pub fn is_of(self, content_type: &[u8]) -> bool {
        let end = content_type.iter().position(|&byte| byte == b';');
        let media_type = content_type[..end.unwrap_or(content_type.len())].trim_ascii();
        let types: &[&str] = match self {
            Self::ServerSent => &["text/event-stream"],
            Self::JsonLines => &[
                "application/jsonl",
                "application/jsonlines",
                "application/json-lines",
                "application/ndjson",
                "application/x-jsonlines",
                "application/x-ndjson",
                "application/x-json-stream",
            ],
        };
        let mut types = types.iter();
        types.any(|known| media_type.eq_ignore_ascii_case(known.as_bytes()))
    }
}

// === impl EventStream ===

impl EventStream {
    /// Begins a body whose events have at most `limit` bytes.
    pub fn new(framing: Framing, limit: usize) -> Self {
        let cutter = match framing {
            Framing::ServerSent => Cutter::ServerSent(ServerSent::default()),
            Framing::JsonLines => Cutter::JsonLines(JsonLines::default()),
        };
        Self { limit, cutter }
    }

    /// Takes the next piece of the body, the last one at the `end`, and puts behind `out` what becomes of it.
    /// `transform` is called with the data of each event, `[DONE]` excepted. At the end, what is left counts
    /// as an event.
    ///
    /// # Errors
    /// An event is too long. The stream is over then.
    pub fn push(
        &mut self,
        data: &[u8],
        end: bool,
        out: &mut Vec<u8>,
        mut transform: impl FnMut(&[u8]) -> Change,
    ) -> Result<(), EventTooLong> {
        let mut transform = |data: &[u8]| match data.trim_ascii() {
            done if done == DONE.as_bytes() => Change::Keep,
            _ => transform(data),
        };
        match &mut self.cutter {
            Cutter::ServerSent(cutter) => cutter.push(data, end, self.limit, out, &mut transform),
            Cutter::JsonLines(cutter) => cutter.push(data, end, self.limit, out, &mut transform),
        }
    }

    /// Bytes of an event that is not complete.
    pub fn waiting(&self) -> usize {
        match &self.cutter {
            Cutter::ServerSent(cutter) => cutter.waiting(),
            Cutter::JsonLines(cutter) => cutter.waiting(),
        }
    }
}

/// Puts data behind what is kept of an event.
fn keep(event: &mut Vec<u8>, data: &[u8], limit: usize) -> Result<(), EventTooLong> {
    if event.len() + data.len() > limit {
        return Err(EventTooLong { limit });
    }
    event.extend_from_slice(data);
    Ok(())
}
