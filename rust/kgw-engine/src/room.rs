//! Room for bodies that are held in memory until somebody can have them as a whole: so many bytes at a
//! time, over all workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Room for so many bytes.
#[derive(Debug)]
pub(crate) struct Room {
    most: usize,
    used: AtomicUsize,
}

impl Room {
    /// Room for at most this many bytes.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            most,
            used: AtomicUsize::new(0),
        }
    }

    /// How many bytes are held.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Acquire)
    }

    /// Begins to hold a body: an empty one so far.
    pub(crate) fn hold(self: &Arc<Self>) -> Held {
        Held {
            room: Arc::clone(self),
            bytes: 0,
        }
    }
}

/// Bytes of a body that is held, counted while this is there.
#[derive(Debug)]
pub(crate) struct Held {
    room: Arc<Room>,
    bytes: usize,
}

impl Held {
    /// Counts it as a body of so many bytes. Returns whether there is room for it.
    pub(crate) fn grow_to(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let used = &self.room.used;
        if used.fetch_add(more, Ordering::AcqRel) + more > self.room.most {
            used.fetch_sub(more, Ordering::AcqRel);
            return false;
        }
        self.bytes += more;
        true
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.room.used.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_bytes_are_held() {
        let room = Arc::new(Room::new(100));
        let (mut one, mut other) = (room.hold(), room.hold());
        assert!(one.grow_to(50) && one.grow_to(60));
        assert!(!other.grow_to(41));
        assert!(other.grow_to(40));
        assert_eq!(room.used(), 100);
        drop(one);
        assert!(other.grow_to(100));
        drop(other);
        assert_eq!(room.used(), 0);
    }
}
