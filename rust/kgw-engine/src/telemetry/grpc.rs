//! What gRPC calls are told by, and the statuses that HTTP ones stand for.

/// Whether a content type is gRPC's: `application/grpc`, alone or with a suffix (`+proto`) or
/// parameters. `application/grpc-web` is not.
pub(crate) fn is_grpc(content_type: &[u8]) -> bool {
    matches!(
        content_type.strip_prefix(b"application/grpc"),
        Some([] | [b'+' | b';', ..])
    )
}

/// The gRPC status that an HTTP status stands for (gRPC's `http-grpc-status-mapping`).
pub(crate) fn status_of_http(status: u16) -> u8 {
    match status {
        400 => INTERNAL,
        401 => UNAUTHENTICATED,
        403 => PERMISSION_DENIED,
        404 => UNIMPLEMENTED,
        429 | 502 | 503 | 504 => UNAVAILABLE,
        _ => UNKNOWN,
    }
}

const UNKNOWN: u8 = 2;
/// `DEADLINE_EXCEEDED`.
pub(crate) const DEADLINE_EXCEEDED: u8 = 4;
const PERMISSION_DENIED: u8 = 7;
const UNIMPLEMENTED: u8 = 12;
const INTERNAL: u8 = 13;
const UNAVAILABLE: u8 = 14;
const UNAUTHENTICATED: u8 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_grpc_is_grpc() {
        for grpc in [
            "application/grpc",
            "application/grpc+proto",
            "application/grpc+",
            "application/grpc;charset=utf-8",
        ] {
            assert!(is_grpc(grpc.as_bytes()), "{grpc}");
        }
        for other in [
            "",
            "application/grpcx",
            "application/grpc-web",
            "application/grpc-web+proto",
            "application/grp",
            "text/application/grpc",
        ] {
            assert!(!is_grpc(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn http_statuses_stand_for_those_that_grpc_says() {
        for (http, grpc) in [
            (200, 2),
            (302, 2),
            (400, 13),
            (401, 16),
            (403, 7),
            (404, 12),
            (408, 2),
            (429, 14),
            (500, 2),
            (502, 14),
            (503, 14),
            (504, 14),
        ] {
            assert_eq!(status_of_http(http), grpc, "{http}");
        }
    }
}
