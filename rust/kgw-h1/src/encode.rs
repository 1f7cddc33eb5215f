//! Writes heads and bodies.

use crate::error::BodyError;
use crate::framing::Framing;
use crate::headers::{Headers, Piece};
use crate::known::Known;
use crate::{Request, TargetForm, Version};

/// Appends a request head for a backend: HTTP/1.1, target in origin form, fields in their order
/// and case, framing as given.
///
/// `Content-Length` and `Transfer-Encoding` fields of the request are not copied; `framing` says
/// what is written, in the place of the first of them or else at the end. Without a body a method
/// that usually has one gets `content-length: 0`, as Envoy sends it. A request without `Host` gets
/// an empty one in front (RFC 9112 §3.2).
pub fn write_request_head(out: &mut Vec<u8>, request: &Request, framing: Framing) {
    let headers = request.headers();
    out.reserve(request.head_bytes() + 256);
    out.extend_from_slice(request.method());
    out.push(b' ');
    out.extend_from_slice(if request.target_form() == TargetForm::Authority {
        request.authority()
    } else {
        request.path()
    });
    out.extend_from_slice(b" HTTP/1.1\r\n");
    if headers.get_known(Known::Host).is_none() {
        write_field(out, b"host", request.authority());
    }
    let framing = match framing {
        Framing::None if !request.method_kind().has_no_body_by_default() => Framing::Length(0),
        // A request cannot be delimited by the close of the connection.
        Framing::UntilClose => Framing::Chunked,
        framing => framing,
    };
    write_fields(out, headers, framing_field(framing));
}

/// Returns how a response's body is framed for a client that spoke `client`.
///
/// HTTP/1.0 has no chunks: a length that is not known ends with the connection. Towards others the
/// end of a body is never the end of a connection, so that it cannot be cut short unnoticed.
pub fn response_framing(client: Version, received: Framing) -> Framing {
    match (client, received) {
        (Version::Http10, Framing::Chunked) => Framing::UntilClose,
        (Version::Http11 | Version::Http2, Framing::UntilClose) => Framing::Chunked,
        (_, framing) => framing,
    }
}

/// Returns the `Connection` option for a client that spoke `client`, if it needs to be told one:
/// HTTP/1.0 closes unless told otherwise, HTTP/1.1 the other way round (RFC 9112 §9.3), and HTTP/2
/// has other means.
pub fn connection_option(client: Version, keep_alive: bool) -> Option<&'static [u8]> {
    match (client, keep_alive) {
        (Version::Http10, true) => Some(b"keep-alive"),
        (Version::Http10 | Version::Http11, false) => Some(b"close"),
        (Version::Http11, true) | (Version::Http2, _) => None,
    }
}

/// Appends a response head for a client: HTTP/1.1, canonical reason phrase, fields in their order
/// and case, framing as given.
///
/// `Content-Length` and `Transfer-Encoding` fields in `headers` are not copied; `framing` says what
/// is written. `advertised` is the `Content-Length` of a response without body that may carry one
/// (to HEAD, or 304); it is used with [`Framing::None`] only, and never for 1xx and 204. With
/// [`Framing::UntilClose`] the caller appends `connection: close`.
pub fn write_response_head(
    out: &mut Vec<u8>,
    status: u16,
    headers: &Headers,
    framing: Framing,
    advertised: Option<u64>,
) {
    write_response_head_as(out, Version::Http11, status, headers, framing, advertised);
}

