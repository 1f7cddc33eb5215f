//! A client's request head.

mod assemble;

pub use assemble::RequestParts;

use crate::chars;
use crate::error::RequestError;
use crate::framing::{self, Framing};
use crate::headers::{Headers, Span};
use crate::known::Known;
use crate::path::{self, PathOptions, PathOutcome};
use crate::scan::{HeadScan, Limits, Scan, Status};
use crate::target::{self, Target};
use crate::{Version, split_path_and_query};

/// A request method. Only methods that Envoy accepts without custom methods enabled are parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Method {
    /// `GET`
    #[default]
    Get,
    /// `HEAD`
    Head,
    /// `POST`
    Post,
    /// `PUT`
    Put,
    /// `DELETE`
    Delete,
    /// `CONNECT`
    Connect,
    /// `OPTIONS`
    Options,
    /// `TRACE`
    Trace,
    /// `PATCH`
    Patch,
    /// Another registered method, such as `PROPFIND`.
    Other,
}

/// The form of a request target (RFC 9112 §3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TargetForm {
    /// `/path?query`
    #[default]
    Origin,
    /// `http://authority/path?query`, converted: [`Request::path`] is in origin form.
    Absolute,
    /// `host:port` of a CONNECT; the path is empty.
    Authority,
    /// `*` of an OPTIONS; the path is `*`.
    Asterisk,
}

/// A request head with its storage, to be reused for the next one.
///
/// Call [`parse`](Self::parse) with the connection's buffer until it is complete, each time from
/// the same first byte. A new head may be parsed right after a complete one.
#[derive(Debug, Clone, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts of a head, not states"
)]
pub struct Request {
    headers: Headers,
    scan: HeadScan,
    /// The request line was looked at; what it said.
    line: Option<Line>,
    method: Span,
    kind: Method,
    path: Span,
    /// Whether the path needs no normalisation, where that is known.
    path_is_plain: Option<bool>,
    form: TargetForm,
    /// Target of a CONNECT.
    connect_authority: Span,
    version: Version,
    framing: Framing,
    keep_alive: bool,
    expects_continue: bool,
    upgrade: bool,
    extended_connect: bool,
    head_bytes: usize,
    accept_http_10: bool,
    secure: bool,
    max_target_bytes: usize,
}

/// What the request line said; offsets are from its first byte.
#[derive(Debug, Clone, Copy)]
struct Line {
    method_len: usize,
    target_len: usize,
    kind: Method,
    version: Version,
    /// Target has no byte that normalisation or a fragment check would care about.
    plain: bool,
}

// === impl Method ===

impl Method {
    /// Returns the kind of a method name, or `None` for one that Envoy does not know.
    pub fn from_bytes(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"CONNECT" => Self::Connect,
            b"OPTIONS" => Self::Options,
            b"TRACE" => Self::Trace,
            b"PATCH" => Self::Patch,
            _ if OTHER_METHODS.contains(&name) => Self::Other,
            _ => return None,
        })
    }

    /// Returns whether a request without framing fields is sent on without `Content-Length: 0`
    /// (Envoy's rule; RFC 9110 §8.6 asks for the field where the method anticipates content).
    pub fn has_no_body_by_default(self) -> bool {
        matches!(
            self,
            Self::Get | Self::Head | Self::Delete | Self::Trace | Self::Connect
        )
    }
}

// === impl Request ===

impl Request {
    /// Returns an empty request.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets the message and keeps the storage and the settings.
    pub fn clear(&mut self) {
        self.scan = HeadScan::default();
        self.line = None;
        self.forget_message();
    }

    /// Accepts HTTP/1.0 requests from now on (kgateway's `acceptHttp10`). Off by default: they
    /// get 426, as Envoy answers.
    pub fn set_accept_http_10(&mut self, accept: bool) {
        self.accept_http_10 = accept;
    }

    /// Tells whether requests come over TLS; if not, an `https` target is refused.
    pub fn set_secure(&mut self, secure: bool) {
        self.secure = secure;
    }

    /// Refuses targets that are longer, in bytes, with [`RequestError::TargetTooLong`]. 0, as at
    /// first, leaves them to the limit of the head.
    pub fn set_max_target_bytes(&mut self, max: usize) {
        self.max_target_bytes = max;
    }

