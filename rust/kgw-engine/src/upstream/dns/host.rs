//! Names, and the addresses that they had when they were looked up last.

use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use hashbrown::HashMap;
use kgw_limit::Slots;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::resolver::Resolver;
use crate::clock::Nanos;
use crate::config::ir::DnsName;
use crate::config::snapshot::FastSet;
use crate::upstream::endpoint::{Changes, Endpoint, carried};

/// Addresses that are used of one name.
const MAX_ADDRESSES: usize = 64;

/// Marks the numbers of hosts among those of transports.
const IS_HOST: u64 = 1 << 63;

/// Names, and addresses beside them, reached in one way by one cluster.
#[derive(Debug)]
pub(crate) struct Host {
    /// The number of the way in which its addresses are reached, which no other host has: connections
    /// to an address that two names have are not shared.
    pub(crate) transport: u64,
    /// Never empty.
    names: Box<[Name]>,
    /// What is not looked up.
    given: Box<[SocketAddr]>,
    /// Time between two look-ups. Milliseconds.
    pub(crate) refresh_ms: u64,
    /// What is added to it at random, at most. Milliseconds.
    pub(crate) jitter_ms: u64,
    /// Which addresses may be used; others are none.
    pub(crate) permits: fn(IpAddr) -> bool,
    /// How many requests may wait for the first look-up, together with those of other hosts; none is any
    /// number.
    pub(crate) waiting: Option<Arc<Slots>>,
    endpoints: RwLock<Arc<[Arc<Endpoint>]>>,
    changes: Arc<Changes>,
    /// There are endpoints, or each name was looked up.
    is_settled: AtomicBool,
    settled: Notify,
}

/// A name and a port.
#[derive(Debug)]
pub(crate) struct Name {
    pub(crate) hostname: Box<str>,
    pub(crate) port: u16,
    /// Its last answer; none before the first look-up has ended.
    found: Mutex<Option<Vec<SocketAddr>>>,
}

impl Host {
    pub(crate) fn new(dns: &DnsName, given: &[SocketAddr], transport: u64, now: Nanos) -> Self {
        let name = |hostname: &str, port| Name {
            hostname: hostname.into(),
            port,
            found: Mutex::default(),
        };
        let more = dns.more.iter().map(|one| name(&one.hostname, one.port));
        let changes = Arc::default();
        let endpoints = carried(given, &[], now, &changes);
        Self {
            transport,
            names: std::iter::once(name(&dns.hostname, dns.port))
                .chain(more)
                .collect(),
            given: given.into(),
            refresh_ms: dns.refresh_ms.max(1),
            jitter_ms: dns.jitter_ms,
            permits: |_| true,
            waiting: None,
            is_settled: AtomicBool::new(!endpoints.is_empty()),
            endpoints: RwLock::new(endpoints.into()),
            changes,
            settled: Notify::new(),
        }
    }

    /// What is looked up.
    pub(super) fn names(&self) -> &[Name] {
        &self.names
    }

    /// The name of all its endpoints, if they have the same.
    pub(crate) fn only_name(&self) -> Option<&str> {
        match &*self.names {
            [only] if self.given.is_empty() => Some(&only.hostname),
            _ => None,
        }
    }

    /// The name that was looked up for an address; an address that was given has none.
    pub(crate) fn name_of(&self, address: SocketAddr) -> Option<&str> {
        if self.given.contains(&address) {
            return None;
        }
        let mut names = self.names.iter();
        let found = names.find(|name| {
            let found = name.found.lock();
            found.as_ref().is_some_and(|found| found.contains(&address))
        });
        found.map(|name| &*name.hostname)
    }

    /// The endpoints of the last answers.
    pub(crate) fn endpoints(&self) -> Arc<[Arc<Endpoint>]> {
        Arc::clone(&self.endpoints.read())
    }

    /// What is told of changes to them.
    pub(crate) fn changes(&self) -> &Arc<Changes> {
        &self.changes
    }

    /// Whether it has an address.
    pub(crate) fn has(&self, address: &SocketAddr) -> bool {
        let endpoints = self.endpoints.read();
        endpoints.iter().any(|one| one.address == *address)
    }

