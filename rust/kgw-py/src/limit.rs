//! `kgw._native.limit`: token buckets. The reference is `python/kgw/_native/limit.pyi`.
//!
//! What has a Python name is documented for Python, in its notation and as in the stub.

#![allow(clippy::doc_markdown)] // the docs are in Python notation, as said above

use std::time::Duration;

use kgw_limit::{
    Clock as _, DEFAULT_MAX_KEYS, Error, KeyedBuckets, Limit, MonotonicClock, Tick, Unreserved,
};
use pyo3::PyTraverseError;
use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

use crate::error::rate_limited;

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<TokenBucket>()?;
    module.add_class::<KeyedTokenBucket>()
}

/// A token bucket that threads share without a lock.
///
/// Starts full with ``max_tokens`` and refills *continuously*: 3 tokens per 60 seconds is one
/// token every 20 seconds. Never holds more than ``max_tokens``.
///
/// Args:
///     max_tokens: the most tokens the bucket holds; 0 refuses every take.
///     tokens_per_fill: how many tokens come back in each ``fill_interval``; at least 1.
///     fill_interval: seconds, or a ``timedelta``; more than 0.
///     clock: returns monotonic seconds, 0 or more; by default the operating system's monotonic
///         clock. What it raises, every method that needs the time raises.
///     max_waiters: how many callers ``acquire`` lets wait at a time; ``None`` for any number.
///
/// Raises:
///     ValueError: a number is out of range (also: more than 16 tokens per nanosecond).
#[pyclass(frozen, subclass, module = "kgw._native.limit")]
#[derive(Debug)]
pub(crate) struct TokenBucket {
    /// Boxed for its alignment: Python allocates objects at multiples of 16 bytes only.
    bucket: Box<kgw_limit::TokenBucket>,
    settings: Settings,
}

/// A token bucket for each key (client address, user, path), for at most ``max_keys`` keys.
///
/// A key that was not seen has a full bucket, and a bucket that is full again is forgotten, which
/// nobody can notice. When more than ``max_keys`` keys are in debt at once, the least recently used
/// is forgotten early and starts again with a full bucket; ``evicted`` counts those.
///
/// A ``str`` key is its UTF-8 bytes: ``"a"`` and ``b"a"`` are the same key. The number of keys is
/// bounded, their length is not: hash long ones from the network first.
///
/// Args:
///     max_tokens: the most tokens each bucket holds; 0 refuses every take.
///     tokens_per_fill: how many tokens come back in each ``fill_interval``; at least 1.
///     fill_interval: seconds, or a ``timedelta``; more than 0.
///     max_keys: the most keys that are kept; at least 1.
///     clock: as for ``TokenBucket``.
///     max_waiters: how many callers ``acquire`` lets wait at a time, for all keys together.
///
/// Raises:
///     ValueError: a number is out of range.
#[pyclass(frozen, subclass, module = "kgw._native.limit")]
#[derive(Debug)]
pub(crate) struct KeyedTokenBucket {
    buckets: KeyedBuckets<Vec<u8>>,
    settings: Settings,
    max_keys: usize,
}

