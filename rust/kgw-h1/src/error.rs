//! Why a message is refused, and what Envoy would answer.

use thiserror::Error;

/// Why a request is refused. The connection cannot be used any further.
///
/// [`status`](Self::status), [`body`](Self::body), [`details`](Self::details) and
/// [`flag_protocol_error`](Self::flag_protocol_error) give the local reply in Envoy 1.40's
/// spelling; where kgw is stricter than Envoy the nearest of Envoy's spellings is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RequestError {
    /// A line ends with LF without CR (RFC 9112 §2.2 lets a recipient accept it; Envoy does).
    #[error("line {line} ends with a bare LF")]
    BareLf {
        /// Line of the head, 0 is the request line.
        line: usize,
    },
    /// Too many empty lines, or something that is not CRLF, stand before the request line.
    #[error("the request line does not start where it should")]
    BadStart,
    /// The request line is not `method SP target SP version`.
    #[error("malformed request line")]
    BadRequestLine,
    /// The method is not one that Envoy knows without custom methods enabled.
    #[error("unknown method")]
    UnknownMethod,
    /// The target is neither a path, `*` for OPTIONS, an absolute URI nor an authority for CONNECT.
    #[error("malformed request target")]
    BadTarget,
    /// `*` is the target of a method other than OPTIONS, or the absolute URI has no usable authority.
    #[error("invalid URL in the request line")]
    InvalidUrl,
    /// The absolute URI's scheme is neither `http` nor `https`.
    #[error("unsupported scheme in the request line")]
    InvalidScheme,
    /// An `https` URI came over a plaintext connection.
    #[error("https URL on a plaintext connection")]
    HttpsOnPlaintext,
    /// A well-formed version other than 1.1 (1.0 can be allowed), or none, as in HTTP/0.9.
    #[error("unsupported protocol version")]
    UnsupportedVersion,
    /// A control character or NUL stands in the head.
    #[error("control character in the head")]
    InvalidCharacter,
    /// A field line is not `name ":" OWS value OWS`, is folded, or holds a bare CR.
    #[error("malformed header field")]
    BadField,
    /// The head exceeds `max_head_bytes`.
    #[error("head too large")]
    HeadTooLarge,
    /// The head has more fields than `max_fields`.
    #[error("too many header fields")]
    TooManyFields,
    /// There is no `Host` field (RFC 9112 §3.2).
    #[error("no Host field")]
    MissingHost,
    /// There is more than one `Host` field (RFC 9112 §3.2; Envoy joins them).
    #[error("more than one Host field")]
    MultipleHosts,
    /// The authority is empty or not `uri-host [ ":" port ]`.
    #[error("invalid authority")]
    InvalidAuthority,
    /// `Host` and `:authority` of an HTTP/2 request differ (RFC 9113 §8.3.1).
    #[error("Host differs from the authority")]
    ConflictingHost,
    /// A field of an HTTP/2 request describes a connection, such as `connection` or a `te` other
    /// than `trailers` (RFC 9113 §8.2.2).
    #[error("connection-specific field in HTTP/2")]
    ConnectionField,
    /// The target is longer than the limit set for it.
    #[error("request target too long")]
    TargetTooLong,
    /// A field name holds `_` where those are refused.
    #[error("underscore in a field name")]
    UnexpectedUnderscore,
    /// `Content-Length` is repeated, not a number, above `i64::MAX`, or more than an HTTP/2 request
    /// has that ends with its head.
    #[error("invalid Content-Length")]
    BadContentLength,
    /// Both `Content-Length` and `Transfer-Encoding` are present (RFC 9112 §6.1).
    #[error("Content-Length with Transfer-Encoding")]
    LengthWithTransferEncoding,
    /// `Transfer-Encoding` is anything but one `chunked`.
    #[error("unsupported Transfer-Encoding")]
    UnsupportedTransferEncoding,
    /// `Transfer-Encoding` came in an HTTP/1.0 message (RFC 9112 §6.1).
    #[error("Transfer-Encoding in HTTP/1.0")]
    TransferEncodingInHttp10,
    /// `Connection` nominates a field that the next hop must see, such as `Host`.
    #[error("Connection nominates an end-to-end field")]
    ConnectionNominates,
    /// The path has a fragment, `%00`, or what backends read differently; see
    /// [`canonicalize`](crate::canonicalize).
    #[error("path cannot be normalised")]
    PathNormalization,
}

impl RequestError {
    /// Returns the status code of the reply.
    pub fn status(self) -> u16 {
        match self {
            Self::HttpsOnPlaintext => 403,
            Self::TargetTooLong => 414,
            Self::UnsupportedVersion => 426,
            Self::HeadTooLarge | Self::TooManyFields => 431,
            Self::UnsupportedTransferEncoding => 501,
            _ => 400,
        }
    }

