//! Spreading a listener's connections evenly over the workers.
//!
//! The kernel gives each connection to a worker by a hash of its addresses. That is fair over many; of
//! four connections that stay, all may be one worker's, and the other workers idle. Under exact balance
//! (Envoy: `ConnectionBalanceConfig.ExactBalance`) whichever worker accepts a connection gives it to the
//! one that has the fewest of its listener. That costs a lock and, if it is another, a second
//! registration with an event loop, for each connection and never for a request.

use std::collections::VecDeque;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::accept::Slots;

/// Connections that may wait for a worker to take them. One that does not get to it has enough.
const INBOX: usize = 256;

/// How many of a listener's connections each worker has.
#[derive(Debug)]
pub(crate) struct Balance {
    open: Mutex<Box<[u64]>>,
}

impl Balance {
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            open: Mutex::new(vec![0; workers].into_boxed_slice()),
        }
    }

    /// Takes a seat at the worker with the fewest connections; at `own`, if it has no more than any
    /// other.
    pub(crate) fn seat(self: &Arc<Self>, own: usize) -> Seat {
        let mut open = self.open.lock();
        let mut worker = own;
        for (other, &count) in open.iter().enumerate() {
            if count < open[worker] {
                worker = other;
            }
        }
        open[worker] += 1;
        Seat {
            balance: Arc::clone(self),
            worker,
        }
    }
}

/// A connection's place among those of a worker; given back when dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    balance: Arc<Balance>,
    worker: usize,
}

impl Seat {
    /// Whose connection it is.
    pub(crate) fn worker(&self) -> usize {
        self.worker
    }

    /// Moves to another worker.
    pub(crate) fn change(&mut self, worker: usize) {
        let mut open = self.balance.open.lock();
        open[self.worker] -= 1;
        open[worker] += 1;
        self.worker = worker;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.balance.open.lock()[self.worker] -= 1;
    }
}

/// A connection on its way from the worker that accepted it to the one that serves it.
#[derive(Debug)]
pub(crate) struct Handed {
    pub(crate) listener: Arc<str>,
    pub(crate) socket: TcpStream,
    pub(crate) peer: SocketAddr,
    pub(crate) slots: Slots,
    pub(crate) seat: Seat,
}

/// What others have for a worker: by default, connections that other workers accepted.
#[derive(Debug)]
pub(crate) struct Inbox<T = Handed> {
    contents: Mutex<Contents<T>>,
    arrived: Notify,
}

#[derive(Debug)]
struct Contents<T> {
    waiting: VecDeque<T>,
    closed: bool,
}

impl<T> Default for Inbox<T> {
    fn default() -> Self {
        Self {
            contents: Mutex::new(Contents {
                waiting: VecDeque::new(),
                closed: false,
            }),
            arrived: Notify::new(),
        }
    }
}

impl<T> Inbox<T> {
    /// Puts a connection in and wakes the worker.
    ///
    /// # Errors
    ///
    /// Returns the connection if the inbox is full, or its worker takes no more.
    pub(crate) fn put(&self, handed: T) -> Result<(), T> {
        {
            let mut contents = self.contents.lock();
            if contents.closed || contents.waiting.len() >= INBOX {
                return Err(handed);
            }
            contents.waiting.push_back(handed);
        }
        self.arrived.notify_one();
        Ok(())
    }

    /// Waits until something was put in. Cancel safe.
    pub(crate) async fn arrived(&self) {
        self.arrived.notified().await;
    }

    /// Takes everything.
    pub(crate) fn take(&self) -> VecDeque<T> {
        std::mem::take(&mut self.contents.lock().waiting)
    }

