//! The sessions of a socket, by whom they are for, and which of them leaves first.
//!
//! A session is *mutual* once its client has sent something after an answer: somebody is there who
//! hears what is answered, which a stranger's address in a datagram does not prove (Linux tells
//! connections to be kept from others in the same way: `IPS_ASSURED`). One question with one answer is
//! over as soon as that is sent; it is of no use after that, and there are the most of them.
//!
//! If there is no room, of the others the one leaves on which nothing came for the longest time. Mutual
//! ones leave only after [`MUTUAL_GRACE_MS`] without a datagram; before that, newcomers are refused.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use hashbrown::HashMap;
use slab::Slab;

use crate::clock::Nanos;
use crate::config::snapshot::FastMap;

/// Time without a datagram after which a mutual session may leave for another. Milliseconds.
pub(super) const MUTUAL_GRACE_MS: u64 = 10_000;

/// Sessions looked at to find one of a client that has too many.
const LOOKS: usize = 64;

const NONE: usize = usize::MAX;

/// Whom a session is for: the client, and the address of this host that it sends to.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct Flow {
    pub(super) client: SocketAddr,
    pub(super) local: IpAddr,
}

/// The place of a session, until it is removed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Place(usize);

/// Sessions, each of which is a `T`.
#[derive(Debug)]
pub(super) struct Sessions<T> {
    by_flow: FastMap<Flow, usize>,
    entries: Slab<Entry<T>>,
    /// Those that are not mutual, and those that are.
    orders: [Order; 2],
    by_client: FastMap<IpAddr, u32>,
}

#[derive(Debug)]
struct Entry<T> {
    flow: Flow,
    session: T,
    moved: Nanos,
    is_answered: bool,
    is_mutual: bool,
    before: usize,
    after: usize,
}

/// Sessions in the order of their last datagrams.
#[derive(Clone, Copy, Debug)]
struct Order {
    first: usize,
    last: usize,
}

impl<T> Default for Sessions<T> {
    fn default() -> Self {
        Self {
            by_flow: HashMap::default(),
            entries: Slab::new(),
            orders: [Order {
                first: NONE,
                last: NONE,
            }; 2],
            by_client: HashMap::default(),
        }
    }
}

impl<T> Sessions<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().map(|(_, entry)| &entry.session)
    }

    /// The session of a place.
    pub(super) fn at(&self, place: Place) -> &T {
        &self.entries[place.0].session
    }

    /// The session of a client.
    pub(super) fn find(&self, flow: &Flow) -> Option<(Place, &T)> {
        let &at = self.by_flow.get(flow)?;
        Some((Place(at), &self.entries[at].session))
    }

    /// Adds a session for a client that has none.
    pub(super) fn insert(&mut self, flow: Flow, session: T, now: Nanos) -> Place {
        let at = self.entries.insert(Entry {
            flow,
            session,
            moved: now,
            is_answered: false,
            is_mutual: false,
            before: NONE,
            after: NONE,
        });
        self.append(at);
        self.by_flow.insert(flow, at);
        *self.by_client.entry(network(flow.client.ip())).or_insert(0) += 1;
        Place(at)
    }

    /// Removes a session.
    pub(super) fn remove(&mut self, place: Place) -> T {
        self.unlink(place.0);
        let entry = self.entries.remove(place.0);
        self.by_flow.remove(&entry.flow);
        let client = network(entry.flow.client.ip());
        if let Some(count) = self.by_client.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                self.by_client.remove(&client);
            }
        }
        entry.session
    }

    /// Notes a datagram from the client.
    pub(super) fn asked(&mut self, place: Place, now: Nanos) {
        let entry = &self.entries[place.0];
        let is_mutual = entry.is_answered;
        self.note(place, now, |entry| entry.is_mutual |= is_mutual);
    }

    /// Notes a datagram from the endpoint.
    pub(super) fn answered(&mut self, place: Place, now: Nanos) {
        self.note(place, now, |entry| entry.is_answered = true);
    }

    /// When the last datagram came.
    pub(super) fn moved(&self, place: Place) -> Nanos {
        self.entries[place.0].moved
    }

    /// How many sessions a client has.
    pub(super) fn of_client(&self, client: SocketAddr) -> u32 {
        let count = self.by_client.get(&network(client.ip()));
        count.copied().unwrap_or(0)
    }

    /// The session that leaves first.
    pub(super) fn first_to_leave(&self, now: Nanos) -> Option<Place> {
        let [others, mutual] = self.orders;
        if others.first != NONE {
            return Some(Place(others.first));
        }
        let entry = self.entries.get(mutual.first)?;
        (entry.moved.after_ms(MUTUAL_GRACE_MS) <= now).then_some(Place(mutual.first))
    }

    /// One of the sessions that leave first, if it is of this client.
    pub(super) fn first_to_leave_of(&self, client: SocketAddr) -> Option<Place> {
        let client = network(client.ip());
        let mut at = self.orders[0].first;
        for _ in 0..LOOKS {
            let entry = self.entries.get(at)?;
            if network(entry.flow.client.ip()) == client {
                return Some(Place(at));
            }
            at = entry.after;
        }
        None
    }

    fn note(&mut self, place: Place, now: Nanos, change: impl FnOnce(&mut Entry<T>)) {
        self.unlink(place.0);
        let entry = &mut self.entries[place.0];
        entry.moved = now;
        change(entry);
        self.append(place.0);
    }

    fn unlink(&mut self, at: usize) {
        let entry = &self.entries[at];
        let (before, after) = (entry.before, entry.after);
        let order = &mut self.orders[usize::from(entry.is_mutual)];
        if before == NONE {
            order.first = after;
        } else {
            self.entries[before].after = after;
        }
        if after == NONE {
            order.last = before;
        } else {
            self.entries[after].before = before;
        }
    }

    fn append(&mut self, at: usize) {
        let order = &mut self.orders[usize::from(self.entries[at].is_mutual)];
        let before = order.last;
        order.last = at;
        if before == NONE {
            order.first = at;
        } else {
            self.entries[before].after = at;
        }
        let entry = &mut self.entries[at];
        (entry.before, entry.after) = (before, NONE);
    }
}

