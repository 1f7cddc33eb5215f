//! Limits as buckets of a Redis server.
//!
//! A descriptor has the limit that it says, or the first of the server's that fits it; one that has none is
//! not counted. Its bucket has a name of the domain, the limit and the descriptor, so proxies that are
//! configured alike share it, and a limit that changes begins anew. All names of a domain have the same hash
//! tag (`{domain}`).
//!
//! A request that is over one limit takes nothing from any.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use kgw_limit::{KeyedBuckets, Limit, Tick};

use super::descriptor::{Descriptor, check_limit};
use super::{Decision, Question, Status};
use crate::config::ir::{RateLimit, RateLimitUnit, RedisLimit, RedisRateLimit};
use crate::config::snapshot::Cluster;
use crate::upstream::redis::script::{Taken, Wanted};
use crate::upstream::redis::{Login, Server};

/// Longest name of a bucket that is told as it is. Bytes; of a longer one there is a digest.
const MAX_KEY: usize = 256;

/// Most limits of a server.
const MAX_LIMITS: usize = 1024;

/// Buckets of the proxy's own, by the names of those that they stand for. They count while the server is
/// away.
pub(crate) type LocalBuckets = Arc<KeyedBuckets<String>>;

/// A server, and its limits.
#[derive(Debug)]
pub(crate) struct Redis {
    pub(crate) server: Server,
    prefix: Box<str>,
    limits: Box<[RedisLimit]>,
    /// In percent, the share that the proxy gives itself of each limit while the server is away.
    local: Option<Local>,
}

/// What counts while the server is away. Buckets of one limit are one set, so there are as many sets as
/// limits.
#[derive(Debug)]
struct Local {
    of: Box<[(RateLimit, LocalBuckets)]>,
}

/// What is asked of the server.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) wanted: Vec<Wanted>,
    /// The limits of what is wanted, in the same order.
    limits: Vec<&'a RateLimit>,
}

