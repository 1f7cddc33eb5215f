//! Storage that a connection has only while it serves a request.
//!
//! Thousands of connections sit idle for each that is busy, so a worker lends the few that are what
//! they need and takes it back, grown to the size that requests have here.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::sync::LazyLock;
use std::thread::LocalKey;

use kgw_h1::{Request, Response};

/// Room for header fields above which it is not left to the next user: most heads need far less. Bytes.
const LARGE: usize = 8192;

/// Most that a worker keeps of one kind.
const MAX_SPARE: usize = 64;

/// Storage of one kind that a worker has at hand.
pub(crate) type Spare<T> = RefCell<Vec<Box<T>>>;

/// What is lent.
pub(crate) trait Lendable: Default + Sized + 'static {
    /// What the worker of this thread has at hand.
    fn spare() -> &'static LocalKey<Spare<Self>>;

    /// An empty one, for whoever reads without having been lent any.
    fn empty() -> &'static Self;

    /// Whether it has grown larger than the next user is likely to need.
    fn is_large(&self) -> bool;

    /// Forgets what is in it.
    fn clear(&mut self);
}

/// Storage that is taken from the worker when it is first written to.
#[derive(Debug, Default)]
pub(crate) struct Lent<T: Lendable>(Option<Box<T>>);

impl<T: Lendable> Lent<T> {
    /// None yet.
    pub(crate) const fn none() -> Self {
        Self(None)
    }

    /// What is there already.
    pub(crate) fn of(storage: T) -> Self {
        Self(Some(Box::new(storage)))
    }

    /// Gives the storage back, empty.
    pub(crate) fn give_back(&mut self) {
        let Some(mut storage) = self.0.take() else {
            return;
        };
        if storage.is_large() {
            return;
        }
        storage.clear();
        T::spare().with_borrow_mut(|spare| {
            if spare.len() < MAX_SPARE {
                spare.push(storage);
            }
        });
    }
}

impl<T: Lendable> Deref for Lent<T> {
    type Target = T;

    fn deref(&self) -> &T {
        match &self.0 {
            Some(storage) => storage,
            None => T::empty(),
        }
    }
}

impl<T: Lendable> DerefMut for Lent<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0
            .get_or_insert_with(|| T::spare().with_borrow_mut(Vec::pop).unwrap_or_default())
    }
}

impl<T: Lendable> Drop for Lent<T> {
    fn drop(&mut self) {
        self.give_back();
    }
}

thread_local! {
    static REQUESTS: Spare<Request> = const { RefCell::new(Vec::new()) };
    static RESPONSES: Spare<Response> = const { RefCell::new(Vec::new()) };
}

static NO_REQUEST: LazyLock<Request> = LazyLock::new(Request::new);
static NO_RESPONSE: LazyLock<Response> = LazyLock::new(Response::new);

impl Lendable for Request {
    fn spare() -> &'static LocalKey<Spare<Self>> {
        &REQUESTS
    }

    fn empty() -> &'static Self {
        &NO_REQUEST
    }

    fn is_large(&self) -> bool {
        self.headers().capacity() > LARGE
    }

    fn clear(&mut self) {
        Self::clear(self);
        self.set_accept_http_10(false);
        self.set_secure(false);
        self.set_max_target_bytes(0);
    }
}

impl Lendable for Response {
    fn spare() -> &'static LocalKey<Spare<Self>> {
        &RESPONSES
    }

    fn empty() -> &'static Self {
        &NO_RESPONSE
    }

    fn is_large(&self) -> bool {
        self.headers().capacity() > LARGE
    }

    fn clear(&mut self) {
        Self::clear(self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_is_lent_again() {
        let mut first = Lent::<Response>::none();
        first.headers_mut().append(b"a", b"b");
        let storage = std::ptr::from_ref(&*first);
        first.give_back();
        assert_eq!(first.headers().iter().count(), 0);

        let mut second = Lent::<Response>::none();
        assert_eq!(second.headers_mut().iter().count(), 0);
        assert_eq!(std::ptr::from_ref(&*second), storage);
    }

    #[test]
    fn reading_takes_nothing() {
        let none = Lent::<Request>::none();
        assert_eq!(none.head_bytes(), 0);
        assert!(none.0.is_none());
    }

    #[test]
    fn what_a_large_head_needed_is_not_kept() {
        let mut lent = Lent::<Request>::none();
        let mut head = b"GET / HTTP/1.1\r\nhost: a\r\nx: ".to_vec();
        head.resize(LARGE + 1, b'x');
        head.extend_from_slice(b"\r\n\r\n");
        let limits = kgw_h1::Limits {
            max_head_bytes: 2 * LARGE,
            max_fields: 10,
        };
        lent.parse(&head, &limits).expect("a request");
        lent.give_back();
        assert!(REQUESTS.with_borrow(Vec::is_empty));
    }
}
