//! Waking an event loop that watches a file descriptor: one system call for all that there is until it
//! looks.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};

/// A file descriptor that is readable from a [`Wake::ring`] until the next [`Wake::hush`].
#[derive(Debug)]
pub(crate) struct Wake {
    /// The reader was told, and has not looked yet.
    armed: AtomicBool,
    event: OwnedFd,
}

impl Wake {
    /// Fails if there is no file descriptor left.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            armed: AtomicBool::new(false),
            event: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        })
    }

    /// Makes the descriptor readable, unless it is or the reader is about to look. What is to be found
    /// then was written before.
    pub(crate) fn ring(&self) {
        if !self.armed.swap(true, Ordering::AcqRel) {
            // A counter that is full is readable as well.
            let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
        }
    }

    /// Makes the descriptor unreadable. To be called before a look: what comes after it rings again.
    pub(crate) fn hush(&self) {
        let mut count = [0; 8];
        // Nothing to read is as good as something.
        let _ = rustix::io::read(&self.event, &mut count);
        // The swap reads what the last ring wrote, so all that was written before that is visible.
        self.armed.swap(false, Ordering::AcqRel);
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    fn is_readable(wake: &Wake) -> bool {
        let mut polled = [PollFd::new(wake, PollFlags::IN)];
        poll(&mut polled, Some(&Timespec::default())).unwrap() == 1
    }

    #[test]
    fn it_rings_once_until_somebody_looks() {
        let wake = Wake::new().unwrap();
        assert!(!is_readable(&wake));
        wake.ring();
        wake.ring();
        let mut count = [0; 8];
        rustix::io::read(&wake.event, &mut count).unwrap();
        assert_eq!(u64::from_ne_bytes(count), 1);
        wake.hush();
        wake.ring();
        assert!(is_readable(&wake));
        wake.hush();
        assert!(!is_readable(&wake));
    }
}