impl Redis {
    /// Compiles a server. `of_descriptors` are the limits that descriptors have of their own; `buckets` has
    /// the proxy's own of an identity and a limit.
    pub(crate) fn compile<'a>(
        server: &'a RedisRateLimit,
        cluster: Arc<Cluster>,
        domain: &str,
        of_descriptors: impl Iterator<Item = &'a RateLimit>,
        mut buckets: impl FnMut(String, Limit) -> Result<LocalBuckets, String>,
    ) -> Result<Self, String> {
        if server.limits.len() > MAX_LIMITS {
            return Err(format!("a Redis server has more than {MAX_LIMITS} limits"));
        }
        for RedisLimit { entries, limit } in &server.limits {
            if entries.is_empty() {
                return Err("a limit of a Redis server is for no descriptor".to_owned());
            }
            check_limit(limit)?;
        }
        let mut local = None;
        if let Some(fallback) = &server.local_fallback {
            if !(1..=100).contains(&fallback.percent) {
                return Err(format!(
                    "{} is not the percentage of a limit",
                    fallback.percent
                ));
            }
            let mut of: Vec<(RateLimit, LocalBuckets)> = Vec::new();
            let all = server.limits.iter().map(|limit| &limit.limit);
            for limit in all.chain(of_descriptors) {
                if !of.iter().any(|(known, _)| known == limit) {
                    let share = share(limit, fallback.percent)?;
                    let text = text(limit);
                    let id = format!("{}|{text}|{}", fallback.bucket, fallback.percent);
                    of.push((limit.clone(), buckets(id, share)?));
                }
            }
            local = Some(Local { of: of.into() });
        }
        let mut prefix = server.key_prefix.clone();
        // A brace of the domain would end the tag.
        let _ = write!(prefix, "{{{}}}", domain.replace(['{', '}'], "_"));
        Ok(Self {
            server: Server {
                cluster,
                login: Arc::new(Login {
                    username: server.username.clone(),
                    password: server.password.clone(),
                    database: server.database,
                }),
            },
            prefix: prefix.into(),
            limits: server.limits.clone().into_boxed_slice(),
            local,
        })
    }

    /// What is asked of the server: nothing of descriptors that have no limit, and of each bucket once.
    pub(crate) fn asked<'a>(&'a self, question: &'a Question<'_>) -> Asked<'a> {
        let mut asked = Asked {
            wanted: Vec::new(),
            limits: Vec::new(),
        };
        let mut known = HashSet::new();
        for descriptor in &question.descriptors {
            let Some(limit) = self.limit(descriptor) else {
                continue;
            };
            let key = self.key(limit, descriptor);
            if !known.insert(key.clone()) {
                continue;
            }
            asked.wanted.push(Wanted {
                key,
                refill: limit.requests.into(),
                unit: unit(limit.unit),
                most: burst(limit).into(),
                hits: descriptor.hits.or(question.hits).unwrap_or(1).into(),
            });
            asked.limits.push(limit);
        }
        asked
    }

    fn limit<'a>(&'a self, descriptor: &'a Descriptor<'_>) -> Option<&'a RateLimit> {
        let fits = |limit: &&RedisLimit| {
            limit.entries.len() == descriptor.entries.len()
                && limit
                    .entries
                    .iter()
                    .zip(&descriptor.entries)
                    .all(|(of, (key, value))| {
                        of.key == *key && of.value.as_ref().is_none_or(|wanted| wanted == value)
                    })
        };
        let of_server = || self.limits.iter().find(fits).map(|limit| &limit.limit);
        descriptor.limit.or_else(of_server)
    }

    /// The name of a bucket.
    fn key(&self, limit: &RateLimit, descriptor: &Descriptor<'_>) -> String {
        let mut key = format!("{}{}", self.prefix, text(limit));
        for (name, value) in &descriptor.entries {
            key.push(':');
            escape(&mut key, name);
            key.push('=');
            escape(&mut key, value);
        }
        if key.len() > self.prefix.len() + MAX_KEY {
            let digest = ring::digest::digest(&ring::digest::SHA256, key.as_bytes());
            key.truncate(self.prefix.len());
            key.push('#');
            for byte in digest.as_ref() {
                let _ = write!(key, "{byte:02x}");
            }
        }
        key
    }

    /// Decides without the server, if the proxy does.
    pub(crate) fn locally(&self, asked: &Asked<'_>, now: Tick) -> Option<Decision> {
        let local = self.local.as_ref()?;
        let buckets: Vec<&LocalBuckets> = asked
            .limits
            .iter()
            .map(|limit| local.of.iter().find(|(known, _)| known == *limit))
            .map(|found| found.map(|(_, buckets)| buckets))
            .collect::<Option<_>>()?;
        let mut decision = Decision::default();
        for (at, (wanted, own)) in asked.wanted.iter().zip(&buckets).enumerate() {
            if let Err(denied) = own.take(&*wanted.key, now, wanted.hits) {
                for (wanted, buckets) in asked.wanted.iter().zip(&buckets).take(at) {
                    buckets.refund(&*wanted.key, wanted.hits);
                }
                decision.is_over_limit = true;
                decision.retry_after = denied.retry_after.map(|wait| whole_seconds(wait).max(1));
                break;
            }
        }
        let each = asked.wanted.iter().zip(&buckets).zip(&asked.limits);
        decision.statuses = each
            .map(|((wanted, buckets), limit)| {
                let full = buckets.retry_after(&*wanted.key, now, buckets.limit().max_tokens());
                Status {
                    remaining: buckets.remaining(&*wanted.key, now),
                    reset: full.map_or(0, whole_seconds),
                    ..status(limit)
                }
            })
            .collect();
        Some(decision)
    }
}

