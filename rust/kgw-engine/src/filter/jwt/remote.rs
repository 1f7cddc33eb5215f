//! Keys that a server has: how old they are, and when they are fetched again.
//!
//! Rules:
//! 1. Keys are good for the time of the configuration. Before it is over somebody who uses them has them
//!    fetched again, without waiting.
//! 2. A request that needs keys that are not there, or are too old, waits for one fetch. All that wait,
//!    of every worker, wait for the same one.
//! 3. A fetch that fails leaves the last good keys in use, for at most [`KEPT_MS`] longer; the next one
//!    comes after a pause.
//! 4. A token of a key that is not known has the keys fetched, at most every [`UNKNOWN_KEY_MS`]: issuers
//!    change keys, and anybody can name one.

use std::sync::Arc;

use kgw_jwt::KeySet;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::clock::Nanos;
use crate::config::ir;

/// How much longer keys are used that cannot be fetched again. Milliseconds.
const KEPT_MS: u64 = 3_600_000;

/// How often keys that are not known are asked for at most. Milliseconds.
const UNKNOWN_KEY_MS: u64 = 5_000;

/// How long before keys are too old they are fetched again. Milliseconds. As Envoy.
const AHEAD_MS: u64 = 5_000;

/// Keys of a server, shared by all workers and by snapshots.
#[derive(Debug)]
pub(crate) struct RemoteKeys {
    pub(crate) settings: ir::RemoteKeys,
    state: Mutex<State>,
    /// A fetch is over.
    pub(crate) told: Notify,
}

#[derive(Debug)]
struct State {
    keys: Option<Arc<KeySet>>,
    /// Until when they are good.
    good_until: Nanos,
    /// When they are to be fetched without anybody waiting.
    refresh_at: Nanos,
    /// When they are not used any more.
    gone_at: Nanos,
    /// Before that there is no other fetch, since the last one failed.
    again_at: Nanos,
    /// Before that there is no other fetch for a key that is not known.
    unknown_at: Nanos,
    is_fetching: bool,
    /// A worker fetches them in the background.
    is_tended: bool,
    /// When a request asked for them last, or they were first fetched in the background.
    used_at: Nanos,
}

/// What there is for a request.
#[derive(Debug)]
pub(crate) enum Ready {
    /// Keys; `refresh` says that they are to be fetched again, without waiting.
    Keys { keys: Arc<KeySet>, refresh: bool },
    /// They have to be waited for.
    Wait,
    /// There are none, and the last fetch has just failed.
    Failed,
}

/// A fetch under way. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Fetch {
    pub(crate) keys: Arc<RemoteKeys>,
    is_over: bool,
}

impl RemoteKeys {
    pub(crate) fn new(settings: ir::RemoteKeys) -> Self {
        Self {
            settings,
            state: Mutex::new(State {
                keys: None,
                good_until: Nanos::default(),
                refresh_at: Nanos::default(),
                gone_at: Nanos::default(),
                again_at: Nanos::default(),
                unknown_at: Nanos::default(),
                is_fetching: false,
                is_tended: false,
                used_at: Nanos::default(),
            }),
            told: Notify::new(),
        }
    }

    /// What there is now, for a request that has waited or not.
    pub(crate) fn ready(&self, now: Nanos, has_waited: bool) -> Ready {
        let mut state = self.state.lock();
        state.used_at = now;
        let may_wait = !has_waited && now >= state.again_at;
        match &state.keys {
            Some(keys) if now < state.good_until => Ready::Keys {
                keys: Arc::clone(keys),
                refresh: now >= state.refresh_at && !state.is_fetching && now >= state.again_at,
            },
            _ if may_wait => Ready::Wait,
            Some(keys) if now < state.gone_at => Ready::Keys {
                keys: Arc::clone(keys),
                refresh: false,
            },
            _ => Ready::Failed,
        }
    }

    /// Whether the keys are to be fetched for a token of a key that is not among them.
    pub(crate) fn wants_unknown(&self, now: Nanos) -> bool {
        let state = self.state.lock();
        now >= state.unknown_at && now >= state.again_at
    }

    /// Begins to fetch the keys, unless somebody does.
    pub(crate) fn begin(self: &Arc<Self>) -> Option<Fetch> {
        let mut state = self.state.lock();
        if state.is_fetching {
            return None;
        }
        state.is_fetching = true;
        Some(Fetch {
            keys: Arc::clone(self),
            is_over: false,
        })
    }

    /// Whether the keys are being fetched.
    pub(crate) fn is_fetching(&self) -> bool {
        self.state.lock().is_fetching
    }

    /// Begins to fetch the keys in the background, unless a worker does.
    pub(crate) fn tend(&self, now: Nanos) -> bool {
        let mut state = self.state.lock();
        if !state.is_tended {
            state.used_at = now;
        }
        !std::mem::replace(&mut state.is_tended, true)
    }

    /// Whether somebody has use for the keys: a policy that is gone may have left them. After a while
    /// without requests the next one has them fetched.
    pub(crate) fn is_used(&self, now: Nanos) -> bool {
        now < self.state.lock().used_at.after_ms(KEPT_MS)
    }

    /// Nobody fetches the keys in the background any more.
    pub(crate) fn leave(&self) {
        self.state.lock().is_tended = false;
    }

