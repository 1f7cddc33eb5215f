//! The keys of a WebSocket handshake (RFC 6455 §4), for a proxy that speaks HTTP/1.1 on one side and
//! RFC 8441, which has no keys, on the other.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

/// Appended to the key before it is hashed (RFC 6455 §1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Returns whether `key` is the base64 form of 16 bytes, as `Sec-WebSocket-Key` has to be.
pub fn is_websocket_key(key: &[u8]) -> bool {
    key.len() == 24 && STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == 16)
}

/// Returns a `Sec-WebSocket-Key` of these random bytes.
pub fn websocket_key(random: [u8; 16]) -> String {
    STANDARD.encode(random)
}

/// Returns the `Sec-WebSocket-Accept` value that answers `key`.
pub fn websocket_accept(key: &[u8]) -> String {
    let digest = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    STANDARD.encode(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6455 §1.3.
    #[test]
    fn the_example_of_the_rfc() {
        let key = b"dGhlIHNhbXBsZSBub25jZQ==";
        assert!(is_websocket_key(key));
        assert_eq!(websocket_accept(key), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn keys_are_sixteen_bytes() {
        assert!(is_websocket_key(websocket_key([7; 16]).as_bytes()));
        for bad in [
            "",
            "dGhlIHNhbXBsZSBub25jZQ",
            "dGhlIHNhbXBsZSBub25j",
            "!!!!!!!!!!!!!!!!!!!!!!==",
        ] {
            assert!(!is_websocket_key(bad.as_bytes()), "{bad}");
        }
    }
}