#[pymethods]
impl TokenBucket {
    #[new]
    #[pyo3(
        signature = (
            max_tokens, tokens_per_fill=Tokens(1), fill_interval=Interval(SECOND), *, clock=None,
            max_waiters=None,
        ),
        text_signature = "(max_tokens, tokens_per_fill=1, fill_interval=1.0, *, clock=None, max_waiters=None)"
    )]
    fn new(
        max_tokens: Tokens,
        tokens_per_fill: Tokens,
        fill_interval: Interval,
        clock: Option<Py<PyAny>>,
        max_waiters: Option<Count>,
    ) -> PyResult<Self> {
        let settings = Settings {
            max_tokens,
            tokens_per_fill,
            fill_interval,
            clock,
            max_waiters: max_waiters.map(|count| count.0),
        };
        Ok(Self {
            bucket: Box::new(settings.limit()?.into()),
            settings,
        })
    }

    /// Takes ``n`` tokens and returns True, or takes none and returns False.
    ///
    /// Raises:
    ///     ValueError: ``n`` is negative or above 2**64 - 1.
    #[pyo3(signature = (n=Tokens(1)), text_signature = "($self, n=1)")]
    fn take(&self, py: Python<'_>, n: Tokens) -> PyResult<bool> {
        Ok(self.bucket.take(self.settings.now(py)?, n.0).is_ok())
    }

    /// Takes ``n`` tokens now or as soon as they are there; returns the seconds to wait.
    ///
    /// Until then ``take`` returns False: reservations are served in the order they are made.
    /// Whoever gives up waiting puts its tokens back with ``refund``.
    ///
    /// Args:
    ///     n: how many tokens.
    ///     max_wait: the most seconds that the caller would wait, or a ``timedelta``.
    ///
    /// Raises:
    ///     RateLimited: they are there after ``max_wait`` only; nothing is reserved.
    ///     ValueError: the bucket can never hold ``n``, or reservations already reach years ahead.
    #[pyo3(signature = (n=Tokens(1), *, max_wait=None), text_signature = "($self, n=1, *, max_wait=None)")]
    fn reserve(&self, py: Python<'_>, n: Tokens, max_wait: Option<Wait>) -> PyResult<f64> {
        let now = self.settings.now(py)?;
        let reserved = self
            .bucket
            .reserve_within(now, n.0, Wait::longest(max_wait));
        self.settings.reserved(py, n, reserved)
    }

    /// Seconds until all reserved tokens are there, but for the last ``behind`` of them.
    ///
    /// After a refund, whoever reserved before those has to wait for this only.
    #[pyo3(signature = (behind=Tokens(0)), text_signature = "($self, behind=0)")]
    fn reserved_after(&self, py: Python<'_>, behind: Tokens) -> PyResult<f64> {
        let wait = self.bucket.ready_in(self.settings.now(py)?, behind.0);
        Ok(wait.as_secs_f64())
    }

    /// Puts ``n`` taken or reserved tokens back; never more than the bucket holds.
    #[pyo3(signature = (n=Tokens(1)), text_signature = "($self, n=1)")]
    fn refund(&self, n: Tokens) {
        self.bucket.refund(n.0);
    }

    /// Seconds until ``n`` tokens are there, if nobody else takes any.
    ///
    /// 0.0 if they are there, ``inf`` if the bucket can never hold them.
    fn retry_after_for(&self, py: Python<'_>, n: Tokens) -> PyResult<f64> {
        Ok(seconds(
            self.bucket.retry_after(self.settings.now(py)?, n.0),
        ))
    }

    /// Whole tokens in the bucket.
    #[getter]
    fn remaining(&self, py: Python<'_>) -> PyResult<u64> {
        Ok(self.bucket.remaining(self.settings.now(py)?))
    }

    /// Seconds until a token is there: 0.0 if one is, ``inf`` if ``max_tokens`` is 0.
    #[getter]
    fn retry_after(&self, py: Python<'_>) -> PyResult<f64> {
        self.retry_after_for(py, Tokens(1))
    }

    /// The most tokens the bucket holds.
    #[getter]
    fn max_tokens(&self) -> u64 {
        self.settings.max_tokens.0
    }

    /// How many tokens come back in each ``fill_interval``.
    #[getter]
    fn tokens_per_fill(&self) -> u64 {
        self.settings.tokens_per_fill.0
    }

    /// Seconds in which ``tokens_per_fill`` tokens come back.
    #[getter]
    fn fill_interval(&self) -> f64 {
        self.settings.fill_interval.0.as_secs_f64()
    }

    /// How many callers ``acquire`` lets wait at a time; ``None`` for any number.
    #[getter]
    fn max_waiters(&self) -> Option<usize> {
        self.settings.max_waiters
    }

    fn __repr__(&self) -> String {
        format!("TokenBucket({})", self.settings.arguments())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.settings.clock)
    }
}

