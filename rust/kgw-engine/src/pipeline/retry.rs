//! When a request is sent once more, and how long that is waited with.

use kgw_h1::Headers;
use kgw_limit::Slot;

use crate::clock::Nanos;
use crate::config::ir::{self, RetryOn};
use crate::conn::replay::Replay;

/// A route's retries.
#[derive(Debug)]
pub(crate) struct Retry {
    /// How many, beside the first attempt.
    pub(crate) attempts: u32,
    /// The ways of failing; none are the Gateway API's.
    on: Option<Box<[RetryOn]>>,
    codes: Box<[u16]>,
    backoff_ns: u64,
    max_backoff_ns: u64,
    /// Time for one attempt. Milliseconds; 0 is none.
    attempt_timeout_ms: u64,
    max_body_bytes: usize,
}

impl Retry {
    /// Compiles retries, or says what is wrong with them.
    pub(crate) fn compile(retry: &ir::Retry, attempt_timeout_ms: u64) -> Result<Self, String> {
        if let Some(code) = retry.codes.iter().find(|code| !(400..600).contains(*code)) {
            return Err(format!("{code} is not the status of a failure"));
        }
        let nanos = |milliseconds: u64| milliseconds.saturating_mul(1_000_000);
        Ok(Self {
            attempts: retry.attempts,
            on: retry.on.as_deref().map(Box::from),
            codes: retry.codes.clone().into_boxed_slice(),
            backoff_ns: nanos(retry.backoff_ms),
            max_backoff_ns: nanos(retry.max_backoff_ms.max(retry.backoff_ms)),
            attempt_timeout_ms,
            max_body_bytes: retry.max_body_bytes,
        })
    }

    /// Whether such an answer is not passed on while there is a retry left.
    pub(crate) fn covers(&self, status: u16, headers: &Headers) -> bool {
        self.codes.contains(&status) || self.is_on(|on| on.covers(status, headers))
    }

    /// Whether there is another attempt after one that failed in a way. `is_untouched` says that nothing
    /// of the request was sent.
    pub(crate) fn covers_failure(&self, failure: Failure, is_untouched: bool) -> bool {
        self.on.is_none() || self.is_on(|on| on.covers_failure(failure, is_untouched))
    }

    fn is_on(&self, is_one: impl Fn(RetryOn) -> bool) -> bool {
        let on = self.on.as_deref().unwrap_or_default();
        on.iter().copied().any(is_one)
    }

    /// How long the `retry`-th retry is waited with, the first being 1. Nanoseconds.
    ///
    /// Envoy waits for anything from nothing to the base times 2^k - 1. Here it is at least the base, since
    /// the Gateway API promises endpoints that much time, and so that two retries are not over before
    /// whatever made the first attempt fail. The spread starts with a quarter of the base and doubles.
    fn backoff(&self, retry: u32) -> u64 {
        let doubled = 1_u64.checked_shl(retry - 1).unwrap_or(u64::MAX);
        let most = (self.backoff_ns + self.backoff_ns / 4).saturating_mul(doubled);
        fastrand::u64(self.backoff_ns..=most.clamp(self.backoff_ns, self.max_backoff_ns))
    }
}

/// How an attempt failed that got no answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Failure {
    /// There is no connection.
    Connect,
    /// The connection or the stream was lost.
    Reset,
    /// The endpoint says that it did not look at the request.
    Refused,
    /// There was no answer in an attempt's time.
    TimedOut,
}

impl RetryOn {
    fn covers(self, status: u16, headers: &Headers) -> bool {
        let has_code = |code: &[u8]| headers.get(b"grpc-status") == Some(code);
        match self {
            Self::ServerError => (500..600).contains(&status),
            Self::GatewayError => matches!(status, 502..=504),
            Self::Retriable4xx => status == 409,
            Self::EnvoyRatelimited => headers.contains(b"x-envoy-ratelimited"),
            Self::Cancelled => has_code(b"1"),
            Self::DeadlineExceeded => has_code(b"4"),
            Self::ResourceExhausted => has_code(b"8"),
            Self::Internal => has_code(b"13"),
            Self::Unavailable => has_code(b"14"),
            Self::Reset
            | Self::ResetBeforeRequest
            | Self::ConnectFailure
            | Self::RefusedStream
            | Self::RetriableStatusCodes
            | Self::Http3PostConnectFailure => false,
        }
    }

