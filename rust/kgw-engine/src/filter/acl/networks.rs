//! The longest prefix that an address is in.
//!
//! Networks are either apart or one inside the other, so they cut the addresses into ranges, each with
//! the longest prefix that has it. A look-up is a binary search among those, whose number is at most
//! twice that of the networks.

use std::net::IpAddr;

use ipnet::IpNet;

/// What addresses of both families belong to.
#[derive(Debug)]
pub(super) struct Networks {
    v4: Ranges<u32>,
    v6: Ranges<u128>,
}

/// The addresses of a family, cut into ranges, each with what it belongs to.
#[derive(Debug)]
struct Ranges<A> {
    /// Where ranges begin, in order; the first one does at the first address.
    starts: Box<[A]>,
    owners: Box<[Owner]>,
}

/// An index, or none where an address is in no network.
type Owner = Option<u32>;

/// An address as a number.
trait Address: Copy + Ord {
    const FIRST: Self;
    fn next(self) -> Option<Self>;
}

/// The addresses from the first to the last one.
#[derive(Clone, Copy, Debug)]
struct Span<A> {
    first: A,
    last: A,
    prefix: u8,
    owner: u32,
}

impl Networks {
    /// Networks and what they belong to. Of the same network twice the last one counts.
    pub(super) fn new(networks: impl IntoIterator<Item = (IpNet, u32)>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (network, owner) in networks {
            match network {
                IpNet::V4(network) => v4.push(Span {
                    first: network.network().to_bits(),
                    last: network.broadcast().to_bits(),
                    prefix: network.prefix_len(),
                    owner,
                }),
                IpNet::V6(network) => v6.push(Span {
                    first: network.network().to_bits(),
                    last: network.broadcast().to_bits(),
                    prefix: network.prefix_len(),
                    owner,
                }),
            }
        }
        Self {
            v4: Ranges::new(v4),
            v6: Ranges::new(v6),
        }
    }

    /// What the longest prefix with this address belongs to. An address of IPv4 inside IPv6 is one of
    /// IPv4.
    pub(super) fn find(&self, address: IpAddr) -> Option<u32> {
        match address.to_canonical() {
            IpAddr::V4(address) => self.v4.find(address.to_bits()),
            IpAddr::V6(address) => self.v6.find(address.to_bits()),
        }
    }
}

impl<A: Address> Ranges<A> {
    fn new(mut spans: Vec<Span<A>>) -> Self {
        // Of those that begin at an address the widest comes first. The order is stable: of two that
        // are the same the last one is the inner one.
        spans.sort_by_key(|span| (span.first, span.prefix));
        let mut ranges: Vec<(A, Owner)> = vec![(A::FIRST, None)];
        // Those that are open, the innermost last.
        let mut open: Vec<Span<A>> = Vec::new();
        for span in spans {
            while let Some(inner) = open.pop_if(|inner| inner.last < span.first) {
                close(&mut ranges, inner, &open);
            }
            begin(&mut ranges, span.first, Some(span.owner));
            open.push(span);
        }
        while let Some(inner) = open.pop() {
            close(&mut ranges, inner, &open);
        }
        let (starts, owners): (Vec<_>, Vec<_>) = ranges.into_iter().unzip();
        Self {
            starts: starts.into(),
            owners: owners.into(),
        }
    }

    fn find(&self, address: A) -> Owner {
        // The first range begins at the first address.
        let after = self.starts.partition_point(|start| *start <= address);
        self.owners[after - 1]
    }
}

/// What follows a network belongs to the one around it.
fn close<A: Address>(ranges: &mut Vec<(A, Owner)>, inner: Span<A>, open: &[Span<A>]) {
    if let Some(start) = inner.last.next() {
        begin(ranges, start, open.last().map(|outer| outer.owner));
    }
}

/// Begins a range, in place of an empty one.
fn begin<A: Address>(ranges: &mut Vec<(A, Owner)>, start: A, owner: Owner) {
    match ranges.last_mut() {
        Some(last) if last.0 == start => last.1 = owner,
        Some(last) if last.1 == owner => {}
        _ => ranges.push((start, owner)),
    }
}

impl Address for u32 {
    const FIRST: Self = 0;
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
}

impl Address for u128 {
    const FIRST: Self = 0;
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    /// The rule, put down as it is said.
    fn by_the_rule(networks: &[IpNet], address: IpAddr) -> Option<u32> {
        let having = networks.iter().zip(0..);
        let having = having.filter(|(network, _)| network.contains(&address));
        having
            .max_by_key(|(network, index)| (network.prefix_len(), *index))
            .map(|(_, index)| index)
    }

    fn same(networks: &[IpNet], address: IpAddr) {
        let found = Networks::new(networks.iter().copied().zip(0..)).find(address);
        assert_eq!(
            found,
            by_the_rule(networks, address),
            "{networks:?} {address}"
        );
    }

    /// Addresses that share most of their bits, so that networks are inside one another.
    fn near4() -> impl Strategy<Value = Ipv4Addr> {
        (any::<u32>(), any::<bool>()).prop_map(|(bits, low)| {
            let mask = if low { 0xff } else { 0xff00_0007 };
            Ipv4Addr::from_bits(bits & mask)
        })
    }

    fn near6() -> impl Strategy<Value = Ipv6Addr> {
        (any::<u128>(), any::<bool>()).prop_map(|(bits, low)| {
            let mask = if low { 0xff } else { 7 << 125 | 7 };
            // No address of IPv4 is among them.
            Ipv6Addr::from_bits(bits & mask | 1 << 64)
        })
    }

    fn networks() -> impl Strategy<Value = Vec<IpNet>> {
        let v4 = (near4(), 0..=32_u8).prop_map(|(address, prefix)| (IpAddr::V4(address), prefix));
        let v6 = (near6(), 0..=128_u8).prop_map(|(address, prefix)| (IpAddr::V6(address), prefix));
        let network =
            prop_oneof![v4, v6].prop_map(|(of, prefix)| IpNet::new(of, prefix).unwrap().trunc());
        proptest::collection::vec(network, 0..24)
    }

    proptest! {
        #[test]
        fn the_longest_prefix_is_found(
            networks in networks(),
            v4 in proptest::collection::vec(near4(), 8),
            v6 in proptest::collection::vec(near6(), 8),
        ) {
            for address in v4 {
                same(&networks, address.into());
            }
            for address in v6 {
                same(&networks, address.into());
            }
            // Where ranges begin and end.
            for network in &networks {
                same(&networks, network.network());
                same(&networks, network.broadcast());
            }
        }
    }

    #[test]
    fn the_ends_of_the_address_space_are_in_it() {
        for network in ["0.0.0.0/0", "255.255.255.255/32", "0.0.0.0/32", "::/0"] {
            let networks = [network.parse().unwrap()];
            for address in ["0.0.0.0", "255.255.255.255", "1.2.3.4", "::2", "ffff::"] {
                same(&networks, address.parse().unwrap());
            }
        }
    }

    #[test]
    fn addresses_of_ipv4_inside_ipv6_are_of_ipv4() {
        let networks = Networks::new([("10.0.0.0/8".parse().unwrap(), 7)]);
        assert_eq!(networks.find("::ffff:10.1.1.1".parse().unwrap()), Some(7));
        assert_eq!(networks.find("::ffff:11.1.1.1".parse().unwrap()), None);
        assert_eq!(networks.find("::10.1.1.1".parse().unwrap()), None);
    }
}
