//! Addresses that hosts which clients name must not have.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses of metadata services that are not among those of the link: Alibaba's, Azure's, and those of AWS
/// and Google over IPv6.
const METADATA_V4: [Ipv4Addr; 2] = [
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
];
const METADATA_V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];

/// Whether requests may go to an address because a client says so, who could reach it itself from elsewhere:
/// none of this machine (unless `allow_loopback`), of its link, of a metadata service, or of many.
pub(super) fn is_permitted(address: IpAddr, allow_loopback: bool) -> bool {
    match address {
        IpAddr::V4(address) => is_permitted_v4(address, allow_loopback),
        IpAddr::V6(address) => match embedded(address) {
            Some(address) => is_permitted_v4(address, allow_loopback),
            None if address.is_loopback() => allow_loopback,
            None => {
                !(address.is_unspecified()
                    || address.is_multicast()
                    || address.is_unicast_link_local()
                    || METADATA_V6.contains(&address))
            }
        },
    }
}

fn is_permitted_v4(address: Ipv4Addr, allow_loopback: bool) -> bool {
    if address.is_loopback() {
        return allow_loopback;
    }
    !(address.octets()[0] == 0
        || address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast()
        || METADATA_V4.contains(&address))
}

/// The IPv4 address that an IPv6 one stands for: mapped (RFC 4291 2.5.5.2), by NAT64 (RFC 6052 2.1) or by 6to4
/// (RFC 3056 2).
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let ([0, 0, 0, 0, 0, 0xffff, high, low]
    | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
    | [0x2002, high, low, ..]) = address.segments()
    else {
        return None;
    };
    Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permitted(text: &str) -> bool {
        is_permitted(text.parse().unwrap(), false)
    }

    #[test]
    fn what_only_this_machine_should_reach_is_not_permitted() {
        for text in [
            "127.0.0.1",
            "127.255.0.1",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "100.100.100.200",
            "168.63.129.16",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "2002:7f00:1::",
            "fe80::1",
            "ff02::1",
            "fd00:ec2::254",
        ] {
            assert!(!permitted(text), "{text}");
        }
        for text in [
            "10.0.0.1",
            "192.0.2.1",
            "100.100.100.201",
            "2001:db8::1",
            "fd00::1",
            "::ffff:192.0.2.1",
        ] {
            assert!(permitted(text), "{text}");
        }
    }

    #[test]
    fn loopback_can_be_permitted_and_nothing_else() {
        for text in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            assert!(is_permitted(text.parse().unwrap(), true), "{text}");
        }
        for text in ["0.0.0.0", "::", "169.254.169.254", "fe80::1"] {
            assert!(!is_permitted(text.parse().unwrap(), true), "{text}");
        }
    }
}
