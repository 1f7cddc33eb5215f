//! A file descriptor in reserve, for when there is no other.
//!
//! Without descriptors nobody can be accepted, and so nobody can be told: whoever connects waits until
//! its own time-out. After a while it is kinder to close. That takes a descriptor for a moment.

use std::cell::RefCell;
use std::fs::File;

/// A descriptor that is of no use but to be given up for a moment.
#[derive(Debug)]
pub(crate) struct Reserve(RefCell<Option<File>>);

impl Reserve {
    pub(crate) fn new() -> Self {
        Self(RefCell::new(open()))
    }

    /// Calls `with_one_free` while one descriptor more can be had, unless none was left for the reserve.
    pub(crate) fn lend(&self, with_one_free: impl FnOnce()) {
        let mut reserve = self.0.borrow_mut();
        if reserve.take().is_some() {
            with_one_free();
        }
        *reserve = open();
    }
}

fn open() -> Option<File> {
    File::open("/dev/null").ok()
}
