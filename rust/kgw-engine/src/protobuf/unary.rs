//! Calls of gRPC that are one message each way.

use bytes::Bytes;
use kgw_h1::Headers;

use super::Malformed;
use crate::upstream::call::Called;

/// What is in front of a message: whether it is compressed, and its length. Bytes.
const PREFIX: usize = 5;

/// The header fields of a call that may take so many milliseconds.
pub(crate) fn fields(timeout_ms: u64) -> Headers {
    let mut fields = Headers::new();
    fields.append(b"content-type", b"application/grpc");
    fields.append(b"te", b"trailers");
    // The unit has room for eight digits, which are more than a day.
    let timeout = format!("{}m", timeout_ms.min(99_999_999));
    fields.append(b"grpc-timeout", timeout.as_bytes());
    fields
}

/// A message as the body of a call. None if it is too long to be one.
pub(crate) fn framed(message: &[u8]) -> Option<Bytes> {
    let mut body = Vec::with_capacity(PREFIX + message.len());
    body.push(0);
    body.extend(u32::try_from(message.len()).ok()?.to_be_bytes());
    body.extend(message);
    Some(body.into())
}

/// The one message of a call that has succeeded.
///
/// # Errors
/// It has failed, or has not one message.
pub(crate) fn message(answer: &Called) -> Result<&[u8], Malformed> {
    let head = answer.head.headers();
    if answer.head.status() != 200 || !crate::pipeline::grpc::is_grpc(head) {
        return Err(Malformed);
    }
    // A call that fails at once has its status in the head.
    let trailers = answer.trailers.as_ref().unwrap_or(head);
    if trailers.get(b"grpc-status") != Some(b"0") {
        return Err(Malformed);
    }
    let [0, a, b, c, d, message @ ..] = &*answer.body else {
        return Err(Malformed);
    };
    let length = u32::from_be_bytes([*a, *b, *c, *d]);
    if usize::try_from(length) == Ok(message.len()) {
        Ok(message)
    } else {
        Err(Malformed)
    }
}
