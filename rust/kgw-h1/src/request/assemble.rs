//! A request head that did not come as HTTP/1 bytes: HTTP/2, where fields and pseudo-fields arrive
//! apart (RFC 9113 §8.3).
//!
//! The checks are those of the parser, so that whatever gets through can be written as HTTP/1.1.

use super::{Method, Request, TargetForm};
use crate::chars;
use crate::error::RequestError;
use crate::framing::{self, Framing};
use crate::headers::{FieldError, Span};
use crate::known::Known;
use crate::path;
use crate::scan::Limits;
use crate::{Version, target};

/// What the pseudo-fields of a request said; `None` is one that was not sent.
#[derive(Debug, Clone, Copy, Default)]
pub struct RequestParts<'a> {
    /// `:method`
    pub method: &'a [u8],
    /// `:scheme`. Only checked: whether the connection is secure is for the connection to say. A
    /// missing one is taken, as libraries drop it where there is no authority.
    pub scheme: Option<&'a [u8]>,
    /// `:authority`
    pub authority: Option<&'a [u8]>,
    /// `:path`
    pub path: Option<&'a [u8]>,
    /// `:protocol` of an extended CONNECT (RFC 8441).
    pub protocol: Option<&'a [u8]>,
    /// No body and no trailers follow.
    pub end_stream: bool,
}

