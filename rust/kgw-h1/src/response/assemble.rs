//! A response head that did not come as HTTP/1 bytes: HTTP/2 (RFC 9113 §8.3.2).

use super::{RequestContext, Response};
use crate::Version;
use crate::error::ResponseError;
use crate::framing::{self, Framing};
use crate::headers::{FieldError, Span};
use crate::known::Known;
use crate::scan::Limits;

impl Response {
    /// Takes a head from a status and fields, in place of [`parse`](Self::parse).
    ///
    /// Afterwards everything reads as if it had been parsed, with [`Version::Http2`] and no reason.
    /// A body without `content-length` is [`Framing::Chunked`]: its end is in band. `end_stream`
    /// tells that neither body nor trailers follow. [`head_bytes`](Self::head_bytes) is what the
    /// head would take as HTTP/1.1, which is also what `limits` bound. With
    /// [`RequestContext::connect`] a 2xx opens a tunnel and has no framing; 101 does not exist.
    ///
    /// # Errors
    /// As for [`parse`](Self::parse); only the stream is lost, not the connection.
    pub fn assemble<'f>(
        &mut self,
        status: u16,
        fields: impl IntoIterator<Item = (&'f [u8], &'f [u8])>,
        limits: &Limits,
        request: RequestContext,
        end_stream: bool,
    ) -> Result<(), ResponseError> {
        self.clear();
        let result = self.assemble_head(status, fields, limits, request, end_stream);
        if result.is_err() {
            self.forget_message();
        }
        result
    }

    fn assemble_head<'f>(
        &mut self,
        status: u16,
        fields: impl IntoIterator<Item = (&'f [u8], &'f [u8])>,
        limits: &Limits,
        request: RequestContext,
        end_stream: bool,
    ) -> Result<(), ResponseError> {
        if !(100..=599).contains(&status) {
            return Err(ResponseError::BadStatusLine);
        }
        if status == 101 {
            return Err(ResponseError::UnexpectedUpgrade);
        }
        self.version = Version::Http2;
        self.status = status;
        self.keep_alive = true;
        self.head_bytes = b"HTTP/1.1 200 \r\n\r\n".len();
        for (at, (name, value)) in fields.into_iter().enumerate() {
            self.head_bytes = self.head_bytes.saturating_add(name.len() + value.len() + 4);
            if at >= limits.max_fields {
                return Err(ResponseError::TooManyFields);
            }
            if self.head_bytes > limits.max_head_bytes {
                return Err(ResponseError::HeadTooLarge);
            }
            let known = crate::headers::check_lower(name, value).map_err(|error| match error {
                FieldError::Control | FieldError::Malformed => ResponseError::BadField,
                FieldError::ConnectionSpecific => ResponseError::ConnectionField,
            })?;
            if known == Some(Known::ContentLength) {
                let length =
                    framing::content_length(value).ok_or(ResponseError::BadContentLength)?;
                if self.content_length.replace(length).is_some() {
                    return Err(ResponseError::BadContentLength);
                }
            }
            let name = self.headers.store_raw(name);
            let value = if value.is_empty() {
                Span::default()
            } else {
                self.headers.store_raw(value)
            };
            self.headers.push(name, value, known);
        }
        let is_tunnel = request.connect && status / 100 == 2;
        if status < 200 || status == 204 || is_tunnel {
            if self.content_length.is_some_and(|length| length > 0) {
                return Err(ResponseError::UnexpectedBody);
            }
            self.framing = Framing::None;
        } else if request.head || status == 304 {
            self.framing = Framing::None;
        } else {
            self.framing = match self.content_length {
                Some(length) if end_stream && length > 0 => {
                    return Err(ResponseError::BadContentLength);
                }
                Some(length) => Framing::Length(length),
                None if end_stream => Framing::None,
                None => Framing::Chunked,
            };
        }
        Ok(())
    }
}
