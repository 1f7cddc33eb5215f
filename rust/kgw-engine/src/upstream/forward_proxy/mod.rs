//! Hosts that requests name (Envoy's dynamic forward proxy): each is looked up when it is first asked for,
//! and is then a cluster of its own for as long as it is in use.
//!
//! Invariants:
//! 1. A [`Table`] has no more hosts than it may, and no more requests wait for first look-ups than may
//!    ([`Host::waiting`]). One that nobody asked for in a while leaves; one that was not found, soon.
//! 2. A table outlives configurations that reach hosts in the same way: connections and addresses stay.
//! 3. Names that clients choose are looked up by threads of their own: one that takes long keeps none waiting
//!    that is configured.
//! 4. No connection is opened to an address that [`guard`] does not permit, whatever its name is.

mod authority;
mod guard;

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use hashbrown::HashMap;
use kgw_limit::Slots;
use parking_lot::{Mutex, RwLock};

use crate::clock::{Clock, Nanos};
use crate::config::ir;
use crate::config::snapshot::{Cluster, FastMap};
use crate::upstream::dns::{Host, Resolver};
use crate::upstream::pool::PoolKey;

/// Marks the numbers of hosts that requests name among those of transports; other bits mark those of names
/// and ways.
pub(crate) const IS_FORWARDED: u64 = 1 << 61;

/// Time after which a host that was not found is forgotten. Milliseconds.
const NOT_FOUND_TTL_MS: u64 = 30_000;

/// How exact it is known when a host was last asked for. Nanoseconds: not every request writes.
const USED_EXACTLY: u64 = 1_000_000_000;

/// Why there is no host to go to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Refused {
    /// What the request names cannot be one.
    NoName,
    /// There are as many as may be.
    Full,
}

/// All hosts of an engine that requests name.
#[derive(Debug)]
pub(crate) struct Forwarding {
    resolver: Resolver,
    /// By their numbers.
    hosts: RwLock<FastMap<u64, Weak<Host>>>,
    tables: Mutex<Vec<Weak<Table>>>,
    count: AtomicU64,
    /// What requests that went through here say of it.
    token: Box<str>,
}

/// The hosts of a cluster that requests name, under one configuration.
#[derive(Debug)]
pub(crate) struct ForwardProxy {
    /// Which configuration.
    number: u64,
    table: Arc<Table>,
}

/// Hosts that are reached in one way.
#[derive(Debug)]
struct Table {
    forwarding: Arc<Forwarding>,
    way: u64,
    settings: ir::ForwardProxy,
    waiting: Arc<Slots>,
    hosts: RwLock<HashMap<(String, u16), Entry>>,
}

#[derive(Debug)]
struct Entry {
    host: Arc<Host>,
    /// What the host is under the configuration of a number.
    cluster: Arc<Cluster>,
    number: u64,
    /// When it was asked for. Nanoseconds.
    used_at: AtomicU64,
}

// === impl Forwarding ===

impl Forwarding {
    /// Makes one that asks the system for addresses.
    pub(crate) fn new(clock: Clock) -> Arc<Self> {
        Self::with(Resolver::of_clients(clock))
    }

    fn with(resolver: Resolver) -> Arc<Self> {
        Arc::new(Self {
            resolver,
            hosts: RwLock::default(),
            tables: Mutex::default(),
            count: AtomicU64::new(0),
            token: format!("kgw-{:016x}", fastrand::u64(..)).into(),
        })
    }

    pub(crate) fn resolver(&self) -> &Resolver {
        &self.resolver
    }

    /// What is in `cdn-loop` of requests that were here (RFC 8586). No other engine has the same.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// Whether a host has an endpoint of this address, reached in this way.
    pub(crate) fn has(&self, key: &PoolKey) -> bool {
        let hosts = self.hosts.read();
        let host = hosts.get(&key.transport).and_then(Weak::upgrade);
        host.is_some_and(|host| host.has(&key.endpoint))
    }

