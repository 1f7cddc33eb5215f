//! Asking the system for addresses.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};

/// The addresses of a name, of both families, in the system's order (RFC 6724). Blocks.
///
/// Those that nothing can be sent to from here are left out, as IPv6 ones are on many machines, unless
/// there are no others: each endpoint gets its share of the requests.
pub(super) fn look_up(name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let found: Vec<_> = (name, port).to_socket_addrs()?.collect();
    let routed: Vec<_> = found.iter().copied().filter(has_route).collect();
    Ok(if routed.is_empty() { found } else { routed })
}

/// Whether the system knows a way to an address. Nothing is sent.
fn has_route(address: &SocketAddr) -> bool {
    let any = match address {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    UdpSocket::bind((any, 0)).is_ok_and(|socket| socket.connect(address).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_knows_itself() {
        let found = look_up("localhost", 7).unwrap();
        assert!(
            found
                .iter()
                .all(|one| one.ip().is_loopback() && one.port() == 7)
        );
        assert!(found.contains(&SocketAddr::from(([127, 0, 0, 1], 7))));
    }

    #[test]
    fn what_is_no_name_has_no_addresses() {
        assert!(look_up("no such name", 7).is_err());
    }
}