    /// Parses a head from the start of `buf`.
    ///
    /// Up to [`MAX_LEADING_EMPTY_LINES`](crate::MAX_LEADING_EMPTY_LINES) empty lines before it are
    /// skipped and counted in the returned length. The work is linear in the bytes received,
    /// however they are split. An error ends the connection; see
    /// [`RequestError::flag_protocol_error`] for what stays readable then.
    pub fn parse(&mut self, buf: &[u8], limits: &Limits) -> Result<Status, RequestError> {
        let result = self.parse_head(buf, limits);
        match result {
            Ok(Status::Incomplete) => {}
            Ok(Status::Complete(_)) => {
                self.scan = HeadScan::default();
                self.line = None;
            }
            Err(error) => {
                self.scan = HeadScan::default();
                self.line = None;
                if error.flag_protocol_error() {
                    self.forget_message();
                }
            }
        }
        result
    }

    /// Returns the method as it was sent.
    pub fn method(&self) -> &[u8] {
        self.headers.span(self.method)
    }

    /// Returns the method's kind.
    pub fn method_kind(&self) -> Method {
        self.kind
    }

    /// Replaces the method. Returns false, and changes nothing, when it is not a known one, or when
    /// the old or the new one is HEAD or CONNECT: those say whether an answer has a body.
    pub fn set_method(&mut self, method: &[u8]) -> bool {
        let Some(kind) = Method::from_bytes(method) else {
            return false;
        };
        let frames = |kind| matches!(kind, Method::Head | Method::Connect);
        if kind != self.kind && (frames(kind) || frames(self.kind)) {
            return false;
        }
        self.method = self.headers.store_raw(method);
        self.kind = kind;
        true
    }

    /// Returns the path with the query, in origin form; `*` for `OPTIONS *`, empty for CONNECT.
    pub fn path(&self) -> &[u8] {
        self.headers.span(self.path)
    }

    /// Returns the path without the query.
    pub fn path_only(&self) -> &[u8] {
        split_path_and_query(self.path()).0
    }

    /// Returns the query without `?`, if there is one.
    pub fn query(&self) -> Option<&[u8]> {
        split_path_and_query(self.path()).1
    }

    /// Replaces path and query. Bytes that cannot stand in a request target are percent-encoded,
    /// and a missing leading `/` is added.
    pub fn set_path(&mut self, path: &[u8]) {
        self.path = if path.first() == Some(&b'/') && path.iter().all(|&b| chars::is_target(b)) {
            self.headers.store_raw(path)
        } else {
            self.headers.store_raw(&path::escape(path))
        };
        self.path_is_plain = None;
    }

    /// Returns the form the target was sent in.
    pub fn target_form(&self) -> TargetForm {
        self.form
    }

    /// Returns the authority: the target's for absolute form and CONNECT, else the `Host` value.
    /// Empty when an HTTP/1.0 request had none.
    pub fn authority(&self) -> &[u8] {
        if self.form == TargetForm::Authority {
            return self.headers.span(self.connect_authority);
        }
        self.headers.get_known(Known::Host).unwrap_or_default()
    }

    /// Replaces the authority, and with it the `Host` field. Returns false, and changes nothing,
    /// when it is not a valid one.
    pub fn set_authority(&mut self, authority: &[u8]) -> bool {
        if !target::is_valid_authority(authority) {
            return false;
        }
        if self.form == TargetForm::Authority {
            self.connect_authority = self.headers.store_raw(authority);
        }
        self.headers.set(b"host", authority)
    }

    /// Returns the version the client spoke.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Returns the header fields. After parsing, `Host` holds the [`authority`](Self::authority).
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

    /// States that the body is framed in another way than it was received: it was translated.
    pub fn set_framing(&mut self, framing: Framing) {
        self.framing = framing;
    }

    /// Returns whether the client lets the connection live after this request (RFC 9112 §9.3).
    pub fn keep_alive(&self) -> bool {
        self.keep_alive
    }

    /// Returns whether the client waits for `100 Continue` before it sends the body.
    ///
    /// False without a body and in HTTP/1.0, where the expectation means nothing (RFC 9110 §10.1.1).
    pub fn expects_continue(&self) -> bool {
        self.expects_continue
    }

    /// Returns the `Upgrade` value when `Connection` names it too (RFC 9110 §7.8).
    pub fn upgrade(&self) -> Option<&[u8]> {
        if self.upgrade {
            self.headers.get_known(Known::Upgrade)
        } else {
            None
        }
    }