    /// What tells when there are endpoints, or when it is known that there are none, if that is to come.
    pub(crate) fn awaited(&self) -> Option<Notified<'_>> {
        // First: what is told from here on is heard.
        let told = self.settled.notified();
        (!self.is_settled.load(Ordering::Acquire)).then_some(told)
    }

    /// Notes the end of a look-up of the name at a place. Without an answer it keeps the addresses that it
    /// has.
    pub(super) fn note(&self, at: usize, answer: Option<Vec<SocketAddr>>, now: Nanos) {
        {
            let mut found = self.names[at].found.lock();
            match answer {
                Some(mut answer) => {
                    let mut seen = Vec::with_capacity(answer.len().min(MAX_ADDRESSES));
                    answer.retain(|address| {
                        let is_new = seen.len() < MAX_ADDRESSES
                            && !seen.contains(address)
                            && (self.permits)(address.ip());
                        if is_new {
                            seen.push(*address);
                        }
                        is_new
                    });
                    *found = Some(answer);
                }
                None => {
                    found.get_or_insert_default();
                }
            }
        }
        // Names are looked up by several threads: whoever is last has seen what all of them found.
        let mut endpoints = self.endpoints.write();
        let mut is_complete = true;
        let mut seen = FastSet::default();
        let mut all: Vec<_> = self.given.to_vec();
        for name in &self.names {
            match &*name.found.lock() {
                Some(found) => all.extend(found),
                None => is_complete = false,
            }
        }
        all.retain(|address| seen.insert(*address));
        if !endpoints.iter().map(|one| &one.address).eq(&all) {
            let now_there = carried(&all, &endpoints, now, &self.changes);
            *endpoints = now_there.into();
            self.changes.tell();
        }
        let is_settled = is_complete || !endpoints.is_empty();
        drop(endpoints);
        if is_settled && !self.is_settled.swap(true, Ordering::AcqRel) {
            self.settled.notify_waiters();
        }
    }
}

/// The endpoints of a cluster: those it was given, or those of a name.
#[derive(Debug)]
pub(crate) enum Endpoints<'a> {
    Given(&'a [Arc<Endpoint>]),
    Found(Arc<[Arc<Endpoint>]>),
}

impl Deref for Endpoints<'_> {
    type Target = [Arc<Endpoint>];

    fn deref(&self) -> &[Arc<Endpoint>] {
        match self {
            Self::Given(endpoints) => endpoints,
            Self::Found(endpoints) => endpoints,
        }
    }
}

/// A cluster, its names, its addresses, and how they are reached.
type Key = (String, DnsName, Vec<SocketAddr>, u64);

/// All hosts by their configuration, as long as a snapshot uses them.
#[derive(Debug, Default)]
pub(crate) struct Hosts {
    known: HashMap<Key, Weak<Host>>,
    count: AtomicU64,
    resolver: Option<Arc<Resolver>>,
}

impl Hosts {
    /// Makes hosts whose names `resolver` looks up.
    pub(crate) fn new(resolver: Arc<Resolver>) -> Self {
        Self {
            resolver: Some(resolver),
            ..Self::default()
        }
    }

    /// The host of names, and addresses beside them, that a cluster reaches in a way, by its number. A new one is
    /// looked up at once.
    pub(crate) fn host(
        &mut self,
        cluster: &str,
        dns: &DnsName,
        given: &[SocketAddr],
        transport: u64,
        now: Nanos,
    ) -> Arc<Host> {
        let key = (cluster.to_owned(), dns.clone(), given.to_vec(), transport);
        if let Some(known) = self.known.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        let number = IS_HOST | self.count.fetch_add(1, Ordering::Relaxed);
        let host = Arc::new(Host::new(dns, given, number, now));
        self.known.insert(key, Arc::downgrade(&host));
        if let Some(resolver) = &self.resolver {
            resolver.add(&host);
        }
        host
    }

