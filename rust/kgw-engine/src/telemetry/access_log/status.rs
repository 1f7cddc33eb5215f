//! The gRPC status of what is logged.

use super::record::Record;
use crate::telemetry::grpc;

/// A status that is none.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Invalid;

/// The gRPC status of a response, whatever the request was: from its trailer fields, its header, or what
/// its HTTP status stands for. None if there is no response.
pub(crate) fn grpc_status(record: &Record<'_>) -> Option<Result<u64, Invalid>> {
    let response = &record.response;
    let stated = response
        .trailers
        .and_then(|trailers| trailers.first(b"grpc-status"))
        .or_else(|| response.field(b"grpc-status"));
    match stated {
        // Envoy: a status that is no number is an invalid code.
        Some(status) => {
            let status = std::str::from_utf8(status).ok();
            Some(status.and_then(|status| status.parse().ok()).ok_or(Invalid))
        }
        None if response.code == 0 => None,
        None => Some(Ok(u64::from(grpc::status_of_http(response.code)))),
    }
}
