//! Decisions that are remembered for a while.
//!
//! What a decision is for is known by a digest of the parts of the request that were configured: nothing
//! of a request, such as its token, is kept. Of requests whose digest is the same the service sees the
//! first one only, until its decision is too old.

use std::collections::VecDeque;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashMap;
use kgw_h1::Request;
use parking_lot::Mutex;
use ring::digest::{Context, SHA256};

use super::Decision;
use crate::clock::Nanos;
use crate::config::ir::{AuthorizationCache, AuthorizationCacheKey as Key};
use crate::config::snapshot::FastMap;

/// Of a power of two: workers seldom wait for one another.
const SHARDS: usize = 16;

/// What a decision is for.
pub(crate) type Digest = [u8; 32];

/// Decisions by what they are for. Workers share them.
pub(crate) struct DecisionCache {
    keys: Box<[Key]>,
    ttl_ms: u64,
    denied_ttl_ms: u64,
    shards: [Mutex<Shard>; SHARDS],
    /// Decisions in a shard, at most.
    most: usize,
}

#[derive(Default)]
struct Shard {
    known: FastMap<Digest, Entry>,
    /// In the order in which they came, with those that have been replaced since.
    order: VecDeque<(Digest, u64)>,
    /// The number of the next one.
    next: u64,
}

struct Entry {
    decision: Arc<Decision>,
    until: Nanos,
    number: u64,
}

impl DecisionCache {
    pub(crate) fn new(cache: &AuthorizationCache) -> Result<Self, String> {
        if cache.keys.is_empty() {
            return Err("remembered decisions have nothing that they are for".to_owned());
        }
        if cache.ttl_ms == 0 || cache.max_entries == 0 {
            return Err("decisions are remembered for no time, or none is".to_owned());
        }
        let name = cache.keys.iter().find_map(|key| match key {
            Key::Header(name) if !kgw_h1::is_valid_name(name.as_bytes()) => Some(name),
            _ => None,
        });
        if let Some(name) = name {
            return Err(format!("{name:?} is not a header field name"));
        }
        Ok(Self {
            keys: cache.keys.clone().into(),
            ttl_ms: cache.ttl_ms,
            denied_ttl_ms: cache.denied_ttl_ms,
            shards: std::array::from_fn(|_| Mutex::default()),
            most: cache.max_entries.div_ceil(SHARDS),
        })
    }

    /// What a decision about a request is for.
    pub(crate) fn digest(
        &self,
        request: &Request,
        client: IpAddr,
        identity: Option<&str>,
    ) -> Digest {
        let mut context = Context::new(&SHA256);
        // Each part has its length in front, so that none runs into the next one.
        let mut add = |part: &[u8]| {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        };
        for key in &self.keys {
            match key {
                Key::Method => add(request.method()),
                Key::Host => add(&request.authority().to_ascii_lowercase()),
                Key::Path => add(request.path_only()),
                Key::Query => add(request.query().unwrap_or_default()),
                Key::Client => add(client.to_canonical().to_string().as_bytes()),
                Key::Identity => add(identity.unwrap_or_default().as_bytes()),
                Key::Header(name) => {
                    let values = request.headers().get_all(name.as_bytes());
                    add(&(values.count() as u64).to_be_bytes());
                    request
                        .headers()
                        .get_all(name.as_bytes())
                        .for_each(&mut add);
                }
            }
        }
        context.finish().as_ref().try_into().unwrap_or_default()
    }

    /// The decision that holds, if one is known.
    pub(crate) fn get(&self, digest: &Digest, now: Nanos) -> Option<Arc<Decision>> {
        let shard = self.shard(digest).lock();
        let entry = shard.known.get(digest)?;
        (now < entry.until).then(|| Arc::clone(&entry.decision))
    }

    /// Remembers a decision.
    pub(crate) fn put(&self, digest: Digest, decision: &Arc<Decision>, now: Nanos) {
        let ttl_ms = match **decision {
            Decision::Allowed(_) => self.ttl_ms,
            Decision::Denied { .. } => self.denied_ttl_ms,
        };
        if ttl_ms == 0 {
            return;
        }
        let mut shard = self.shard(&digest).lock();
        let number = shard.next;
        shard.next += 1;
        let entry = Entry {
            decision: Arc::clone(decision),
            until: now.after_ms(ttl_ms),
            number,
        };
        shard.known.insert(digest, entry);
        shard.order.push_back((digest, number));
        shard.shrink(self.most, now);
    }

    fn shard(&self, digest: &Digest) -> &Mutex<Shard> {
        &self.shards[usize::from(digest[31]) % SHARDS]
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        let shards = self.shards.iter();
        shards.map(|shard| shard.lock().order.len()).sum()
    }
}

impl Shard {
    /// Forgets the oldest decisions: those that hold no longer, and those that are too many.
    fn shrink(&mut self, most: usize, now: Nanos) {
        while let Some((digest, number)) = self.order.front() {
            let entry = self.known.get(digest).filter(|one| one.number == *number);
            let may_stay = entry.is_some_and(|entry| now < entry.until);
            if may_stay && self.order.len() <= most {
                return;
            }
            if entry.is_some() {
                self.known.remove(digest);
            }
            self.order.pop_front();
        }
    }
}

impl fmt::Debug for DecisionCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DecisionCache")
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}

/// The caches that are in use, by what the filters that share them are compiled from: a reload does not
/// forget decisions of a service about which nothing changed.
#[derive(Debug, Default)]
pub(crate) struct DecisionCaches {
    known: HashMap<String, std::sync::Weak<DecisionCache>>,
    /// How many were left when unused ones were looked for last.
    kept: usize,
}