    /// Forgets what no snapshot uses.
    pub(crate) fn forget_unused(&mut self) {
        self.known.retain(|_, host| host.strong_count() > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ir::HostPort;

    fn name(hostname: &str) -> DnsName {
        DnsName {
            hostname: hostname.to_owned(),
            port: 80,
            refresh_ms: 5_000,
            jitter_ms: 0,
            more: Vec::new(),
        }
    }

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn found(host: &Host) -> Vec<SocketAddr> {
        host.endpoints().iter().map(|one| one.address).collect()
    }

    #[test]
    fn what_was_found_last_is_kept() {
        let host = Host::new(&name("a.example"), &[], 0, Nanos(0));
        assert!(host.awaited().is_some());
        assert!(host.endpoints().is_empty());
        host.note(0, None, Nanos(0));
        assert!(host.awaited().is_none());
        host.note(
            0,
            Some(addresses(&["10.0.0.1:80", "[::1]:80", "10.0.0.1:80"])),
            Nanos(0),
        );
        assert_eq!(found(&host), addresses(&["10.0.0.1:80", "[::1]:80"]));
        host.note(0, None, Nanos(0));
        assert!(host.has(&"[::1]:80".parse().unwrap()));
        host.note(0, Some(addresses(&["10.0.0.2:80"])), Nanos(0));
        assert_eq!(found(&host), addresses(&["10.0.0.2:80"]));
        assert!(!host.has(&"[::1]:80".parse().unwrap()));
    }

    #[test]
    fn names_and_addresses_are_endpoints_together() {
        let mut dns = name("a.example");
        for hostname in ["b.example", "c.example"] {
            dns.more.push(HostPort {
                hostname: hostname.to_owned(),
                port: 81,
            });
        }
        let host = Host::new(&dns, &[], 0, Nanos(0));
        host.note(1, None, Nanos(0));
        // Another name may be found.
        assert!(host.awaited().is_some());
        host.note(2, Some(addresses(&["10.0.0.3:81"])), Nanos(0));
        assert!(host.awaited().is_none());
        host.note(
            0,
            Some(addresses(&["10.0.0.1:80", "10.0.0.3:81"])),
            Nanos(0),
        );
        assert_eq!(found(&host), addresses(&["10.0.0.1:80", "10.0.0.3:81"]));
        host.note(0, None, Nanos(0));
        assert_eq!(host.endpoints().len(), 2);
        assert_eq!(
            host.name_of("10.0.0.3:81".parse().unwrap()),
            Some("a.example")
        );
        assert!(host.only_name().is_none());

        let given = addresses(&["192.0.2.1:80"]);
        let host = Host::new(&name("a.example"), &given, 0, Nanos(0));
        assert!(host.awaited().is_none());
        assert!(host.only_name().is_none());
        assert_eq!(found(&host), given);
        host.note(0, None, Nanos(0));
        assert_eq!(found(&host), given);
        host.note(
            0,
            Some(addresses(&["10.0.0.1:80", "192.0.2.1:80"])),
            Nanos(0),
        );
        assert_eq!(found(&host), addresses(&["192.0.2.1:80", "10.0.0.1:80"]));
        assert_eq!(host.name_of(given[0]), None);
    }

    #[test]
    fn a_host_whose_names_are_not_found_is_known_to_have_none() {
        let mut dns = name("a.example");
        dns.more.push(HostPort {
            hostname: "b.example".to_owned(),
            port: 80,
        });
        let host = Host::new(&dns, &[], 0, Nanos(0));
        host.note(0, None, Nanos(0));
        assert!(host.awaited().is_some());
        host.note(1, None, Nanos(0));
        assert!(host.awaited().is_none());
    }

    #[test]
    fn so_many_addresses_are_used() {
        let host = Host::new(&name("a.example"), &[], 0, Nanos(0));
        let many = (0..1_000_u16).map(|port| SocketAddr::from(([10, 0, 0, 1], port)));
        host.note(0, Some(many.collect()), Nanos(0));
        assert_eq!(host.endpoints().len(), MAX_ADDRESSES);
    }

    #[test]
    fn a_host_is_one_as_long_as_it_is_used() {
        let mut hosts = Hosts::default();
        let one = hosts.host("c", &name("a.example"), &[], 0, Nanos(0));
        assert!(Arc::ptr_eq(
            &one,
            &hosts.host("c", &name("a.example"), &[], 0, Nanos(0))
        ));
        let over_tls = hosts.host("c", &name("a.example"), &[], 1, Nanos(0));
        let of_another = hosts.host("d", &name("a.example"), &[], 0, Nanos(0));
        assert_ne!(one.transport, of_another.transport);
        assert_ne!(one.transport, over_tls.transport);
        drop((one, of_another));
        hosts.forget_unused();
        assert_eq!(hosts.known.len(), 1);
    }
}