impl Request {
    /// Takes a head from pseudo-fields and fields, in place of [`parse`](Self::parse).
    ///
    /// Afterwards everything reads as if it had been parsed, with [`Version::Http2`]:
    /// * `host` is the first field, with the authority.
    /// * `cookie` fields are one, joined with `; ` (RFC 9113 §8.2.3).
    /// * [`framing`](Self::framing) is [`Framing::Length`] with a `content-length`, else
    ///   [`Framing::None`] with `end_stream`, else [`Framing::Chunked`]: the end is in band.
    /// * An extended CONNECT reads as the upgrade that it stands for: `GET`,
    ///   [`upgrade`](Self::upgrade) and an `upgrade` field with the protocol,
    ///   [`extended_connect`](Self::extended_connect), and no framing. Its DATA frames are the tunnel.
    /// * [`head_bytes`](Self::head_bytes) is what the head would take as HTTP/1.1, which is also
    ///   what `limits` bound.
    ///
    /// Unlike in HTTP/1 any token is a method, as in Envoy.
    ///
    /// # Errors
    /// The message is malformed (RFC 9113 §8.1.1) or beyond the limits: its stream is to be reset
    /// or answered, while others on the connection go on.
    pub fn assemble<'f>(
        &mut self,
        parts: &RequestParts<'_>,
        fields: impl IntoIterator<Item = (&'f [u8], &'f [u8])>,
        limits: &Limits,
    ) -> Result<(), RequestError> {
        self.clear();
        let result = self.assemble_head(parts, fields, limits);
        if let Err(error) = result
            && error.flag_protocol_error()
        {
            self.forget_message();
            self.version = Version::Http2;
        }
        result
    }

    /// Returns whether this is an extended CONNECT (RFC 8441): the client expects a 2xx, not 101,
    /// and the tunnel runs in the stream's DATA frames.
    pub fn extended_connect(&self) -> bool {
        self.extended_connect
    }

    fn assemble_head<'f>(
        &mut self,
        parts: &RequestParts<'_>,
        fields: impl IntoIterator<Item = (&'f [u8], &'f [u8])>,
        limits: &Limits,
    ) -> Result<(), RequestError> {
        self.version = Version::Http2;
        self.keep_alive = true;
        if !crate::is_valid_name(parts.method) {
            return Err(RequestError::BadRequestLine);
        }
        if parts
            .scheme
            .is_some_and(|scheme| !matches!(scheme, b"http" | b"https"))
        {
            return Err(RequestError::InvalidScheme);
        }
        self.kind = Method::from_bytes(parts.method).unwrap_or(Method::Other);
        self.extended_connect = parts.protocol.is_some();
        if let Some(protocol) = parts.protocol {
            let is_complete =
                parts.scheme.is_some() && parts.authority.is_some() && parts.path.is_some();
            if self.kind != Method::Connect || !crate::is_valid_name(protocol) || !is_complete {
                return Err(RequestError::BadTarget);
            }
            self.kind = Method::Get;
            self.method = self.headers.store_raw(b"GET");
        } else {
            self.method = self.headers.store_raw(parts.method);
        }
        self.take_target(parts)?;
        self.head_bytes =
            parts.method.len() + parts.path.unwrap_or_default().len() + b"  HTTP/1.1\r\n\r\n".len();
        if let Some(authority) = parts.authority {
            if !target::is_valid_authority(authority) {
                return Err(RequestError::InvalidAuthority);
            }
            self.headers.append(b"host", authority);
            self.head_bytes += b"host: \r\n".len() + authority.len();
        }
        let length = self.take_fields(parts, fields, limits)?;
        if self.head_bytes > limits.max_head_bytes {
            return Err(RequestError::HeadTooLarge);
        }
        if self.headers.get_known(Known::Host).is_none() {
            return Err(RequestError::MissingHost);
        }
        let is_tunnel = self.extended_connect || self.kind == Method::Connect;
        self.framing = match length {
            // What follows a CONNECT is the tunnel (RFC 9113 §8.5).
            Some(length) if length > 0 && (parts.end_stream || is_tunnel) => {
                return Err(RequestError::BadContentLength);
            }
            _ if is_tunnel => Framing::None,
            Some(length) => Framing::Length(length),
            None if parts.end_stream => Framing::None,
            None => Framing::Chunked,
        };
        self.expects_continue = !self.framing.is_empty()
            && self
                .headers
                .get_known(Known::Expect)
                .is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue"));
        if let Some(protocol) = parts.protocol {
            self.upgrade = self.headers.append(b"upgrade", protocol);
        }
        Ok(())
    }

    fn take_target(&mut self, parts: &RequestParts<'_>) -> Result<(), RequestError> {
        if self.kind == Method::Connect {
            let authority = parts.authority.ok_or(RequestError::BadTarget)?;
            if parts.path.is_some() || parts.scheme.is_some() {
                return Err(RequestError::BadTarget);
            }
            target::parse(Method::Connect, authority, true)?;
            self.form = TargetForm::Authority;
            self.connect_authority = self.headers.store_raw(authority);
            return Ok(());
        }
        let target = parts.path.ok_or(RequestError::BadTarget)?;
        if self.max_target_bytes != 0 && target.len() > self.max_target_bytes {
            return Err(RequestError::TargetTooLong);
        }
        match target {
            b"*" if self.kind == Method::Options => self.form = TargetForm::Asterisk,
            [b'/', ..] => self.path_is_plain = path::scan(target),
            _ => return Err(RequestError::BadTarget),
        }
        if self.form == TargetForm::Origin && self.path_is_plain.is_none() {
            return Err(RequestError::BadTarget);
        }
        self.path = self.headers.store_raw(target);
        Ok(())
    }

    /// Takes the fields in and returns the `content-length`.
    fn take_fields<'f>(
        &mut self,
        parts: &RequestParts<'_>,
        fields: impl IntoIterator<Item = (&'f [u8], &'f [u8])>,
        limits: &Limits,
    ) -> Result<Option<u64>, RequestError> {
        let mut length = None;
        let mut cookies: Option<Vec<u8>> = None;
        let mut hosts = 0;
        // An authority counts as the `Host` field that it becomes.
        let mut count = usize::from(parts.authority.is_some());
        for (name, value) in fields {
            count += 1;
            self.head_bytes = self.head_bytes.saturating_add(name.len() + value.len() + 4);
            if count > limits.max_fields {
                return Err(RequestError::TooManyFields);
            }
            if self.head_bytes > limits.max_head_bytes {
                return Err(RequestError::HeadTooLarge);
            }
            let known = crate::headers::check_lower(name, value).map_err(|error| match error {
                FieldError::Control => RequestError::InvalidCharacter,
                FieldError::Malformed => RequestError::BadField,
                FieldError::ConnectionSpecific => RequestError::ConnectionField,
            })?;
            match known {
                Some(Known::Host) => {
                    hosts += 1;
                    if hosts > 1 {
                        return Err(RequestError::MultipleHosts);
                    }
                    if let Some(authority) = parts.authority {
                        if !authority.eq_ignore_ascii_case(value) {
                            return Err(RequestError::ConflictingHost);
                        }
                        count -= 1;
                        continue;
                    }
                    if !target::is_valid_authority(value) {
                        return Err(RequestError::InvalidAuthority);
                    }
                }
                Some(Known::ContentLength) => {
                    let value =
                        framing::content_length(value).ok_or(RequestError::BadContentLength)?;
                    if length.replace(value).is_some() {
                        return Err(RequestError::BadContentLength);
                    }
                }
                Some(Known::Te) if !value.eq_ignore_ascii_case(b"trailers") => {
                    return Err(RequestError::ConnectionField);
                }
                Some(Known::Cookie) if self.headers.get_known(Known::Cookie).is_some() => {
                    let joined = cookies.get_or_insert_with(|| {
                        self.headers
                            .get_known(Known::Cookie)
                            .unwrap_or_default()
                            .to_vec()
                    });
                    joined.extend_from_slice(b"; ");
                    joined.extend_from_slice(chars::trim_ows(value));
                    continue;
                }
                _ => {}
            }
            let name = self.headers.store_raw(name);
            let value = if value.is_empty() {
                Span::default()
            } else {
                self.headers.store_raw(value)
            };
            self.headers.push(name, value, known);
        }
        if let Some(cookies) = cookies {
            self.headers.set(b"cookie", &cookies);
        }
        Ok(length)
    }
}
