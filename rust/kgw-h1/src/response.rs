//! A backend's response head.

mod assemble;

use crate::Version;
use crate::chars;
use crate::error::ResponseError;
use crate::framing::{self, Framing};
use crate::headers::{Headers, Span};
use crate::known::Known;
use crate::request::with_fields;
use crate::scan::{HeadScan, Limits, Scan, Status};

/// What a response's framing depends on of the request it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RequestContext {
    /// The request was a HEAD: no body whatever the head says.
    pub head: bool,
    /// The request was a CONNECT: a 2xx turns the connection into a tunnel.
    pub connect: bool,
    /// An upgrade was asked for: 101 is allowed.
    pub upgrade: bool,
}

/// A response head with its storage, to be reused for the next one.
///
/// Call [`parse`](Self::parse) with the connection's buffer until it is complete, each time from
/// the same first byte. Interim (1xx) responses are heads of their own: go on parsing behind them,
/// and bound their number.
#[derive(Debug, Clone, Default)]
pub struct Response {
    headers: Headers,
    scan: HeadScan,
    line: Option<Line>,
    status: u16,
    reason: Span,
    version: Version,
    framing: Framing,
    content_length: Option<u64>,
    keep_alive: bool,
    head_bytes: usize,
}

#[derive(Debug, Clone, Copy)]
struct Line {
    version: Version,
    status: u16,
    reason_len: usize,
}

impl Response {
    /// Returns an empty response.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets the message and keeps the storage.
    pub fn clear(&mut self) {
        self.scan = HeadScan::default();
        self.line = None;
        self.forget_message();
    }

    /// Parses a head from the start of `buf`.
    ///
    /// Nothing may stand before the status line. Every error means the backend's connection must
    /// be closed, and the client gets 502 (Envoy: flag `UPE`).
    pub fn parse(
        &mut self,
        buf: &[u8],
        limits: &Limits,
        request: RequestContext,
    ) -> Result<Status, ResponseError> {
        let result = self.parse_head(buf, limits, request);
        if !matches!(result, Ok(Status::Incomplete)) {
            self.scan = HeadScan::default();
            self.line = None;
        }
        if result.is_err() {
            self.forget_message();
        }
        result
    }

    /// Returns the status code, 100 to 599.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Returns whether this is an interim response (1xx) other than 101.
    pub fn is_interim(&self) -> bool {
        self.status < 200 && self.status != 101
    }

    /// Returns the reason phrase as it was sent, possibly empty.
    pub fn reason(&self) -> &[u8] {
        self.headers.span(self.reason)
    }

    /// Returns the version the backend spoke.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Returns the header fields.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// Returns the header fields for editing.
    pub fn headers_mut(&mut self) -> &mut Headers {
        &mut self.headers
    }

    /// Returns how the body is framed.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Returns the `Content-Length`, also where no body follows (HEAD, 304); pass it to
    /// [`write_response_head`](crate::write_response_head) then.
    pub fn content_length(&self) -> Option<u64> {
        self.content_length
    }

    /// Returns whether the backend's connection may be used again once the body is read.
    pub fn keep_alive(&self) -> bool {
        self.keep_alive
    }

    /// Returns the length of the received head in bytes.
    pub fn head_bytes(&self) -> usize {
        self.head_bytes
    }

    fn forget_message(&mut self) {
        self.headers.clear();
        self.status = 0;
        self.reason = Span::default();
        self.version = Version::Http11;
        self.framing = Framing::None;
        self.content_length = None;
        self.keep_alive = false;
        self.head_bytes = 0;
    }

    fn parse_head(
        &mut self,
        buf: &[u8],
        limits: &Limits,
        request: RequestContext,
    ) -> Result<Status, ResponseError> {
        let scan = self.scan.advance(buf, limits);
        let line = match (self.line, self.scan.first_line) {
            (None, Some(end)) => {
                let line = parse_line(&buf[..end - 2]).ok_or(ResponseError::BadStatusLine)?;
                self.line = Some(line);
                Some(line)
            }
            (line, _) => line,
        };
        let end = match scan {
            Scan::Complete(end) => end,
            Scan::Incomplete => return Ok(Status::Incomplete),
            Scan::BareLf { line } => return Err(ResponseError::BareLf { line }),
            Scan::TooLarge => return Err(ResponseError::HeadTooLarge),
            Scan::TooManyFields => return Err(ResponseError::TooManyFields),
        };
        let line = line.ok_or(ResponseError::BadStatusLine)?;
        let first_line = self.scan.first_line.ok_or(ResponseError::BadStatusLine)?;
        self.load(&buf[..end], first_line, line, request)?;
        self.head_bytes = end;
        Ok(Status::Complete(end))
    }