    fn covers_failure(self, failure: Failure, is_untouched: bool) -> bool {
        match self {
            Self::ServerError | Self::GatewayError | Self::Reset => true,
            Self::ResetBeforeRequest => is_untouched,
            Self::ConnectFailure => failure == Failure::Connect,
            Self::RefusedStream => failure == Failure::Refused,
            _ => false,
        }
    }
}

/// How far a request is with its retries.
#[derive(Debug)]
pub(crate) struct Retrying {
    /// Whether it can be sent more than once at all.
    may: bool,
    left: u32,
    made: u32,
    /// When the attempt under way began.
    began: Nanos,
    attempt_timeout_ms: u64,
    /// What the retry under way takes of those that its cluster may have.
    pub(crate) slot: Option<Slot>,
    pub(crate) replay: Replay,
}

impl Retrying {
    /// The state of a request whose first attempt begins. With `may` it can be sent more than once.
    pub(crate) fn new(retry: &Retry, may: bool, now: Nanos) -> Self {
        let mut replay = Replay::new(if may { retry.max_body_bytes } else { 0 });
        if retry.attempts == 0 {
            replay.no_more();
        }
        Self {
            may,
            left: retry.attempts,
            made: 0,
            began: now,
            attempt_timeout_ms: retry.attempt_timeout_ms,
            slot: None,
            replay,
        }
    }

    /// Whether it is for the policy to decide what becomes of a failure.
    pub(crate) fn is_possible(&self) -> bool {
        self.may
    }

    /// Whether there is a retry left.
    pub(crate) fn is_left(&self) -> bool {
        self.left > 0
    }

    /// Retries so far.
    pub(crate) fn made(&self) -> u32 {
        self.made
    }

    /// Takes a retry. Returns how long it is waited with. Nanoseconds.
    pub(crate) fn take(&mut self, retry: &Retry) -> u64 {
        self.left = self.left.saturating_sub(1);
        self.made += 1;
        retry.backoff(self.made)
    }

    /// The next attempt begins.
    pub(crate) fn begin(&mut self, now: Nanos) {
        self.began = now;
        self.replay.begin_again();
        if !self.is_left() {
            self.replay.no_more();
        }
    }

    /// When the time of the attempt under way is over, of a request that has been received at a time: as
    /// the route's, it does not run while the client is sending.
    pub(crate) fn deadline(&self, received_at: Option<Nanos>) -> Nanos {
        received_at.map_or(Nanos::NEVER, |at| {
            at.max(self.began).after_ms(self.attempt_timeout_ms)
        })
    }

