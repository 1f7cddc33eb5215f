//! Tokens that were verified: a signature is checked once, and its token remembered until it expires.

use std::sync::Arc;

use hashbrown::HashMap;
use kgw_jwt::{Claims, KeySet};
use parking_lot::Mutex;
use ring::digest::{SHA256, digest};

/// The most tokens that a shard remembers.
const MOST: usize = 512;

/// How many shards there are; a worker has one of its own as long as there are no more of them.
const SHARDS: usize = 16;

/// What a token is known by.
type Digest = [u8; 32];

/// Tokens by their digests: no token is kept itself.
pub(super) struct Verified {
    shards: Box<[Mutex<HashMap<Digest, Known>>]>,
}

/// A token that a set of keys has verified.
struct Known {
    claims: Arc<Claims>,
    /// Of other keys nothing is known: those that were withdrawn verify no more.
    keys: Arc<KeySet>,
}

/// Says nothing of what is in it.
impl std::fmt::Debug for Verified {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Verified")
    }
}

impl Verified {
    pub(super) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }

    pub(super) fn digest(token: &str) -> Digest {
        let found = digest(&SHA256, token.as_bytes());
        found.as_ref().try_into().unwrap_or_default()
    }

    /// The claims of a token that these keys have verified.
    pub(super) fn find(
        &self,
        worker: usize,
        token: &Digest,
        keys: &Arc<KeySet>,
    ) -> Option<Arc<Claims>> {
        let shard = self.shards[worker % SHARDS].lock();
        let known = shard.get(token)?;
        Arc::ptr_eq(&known.keys, keys).then(|| Arc::clone(&known.claims))
    }

    /// Remembers a token. Where there is no room, those go that have expired (seconds since 1970 UTC),
    /// and else any one.
    pub(super) fn add(
        &self,
        worker: usize,
        token: Digest,
        claims: &Arc<Claims>,
        keys: &Arc<KeySet>,
        now: u64,
    ) {
        let mut shard = self.shards[worker % SHARDS].lock();
        if shard.len() >= MOST {
            shard.retain(|_, known| {
                let is_over = known.claims.expires().is_some_and(|expires| expires < now);
                !is_over && Arc::ptr_eq(&known.keys, keys)
            });
        }
        if shard.len() >= MOST
            && let Some(any) = shard.keys().next().copied()
        {
            shard.remove(&any);
        }
        let known = Known {
            claims: Arc::clone(claims),
            keys: Arc::clone(keys),
        };
        shard.insert(token, known);
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    fn keys() -> Arc<KeySet> {
        Arc::new(KeySet::parse(r#"{"kty":"oct","k":"AAAA"}"#).expect("a key"))
    }

    fn claims(payload: &str) -> Arc<Claims> {
        let (header, payload) = (r#"{"alg":"HS256"}"#, payload);
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let text = format!("{}.{}.AA", encode(header), encode(payload));
        Arc::new(kgw_jwt::Token::parse(&text).expect("a token").into_claims())
    }

    #[test]
    fn a_token_is_known_to_the_keys_that_verified_it() {
        let verified = Verified::new();
        let (one, two) = (keys(), keys());
        let token = Verified::digest("a.b.c");
        assert!(verified.find(3, &token, &one).is_none());
        verified.add(3, token, &claims("{}"), &one, 0);
        assert!(verified.find(3, &token, &one).is_some());
        assert!(verified.find(3 + SHARDS, &token, &one).is_some());
        assert!(verified.find(3, &token, &two).is_none());
        assert!(verified.find(3, &Verified::digest("a.b.d"), &one).is_none());
    }

    #[test]
    fn what_is_remembered_is_bounded_and_what_has_expired_goes_first() {
        let verified = Verified::new();
        let keys = keys();
        let lasting = claims(r#"{"exp":1000}"#);
        verified.add(0, Verified::digest("lasting"), &lasting, &keys, 0);
        let short = claims(r#"{"exp":10}"#);
        for number in 1..MOST {
            let token = Verified::digest(&number.to_string());
            verified.add(0, token, &short, &keys, 0);
        }
        assert_eq!(verified.shards[0].lock().len(), MOST);
        verified.add(0, Verified::digest("new"), &lasting, &keys, 11);
        assert_eq!(verified.shards[0].lock().len(), 2);
        for number in 0..2 * MOST {
            let token = Verified::digest(&number.to_string());
            verified.add(0, token, &lasting, &keys, 11);
            assert!(verified.find(0, &token, &keys).is_some());
        }
        assert_eq!(verified.shards[0].lock().len(), MOST);
    }
}