    /// Returns the length of the received head in bytes, leading empty lines included.
    pub fn head_bytes(&self) -> usize {
        self.head_bytes
    }

    /// Brings the path into the form that `options` ask for; see [`canonicalize`](crate::canonicalize).
    /// Costs nothing when the parser saw no byte that could matter.
    pub fn canonicalize_path(&mut self, options: PathOptions) -> Result<PathOutcome, RequestError> {
        if matches!(self.form, TargetForm::Asterisk | TargetForm::Authority) {
            return Ok(PathOutcome::Normal);
        }
        let is_plain = match self.path_is_plain {
            Some(plain) => plain,
            None => !path::needs_normalization(self.path()),
        };
        if is_plain {
            self.path_is_plain = Some(true);
            return Ok(PathOutcome::Normal);
        }
        let (path, outcome) = path::canonicalize(self.path(), options)?;
        if path != self.path() {
            self.path = self.headers.store_raw(&path);
        }
        // Slashes may have been kept; then the next call must look again.
        self.path_is_plain = None;
        Ok(outcome)
    }

    /// Normalises the path as Envoy does with `normalize_path`, and merges slashes if asked to;
    /// see [`normalize`](crate::normalize). Costs nothing when the parser saw no byte that could
    /// matter.
    pub fn normalize_path(&mut self, merge_slashes: bool) -> Result<(), RequestError> {
        let options = PathOptions {
            normalize: true,
            merge_slashes,
            ..PathOptions::default()
        };
        self.canonicalize_path(options).map(|_| ())
    }

    fn forget_message(&mut self) {
        self.headers.clear();
        self.method = Span::default();
        self.kind = Method::Get;
        self.path = Span::default();
        self.path_is_plain = None;
        self.form = TargetForm::Origin;
        self.connect_authority = Span::default();
        self.version = Version::Http11;
        self.framing = Framing::None;
        self.keep_alive = false;
        self.expects_continue = false;
        self.upgrade = false;
        self.extended_connect = false;
        self.head_bytes = 0;
    }

    fn parse_head(&mut self, buf: &[u8], limits: &Limits) -> Result<Status, RequestError> {
        match self.scan.skip_empty_lines(buf) {
            Some(true) => {}
            Some(false) => return Err(RequestError::BadStart),
            None => return Ok(Status::Incomplete),
        }
        let scan = self.scan.advance(buf, limits);
        // The request line is judged as soon as it is there, and before what follows it, so that
        // the verdict does not depend on how the bytes arrived.
        let line = match (self.line, self.scan.first_line) {
            (None, Some(end)) => {
                let line = self.parse_line(&buf[self.scan.skipped..end - 2])?;
                self.line = Some(line);
                Some(line)
            }
            (line, _) => line,
        };
        let end = match scan {
            Scan::Complete(end) => end,
            Scan::Incomplete => return Ok(Status::Incomplete),
            Scan::BareLf { line } => return Err(RequestError::BareLf { line }),
            Scan::TooLarge => return Err(RequestError::HeadTooLarge),
            Scan::TooManyFields => return Err(RequestError::TooManyFields),
        };
        let line = line.ok_or(RequestError::BadRequestLine)?;
        self.load(&buf[self.scan.skipped..end], line)?;
        self.head_bytes = end;
        Ok(Status::Complete(end))
    }