impl DecisionCaches {
    /// The cache of the filters that are compiled from `origin`.
    pub(crate) fn cache(
        &mut self,
        origin: String,
        cache: &AuthorizationCache,
    ) -> Result<Arc<DecisionCache>, String> {
        if let Some(known) = self.known.get(&origin).and_then(std::sync::Weak::upgrade) {
            return Ok(known);
        }
        if self.known.len() > 2 * self.kept + 64 {
            self.known.retain(|_, one| one.strong_count() > 0);
            self.kept = self.known.len();
        }
        let new = Arc::new(DecisionCache::new(cache)?);
        self.known.insert(origin, Arc::downgrade(&new));
        Ok(new)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::request;
    use super::super::{Changes, Decision};
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn cache(members: &str) -> DecisionCache {
        let json = format!(r#"{{"ttl_ms": 1000, "max_entries": 32, {members}}}"#);
        DecisionCache::new(&serde_json::from_str(&json).unwrap()).unwrap()
    }

    fn allowed() -> Arc<Decision> {
        Arc::new(Decision::Allowed(Box::<Changes>::default()))
    }

    #[test]
    fn requests_are_the_same_if_the_parts_are() {
        let client = "10.0.0.1".parse().unwrap();
        let keys = r#""keys": ["method", "host", "path", "query", "client", "identity",
            {"header": "Authorization"}]"#;
        let cache = cache(keys);
        let digest = |line: &str, fields: &str| cache.digest(&request(line, fields), client, None);
        let one = digest("GET /a?b=c", "authorization: x\r\n");
        assert_eq!(one, digest("GET /a?b=c", "x-a: 1\r\nauthorization: x\r\n"));
        for (line, fields) in [
            ("POST /a?b=c", "authorization: x\r\n"),
            ("GET /ab=c", "authorization: x\r\n"),
            ("GET /a?b=d", "authorization: x\r\n"),
            ("GET /a?b=c", "authorization: y\r\n"),
            ("GET /a?b=c", "authorization: x\r\nauthorization: x\r\n"),
            ("GET /a?b=c", ""),
        ] {
            assert_ne!(one, digest(line, fields), "{line} {fields}");
        }
        let request = request("GET /a?b=c", "authorization: x\r\n");
        assert_ne!(
            one,
            cache.digest(&request, "10.0.0.2".parse().unwrap(), None)
        );
        assert_ne!(one, cache.digest(&request, client, Some("spiffe://a")));
    }

    #[test]
    fn decisions_hold_for_their_time() {
        let cache = cache(r#""keys": ["path"], "denied_ttl_ms": 500"#);
        let denied = Arc::new(super::super::tests::denial());
        cache.put([1; 32], &allowed(), Nanos(0));
        cache.put([2; 32], &denied, Nanos(0));
        for (digest, milliseconds, holds) in [
            ([1; 32], 999, true),
            ([1; 32], 1000, false),
            ([2; 32], 499, true),
            ([2; 32], 500, false),
            ([3; 32], 0, false),
        ] {
            let now = Nanos(milliseconds * SECOND / 1000);
            assert_eq!(cache.get(&digest, now).is_some(), holds, "{milliseconds}");
        }
    }

    #[test]
    fn denials_are_not_remembered_unless_that_is_wanted() {
        let cache = cache(r#""keys": ["path"]"#);
        cache.put([2; 32], &Arc::new(super::super::tests::denial()), Nanos(0));
        assert!(cache.get(&[2; 32], Nanos(0)).is_none());
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_go_first() {
        let cache = cache(r#""keys": ["path"]"#);
        // All of one shard, which holds two.
        let digest = |number: u8| {
            let mut digest = [0; 32];
            digest[0] = number;
            digest
        };
        for number in 0..100 {
            cache.put(digest(number), &allowed(), Nanos(0));
        }
        assert_eq!(cache.len(), 2);
        assert!(cache.get(&digest(97), Nanos(0)).is_none());
        assert!(cache.get(&digest(98), Nanos(0)).is_some());
        // The same again and again is not many.
        for _ in 0..100 {
            cache.put(digest(99), &allowed(), Nanos(0));
        }
        assert!(cache.len() <= 2);
        assert!(cache.get(&digest(99), Nanos(0)).is_some());
        // What holds no longer goes when something new comes.
        cache.put(digest(1), &allowed(), Nanos(2 * SECOND));
        assert_eq!(cache.len(), 1);
    }

    #[test]
    fn filters_of_one_origin_share_a_cache() {
        let mut caches = DecisionCaches::default();
        let ir = serde_json::from_str(r#"{"keys": ["path"], "ttl_ms": 1, "max_entries": 1}"#);
        let ir: AuthorizationCache = ir.unwrap();
        let a = caches.cache("a".to_owned(), &ir).unwrap();
        assert!(Arc::ptr_eq(&a, &caches.cache("a".to_owned(), &ir).unwrap()));
        assert!(!Arc::ptr_eq(
            &a,
            &caches.cache("b".to_owned(), &ir).unwrap()
        ));
        for members in [r#""keys": []"#, r#""keys": [{"header": "a b"}]"#] {
            let json = format!(r#"{{"ttl_ms": 1, "max_entries": 1, {members}}}"#);
            let ir = serde_json::from_str(&json).unwrap();
            assert!(DecisionCache::new(&ir).is_err(), "{members}");
        }
    }
}
