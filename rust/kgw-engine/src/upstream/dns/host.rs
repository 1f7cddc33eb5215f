//! A name, and the addresses that it had when it was looked up last.

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use hashbrown::HashMap;
use parking_lot::RwLock;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::resolver::Resolver;
use crate::clock::Nanos;
use crate::config::ir::DnsName;
use crate::upstream::endpoint::{Changes, Endpoint, carried};

/// Addresses that are used of one name.
const MAX_ADDRESSES: usize = 64;

/// Marks the numbers of hosts among those of transports.
const IS_HOST: u64 = 1 << 63;

/// A name and a port, reached in one way by one cluster.
#[derive(Debug)]
pub(crate) struct Host {
    /// The number of the way in which its addresses are reached, which no other host has: connections
    /// to an address that two names have are not shared.
    pub(crate) transport: u64,
    pub(crate) name: Box<str>,
    pub(crate) port: u16,
    /// Time between two look-ups. Milliseconds.
    pub(crate) refresh_ms: u64,
    /// What is added to it at random, at most. Milliseconds.
    pub(crate) jitter_ms: u64,
    endpoints: RwLock<Arc<[Arc<Endpoint>]>>,
    changes: Arc<Changes>,
    /// It was looked up, with an answer or without.
    is_looked_up: AtomicBool,
    looked_up: Notify,
}

impl Host {
    fn new(name: &DnsName, transport: u64) -> Self {
        Self {
            transport,
            name: name.hostname.as_str().into(),
            port: name.port,
            refresh_ms: name.refresh_ms.max(1),
            jitter_ms: name.jitter_ms,
            endpoints: RwLock::new(Arc::default()),
            changes: Arc::default(),
            is_looked_up: AtomicBool::new(false),
            looked_up: Notify::new(),
        }
    }

    /// The endpoints of the last answer.
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

    /// What tells when it was looked up for the first time, if it was not yet.
    pub(crate) fn awaited(&self) -> Option<Notified<'_>> {
        // First: what is told from here on is heard.
        let told = self.looked_up.notified();
        (!self.is_looked_up.load(Ordering::Acquire)).then_some(told)
    }

    /// Notes the end of a look-up. Without an answer it keeps the addresses that it has.
    pub(super) fn note(&self, answer: Option<Vec<SocketAddr>>, now: Nanos) {
        if let Some(mut found) = answer {
            let mut seen = Vec::with_capacity(found.len().min(MAX_ADDRESSES));
            found.retain(|address| {
                let is_new = seen.len() < MAX_ADDRESSES && !seen.contains(address);
                if is_new {
                    seen.push(*address);
                }
                is_new
            });
            let before = self.endpoints();
            if !before.iter().map(|one| &one.address).eq(&found) {
                let endpoints = carried(&found, &before, now, &self.changes);
                *self.endpoints.write() = endpoints.into();
                self.changes.tell();
            }
        }
        if !self.is_looked_up.swap(true, Ordering::AcqRel) {
            self.looked_up.notify_waiters();
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

/// All hosts by their configuration, as long as a snapshot uses them.
#[derive(Debug, Default)]
pub(crate) struct Hosts {
    known: HashMap<(String, DnsName, u64), Weak<Host>>,
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

    /// The host of a name that a cluster reaches in a way, by its number. A new one is looked up at once.
    pub(crate) fn host(&mut self, cluster: &str, name: &DnsName, transport: u64) -> Arc<Host> {
        let key = (cluster.to_owned(), name.clone(), transport);
        if let Some(known) = self.known.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        let number = IS_HOST | self.count.fetch_add(1, Ordering::Relaxed);
        let host = Arc::new(Host::new(name, number));
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

    fn name(hostname: &str) -> DnsName {
        DnsName {
            hostname: hostname.to_owned(),
            port: 80,
            refresh_ms: 5_000,
            jitter_ms: 0,
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
        let host = Host::new(&name("a.example"), 0);
        assert!(host.awaited().is_some());
        assert!(host.endpoints().is_empty());
        host.note(None, Nanos(0));
        assert!(host.awaited().is_none());
        host.note(
            Some(addresses(&["10.0.0.1:80", "[::1]:80", "10.0.0.1:80"])),
            Nanos(0),
        );
        assert_eq!(found(&host), addresses(&["10.0.0.1:80", "[::1]:80"]));
        host.note(None, Nanos(0));
        assert!(host.has(&"[::1]:80".parse().unwrap()));
        host.note(Some(addresses(&["10.0.0.2:80"])), Nanos(0));
        assert_eq!(found(&host), addresses(&["10.0.0.2:80"]));
        assert!(!host.has(&"[::1]:80".parse().unwrap()));
    }

    #[test]
    fn so_many_addresses_are_used() {
        let host = Host::new(&name("a.example"), 0);
        let many = (0..1_000_u16).map(|port| SocketAddr::from(([10, 0, 0, 1], port)));
        host.note(Some(many.collect()), Nanos(0));
        assert_eq!(host.endpoints().len(), MAX_ADDRESSES);
    }

    #[test]
    fn a_host_is_one_as_long_as_it_is_used() {
        let mut hosts = Hosts::default();
        let one = hosts.host("c", &name("a.example"), 0);
        assert!(Arc::ptr_eq(&one, &hosts.host("c", &name("a.example"), 0)));
        let over_tls = hosts.host("c", &name("a.example"), 1);
        let of_another = hosts.host("d", &name("a.example"), 0);
        assert_ne!(one.transport, of_another.transport);
        assert_ne!(one.transport, over_tls.transport);
        drop((one, of_another));
        hosts.forget_unused();
        assert_eq!(hosts.known.len(), 1);
    }
}
