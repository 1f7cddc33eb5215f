//! The locks: those of `parking_lot`, and loom's where it looks at every interleaving.

#[cfg(not(loom))]
pub(crate) use parking_lot::Mutex;

/// Loom's lock, used as `parking_lot`'s.
#[cfg(loom)]
#[derive(Debug)]
pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

#[cfg(loom)]
impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
        self.0.lock().expect("no holder of the lock panics")
    }
}