    /// Parses `method SP target SP version`, each exactly so.
    fn parse_line(&self, line: &[u8]) -> Result<Line, RequestError> {
        let classify = |error| {
            if line.iter().any(|&byte| chars::is_forbidden_control(byte)) {
                RequestError::InvalidCharacter
            } else {
                error
            }
        };
        let bad = || classify(RequestError::BadRequestLine);
        let method_len = memchr::memchr(b' ', line).ok_or_else(bad)?;
        let method = &line[..method_len];
        let rest = &line[method_len + 1..];
        let Some(target_len) = memchr::memchr(b' ', rest) else {
            // The one-line request of HTTP/0.9, which had only GET.
            let is_old =
                method == b"GET" && path::scan(rest).is_some() && rest.first() == Some(&b'/');
            return Err(if is_old {
                RequestError::UnsupportedVersion
            } else {
                bad()
            });
        };
        let target = &rest[..target_len];
        let version = match &rest[target_len + 1..] {
            b"HTTP/1.1" => Version::Http11,
            b"HTTP/1.0" if self.accept_http_10 => Version::Http10,
            [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => {
                return Err(RequestError::UnsupportedVersion);
            }
            _ => return Err(bad()),
        };
        let kind = Method::from_bytes(method).ok_or_else(|| {
            classify(if method.is_empty() {
                RequestError::BadRequestLine
            } else {
                RequestError::UnknownMethod
            })
        })?;
        if self.max_target_bytes != 0 && target.len() > self.max_target_bytes {
            return Err(RequestError::TargetTooLong);
        }
        let plain = path::scan(target).ok_or_else(|| classify(RequestError::BadTarget))?;
        // Errors of the target itself are found here too, while the rest of the head is awaited.
        target::parse(kind, target, self.secure)?;
        Ok(Line {
            method_len,
            target_len,
            kind,
            version,
            plain,
        })
    }

    /// Copies the head in and reads its fields.
    fn load(&mut self, head: &[u8], line: Line) -> Result<(), RequestError> {
        self.forget_message();
        let first_line = line.method_len + line.target_len + 12;
        let fields = self.scan.fields;
        self.headers.load(head, fields);
        let mut seen = Seen::default();
        with_fields(&head[first_line..], fields, |parsed| {
            let base = head.as_ptr().addr();
            for field in parsed.map_err(|()| field_error(&head[first_line..]))? {
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
                if let Some(known) = known {
                    seen.note(known);
                }
            }
            Ok(())
        })?;
        self.method = Span::new(0, line.method_len);
        self.kind = line.kind;
        self.version = line.version;
        let target_at = line.method_len + 1;
        let target = &head[target_at..target_at + line.target_len];
        self.path_is_plain = Some(line.plain);
        let mut absolute_authority = None;
        match target::parse(line.kind, target, self.secure)? {
            Target::Origin(_) => self.path = Span::new(target_at, line.target_len),
            Target::Absolute { authority, path } => {
                self.form = TargetForm::Absolute;
                absolute_authority = Some(authority);
                if path.first() == Some(&b'/') {
                    self.path = Span::new(target_at + line.target_len - path.len(), path.len());
                } else {
                    let mut origin = Vec::with_capacity(path.len() + 1);
                    origin.push(b'/');
                    origin.extend_from_slice(path);
                    self.path = self.headers.store_raw(&origin);
                }
                // "http://" looked like a double slash.
                self.path_is_plain = None;
            }
            Target::Authority(_) => {
                self.form = TargetForm::Authority;
                self.connect_authority = Span::new(target_at, line.target_len);
            }
            Target::Asterisk => {
                self.form = TargetForm::Asterisk;
                self.path = Span::new(target_at, 1);
            }
        }
        self.check_host(&seen, absolute_authority)?;
        self.framing = self.read_framing(&seen)?;
        self.read_connection(&seen)?;
        self.expects_continue = seen.expect
            && self.version == Version::Http11
            && !self.framing.is_empty()
            && self
                .headers
                .get_known(Known::Expect)
                .is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue"));
        Ok(())
    }

    /// RFC 9112 §3.2: exactly one valid `Host`; an absolute target's authority replaces it.
    fn check_host(&mut self, seen: &Seen, absolute: Option<&[u8]>) -> Result<(), RequestError> {
        match seen.hosts {
            0 if self.version == Version::Http10 => {}
            0 => return Err(RequestError::MissingHost),
            1 => {
                let host = self.headers.get_known(Known::Host).unwrap_or_default();
                if !target::is_valid_authority(host) {
                    return Err(RequestError::InvalidAuthority);
                }
            }
            _ => return Err(RequestError::MultipleHosts),
        }
        if let Some(authority) = absolute
            && self.headers.get_known(Known::Host) != Some(authority)
        {
            self.headers.set(b"host", authority);
        }
        Ok(())
    }

    fn read_framing(&self, seen: &Seen) -> Result<Framing, RequestError> {
        if seen.transfer_encodings > 0 {
            if self.version == Version::Http10 {
                return Err(RequestError::TransferEncodingInHttp10);
            }
            if seen.content_lengths > 0 {
                return Err(RequestError::LengthWithTransferEncoding);
            }
            let is_chunked = seen.transfer_encodings == 1
                && self.kind != Method::Connect
                && self
                    .headers
                    .get_known(Known::TransferEncoding)
                    .is_some_and(|value| value.eq_ignore_ascii_case(b"chunked"));
            return if is_chunked {
                Ok(Framing::Chunked)
            } else {
                Err(RequestError::UnsupportedTransferEncoding)
            };
        }
        match seen.content_lengths {
            0 => Ok(Framing::None),
            1 => self
                .headers
                .get_known(Known::ContentLength)
                .and_then(framing::content_length)
                // What follows a CONNECT is the tunnel (RFC 9110 §9.3.6).
                .filter(|&length| length == 0 || self.kind != Method::Connect)
                .map(Framing::Length)
                .ok_or(RequestError::BadContentLength),
            _ => Err(RequestError::BadContentLength),
        }
    }

    fn read_connection(&mut self, seen: &Seen) -> Result<(), RequestError> {
        self.keep_alive = self.version == Version::Http11;
        if !seen.connection {
            return Ok(());
        }
        let (mut close, mut keep_alive, mut upgrade) = (false, false, false);
        for value in self.headers.get_all_known(Known::Connection) {
            for option in chars::list(value) {
                if option.eq_ignore_ascii_case(b"close") {
                    close = true;
                } else if option.eq_ignore_ascii_case(b"keep-alive") {
                    keep_alive = true;
                } else if option.eq_ignore_ascii_case(b"upgrade") {
                    upgrade = true;
                } else if !crate::hop::may_nominate(option) {
                    return Err(RequestError::ConnectionNominates);
                }
            }
        }
        self.keep_alive = !close && (self.version == Version::Http11 || keep_alive);
        self.upgrade = upgrade && self.version == Version::Http11;
        Ok(())
    }
}

/// Counts of the fields that decide framing and life time.
#[derive(Default)]
struct Seen {
    hosts: u32,
    content_lengths: u32,
    transfer_encodings: u32,
    connection: bool,
    expect: bool,
}

impl Seen {
    fn note(&mut self, known: Known) {
        match known {
            Known::Host => self.hosts += 1,
            Known::ContentLength => self.content_lengths += 1,
            Known::TransferEncoding => self.transfer_encodings += 1,
            Known::Connection => self.connection = true,
            Known::Expect => self.expect = true,
            _ => {}
        }
    }
}

/// Runs `httparse` over a field section whose line structure was checked, and hands over what it
/// found, or `Err(())` when a line is not a field.
pub(crate) fn with_fields<R>(
    section: &[u8],
    fields: usize,
    use_fields: impl FnOnce(Result<&[httparse::Header<'_>], ()>) -> R,
) -> R {
    if fields <= 16 {
        parse_fields(section, &mut [httparse::EMPTY_HEADER; 16], use_fields)
    } else if fields <= 40 {
        parse_fields(section, &mut [httparse::EMPTY_HEADER; 40], use_fields)
    } else {
        parse_fields(
            section,
            &mut vec![httparse::EMPTY_HEADER; fields],
            use_fields,
        )
    }
}

fn parse_fields<'b, R>(
    section: &'b [u8],
    storage: &mut [httparse::Header<'b>],
    use_fields: impl FnOnce(Result<&[httparse::Header<'_>], ()>) -> R,
) -> R {
    match httparse::parse_headers(section, storage) {
        Ok(httparse::Status::Complete((len, fields))) if len == section.len() => {
            use_fields(Ok(fields))
        }
        _ => use_fields(Err(())),
    }
}

/// Tells Envoy's two kinds of bad field sections apart.
fn field_error(section: &[u8]) -> RequestError {
    if section
        .iter()
        .any(|&byte| chars::is_forbidden_control(byte))
    {
        RequestError::InvalidCharacter
    } else {
        RequestError::BadField
    }
}

/// Methods beside the well-known ones that Envoy's parser knows (IANA registry and a few old ones).
const OTHER_METHODS: &[&[u8]] = &[
    b"ACL",
    b"BIND",
    b"CHECKOUT",
    b"COPY",
    b"LINK",
    b"LOCK",
    b"M-SEARCH",
    b"MERGE",
    b"MKACTIVITY",
    b"MKCALENDAR",
    b"MKCOL",
    b"MOVE",
    b"NOTIFY",
    b"PROPFIND",
    b"PROPPATCH",
    b"PURGE",
    b"REBIND",
    b"REPORT",
    b"SEARCH",
    b"SOURCE",
    b"SUBSCRIBE",
    b"UNBIND",
    b"UNLINK",
    b"UNLOCK",
    b"UNSUBSCRIBE",
];