    /// Takes everything, and nothing will be put in again.
    pub(crate) fn close(&self) -> VecDeque<T> {
        let mut contents = self.contents.lock();
        contents.closed = true;
        std::mem::take(&mut contents.waiting)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::listen::limit::ConnectionLimit;

    fn open(balance: &Balance) -> Vec<u64> {
        balance.open.lock().to_vec()
    }

    #[test]
    fn a_connection_goes_where_there_are_fewest_and_stays_where_that_is_as_good() {
        let balance = Arc::new(Balance::new(3));
        let seats: Vec<_> = (0..3).map(|_| balance.seat(1)).collect();
        assert_eq!(
            seats.iter().map(Seat::worker).collect::<Vec<_>>(),
            [1, 0, 2]
        );
        let fourth = balance.seat(2);
        assert_eq!(fourth.worker(), 2);
        drop(seats);
        assert_eq!(open(&balance), [0, 0, 1]);
        assert_eq!(balance.seat(2).worker(), 0);
        assert_eq!(balance.seat(1).worker(), 1);
    }

    #[test]
    fn a_seat_that_changes_counts_for_one_worker_only() {
        let balance = Arc::new(Balance::new(2));
        let mut seat = balance.seat(0);
        seat.change(1);
        assert_eq!(open(&balance), [0, 1]);
        seat.change(1);
        assert_eq!(open(&balance), [0, 1]);
        drop(seat);
        assert_eq!(open(&balance), [0, 0]);
    }

    #[test]
    fn threads_that_take_and_give_back_seats_leave_none_behind_and_differ_by_one_at_most() {
        let balance = Arc::new(Balance::new(4));
        let kept = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for own in 0..4 {
                let (balance, kept) = (&balance, &kept);
                scope.spawn(move || {
                    for _ in 0..500 {
                        drop(balance.seat(own));
                    }
                    for _ in 0..25 {
                        let seat = balance.seat(own);
                        kept.lock().push(seat);
                    }
                });
            }
        });
        assert_eq!(open(&balance).iter().sum::<u64>(), 100);
        kept.lock().clear();
        assert_eq!(open(&balance), [0; 4]);
        let seats: Vec<_> = (0..101).map(|_| balance.seat(3)).collect();
        assert_eq!(open(&balance), [25, 25, 25, 26]);
        drop(seats);
    }

    struct Site {
        listener: TcpListener,
        limit: Arc<ConnectionLimit>,
        balance: Arc<Balance>,
    }

    impl Site {
        fn new() -> Self {
            Self {
                listener: TcpListener::bind("127.0.0.1:0").unwrap(),
                limit: Arc::new(ConnectionLimit::new(0)),
                balance: Arc::new(Balance::new(2)),
            }
        }

        fn handed(&self) -> Handed {
            let at = self.listener.local_addr().unwrap();
            let slot = || match self.limit.poll_slot(&Context::from_waker(Waker::noop())) {
                Poll::Ready(slot) => slot,
                Poll::Pending => unreachable!("there is no limit"),
            };
            Handed {
                listener: Arc::from("l"),
                socket: TcpStream::connect(at).unwrap(),
                peer: at,
                slots: (slot(), slot()),
                seat: self.balance.seat(0),
            }
        }
    }

    #[test]
    fn a_full_inbox_and_a_closed_one_give_the_connection_back() {
        let (site, inbox) = (Site::new(), Inbox::default());
        for _ in 0..INBOX {
            assert!(inbox.put(site.handed()).is_ok());
            // Nobody accepts; the queue of the listener is short.
            drop(site.listener.accept().unwrap());
        }
        assert!(inbox.put(site.handed()).is_err());
        assert_eq!(inbox.take().len(), INBOX);
        assert!(inbox.put(site.handed()).is_ok());
        assert_eq!(inbox.close().len(), 1);
        assert!(inbox.put(site.handed()).is_err());
        assert!(inbox.take().is_empty());
        assert_eq!(open(&site.balance), [0, 0]);
    }

    #[test]
    fn what_arrived_before_anybody_waited_is_heard_of() {
        let (site, inbox) = (Site::new(), Inbox::default());
        assert!(inbox.put(site.handed()).is_ok());
        let mut arrived = std::pin::pin!(inbox.arrived());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(arrived.as_mut().poll(&mut cx).is_ready());
        let mut again = std::pin::pin!(inbox.arrived());
        assert!(again.as_mut().poll(&mut cx).is_pending());
    }
}
