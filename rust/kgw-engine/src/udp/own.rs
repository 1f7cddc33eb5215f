//! Which addresses are the proxy's own.

use std::net::{IpAddr, SocketAddr, UdpSocket};

/// Whether a datagram for `address` would reach one of the sockets that are bound to `bound`.
pub(crate) fn includes(bound: impl Iterator<Item = SocketAddr>, address: SocketAddr) -> bool {
    let mut is_possible = false;
    for one in bound {
        if one.port() != address.port() || one.is_ipv4() != address.is_ipv4() {
            continue;
        }
        if one.ip() == address.ip() || address.ip().is_unspecified() {
            return true;
        }
        is_possible |= one.ip().is_unspecified();
    }
    // Asked only of what has one of the proxy's ports, so that it costs ordinary sessions nothing.
    is_possible && is_of_this_host(address.ip())
}

/// Whether this host has an address: nothing else can be bound to.
fn is_of_this_host(address: IpAddr) -> bool {
    address.is_loopback() || UdpSocket::bind((address, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(addresses: &[&str]) -> Vec<SocketAddr> {
        addresses.iter().map(|one| one.parse().unwrap()).collect()
    }

    #[test]
    fn an_address_is_the_proxys_if_a_datagram_for_it_would_reach_a_socket() {
        let bound = at(&["127.0.0.1:53", "0.0.0.0:54", "[::]:55"]);
        let own = |address: &str| includes(bound.iter().copied(), address.parse().unwrap());
        for address in [
            "127.0.0.1:53",
            "0.0.0.0:53",
            "127.0.0.1:54",
            "127.9.9.9:54",
            "0.0.0.0:54",
            "[::1]:55",
        ] {
            assert!(own(address), "{address}");
        }
        for address in [
            "127.0.0.2:53",
            "127.0.0.1:52",
            "[::1]:54",
            "127.0.0.1:55",
            // Nobody has one of these (RFC 5737, RFC 3849).
            "192.0.2.1:54",
            "[2001:db8::1]:55",
        ] {
            assert!(!own(address), "{address}");
        }
    }
}
