//! The tasks that serve HTTP/2 streams: each takes one stream after the other, of any connection of its
//! worker.
//!
//! A stream needs a task, for it waits for a client, an endpoint and the clock at once, and a panic must
//! end nothing but it. To start one is most of what a short exchange costs beyond its bytes: some
//! kilobytes of state to move and to free, a timer to arm, a registration. So a task that is done rests,
//! and takes the next stream with all of that in place.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use h2::RecvStream;
use h2::server::SendResponse;
use http::request;

use super::downstream::ClientStream;
use super::guard::GuardState;
use crate::clock::{Nanos, Timer};
use crate::conn::lent::Lent;
use crate::conn::{Conn, Peers, Target};
use crate::runtime::{Phase, Worker};

/// Tasks that may rest. Each holds some kilobytes.
const MOST_AT_REST: usize = 256;

/// A stream that a client opened.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) head: request::Parts,
    pub(super) receive: RecvStream,
    pub(super) respond: SendResponse<bytes::Bytes>,
    pub(super) listener: Rc<str>,
    pub(super) target: Rc<Target>,
    pub(super) peers: Rc<Peers>,
    pub(super) guard: Rc<GuardState>,
    /// When the connection's task saw it.
    pub(super) began: Nanos,
}

/// The resting tasks of a worker.
#[derive(Debug, Default)]
pub(crate) struct StreamTasks {
    /// Last in, first out.
    resting: RefCell<Vec<Rc<Desk>>>,
    /// The fewest that were resting at any time since the last look.
    unneeded: Cell<usize>,
}

/// Where a resting task is given its next stream.
#[derive(Debug, Default)]
struct Desk {
    next: RefCell<Option<Opened>>,
    waker: RefCell<Option<Waker>>,
    /// Nothing comes any more.
    closed: Cell<bool>,
}

// === impl StreamTasks ===

impl StreamTasks {
    /// Serves a stream: in a task at rest, else in a new one.
    pub(super) fn serve(&self, worker: &Rc<Worker>, opened: Opened) {
        match self.take() {
            Some(desk) => desk.give(opened),
            None => {
                tokio::task::spawn_local(run(Rc::clone(worker), opened));
            }
        }
    }

    /// Ends the tasks that nobody needed since the last time, or `all`.
    pub(crate) fn sweep(&self, all: bool) {
        let mut resting = self.resting.borrow_mut();
        let unneeded = if all {
            resting.len()
        } else {
            self.unneeded.get().min(resting.len())
        };
        for desk in resting.drain(..unneeded) {
            desk.close();
        }
        self.unneeded.set(resting.len());
    }

    fn take(&self) -> Option<Rc<Desk>> {
        let mut resting = self.resting.borrow_mut();
        loop {
            let desk = resting.pop();
            self.unneeded.set(self.unneeded.get().min(resting.len()));
            match desk {
                Some(desk) if desk.closed.get() => {}
                other => return other,
            }
        }
    }

    /// Lets a task rest, if there is room.
    fn put(&self, desk: &Rc<Desk>) -> bool {
        let mut resting = self.resting.borrow_mut();
        let has_room = resting.len() < MOST_AT_REST;
        if has_room {
            resting.push(Rc::clone(desk));
        }
        has_room
    }
}

// === impl Desk ===

impl Desk {
    fn give(&self, opened: Opened) {
        *self.next.borrow_mut() = Some(opened);
        self.wake();
    }

    fn close(&self) {
        self.closed.set(true);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// The next stream; None if there is to be none.
    fn poll_next(&self, cx: &Context<'_>, worker: &Worker) -> Poll<Option<Opened>> {
        if let Some(opened) = self.next.take() {
            return Poll::Ready(Some(opened));
        }
        if self.closed.get() || worker.phase() >= Phase::Draining {
            self.closed.set(true);
            return Poll::Ready(None);
        }
        // A task keeps its waker.
        self.waker
            .borrow_mut()
            .get_or_insert_with(|| cx.waker().clone());
        Poll::Pending
    }
}

async fn run(worker: Rc<Worker>, first: Opened) {
    let desk = Rc::new(Desk::default());
    let mut conn = Conn {
        down: ClientStream::default(),
        timer: Timer::new(worker.clock().clone()),
        registration: worker.register(),
        peers: Rc::clone(&first.peers),
        worker: Rc::clone(&worker),
        request: Lent::none(),
        response: Lent::none(),
    };
    let mut opened = first;
    loop {
        super::server::serve_stream(&mut conn, opened).await;
        conn.down.release();
        conn.request.give_back();
        conn.response.give_back();
        if worker.must_shrink() || !worker.stream_tasks.put(&desk) {
            return;
        }
        let next = poll_fn(|cx| {
            conn.registration.update(cx);
            desk.poll_next(cx, &worker)
        });
        match next.await {
            Some(next) => opened = next,
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resting(count: usize) -> (StreamTasks, Vec<Rc<Desk>>) {
        let tasks = StreamTasks::default();
        let desks: Vec<Rc<Desk>> = (0..count).map(|_| Rc::default()).collect();
        for desk in &desks {
            assert!(tasks.put(desk));
        }
        (tasks, desks)
    }

    fn closed(desks: &[Rc<Desk>]) -> usize {
        desks.iter().filter(|desk| desk.closed.get()).count()
    }

    #[test]
    fn no_more_rest_than_may() {
        let (tasks, desks) = resting(MOST_AT_REST);
        assert!(!tasks.put(&Rc::default()));
        assert!(tasks.take().is_some());
        assert!(tasks.put(&Rc::default()));
        assert_eq!(closed(&desks), 0);
    }

    #[test]
    fn the_last_to_rest_is_the_first_to_work() {
        let (tasks, desks) = resting(3);
        let taken = tasks.take().unwrap();
        assert!(Rc::ptr_eq(&taken, &desks[2]));
    }

    #[test]
    fn a_look_ends_what_was_not_needed_since_the_last_one() {
        let (tasks, desks) = resting(10);
        // Nobody has waited for a whole interval yet.
        tasks.sweep(false);
        assert_eq!(closed(&desks), 0);
        let busy: Vec<_> = (0..4).map(|_| tasks.take().unwrap()).collect();
        assert!(busy.iter().all(|desk| tasks.put(desk)));
        tasks.sweep(false);
        assert_eq!(closed(&desks), 6);
        assert!(busy.iter().all(|desk| !desk.closed.get()));
        tasks.sweep(false);
        assert_eq!(closed(&desks), 10);
        assert!(tasks.take().is_none());
    }

    #[test]
    fn all_end_where_memory_is_short() {
        let (tasks, desks) = resting(3);
        tasks.sweep(true);
        assert_eq!(closed(&desks), 3);
        assert!(tasks.take().is_none());
    }

    #[test]
    fn one_that_has_ended_is_given_nothing() {
        let (tasks, desks) = resting(2);
        desks[1].closed.set(true);
        assert!(Rc::ptr_eq(&tasks.take().unwrap(), &desks[0]));
        assert!(tasks.take().is_none());
    }
}