impl Asked<'_> {
    /// What the server decided.
    pub(crate) fn decision(&self, taken: &Taken) -> Decision {
        let each = taken.buckets.iter().zip(&self.limits);
        Decision {
            is_over_limit: !taken.is_taken,
            retry_after: taken.retry_after().map(|wait| whole_seconds(wait).max(1)),
            statuses: each
                .map(|(bucket, limit)| Status {
                    remaining: bucket.remaining,
                    reset: whole_seconds(bucket.reset),
                    ..status(limit)
                })
                .collect(),
            ..Decision::default()
        }
    }
}

/// What is said of a limit itself.
fn status(limit: &RateLimit) -> Status {
    Status {
        requests: limit.requests.into(),
        window: unit(limit.unit).as_secs(),
        name: limit.name.clone().unwrap_or_default(),
        ..Status::default()
    }
}

/// What tells a limit from others.
fn text(limit: &RateLimit) -> String {
    let unit = letter(limit.unit);
    format!("{}/{unit}/{}", limit.requests, burst(limit))
}

fn burst(limit: &RateLimit) -> u32 {
    limit.burst.unwrap_or(limit.requests)
}

fn unit(unit: RateLimitUnit) -> Duration {
    Duration::from_secs(match unit {
        RateLimitUnit::Second => 1,
        RateLimitUnit::Minute => 60,
        RateLimitUnit::Hour => 60 * 60,
        RateLimitUnit::Day => 24 * 60 * 60,
    })
}

fn letter(unit: RateLimitUnit) -> char {
    match unit {
        RateLimitUnit::Second => 's',
        RateLimitUnit::Minute => 'm',
        RateLimitUnit::Hour => 'h',
        RateLimitUnit::Day => 'd',
    }
}

/// A share of a limit: at least one request at once.
fn share(limit: &RateLimit, percent: u32) -> Result<Limit, String> {
    let most = (u64::from(burst(limit)) * u64::from(percent) / 100).max(1);
    let refill = u64::from(limit.requests) * u64::from(percent);
    let limit = Limit::with_rate(most, refill, unit(limit.unit) * 100);
    limit.map_err(|error| error.to_string())
}

fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

