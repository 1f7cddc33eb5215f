//! HTTP/1.1 head and body codec for a proxy, without I/O.
//!
//! Both roles are here: [`Request`] parses what a client sends and [`write_request_head`] writes
//! it to a backend, [`Response`] and [`write_response_head`] do the same the other way.
//! [`BodyDecoder`] and [`BodyEncoder`] frame the bytes between heads. Callers own the sockets and
//! the buffers; nothing here blocks, allocates per message once warm, or keeps borrowed input.
//!
//! The rules, in one place:
//! * **One reading.** A message that two parsers could frame differently is an error, never a
//!   guess: bare LF, bare CR, folded fields, white space around names, `Content-Length` with
//!   `Transfer-Encoding`, repeated framing or `Host` fields, chunk lines out of the grammar.
//! * **Rewritten framing.** `Content-Length` and `Transfer-Encoding` are never copied through;
//!   the encoders write them from [`Framing`].
//! * **Bounded.** Head bytes, field count, leading empty lines, chunk-size digits, chunk
//!   extensions and trailers all have limits.
//! * **Chunk-independent.** Feeding one byte at a time gives the same result, in linear time.
//!
//! `httparse` finds names and values; the line structure is checked here first, because
//! `httparse` takes a bare LF as a line end and any UTF-8 in a request target.
#![forbid(unsafe_code)]

mod body;
mod chars;
mod encode;
mod error;
mod framing;
mod headers;
mod hop;
mod known;
mod path;
mod request;
mod response;
mod scan;
mod target;
mod trailer;
mod websocket;

pub use body::{
    BodyDecoder, Decoded, MAX_CHUNK_EXTENSION_BYTES, MAX_CHUNK_SIZE_DIGITS,
    MAX_EXTENSION_BYTES_PER_BODY, MAX_TRAILER_BYTES, MAX_TRAILER_FIELDS,
};
pub use encode::{
    BodyEncoder, connection_option, reason_phrase, response_framing, write_chunk_end,
    write_chunk_head, write_continue, write_request_head, write_response_head,
    write_response_head_as,
};
pub use error::{BodyError, RequestError, ResponseError};
pub use framing::Framing;
pub use headers::{Headers, Iter, is_valid_name, is_valid_value};
pub use hop::{strip_hop_by_hop_request, strip_hop_by_hop_response};
pub use known::Known;
pub use path::{
    EscapedSlashes, PathOptions, PathOutcome, canonicalize, needs_normalization, normalize,
    split_path_and_query,
};
pub use request::{Method, Request, RequestParts, TargetForm};
pub use response::{RequestContext, Response, has_no_body};
pub use scan::{Limits, MAX_LEADING_EMPTY_LINES, Status};
pub use target::is_valid_authority;
pub use trailer::may_be_trailer;
pub use websocket::{is_websocket_key, websocket_accept, websocket_key};

/// The protocol version of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Version {
    /// `HTTP/1.0`
    Http10,
    /// `HTTP/1.1`
    #[default]
    Http11,
    /// `HTTP/2`. Never parsed here: such messages are assembled from their fields.
    Http2,
}

impl Version {
    /// Returns the version as it is written on the wire and in access logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        }
    }
}