/// Same as [`write_response_head`], for a client that spoke `client`: `HTTP/1.0` stands in the
/// status line for one of HTTP/1.0, as Envoy writes it, and chunks are never announced to it. Take
/// the framing from [`response_framing`] and the `connection` field from [`connection_option`].
pub fn write_response_head_as(
    out: &mut Vec<u8>,
    client: Version,
    status: u16,
    headers: &Headers,
    framing: Framing,
    advertised: Option<u64>,
) {
    out.reserve(512);
    let is_old = client == Version::Http10;
    out.extend_from_slice(if is_old { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    let framing = if is_old {
        response_framing(client, framing)
    } else {
        framing
    };
    let status = status.min(999);
    for digit in [status / 100, status / 10 % 10, status % 10] {
        out.push(b'0' + digit as u8);
    }
    out.push(b' ');
    out.extend_from_slice(reason_phrase(status).as_bytes());
    out.extend_from_slice(b"\r\n");
    let field = if status < 200 || status == 204 {
        None
    } else if let (Framing::None, Some(length)) = (framing, advertised) {
        framing_field(Framing::Length(length))
    } else {
        framing_field(framing)
    };
    write_fields(out, headers, field);
}

/// Appends the interim response that lets a client send its body (RFC 9110 §15.2.1).
pub fn write_continue(out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
}

/// Appends the line that starts a chunk of `len` bytes. A chunk of 0 bytes would end the body, so
/// nothing is written for it.
pub fn write_chunk_head(out: &mut Vec<u8>, len: usize) {
    if len == 0 {
        return;
    }
    let digits = (usize::BITS - len.leading_zeros()).div_ceil(4);
    for digit in (0..digits).rev() {
        out.push(b"0123456789abcdef"[len >> (digit * 4) & 15]);
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends what follows the data of a chunk.
pub fn write_chunk_end(out: &mut Vec<u8>) {
    out.extend_from_slice(b"\r\n");
}

/// Writes a body with a given framing.
#[derive(Debug, Clone)]
pub struct BodyEncoder {
    framing: Framing,
    /// Bytes left of a fixed length.
    remaining: u64,
    finished: bool,
}

// === impl BodyEncoder ===

impl BodyEncoder {
    /// Returns an encoder for this framing.
    pub fn new(framing: Framing) -> Self {
        Self {
            framing,
            remaining: framing.length().unwrap_or(0),
            finished: false,
        }
    }

    /// Returns the framing that is written.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Appends `data` as it goes on the wire. Empty data writes nothing.
    ///
    /// # Errors
    /// [`BodyError::TooLong`] when the data exceeds the announced length or follows
    /// [`finish`](Self::finish); nothing is written then.
    pub fn encode(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<(), BodyError> {
        if data.is_empty() {
            return Ok(());
        }
        self.account(data.len())?;
        if self.framing == Framing::Chunked {
            write_chunk_head(out, data.len());
            out.extend_from_slice(data);
            write_chunk_end(out);
        } else {
            out.extend_from_slice(data);
        }
        Ok(())
    }

    /// Counts `len` bytes that the caller writes itself, with [`write_chunk_head`] and
    /// [`write_chunk_end`] around them if the framing is chunked. Same errors as
    /// [`encode`](Self::encode).
    pub fn account(&mut self, len: usize) -> Result<(), BodyError> {
        if len == 0 {
            return Ok(());
        }
        if self.finished {
            return Err(BodyError::TooLong);
        }
        match self.framing {
            Framing::Chunked | Framing::UntilClose => Ok(()),
            Framing::None | Framing::Length(_) => {
                self.remaining = self
                    .remaining
                    .checked_sub(len as u64)
                    .ok_or(BodyError::TooLong)?;
                Ok(())
            }
        }
    }

    /// Ends the body: appends the last chunk if the framing is chunked. Once only; more calls
    /// write nothing.
    ///
    /// # Errors
    /// [`BodyError::Truncated`] when bytes of the announced length are missing. The connection
    /// must be closed then.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), BodyError> {
        self.finish_with_trailers(&Headers::new(), out)
    }

    /// Same as [`finish`](Self::finish), with trailer fields behind the last chunk. Only a chunked
    /// body can carry them, and only fields that [may be trailers](crate::may_be_trailer) are
    /// written; others are dropped (RFC 9110 §6.5.1 allows it).
    pub fn finish_with_trailers(
        &mut self,
        trailers: &Headers,
        out: &mut Vec<u8>,
    ) -> Result<(), BodyError> {
        if self.remaining > 0 {
            return Err(BodyError::Truncated);
        }
        if self.framing == Framing::Chunked && !self.finished {
            out.extend_from_slice(b"0\r\n");
            for (name, value) in trailers {
                if crate::may_be_trailer(name) {
                    write_field(out, name, value);
                }
            }
            out.extend_from_slice(b"\r\n");
        }
        self.finished = true;
        Ok(())
    }
}

/// Returns the IANA reason phrase, `Unknown` for a status without one (as Envoy writes it).
pub fn reason_phrase(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        102 => "Processing",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        207 => "Multi-Status",
        208 => "Already Reported",
        226 => "IM Used",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        305 => "Use Proxy",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Payload Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Entity",
        423 => "Locked",
        424 => "Failed Dependency",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        506 => "Variant Also Negotiates",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        510 => "Not Extended",
        511 => "Network Authentication Required",
        _ => "Unknown",
    }
}

/// The one framing field of a head.
#[derive(Clone, Copy)]
enum FramingField {
    Length(u64),
    Chunked,
}

fn framing_field(framing: Framing) -> Option<FramingField> {
    match framing {
        Framing::Length(length) => Some(FramingField::Length(length)),
        Framing::Chunked => Some(FramingField::Chunked),
        Framing::None | Framing::UntilClose => None,
    }
}

/// Writes all fields, with the framing field where the message had one, and the empty line.
fn write_fields(out: &mut Vec<u8>, headers: &Headers, mut framing: Option<FramingField>) {
    let apart = |known| matches!(known, Known::ContentLength | Known::TransferEncoding);
    headers.pieces(apart, |piece| match piece {
        Piece::Lines(lines) => out.extend_from_slice(lines),
        Piece::Field(Some(Known::ContentLength), name, _) => match framing.take() {
            Some(FramingField::Length(length)) => write_length(out, name, length),
            other => framing = other,
        },
        Piece::Field(Some(Known::TransferEncoding), name, _) => match framing.take() {
            Some(FramingField::Chunked) => write_field(out, name, b"chunked"),
            other => framing = other,
        },
        Piece::Field(_, name, value) => write_field(out, name, value),
    });
    match framing {
        Some(FramingField::Length(length)) => write_length(out, b"content-length", length),
        Some(FramingField::Chunked) => write_field(out, b"transfer-encoding", b"chunked"),
        None => {}
    }
    out.extend_from_slice(b"\r\n");
}

fn write_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn write_length(out: &mut Vec<u8>, name: &[u8], mut length: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (length % 10) as u8;
        length /= 10;
        if length == 0 {
            break;
        }
    }
    write_field(out, name, &digits[at..]);
}
