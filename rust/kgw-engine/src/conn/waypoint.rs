//! A waypoint's services by the names that requests use.

use std::net::SocketAddr;

use kgw_h1::Request;

use crate::config::snapshot::{Listener, Traffic};

/// The service address that a request's host names, if it names exactly one.
pub(crate) fn named_address(request: &Request, listener: &Listener) -> Option<SocketAddr> {
    let Traffic::Waypoint { names, .. } = &listener.traffic else {
        return None;
    };
    let (host, port) = split_port(request.authority());
    let host = host.strip_suffix(b".").unwrap_or(host);
    *names.get(&(host.to_ascii_lowercase().into_boxed_slice(), port))?
}

/// Host and port of an authority; 80 if it names none.
fn split_port(authority: &[u8]) -> (&[u8], u16) {
    let split = memchr::memrchr(b':', authority).and_then(|at| {
        let port = std::str::from_utf8(&authority[at + 1..])
            .ok()?
            .parse()
            .ok()?;
        Some((&authority[..at], port))
    });
    split.unwrap_or((authority, 80))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_without_port_means_80() {
        assert_eq!(split_port(b"ollama"), (&b"ollama"[..], 80));
        assert_eq!(split_port(b"ollama:8080"), (&b"ollama"[..], 8080));
        assert_eq!(split_port(b"ollama:"), (&b"ollama:"[..], 80));
    }
}
