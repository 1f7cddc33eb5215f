//! What the questions of one filter about one exchange have in common.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

use parking_lot::Mutex;

/// One filter's look at one exchange, which has several phases.
#[derive(Debug)]
pub(super) struct Session {
    id: u64,
    /// A job of it was handed out, so its end is to be told.
    delivered: AtomicBool,
}

/// Sessions: their numbers, and those that are over and of which the reader is not told yet.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    next: AtomicU64,
    /// At most one for each session that was handed out, and none is while the reader does not look.
    ended: Mutex<Vec<u64>>,
}

// === impl Session ===

impl Session {
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Notes that a job is about to be handed out. Whoever ends the session has closed its channel
    /// before, so that one of both sees what the other did.
    pub(super) fn deliver(&self) {
        self.delivered.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Notes that the reader knows that the session is over.
    pub(super) fn forget(&self) {
        self.delivered.store(false, Ordering::Relaxed);
    }
}

// === impl Sessions ===

impl Sessions {
    pub(super) fn begin(&self) -> Arc<Session> {
        Arc::new(Session {
            id: self.next.fetch_add(1, Ordering::Relaxed),
            delivered: AtomicBool::new(false),
        })
    }

    /// Notes that a session is over. Returns whether the reader has to be told.
    pub(super) fn end(&self, session: &Session) -> bool {
        fence(Ordering::SeqCst);
        let delivered = session.delivered.load(Ordering::Relaxed);
        if delivered {
            self.ended.lock().push(session.id);
        }
        delivered
    }

    /// Takes the numbers of those that are over.
    pub(super) fn take_ended(&self) -> Vec<u64> {
        std::mem::take(&mut *self.ended.lock())
    }
}