    fn load(
        &mut self,
        head: &[u8],
        first_line: usize,
        line: Line,
        request: RequestContext,
    ) -> Result<(), ResponseError> {
        self.forget_message();
        let fields = self.scan.fields;
        self.headers.load(head, fields);
        let (mut lengths, mut encodings, mut has_connection) = (0_u32, 0_u32, false);
        with_fields(&head[first_line..], fields, |parsed| {
            let base = head.as_ptr().addr();
            for field in parsed.map_err(|()| ResponseError::BadField)? {
                let known = Known::of(field.name.as_bytes());
                let at = |bytes: &[u8]| {
                    if bytes.is_empty() {
                        Span::default()
                    } else {
                        Span::new(bytes.as_ptr().addr() - base, bytes.len())
                    }
                };
                self.headers
                    .push(at(field.name.as_bytes()), at(field.value), known);
                match known {
                    Some(Known::ContentLength) => lengths += 1,
                    Some(Known::TransferEncoding) => encodings += 1,
                    Some(Known::Connection) => has_connection = true,
                    _ => {}
                }
            }
            Ok(())
        })?;
        self.version = line.version;
        self.status = line.status;
        self.reason = Span::new(first_line - 2 - line.reason_len, line.reason_len);
        self.read_framing(lengths, encodings, request)?;
        self.read_connection(has_connection);
        Ok(())
    }

    /// RFC 9112 §6.3, with an error wherever it lets a recipient guess.
    fn read_framing(
        &mut self,
        lengths: u32,
        encodings: u32,
        request: RequestContext,
    ) -> Result<(), ResponseError> {
        if encodings > 0 {
            if lengths > 0 {
                return Err(ResponseError::LengthWithTransferEncoding);
            }
            let is_chunked = encodings == 1
                && self.version == Version::Http11
                && self
                    .headers
                    .get_known(Known::TransferEncoding)
                    .is_some_and(|value| value.eq_ignore_ascii_case(b"chunked"));
            if !is_chunked {
                return Err(ResponseError::UnsupportedTransferEncoding);
            }
        }
        self.content_length = match lengths {
            0 => None,
            1 => Some(
                self.headers
                    .get_known(Known::ContentLength)
                    .and_then(framing::content_length)
                    .ok_or(ResponseError::BadContentLength)?,
            ),
            _ => return Err(ResponseError::BadContentLength),
        };
        if self.status == 101 && !request.upgrade {
            return Err(ResponseError::UnexpectedUpgrade);
        }
        let is_tunnel = self.status == 101 || (request.connect && self.status / 100 == 2);
        if self.status < 200 || self.status == 204 || is_tunnel {
            if encodings > 0 || self.content_length.is_some_and(|length| length > 0) {
                return Err(ResponseError::UnexpectedBody);
            }
            self.framing = Framing::None;
        } else if request.head || self.status == 304 {
            self.framing = Framing::None;
        } else if encodings > 0 {
            self.framing = Framing::Chunked;
        } else if let Some(length) = self.content_length {
            self.framing = Framing::Length(length);
        } else {
            self.framing = Framing::UntilClose;
        }
        Ok(())
    }

    fn read_connection(&mut self, has_connection: bool) {
        let (mut close, mut keep_alive) = (false, false);
        if has_connection {
            for value in self.headers.get_all_known(Known::Connection) {
                for option in chars::list(value) {
                    close |= option.eq_ignore_ascii_case(b"close");
                    keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
        }
        self.keep_alive = !close
            && self.framing != Framing::UntilClose
            && self.status != 101
            && (self.version == Version::Http11 || keep_alive);
    }
}

/// Parses `version SP 3DIGIT SP reason`; the last SP may be missing with an empty reason, as
/// several servers send it (RFC 9112 §4 wants it).
fn parse_line(line: &[u8]) -> Option<Line> {
    let (version, rest) = match line {
        [
            b'H',
            b'T',
            b'T',
            b'P',
            b'/',
            b'1',
            b'.',
            b'1',
            b' ',
            rest @ ..,
        ] => (Version::Http11, rest),
        [
            b'H',
            b'T',
            b'T',
            b'P',
            b'/',
            b'1',
            b'.',
            b'0',
            b' ',
            rest @ ..,
        ] => (Version::Http10, rest),
        _ => return None,
    };
    let (&[hundreds @ b'1'..=b'5', tens, ones], reason) = rest.split_first_chunk::<3>()? else {
        return None;
    };
    if !tens.is_ascii_digit() || !ones.is_ascii_digit() {
        return None;
    }
    let digit = |byte: u8| u16::from(byte - b'0');
    let reason_len = match reason {
        [] => 0,
        [b' ', reason @ ..] if reason.iter().all(|&byte| chars::is_value(byte)) => reason.len(),
        _ => return None,
    };
    Some(Line {
        version,
        status: digit(hundreds) * 100 + digit(tens) * 10 + digit(ones),
        reason_len,
    })
}
/// Returns whether answers of a status have no body, whatever the request is (RFC 9110 6.4.1).
pub const fn has_no_body(status: u16) -> bool {
    matches!(status, 100..200 | 204 | 304)
}