/// What counts as one client: of IPv6, each has a network (RFC 4291 2.5.4).
fn network(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(_) => client,
        IpAddr::V6(client) => {
            let network = u128::from(client) & (u128::MAX << 64);
            IpAddr::V6(Ipv6Addr::from(network))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    fn flow(client: u8) -> Flow {
        Flow {
            // Four clients with many ports each.
            client: SocketAddr::from(([10, 0, 0, client % 4], 1000 + u16::from(client))),
            local: IpAddr::from([10, 1, 0, 0]),
        }
    }

    /// The same in ten lines: a queue that is searched.
    #[derive(Default)]
    struct Model(VecDeque<(Flow, u64, bool, bool)>);

    impl Model {
        fn note(
            &mut self,
            flow: Flow,
            now: u64,
            change: impl FnOnce(&mut (Flow, u64, bool, bool)),
        ) {
            let at = self.0.iter().position(|one| one.0 == flow).unwrap();
            let mut one = self.0.remove(at).unwrap();
            one.1 = now;
            change(&mut one);
            self.0.push_back(one);
        }

        fn first(&self, now: u64) -> Option<Flow> {
            let others = self.0.iter().find(|one| !one.3);
            let mutual = || {
                let first = self.0.iter().find(|one| one.3);
                first.filter(|one| one.1 + MUTUAL_GRACE_MS * 1_000_000 <= now)
            };
            others.or_else(mutual).map(|one| one.0)
        }
    }

    proptest! {
        #[test]
        fn sessions_leave_as_a_queue_that_is_searched_says(
            steps in proptest::collection::vec((0_u8..5, 0_u8..24, 0_u64..8_000_000_000), 1..200)
        ) {
            let (mut sessions, mut model) = (Sessions::default(), Model::default());
            let mut now = 0;
            for (step, client, later) in steps {
                now += later;
                let flow = flow(client);
                let at = Nanos(now);
                let found = sessions.find(&flow).map(|(place, _)| place);
                prop_assert_eq!(found.is_some(), model.0.iter().any(|one| one.0 == flow));
                match (step, found) {
                    (0 | 1, None) => {
                        sessions.insert(flow, flow, at);
                        model.0.push_back((flow, now, false, false));
                    }
                    (0..=2, Some(place)) => {
                        sessions.asked(place, at);
                        model.note(flow, now, |one| one.3 |= one.2);
                    }
                    (3, Some(place)) => {
                        sessions.answered(place, at);
                        model.note(flow, now, |one| one.2 = true);
                    }
                    (4, _) => {
                        let first = sessions.first_to_leave(at);
                        let left = first.map(|place| sessions.remove(place));
                        prop_assert_eq!(left, model.first(now));
                        model.0.retain(|one| Some(one.0) != left);
                    }
                    _ => {}
                }
                let of_client = model.0.iter().filter(|one| one.0.client.ip() == flow.client.ip());
                prop_assert_eq!(sessions.of_client(flow.client) as usize, of_client.count());
                prop_assert_eq!(sessions.iter().count(), model.0.len());
                prop_assert_eq!(sessions.is_empty(), model.0.is_empty());
                let of_it = sessions.first_to_leave_of(flow.client).map(|one| sessions.entries[one.0].flow);
                let mut expected = model.0.iter().filter(|one| !one.3);
                let expected = expected.find(|one| one.0.client.ip() == flow.client.ip());
                prop_assert_eq!(of_it, expected.map(|one| one.0));
            }
        }
    }

    #[test]
    fn clients_of_one_ipv6_network_are_one() {
        let mut sessions = Sessions::default();
        for (host, port) in [
            ("2001:db8::1", 1),
            ("2001:db8::2:0:1", 2),
            ("2001:db8:0:1::1", 1),
        ] {
            let client = SocketAddr::new(host.parse().unwrap(), port);
            let local = "::1".parse().unwrap();
            sessions.insert(Flow { client, local }, (), Nanos(0));
        }
        let count = |host: &str| sessions.of_client(SocketAddr::new(host.parse().unwrap(), 9));
        assert_eq!(count("2001:db8::9"), 2);
        assert_eq!(count("2001:db8:0:1::9"), 1);
        assert_eq!(count("2001:db8:0:2::9"), 0);
    }
}