    /// Forgets hosts that nobody asks for.
    pub(crate) fn sweep(&self, now: Nanos) {
        let tables: Vec<_> = {
            let mut tables = self.tables.lock();
            tables.retain(|table| table.strong_count() > 0);
            tables.iter().filter_map(Weak::upgrade).collect()
        };
        for table in &tables {
            let mut hosts = table.hosts.write();
            hosts.retain(|_, entry| !table.is_over(entry, now));
        }
        if !tables.is_empty() || !self.hosts.read().is_empty() {
            let mut hosts = self.hosts.write();
            hosts.retain(|_, host| host.strong_count() > 0);
        }
    }

    /// How many hosts there are.
    pub(crate) fn count(&self) -> usize {
        let tables = self.tables.lock();
        let tables = tables.iter().filter_map(Weak::upgrade);
        tables.map(|table| table.hosts.read().len()).sum()
    }
}

// === impl ForwardProxy ===

impl ForwardProxy {
    /// The hosts of a cluster: those of the one `before`, if they are reached in the same way, which a number
    /// says.
    pub(crate) fn new(
        forwarding: &Arc<Forwarding>,
        settings: &ir::ForwardProxy,
        way: u64,
        before: Option<&Self>,
    ) -> Self {
        let before = before.map(|before| &before.table);
        let before = before.filter(|table| table.way == way && table.settings == *settings);
        let table = before.cloned().unwrap_or_else(|| {
            let table = Arc::new(Table {
                forwarding: Arc::clone(forwarding),
                way,
                waiting: Slots::new(settings.max_waiting),
                settings: settings.clone(),
                hosts: RwLock::default(),
            });
            forwarding.tables.lock().push(Arc::downgrade(&table));
            table
        });
        Self {
            number: forwarding.count.fetch_add(1, Ordering::Relaxed),
            table,
        }
    }

    pub(crate) fn forwarding(&self) -> &Forwarding {
        &self.table.forwarding
    }

    /// The cluster of the host that an authority names; otherwise it is like `template`.
    pub(crate) fn cluster(
        &self,
        template: &Cluster,
        authority: &[u8],
        now: Nanos,
    ) -> Result<Arc<Cluster>, Refused> {
        let default_port = if template.tls.is_some() { 443 } else { 80 };
        let name = authority::parse(authority, default_port).ok_or(Refused::NoName)?;
        let table = &*self.table;
        if let Some(entry) = table.hosts.read().get(&name)
            && entry.number == self.number
        {
            entry.used(now);
            return Ok(Arc::clone(&entry.cluster));
        }
        let mut hosts = table.hosts.write();
        if let Some(entry) = hosts.get_mut(&name) {
            // An older configuration may still be in use by a worker. Its host is the same.
            if entry.number != self.number {
                let host = Arc::clone(&entry.host);
                let cluster = of_host(template, host, &name.0).ok_or(Refused::NoName)?;
                entry.cluster = Arc::new(cluster);
                entry.number = self.number;
            }
            entry.used(now);
            return Ok(Arc::clone(&entry.cluster));
        }
        let most = usize::try_from(table.settings.max_hosts).unwrap_or(usize::MAX);
        if hosts.len() >= most {
            hosts.retain(|_, entry| !table.is_over(entry, now));
        }
        if hosts.len() >= most {
            // One that is known not to be there makes room.
            let lost = hosts.iter().find(|(_, entry)| entry.is_lost());
            let lost = lost.map(|(name, _)| name.clone()).ok_or(Refused::Full)?;
            hosts.remove(&lost);
        }
        let host = table.host(&name, now);
        let cluster = of_host(template, Arc::clone(&host), &name.0).ok_or(Refused::NoName)?;
        let cluster = Arc::new(cluster);
        let forwarding = &table.forwarding;
        let in_use = Arc::downgrade(&host);
        forwarding.hosts.write().insert(host.transport, in_use);
        forwarding.resolver.add(&host);
        let entry = Entry {
            host,
            cluster: Arc::clone(&cluster),
            number: self.number,
            used_at: AtomicU64::new(now.0),
        };
        hosts.insert(name, entry);
        Ok(cluster)
    }
}