#[pymethods]
impl KeyedTokenBucket {
    #[new]
    #[pyo3(
        signature = (
            max_tokens, tokens_per_fill=Tokens(1), fill_interval=Interval(SECOND), *,
            max_keys=DEFAULT_MAX_KEYS, clock=None, max_waiters=None,
        ),
        text_signature = "(max_tokens, tokens_per_fill=1, fill_interval=1.0, *, max_keys=10000, clock=None, max_waiters=None)"
    )]
    fn new(
        max_tokens: Tokens,
        tokens_per_fill: Tokens,
        fill_interval: Interval,
        max_keys: usize,
        clock: Option<Py<PyAny>>,
        max_waiters: Option<Count>,
    ) -> PyResult<Self> {
        let settings = Settings {
            max_tokens,
            tokens_per_fill,
            fill_interval,
            clock,
            max_waiters: max_waiters.map(|count| count.0),
        };
        let buckets = KeyedBuckets::new(settings.limit()?, max_keys).map_err(value_error)?;
        Ok(Self {
            buckets,
            settings,
            max_keys,
        })
    }

    /// Takes ``n`` tokens from the bucket of ``key``, or none; returns whether it did.
    ///
    /// Raises:
    ///     ValueError: ``n`` is negative or above 2**64 - 1.
    #[pyo3(signature = (key, n=Tokens(1)), text_signature = "($self, key, n=1)")]
    fn take(&self, py: Python<'_>, key: Key<'_>, n: Tokens) -> PyResult<bool> {
        Ok(self
            .buckets
            .take(key.0, self.settings.now(py)?, n.0)
            .is_ok())
    }

    /// Takes ``n`` tokens of ``key``, now or when they are there; returns the seconds to wait.
    ///
    /// As ``TokenBucket.reserve``. A key that is forgotten early loses its reservations too, and
    /// starts again with a full bucket.
    ///
    /// Raises:
    ///     RateLimited: they are there after ``max_wait`` only; nothing is reserved.
    ///     ValueError: a bucket can never hold ``n``, or reservations already reach years ahead.
    #[pyo3(
        signature = (key, n=Tokens(1), *, max_wait=None),
        text_signature = "($self, key, n=1, *, max_wait=None)"
    )]
    fn reserve(
        &self,
        py: Python<'_>,
        key: Key<'_>,
        n: Tokens,
        max_wait: Option<Wait>,
    ) -> PyResult<f64> {
        let now = self.settings.now(py)?;
        let longest = Wait::longest(max_wait);
        let reserved = self.buckets.reserve_within(key.0, now, n.0, longest);
        self.settings.reserved(py, n, reserved)
    }

    /// Puts ``n`` taken or reserved tokens of ``key`` back; never more than its bucket holds.
    #[pyo3(signature = (key, n=Tokens(1)), text_signature = "($self, key, n=1)")]
    fn refund(&self, key: Key<'_>, n: Tokens) {
        self.buckets.refund(key.0, n.0);
    }

    /// Seconds until all reserved tokens of ``key`` are there, but for the last ``behind``.
    #[pyo3(signature = (key, behind=Tokens(0)), text_signature = "($self, key, behind=0)")]
    fn reserved_after(&self, py: Python<'_>, key: Key<'_>, behind: Tokens) -> PyResult<f64> {
        let now = self.settings.now(py)?;
        Ok(self.buckets.ready_in(key.0, now, behind.0).as_secs_f64())
    }

    /// Whole tokens in the bucket of ``key``.
    fn remaining(&self, py: Python<'_>, key: Key<'_>) -> PyResult<u64> {
        Ok(self.buckets.remaining(key.0, self.settings.now(py)?))
    }

    /// Seconds until the bucket of ``key`` has ``n`` tokens: 0.0 if it has, ``inf`` if never.
    #[pyo3(signature = (key, n=Tokens(1)), text_signature = "($self, key, n=1)")]
    fn retry_after(&self, py: Python<'_>, key: Key<'_>, n: Tokens) -> PyResult<f64> {
        Ok(seconds(self.buckets.retry_after(
            key.0,
            self.settings.now(py)?,
            n.0,
        )))
    }

    /// Forgets every bucket that is full again; returns how many.
    ///
    /// Never needed for a right answer or for the bound: it frees keys early.
    fn expire(&self, py: Python<'_>) -> PyResult<usize> {
        let now = self.settings.now(py)?;
        Ok(py.detach(|| self.buckets.expire(now)))
    }

    /// How many buckets were forgotten before they were full again, for want of room.
    #[getter]
    fn evicted(&self) -> u64 {
        self.buckets.evicted()
    }

    /// The most keys that are kept.
    #[getter]
    fn max_keys(&self) -> usize {
        self.max_keys
    }

    /// The most tokens each bucket holds.
    #[getter]
    fn max_tokens(&self) -> u64 {
        self.settings.max_tokens.0
    }

    /// How many tokens come back in each ``fill_interval``.
    #[getter]
    fn tokens_per_fill(&self) -> u64 {
        self.settings.tokens_per_fill.0
    }

    /// Seconds in which ``tokens_per_fill`` tokens come back.
    #[getter]
    fn fill_interval(&self) -> f64 {
        self.settings.fill_interval.0.as_secs_f64()
    }

    /// How many callers ``acquire`` lets wait at a time; ``None`` for any number.
    #[getter]
    fn max_waiters(&self) -> Option<usize> {
        self.settings.max_waiters
    }

    fn __len__(&self) -> usize {
        self.buckets.len()
    }

    fn __repr__(&self) -> String {
        format!(
            "KeyedTokenBucket({}, max_keys={})",
            self.settings.arguments(),
            self.max_keys
        )
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.settings.clock)
    }
}

const _: () = assert!(align_of::<TokenBucket>() <= 16 && align_of::<KeyedTokenBucket>() <= 16);

/// What a bucket was made with.
#[derive(Debug)]
struct Settings {
    max_tokens: Tokens,
    tokens_per_fill: Tokens,
    fill_interval: Interval,
    /// Monotonic seconds; without one, the operating system's monotonic clock.
    clock: Option<Py<PyAny>>,
    /// Kept for `kgw.limits`, where the waiting is done.
    max_waiters: Option<usize>,
}

impl Settings {
    fn limit(&self) -> PyResult<Limit> {
        Limit::with_rate(
            self.max_tokens.0,
            self.tokens_per_fill.0,
            self.fill_interval.0,
        )
        .map_err(value_error)
    }