/// Adds text so that what separates texts is not in it.
fn escape(key: &mut String, text: &str) {
    for letter in text.chars() {
        match letter {
            '%' | ':' | '=' | '{' | '}' | '\0'..=' ' => {
                let _ = write!(key, "%{:02X}", u32::from(letter));
            }
            letter => key.push(letter),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn redis(server: Value) -> Redis {
        let server: RedisRateLimit = serde_json::from_value(server).unwrap();
        let cluster = Arc::new(Cluster::named("c"));
        let buckets = |_: String, limit| {
            KeyedBuckets::new(limit, 100)
                .map(Arc::new)
                .map_err(|error| error.to_string())
        };
        Redis::compile(&server, cluster, "shop", std::iter::empty(), buckets).unwrap()
    }

    fn question<'a>(descriptors: &[&[(&'a str, &str)]], hits: Option<u32>) -> Question<'a> {
        let entries = |entries: &&[(&'a str, &str)]| {
            let entries = entries.iter();
            entries
                .map(|(key, value)| (*key, (*value).to_owned()))
                .collect()
        };
        let descriptors = descriptors.iter().map(|one| Descriptor {
            entries: entries(one),
            limit: None,
            hits: None,
        });
        Question {
            descriptors: descriptors.collect(),
            hits,
        }
    }

    fn server() -> Value {
        json!({
            "cluster": "c",
            "key_prefix": "kgw:",
            "limits": [
                {"entries": [{"key": "user", "value": "root"}],
                 "limit": {"requests": 100, "unit": "second"}},
                {"entries": [{"key": "user"}],
                 "limit": {"requests": 10, "unit": "minute", "burst": 2, "name": "per-user"}},
                {"entries": [{"key": "path"}, {"key": "user"}],
                 "limit": {"requests": 1, "unit": "day"}},
            ],
        })
    }

    #[test]
    fn the_first_limit_that_fits_counts() {
        let redis = redis(server());
        let question = question(
            &[
                &[("user", "root")],
                &[("user", "ann")],
                &[("user", "ann"), ("path", "/")],
                &[("path", "/"), ("user", "ann")],
                &[("host", "a")],
                &[("user", "ann")],
            ],
            Some(3),
        );
        let asked = redis.asked(&question);
        let keys: Vec<_> = asked.wanted.iter().map(|wanted| &*wanted.key).collect();
        assert_eq!(
            keys,
            [
                "kgw:{shop}100/s/100:user=root",
                "kgw:{shop}10/m/2:user=ann",
                "kgw:{shop}1/d/1:path=/:user=ann",
            ]
        );
        let ann = &asked.wanted[1];
        assert_eq!(
            (ann.refill, ann.unit.as_secs(), ann.most, ann.hits),
            (10, 60, 2, 3)
        );
    }

    #[test]
    fn names_of_buckets_are_unambiguous_and_short() {
        let redis = redis(server());
        let key = |value: &str| {
            let question = question(&[&[("user", value)]], None);
            redis.asked(&question).wanted[0].key.clone()
        };
        assert_eq!(
            key("a:b=c d}%"),
            "kgw:{shop}10/m/2:user=a%3Ab%3Dc%20d%7D%25"
        );
        let (long, longer) = (key(&"a".repeat(1000)), key(&"a".repeat(1001)));
        assert!(
            long.starts_with("kgw:{shop}#") && long.len() < MAX_KEY,
            "{long}"
        );
        assert_ne!(long, longer);
    }

    #[test]
    fn a_decision_says_how_far_each_limit_is_used() {
        use crate::upstream::redis::script::Bucket;
        let redis = redis(server());
        let question = question(&[&[("user", "ann")]], None);
        let taken = Taken {
            is_taken: false,
            buckets: vec![Bucket {
                remaining: 0,
                retry_after: Some(Duration::from_millis(1)),
                reset: Duration::from_millis(11_001),
            }],
        };
        let decision = redis.asked(&question).decision(&taken);
        let expected = Status {
            requests: 10,
            window: 60,
            name: "per-user".to_owned(),
            remaining: 0,
            reset: 12,
        };
        assert!(decision.is_over_limit);
        assert_eq!(decision.retry_after, Some(1));
        assert_eq!(decision.statuses, [expected]);
    }

    #[test]
    fn without_its_server_the_proxy_counts_if_it_is_to() {
        let mut with = server();
        with["local_fallback"] = json!({"bucket": "b", "percent": 50});
        let redis = redis(with);
        let at = |seconds: u64| Tick::from_nanos(seconds * 1_000_000_000);
        let decided = |users: &[&str], now| {
            let descriptors: Vec<_> = users.iter().map(|user| [("user", *user)]).collect();
            let descriptors: Vec<&[_]> = descriptors.iter().map(|one| &one[..]).collect();
            let question = question(&descriptors, None);
            let asked = redis.asked(&question);
            let decision = redis.locally(&asked, now).unwrap();
            (!decision.is_over_limit, decision.statuses)
        };
        // Half of a burst of 2, of which 5 come back each minute.
        let (passed, statuses) = decided(&["ann"], at(0));
        assert!(passed);
        assert_eq!((statuses[0].remaining, statuses[0].reset), (0, 12));
        assert!(!decided(&["ann"], at(0)).0);
        // Who is over one limit takes nothing from the others.
        assert!(!decided(&["bob", "ann"], at(0)).0);
        assert!(decided(&["bob"], at(0)).0);
        assert!(!decided(&["ann"], at(11)).0);
        assert!(decided(&["ann"], at(13)).0);
    }

    #[test]
    fn otherwise_it_does_not() {
        let redis = redis(server());
        let question = question(&[&[("user", "ann")]], None);
        let decision = redis.locally(&redis.asked(&question), Tick::ZERO);
        assert!(decision.is_none());
    }
}