    /// Returns the body of the reply (`text/plain`), possibly empty.
    pub fn body(self) -> &'static str {
        match self {
            Self::MissingHost | Self::PathNormalization => "",
            _ => match self.status() {
                403 => "Forbidden",
                414 => "URI Too Long",
                426 => "Upgrade Required",
                431 => "Request Header Fields Too Large",
                501 => "Not Implemented",
                _ => "Bad Request",
            },
        }
    }

    /// Returns the value of `%RESPONSE_CODE_DETAILS%`.
    pub fn details(self) -> &'static str {
        match self {
            Self::BareLf { .. }
            | Self::BadStart
            | Self::BadRequestLine
            | Self::UnknownMethod
            | Self::BadTarget
            | Self::BadField
            | Self::BadContentLength
            | Self::ConnectionField
            | Self::TransferEncodingInHttp10 => "http1.codec_error",
            Self::InvalidUrl => "http1.invalid_url",
            Self::InvalidScheme => "http1.invalid_scheme",
            Self::HttpsOnPlaintext => "http1.https_url_on_plaintext_connection",
            Self::UnsupportedVersion => "low_version",
            Self::InvalidCharacter => "http1.invalid_characters",
            Self::HeadTooLarge => "http1.headers_too_large",
            Self::TooManyFields => "http1.too_many_headers",
            Self::MissingHost => "missing_host_header",
            Self::MultipleHosts | Self::InvalidAuthority | Self::ConflictingHost => {
                "http.invalid_authority"
            }
            Self::TargetTooLong => "http1.url_too_long",
            Self::UnexpectedUnderscore => "http1.unexpected_underscore",
            Self::LengthWithTransferEncoding => "http1.content_length_and_chunked_not_allowed",
            Self::UnsupportedTransferEncoding => "http1.invalid_transfer_encoding",
            Self::ConnectionNominates => "http1.connection_header_rejected",
            Self::PathNormalization => "path_normalization_failed",
        }
    }

    /// Returns the value of `%RESPONSE_CODE_DETAILS%` for an HTTP/2 request.
    pub fn details_http2(self) -> &'static str {
        match self {
            Self::HeadTooLarge => "http2.header_list_size_too_large",
            Self::TooManyFields => "http2.too_many_headers",
            Self::TargetTooLong => "http2.url_too_long",
            Self::UnexpectedUnderscore => "http2.unexpected_underscore",
            Self::InvalidCharacter | Self::BadField => "http2.invalid.header.field",
            Self::MissingHost
            | Self::MultipleHosts
            | Self::InvalidAuthority
            | Self::ConflictingHost
            | Self::PathNormalization => self.details(),
            _ => "http2.violation.of.messaging.rule",
        }
    }

    /// Returns whether the access log carries the flag `DPE`; otherwise it is `-`.
    ///
    /// Without the flag the request was understood, and Envoy logs its method, path and
    /// authority: they stay readable in the [`Request`](crate::Request). With it they are unset.
    pub fn flag_protocol_error(self) -> bool {
        !matches!(self, Self::MissingHost | Self::PathNormalization)
    }
}

/// Why a backend's response is refused. The proxy answers 502 with the flag `UPE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ResponseError {
    /// A line ends with LF without CR.
    #[error("line {line} ends with a bare LF")]
    BareLf {
        /// Line of the head, 0 is the status line.
        line: usize,
    },
    /// The status line is not `version SP status SP reason`, or the status is not 100-599.
    #[error("malformed status line")]
    BadStatusLine,
    /// A field line is malformed, folded, or holds a control character.
    #[error("malformed header field")]
    BadField,
    /// The head exceeds `max_head_bytes`.
    #[error("head too large")]
    HeadTooLarge,
    /// The head has more fields than `max_fields`.
    #[error("too many header fields")]
    TooManyFields,
    /// `Content-Length` is repeated (even with equal values), not a number, above `i64::MAX`, or
    /// more than an HTTP/2 response has that ends with its head.
    #[error("invalid Content-Length")]
    BadContentLength,
    /// Both `Content-Length` and `Transfer-Encoding` are present.
    #[error("Content-Length with Transfer-Encoding")]
    LengthWithTransferEncoding,
    /// `Transfer-Encoding` is anything but one `chunked`, or came in an HTTP/1.0 message.
    #[error("unsupported Transfer-Encoding")]
    UnsupportedTransferEncoding,
    /// A 1xx, a 204 or a 2xx to CONNECT announces a body (RFC 9110 §8.6, RFC 9112 §6.1).
    #[error("body announced for a status that has none")]
    UnexpectedBody,
    /// A field of an HTTP/2 response describes a connection (RFC 9113 §8.2.2).
    #[error("connection-specific field in HTTP/2")]
    ConnectionField,
    /// 101 although no upgrade was asked for (RFC 9110 §15.2.2).
    #[error("101 without an upgrade request")]
    UnexpectedUpgrade,
}

/// Why a body cannot be decoded or encoded. The connection cannot be used any further.
///
/// On the request side Envoy answers 400 `http1.codec_error` with the flag `DPE`; on the response
/// side the client's response is cut short, details `upstream_reset_after_response_started`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BodyError {
    /// A chunk-size line is not `1*HEXDIG [chunk-ext] CRLF`, or the size is above `i64::MAX`.
    #[error("malformed chunk size")]
    BadChunkSize,
    /// A chunk extension is malformed or too long.
    #[error("malformed or oversized chunk extension")]
    BadChunkExtension,
    /// Chunk data is not followed by CRLF.
    #[error("chunk data not followed by CRLF")]
    BadChunkEnd,
    /// The trailer section is malformed or too large.
    #[error("malformed or oversized trailer section")]
    BadTrailer,
    /// The connection ended before the body did.
    #[error("body ended early")]
    Truncated,
    /// More bytes were given to the encoder than the announced length.
    #[error("body longer than announced")]
    TooLong,
}

impl BodyError {
    /// Returns the value of `%RESPONSE_CODE_DETAILS%` when a request's body is at fault.
    pub fn details(self) -> &'static str {
        "http1.codec_error"
    }
}