impl Table {
    fn host(&self, (hostname, port): &(String, u16), now: Nanos) -> Arc<Host> {
        let dns = ir::DnsName {
            hostname: hostname.clone(),
            port: *port,
            refresh_ms: self.settings.refresh_ms,
            jitter_ms: self.settings.jitter_ms,
            more: Vec::new(),
        };
        let number = self.forwarding.count.fetch_add(1, Ordering::Relaxed);
        let mut host = Host::new(&dns, &[], IS_FORWARDED | number, now);
        host.waiting = Some(Arc::clone(&self.waiting));
        host.permits = if self.settings.allow_loopback {
            |address: IpAddr| guard::is_permitted(address, true)
        } else {
            |address: IpAddr| guard::is_permitted(address, false)
        };
        Arc::new(host)
    }

    /// Whether it is time for a host to leave.
    fn is_over(&self, entry: &Entry, now: Nanos) -> bool {
        let ttl_ms = if entry.is_lost() {
            self.settings.host_ttl_ms.min(NOT_FOUND_TTL_MS)
        } else {
            self.settings.host_ttl_ms
        };
        let used_at = Nanos(entry.used_at.load(Ordering::Relaxed));
        // A request that is on its way keeps its host.
        now >= used_at.after_ms(ttl_ms) && Arc::strong_count(&entry.cluster) == 1
    }
}

impl Entry {
    fn used(&self, now: Nanos) {
        if now.0.saturating_sub(self.used_at.load(Ordering::Relaxed)) >= USED_EXACTLY {
            self.used_at.store(now.0, Ordering::Relaxed);
        }
    }

    /// Whether it has no addresses, as far as is known.
    fn is_lost(&self) -> bool {
        self.host.awaited().is_none() && self.host.endpoints().is_empty()
    }
}