    /// When the keys are to be fetched next in the background.
    pub(crate) fn due(&self) -> Nanos {
        let state = self.state.lock();
        let wanted = if state.keys.is_some() {
            state.refresh_at
        } else {
            Nanos::default()
        };
        wanted.max(state.again_at)
    }
}

impl Fetch {
    /// There are new keys.
    pub(crate) fn succeeded(mut self, keys: KeySet, now: Nanos) {
        let settings = &self.keys.settings;
        let cache_ms = settings.cache_ms;
        let refresh_ms = if cache_ms > 2 * AHEAD_MS {
            cache_ms - AHEAD_MS
        } else {
            cache_ms - cache_ms / 4
        };
        let mut state = self.keys.state.lock();
        state.keys = Some(Arc::new(keys));
        state.good_until = now.after_ms(cache_ms);
        state.refresh_at = now.after_ms(refresh_ms);
        state.gone_at = now.after_ms(cache_ms.saturating_add(KEPT_MS));
        state.again_at = Nanos::default();
        state.unknown_at = now.after_ms(UNKNOWN_KEY_MS);
        drop(state);
        self.is_over = true;
        self.end();
    }

    /// There are none.
    pub(crate) fn failed(mut self, now: Nanos) {
        let mut state = self.keys.state.lock();
        state.again_at = now.after_ms(self.keys.settings.failed_refetch_ms.max(1));
        state.unknown_at = now.after_ms(UNKNOWN_KEY_MS);
        drop(state);
        self.is_over = true;
        self.end();
    }

    fn end(&self) {
        self.keys.state.lock().is_fetching = false;
        self.keys.told.notify_waiters();
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        if !self.is_over {
            self.end();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote() -> Arc<RemoteKeys> {
        Arc::new(RemoteKeys::new(ir::RemoteKeys {
            cluster: None,
            authority: "issuer".to_owned(),
            path: "/".to_owned(),
            timeout_ms: 5_000,
            cache_ms: 300_000,
            in_background: false,
            failed_refetch_ms: 1_000,
            retries: 0,
            retry_base_ms: 0,
            retry_max_ms: 0,
        }))
    }

    fn keys() -> KeySet {
        KeySet::parse(r#"{"kty":"oct","k":"AAAA"}"#).expect("a key")
    }

    fn at(milliseconds: u64) -> Nanos {
        Nanos::default().after_ms(1_000_000 + milliseconds)
    }

    #[test]
    fn keys_are_waited_for_once_and_fetched_again_before_they_are_too_old() {
        let remote = remote();
        assert!(matches!(remote.ready(at(0), false), Ready::Wait));
        let fetch = remote.begin().expect("the first one");
        assert!(remote.begin().is_none() && remote.is_fetching());
        fetch.succeeded(keys(), at(0));
        assert!(!remote.is_fetching());
        assert!(matches!(
            remote.ready(at(294_999), false),
            Ready::Keys { refresh: false, .. }
        ));
        assert!(matches!(
            remote.ready(at(295_000), false),
            Ready::Keys { refresh: true, .. }
        ));
        let fetch = remote.begin().expect("another one");
        assert!(matches!(
            remote.ready(at(295_000), false),
            Ready::Keys { refresh: false, .. }
        ));
        drop(fetch);
        assert!(matches!(remote.ready(at(300_000), false), Ready::Wait));
        assert_eq!(remote.due(), at(295_000));
    }

    #[test]
    fn the_last_good_keys_are_kept_for_a_while() {
        let remote = remote();
        remote.begin().expect("one").succeeded(keys(), at(0));
        let failed = at(400_000);
        remote.begin().expect("one").failed(failed);
        assert!(matches!(
            remote.ready(failed, false),
            Ready::Keys { refresh: false, .. }
        ));
        assert!(matches!(
            remote.ready(failed.after_ms(1_000), false),
            Ready::Wait
        ));
        let last = at(300_000 + KEPT_MS - 1);
        assert!(matches!(remote.ready(last, true), Ready::Keys { .. }));
        assert!(matches!(
            remote.ready(last.after_ms(1), true),
            Ready::Failed
        ));
    }

    #[test]
    fn a_server_that_is_dead_is_not_asked_by_every_request() {
        let remote = remote();
        remote.begin().expect("one").failed(at(0));
        assert!(matches!(remote.ready(at(999), false), Ready::Failed));
        assert!(matches!(remote.ready(at(1_000), false), Ready::Wait));
        assert!(matches!(remote.ready(at(1_000), true), Ready::Failed));
        assert_eq!(remote.due(), at(1_000));
    }

    #[test]
    fn unknown_keys_are_asked_for_now_and_then() {
        let remote = remote();
        remote.begin().expect("one").succeeded(keys(), at(0));
        assert!(!remote.wants_unknown(at(4_999)));
        assert!(remote.wants_unknown(at(5_000)));
        remote.begin().expect("one").succeeded(keys(), at(5_000));
        assert!(!remote.wants_unknown(at(9_999)));
    }

    #[test]
    fn one_worker_tends_the_keys() {
        let remote = remote();
        assert!(remote.tend(at(0)) && !remote.tend(at(10)));
        assert!(remote.is_used(at(KEPT_MS - 1)) && !remote.is_used(at(KEPT_MS)));
        remote.leave();
        assert!(remote.tend(at(KEPT_MS)) && remote.is_used(at(KEPT_MS)));
    }
}