    /// The time that an attempt has, of which the route has so much left. Milliseconds; 0 is none.
    pub(crate) fn attempt_ms(&self, left_ms: u64) -> u64 {
        match (self.attempt_timeout_ms, left_ms) {
            (0, other) | (other, 0) => other,
            (attempt, left) => attempt.min(left),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn retry(backoff_ms: u64, max_backoff_ms: u64) -> Retry {
        let ir = ir::Retry {
            attempts: 3,
            on: None,
            codes: vec![500, 503],
            backoff_ms,
            max_backoff_ms,
            max_body_bytes: 10,
        };
        Retry::compile(&ir, 0).unwrap()
    }

    #[test]
    fn waits_grow_from_the_base_to_the_most() {
        let retry = retry(100, 1_000);
        for (number, most) in [
            (1, 125),
            (2, 250),
            (3, 500),
            (4, 1_000),
            (5, 1_000),
            (90, 1_000),
        ] {
            let waits: Vec<_> = (0..1_000).map(|_| retry.backoff(number)).collect();
            assert!(
                waits
                    .iter()
                    .all(|wait| (100 * MS..=most * MS).contains(wait))
            );
            // Requests that failed together do not come back together.
            let spread = waits.iter().max().unwrap() - waits.iter().min().unwrap();
            assert!(spread > (most - 100) * MS / 2, "{number}: {spread}");
        }
    }

    #[test]
    fn two_default_waits_are_never_over_at_once() {
        let retry = retry(25, 250);
        for _ in 0..1_000 {
            assert!(retry.backoff(1) + retry.backoff(2) >= 50 * MS);
        }
    }

    #[test]
    fn a_most_below_the_base_is_the_base() {
        assert_eq!(retry(100, 10).backoff(3), 100 * MS);
        assert_eq!(retry(0, 0).backoff(1), 0);
    }

    #[test]
    fn only_failures_are_retried() {
        let none = Headers::new();
        assert!(retry(1, 1).covers(503, &none));
        assert!(!retry(1, 1).covers(502, &none));
        for code in [200, 399, 600] {
            let ir = ir::Retry {
                attempts: 1,
                on: None,
                codes: vec![code],
                backoff_ms: 1,
                max_backoff_ms: 1,
                max_body_bytes: 1,
            };
            assert!(Retry::compile(&ir, 0).is_err());
        }
    }

    #[test]
    fn the_last_attempt_lets_go_what_it_was_sent() {
        let room = std::sync::Arc::new(crate::room::Room::new(100));
        let retry = retry(0, 0);
        let mut retrying = Retrying::new(&retry, true, Nanos(0));
        retrying.replay.keep(b"abc", &room);
        for left in [2, 1, 0] {
            retrying.take(&retry);
            retrying.begin(Nanos(0));
            retrying.replay.advance(3);
            assert_eq!(room.used() > 0, left > 0, "{left}");
            assert_eq!(retrying.replay.is_whole(), left > 0, "{left}");
        }
    }

    #[test]
    fn without_any_retry_nothing_is_kept() {
        let room = std::sync::Arc::new(crate::room::Room::new(100));
        let mut retry = retry(0, 0);
        retry.attempts = 0;
        let mut retrying = Retrying::new(&retry, true, Nanos(0));
        retrying.replay.keep(b"abc", &room);
        assert_eq!(room.used(), 0);
    }

    #[test]
    fn the_time_of_an_attempt_runs_from_its_beginning_or_the_end_of_the_request() {
        let ir = ir::Retry {
            attempts: 1,
            on: None,
            codes: vec![],
            backoff_ms: 1,
            max_backoff_ms: 1,
            max_body_bytes: 1,
        };
        let retry = Retry::compile(&ir, 200).unwrap();
        let mut retrying = Retrying::new(&retry, true, Nanos(10));
        assert_eq!(retrying.deadline(None), Nanos::NEVER);
        assert_eq!(retrying.deadline(Some(Nanos(7))), Nanos(10).after_ms(200));
        assert_eq!(retrying.deadline(Some(Nanos(15))), Nanos(15).after_ms(200));
        retrying.begin(Nanos(20));
        assert_eq!(retrying.deadline(Some(Nanos(15))), Nanos(20).after_ms(200));
        assert_eq!(retrying.attempt_ms(0), 200);
        assert_eq!(retrying.attempt_ms(150), 150);
        assert_eq!(retrying.attempt_ms(400), 200);
    }
    #[test]
    fn the_ways_of_failing_are_envoys() {
        let on = |on: RetryOn, failure, is_untouched| on.covers_failure(failure, is_untouched);
        for (condition, expected) in [
            (RetryOn::ServerError, [true, true, true, true]),
            (RetryOn::GatewayError, [true, true, true, true]),
            (RetryOn::Reset, [true, true, true, true]),
            (RetryOn::ConnectFailure, [true, false, false, false]),
            (RetryOn::RefusedStream, [false, false, true, false]),
            (RetryOn::RetriableStatusCodes, [false; 4]),
        ] {
            let kinds = [
                Failure::Connect,
                Failure::Reset,
                Failure::Refused,
                Failure::TimedOut,
            ];
            let got = kinds.map(|failure| on(condition, failure, false));
            assert_eq!(got, expected, "{condition:?}");
        }
        assert!(on(RetryOn::ResetBeforeRequest, Failure::Reset, true));
        assert!(!on(RetryOn::ResetBeforeRequest, Failure::Reset, false));
    }

    #[test]
    fn answers_are_retried_by_status_or_field() {
        let mut headers = Headers::new();
        headers.append(b"grpc-status", b"14");
        headers.append(b"x-envoy-ratelimited", b"true");
        for (condition, status, expected) in [
            (RetryOn::ServerError, 500, true),
            (RetryOn::ServerError, 499, false),
            (RetryOn::GatewayError, 500, false),
            (RetryOn::GatewayError, 504, true),
            (RetryOn::Retriable4xx, 409, true),
            (RetryOn::Retriable4xx, 429, false),
            (RetryOn::EnvoyRatelimited, 429, true),
            (RetryOn::Unavailable, 200, true),
            (RetryOn::Cancelled, 200, false),
        ] {
            assert_eq!(
                condition.covers(status, &headers),
                expected,
                "{condition:?}"
            );
        }
    }
}