/// The cluster of one host; none if certificates cannot be for its name.
fn of_host(template: &Cluster, host: Arc<Host>, name: &str) -> Option<Cluster> {
    let tls = match &template.tls {
        None => None,
        Some(tls) => Some(tls.of_host(name)?),
    };
    Some(template.of_host(host, tls))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::config::ir::ForwardProxy as Settings;

    const SECOND: u64 = 1_000_000_000;

    fn settings() -> Settings {
        serde_json::from_str(r#"{"max_hosts": 2}"#).unwrap()
    }

    /// Nothing is ever found but `*.example`, at once.
    fn forwarding() -> Arc<Forwarding> {
        let found = |name: &str, port| {
            let address = match name {
                "local.example" => "127.0.0.1",
                "both.example" => {
                    let both = ["169.254.169.254", "192.0.2.2"];
                    let both = both.map(|one| SocketAddr::new(one.parse().unwrap(), port));
                    return Ok(both.to_vec());
                }
                name if name.ends_with(".example") => "192.0.2.1",
                _ => return Err(std::io::ErrorKind::NotFound.into()),
            };
            Ok(vec![SocketAddr::new(address.parse().unwrap(), port)])
        };
        Forwarding::with(Resolver::with(Clock::manual(), 1, found))
    }

    fn settle(cluster: &Cluster) {
        for _ in 0..10_000 {
            if cluster.awaited().is_none() {
                return;
            }
            // Real time passes: another thread has to run.
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        panic!("it was not looked up");
    }

    fn addresses(cluster: &Cluster) -> Vec<String> {
        let endpoints = cluster.endpoints();
        endpoints
            .iter()
            .map(|one| one.address.to_string())
            .collect()
    }

    #[test]
    fn a_host_is_one_cluster() {
        let forwarding = forwarding();
        let template = Cluster::named("c");
        let proxy = ForwardProxy::new(&forwarding, &settings(), 0, None);
        let find = |authority: &str| proxy.cluster(&template, authority.as_bytes(), Nanos(0));
        let one = find("A.example").unwrap();
        assert!(Arc::ptr_eq(&one, &find("a.example:80").unwrap()));
        let other = find("a.example:81").unwrap();
        assert_ne!(one.transport, other.transport);
        settle(&one);
        settle(&other);
        assert_eq!(addresses(&one), ["192.0.2.1:80"]);
        assert_eq!(addresses(&other), ["192.0.2.1:81"]);
        assert!(forwarding.has(&one.pool_key("192.0.2.1:80".parse().unwrap())));
        assert!(!forwarding.has(&one.pool_key("192.0.2.1:81".parse().unwrap())));
        assert_eq!(find("a/b").unwrap_err(), Refused::NoName);
    }

    #[test]
    fn there_are_so_many_and_no_more() {
        let forwarding = forwarding();
        let template = Cluster::named("c");
        let proxy = ForwardProxy::new(&forwarding, &settings(), 0, None);
        let find = |authority: &str, at: u64| {
            proxy.cluster(&template, authority.as_bytes(), Nanos(at * SECOND))
        };
        settle(&find("a.example", 0).unwrap());
        let b = find("b.example", 0).unwrap();
        settle(&b);
        assert_eq!(find("c.example", 0).unwrap_err(), Refused::Full);
        // Those that nobody asks for leave, and one that is in use does not.
        settle(&find("c.example", 300).unwrap());
        assert_eq!(find("d.example", 300).unwrap_err(), Refused::Full);
        assert!(Arc::ptr_eq(&b, &find("b.example", 300).unwrap()));
        let key = b.pool_key("192.0.2.1:80".parse().unwrap());
        drop(b);
        forwarding.sweep(Nanos(599 * SECOND));
        assert_eq!(forwarding.count(), 2);
        forwarding.sweep(Nanos(600 * SECOND));
        assert_eq!(forwarding.count(), 0);
        assert!(!forwarding.has(&key));
    }

    #[test]
    fn what_is_not_found_makes_room() {
        let forwarding = forwarding();
        let template = Cluster::named("c");
        let proxy = ForwardProxy::new(&forwarding, &settings(), 0, None);
        let find = |authority: &str| proxy.cluster(&template, authority.as_bytes(), Nanos(0));
        for name in ["a.invalid", "b.invalid", "c.invalid"] {
            let cluster = find(name).unwrap();
            settle(&cluster);
            assert!(addresses(&cluster).is_empty());
        }
        assert_eq!(forwarding.count(), 2);
    }

    #[test]
    fn addresses_that_are_not_permitted_are_none() {
        let forwarding = forwarding();
        let template = Cluster::named("c");
        let found = |settings: &Settings, name: &str| {
            let proxy = ForwardProxy::new(&forwarding, settings, 0, None);
            let cluster = proxy.cluster(&template, name.as_bytes(), Nanos(0)).unwrap();
            settle(&cluster);
            addresses(&cluster)
        };
        assert!(found(&settings(), "local.example").is_empty());
        assert_eq!(found(&settings(), "both.example"), ["192.0.2.2:80"]);
        let trusting = Settings {
            allow_loopback: true,
            ..settings()
        };
        assert_eq!(found(&trusting, "local.example"), ["127.0.0.1:80"]);
        assert_eq!(found(&trusting, "both.example"), ["192.0.2.2:80"]);
    }

    #[test]
    fn a_table_outlives_its_configuration() {
        let forwarding = forwarding();
        let mut template = Cluster::named("c");
        let before = ForwardProxy::new(&forwarding, &settings(), 7, None);
        let one = before.cluster(&template, b"a.example", Nanos(0)).unwrap();
        settle(&one);
        template.max_stream_duration_ms = 5;
        let after = ForwardProxy::new(&forwarding, &settings(), 7, Some(&before));
        let now = after.cluster(&template, b"a.example", Nanos(0)).unwrap();
        assert_eq!(
            (now.transport, now.max_stream_duration_ms),
            (one.transport, 5)
        );
        assert_eq!(addresses(&now), ["192.0.2.1:80"]);
        // Reached in another way, it is another host.
        let other = ForwardProxy::new(&forwarding, &settings(), 8, Some(&after));
        let other = other.cluster(&template, b"a.example", Nanos(0)).unwrap();
        assert_ne!(other.transport, one.transport);
    }
}