    fn now(&self, py: Python<'_>) -> PyResult<Tick> {
        let Some(clock) = &self.clock else {
            return Ok(MonotonicClock.now());
        };
        let seconds: f64 = clock.call0(py)?.extract(py)?;
        Tick::from_secs_f64(seconds)
            .ok_or_else(|| PyValueError::new_err(format!("the clock returned {seconds} seconds")))
    }

    /// What came of a reservation of `n` tokens, in seconds.
    fn reserved(
        &self,
        py: Python<'_>,
        n: Tokens,
        reserved: Result<Duration, Unreserved>,
    ) -> PyResult<f64> {
        match reserved {
            Ok(wait) => Ok(wait.as_secs_f64()),
            Err(Unreserved::TooLate { wait }) => Err(rate_limited(py, wait.as_secs_f64())),
            Err(Unreserved::Never) if n.0 > self.max_tokens.0 => {
                Err(PyValueError::new_err(format!(
                    "{} tokens are more than the bucket can hold, {}",
                    n.0, self.max_tokens.0
                )))
            }
            Err(Unreserved::Never) => Err(PyValueError::new_err(
                "reservations already reach years ahead",
            )),
        }
    }

    fn arguments(&self) -> String {
        format!(
            "max_tokens={}, tokens_per_fill={}, fill_interval={:?}",
            self.max_tokens.0,
            self.tokens_per_fill.0,
            self.fill_interval.0.as_secs_f64()
        )
    }
}

const SECOND: Duration = Duration::from_secs(1);

/// A number of tokens; a negative or too large one is a `ValueError`.
#[derive(Clone, Copy, Debug)]
struct Tokens(u64);

impl<'py> FromPyObject<'_, 'py> for Tokens {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        value.extract().map(Self).map_err(|error: PyErr| {
            if error.is_instance_of::<PyOverflowError>(value.py()) {
                PyValueError::new_err("a number of tokens is between 0 and 2**64 - 1")
            } else {
                error
            }
        })
    }
}

/// A number of callers; a negative or too large one is a `ValueError`.
#[derive(Clone, Copy, Debug)]
struct Count(usize);

impl<'py> FromPyObject<'_, 'py> for Count {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        value.extract().map(Self).map_err(|error: PyErr| {
            if error.is_instance_of::<PyOverflowError>(value.py()) {
                PyValueError::new_err("max_waiters must be 0 or more")
            } else {
                error
            }
        })
    }
}

/// Seconds, 0 or more and perhaps infinite, or a `timedelta`.
#[derive(Clone, Copy, Debug)]
struct Wait(Duration);

impl Wait {
    fn longest(given: Option<Self>) -> Duration {
        given.map_or(Duration::MAX, |wait| wait.0)
    }
}

impl<'py> FromPyObject<'_, 'py> for Wait {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        match value.extract::<f64>() {
            Ok(f64::INFINITY) => Ok(Self(Duration::MAX)),
            Ok(seconds) => Duration::try_from_secs_f64(seconds)
                .map(Self)
                .map_err(|_| PyValueError::new_err("max_wait must be 0 or more seconds")),
            Err(error) if error.is_instance_of::<PyTypeError>(value.py()) => {
                value.extract().map(Self)
            }
            Err(error) => Err(error),
        }
    }
}

/// Seconds, or a `timedelta`.
#[derive(Clone, Copy, Debug)]
struct Interval(Duration);

impl<'py> FromPyObject<'_, 'py> for Interval {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let invalid = || PyValueError::new_err("fill_interval must be a positive, finite time");
        match value.extract::<f64>() {
            Ok(seconds) => Duration::try_from_secs_f64(seconds)
                .map(Self)
                .map_err(|_| invalid()),
            Err(error) if error.is_instance_of::<PyTypeError>(value.py()) => {
                value.extract().map(Self)
            }
            Err(error) => Err(error),
        }
    }
}

/// The bytes of a `bytes`, or the UTF-8 of a `str`.
#[derive(Clone, Copy, Debug)]
struct Key<'a>(&'a [u8]);

impl<'a, 'py> FromPyObject<'a, 'py> for Key<'a> {
    type Error = PyErr;

    fn extract(key: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        if key.is_instance_of::<PyString>() {
            key.extract().map(|text: &'a str| Self(text.as_bytes()))
        } else if key.is_instance_of::<PyBytes>() {
            Ok(Self(key.extract::<&'a [u8]>()?))
        } else {
            Err(PyTypeError::new_err("a key is a str or bytes"))
        }
    }
}

/// `inf` for never.
fn seconds(wait: Option<Duration>) -> f64 {
    wait.map_or(f64::INFINITY, |wait| wait.as_secs_f64())
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn value_error(error: Error) -> PyErr {
    PyValueError::new_err(error.to_string())
}
