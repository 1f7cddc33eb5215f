//! Accepting connections and starting their tasks.
//!
//! Accepting pauses while a connection limit is reached, memory runs out, or the system has no file
//! descriptor left. Whoever connects then waits in the kernel's queue.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use super::balance::{Handed, Seat};
use super::call::Caller;
use super::limit::{ConnectionLimit, Slot};
use super::socket::BACKLOG;
use crate::conn::{self, Incoming};
use crate::runtime::{ListenerCounts, Phase, Pressure, Registration, Worker};

/// Pause after a failed `accept`: the usual cause is a want of file descriptors, which only other
/// connections' ends can mend.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Failures in a row after which those that wait are closed instead: about a second.
const PATIENCE: u32 = 50;

/// Most connections closed at once for want of file descriptors.
const CLOSED_AT_ONCE: usize = 128;

/// What an accepting task is told by its worker.
#[derive(Debug)]
pub(crate) struct Orders {
    listener: RefCell<(Arc<str>, ListenerCounts)>,
    stop: Cell<bool>,
}

impl Orders {
    pub(crate) fn new(listener: &Arc<str>, counts: ListenerCounts) -> Self {
        Self {
            listener: RefCell::new((Arc::clone(listener), counts)),
            stop: Cell::new(false),
        }
    }

    /// Connections are the listener's from now on, and count for it.
    pub(crate) fn accept_for(&self, listener: &Arc<str>, counts: ListenerCounts) {
        *self.listener.borrow_mut() = (Arc::clone(listener), counts);
    }

    /// The socket is given up; what waits on it is still taken.
    pub(crate) fn stop(&self) {
        self.stop.set(true);
    }

    /// Whether the socket is given up.
    pub(crate) fn are_to_stop(&self) -> bool {
        self.stop.get()
    }

    /// Whose the connections are, and what counts them.
    pub(crate) fn listener(&self) -> (Arc<str>, ListenerCounts) {
        self.listener.borrow().clone()
    }
}

/// Accepts connections until it is told to stop or the worker drains, and then those that are
/// waiting already: the kernel would reset them. Holds the address's lease as long. The registration
/// is the caller's, so that a worker that drains before this task has run knows of it.
pub(crate) async fn run(
    worker: Rc<Worker>,
    orders: Rc<Orders>,
    socket: TcpListener,
    lease: Arc<()>,
    registration: Registration,
) {
    let mut acceptor = Acceptor {
        worker,
        orders,
        registration,
        limit: None,
        waker: None,
        paused: false,
    };
    acceptor.accept(|cx| socket.poll_accept(cx)).await;
    // The event loop may not have heard of all that wait.
    if let Ok(socket) = socket.into_std() {
        let mut left = BACKLOG;
        let next = |_: &mut Context<'_>| {
            if left == 0 {
                return Poll::Pending;
            }
            left -= 1;
            poll_waiting(&socket)
        };
        acceptor.accept(next).await;
    }
    drop(lease);
}

/// Takes a connection from the queue; pending if there is none.
fn poll_waiting(socket: &std::net::TcpListener) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
    let accepted = socket.accept().and_then(|(stream, peer)| {
        stream.set_nonblocking(true)?;
        Ok((TcpStream::from_std(stream)?, peer))
    });
    match accepted {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        accepted => Poll::Ready(accepted),
    }
}

/// The rights to have a connection open: the process's and the listener's.
pub(crate) type Slots = (Slot, Slot);

/// An accepting task.
struct Acceptor {
    worker: Rc<Worker>,
    orders: Rc<Orders>,
    registration: Registration,
    /// The listener's limit that the task may be waiting for.
    limit: Option<Arc<ConnectionLimit>>,
    waker: Option<Waker>,
    paused: bool,
}

impl Acceptor {
    /// Starts what `next` accepts; ends when the task shall end and nothing waits.
    async fn accept(
        &mut self,
        mut next: impl FnMut(&mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>>,
    ) {
        let mut failures = 0;
        loop {
            let accepted = poll_fn(|cx| self.poll(cx, &mut next)).await;
            match accepted {
                None => return,
                Some(Ok((stream, peer, slots))) => {
                    failures = 0;
                    start(&self.worker, &self.orders, stream, peer, slots);
                }
                Some(Err(error)) => {
                    self.worker.stats().downstream_accept_error.increment();
                    if is_of_one_connection(&error) {
                        continue;
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    failures += 1;
                    if failures >= PATIENCE {
                        poll_fn(|cx| {
                            self.close_waiting(cx, &mut next);
                            Poll::Ready(())
                        })
                        .await;
                    }
                }
            }
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        next: &mut impl FnMut(&mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>>,
    ) -> Poll<Option<io::Result<(TcpStream, SocketAddr, Slots)>>> {
        self.registration.update(cx);
        let phase = self.worker.phase();
        if phase == Phase::Closing {
            return Poll::Ready(None);
        }
        let ending = self.orders.stop.get() || phase >= Phase::Draining;
        let slots = self.poll_slots(cx, ending);
        if slots.is_pending() && !self.paused {
            self.worker.stats().downstream_accept_paused.increment();
        }
        self.paused = slots.is_pending();
        // A slot is held for the moment of the attempt only: another worker's queue may need it.
        let Poll::Ready(slots) = slots else {
            return Poll::Pending;
        };
        match next(cx) {
            Poll::Ready(Ok((stream, peer))) => Poll::Ready(Some(Ok((stream, peer, slots)))),
            Poll::Ready(Err(error)) => Poll::Ready(Some(Err(error))),
            Poll::Pending if ending => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_slots(&mut self, cx: &Context<'_>, ending: bool) -> Poll<Slots> {
        // At the end, whoever waits is better told than left: memory may not come back in time.
        if self.worker.pressure() == Pressure::Overloaded && !ending {
            return Poll::Pending;
        }
        self.waker = Some(cx.waker().clone());
        let limit = Arc::clone(&self.orders.listener.borrow().1.limit);
        if let Some(before) = self.limit.replace(Arc::clone(&limit))
            && !Arc::ptr_eq(&before, &limit)
        {
            before.leave(cx.waker());
        }
        let Poll::Ready(of_process) = self.worker.connection_limit().poll_slot(cx) else {
            return Poll::Pending;
        };
        limit.poll_slot(cx).map(|slot| (of_process, slot))
    }

    /// Closes connections that have waited for a descriptor for too long.
    fn close_waiting(
        &self,
        cx: &mut Context<'_>,
        next: &mut impl FnMut(&mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>>,
    ) {
        self.worker.reserve().lend(|| {
            for _ in 0..CLOSED_AT_ONCE {
                let Poll::Ready(Ok(_closed)) = next(cx) else {
                    return;
                };
                self.worker.stats().downstream_cx_overflow.increment();
            }
        });
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        if let Some(waker) = &self.waker {
            self.worker.connection_limit().leave(waker);
            if let Some(limit) = &self.limit {
                limit.leave(waker);
            }
        }
    }
}

/// Starts a connection that was accepted, or hands it to the worker that has the fewest.
fn start(worker: &Rc<Worker>, orders: &Orders, stream: TcpStream, peer: SocketAddr, slots: Slots) {
    let (listener, balance) = {
        let listener = orders.listener.borrow();
        (Arc::clone(&listener.0), listener.1.balance.clone())
    };
    let Some(balance) = balance else {
        begin(worker, listener, stream, peer, slots, None);
        return;
    };
    let seat = balance.seat(worker.index());
    if seat.worker() == worker.index() {
        begin(worker, listener, stream, peer, slots, Some(seat));
        return;
    }
    // Leaves this worker's event loop.
    let Ok(socket) = stream.into_std() else {
        worker.stats().downstream_accept_error.increment();
        return;
    };
    let handed = Handed {
        listener,
        socket,
        peer,
        slots,
        seat,
    };
    match worker.inbox(handed.seat.worker()).put(handed) {
        Ok(()) => worker.stats().downstream_cx_handed_over.increment(),
        Err(mut kept) => {
            kept.seat.change(worker.index());
            begin_handed(worker, kept);
        }
    }
}

/// Starts a connection that another worker accepted for this one.
pub(crate) fn begin_handed(worker: &Rc<Worker>, handed: Handed) {
    match TcpStream::from_std(handed.socket) {
        Ok(stream) => begin(
            worker,
            handed.listener,
            stream,
            handed.peer,
            handed.slots,
            Some(handed.seat),
        ),
        Err(_) => worker.stats().downstream_accept_error.increment(),
    }
}

fn begin(
    worker: &Rc<Worker>,
    listener: Arc<str>,
    stream: TcpStream,
    peer: SocketAddr,
    slots: Slots,
    seat: Option<Seat>,
) {
    let Ok(local) = stream.local_addr() else {
        return;
    };
    let incoming = Box::new(Incoming {
        worker: Rc::clone(worker),
        listener,
        socket: stream,
        peer,
        local,
        // Counted here and not in the task, which may run only after many more were accepted.
        open: conn::Open::new(worker),
        within: None,
    });
    // Boxed: few listeners have seats, and every idle connection would pay for the room.
    let held = (slots, seat.map(Box::new));
    spawn(move || conn::serve(incoming), held);
}

/// Starts a connection of this process itself.
pub(super) fn begin_within(
    worker: &Rc<Worker>,
    listener: Arc<str>,
    stream: TcpStream,
    caller: Caller,
    slots: Slots,
) {
    let incoming = Box::new(Incoming {
        worker: Rc::clone(worker),
        listener,
        socket: stream,
        peer: caller.peer,
        local: caller.local,
        open: conn::Open::new(worker),
        within: Some(caller.within),
    });
    spawn(move || conn::serve(incoming), slots);
}

/// Runs a connection as a task of its own, so that a panic ends no other. `held` is given back when
/// it ends.
///
/// The future is made inside of the task: one that is moved into it would be there twice.
fn spawn<F: Future<Output = ()>>(
    connection: impl FnOnce() -> F + 'static,
    held: impl Sized + 'static,
) {
    tokio::task::spawn_local(async move {
        let _held = held;
        connection().await;
    });
}

/// Whether an error is about the connection that would have been accepted, not about accepting.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use tokio::task::{LocalSet, yield_now};

    use super::*;
    use crate::clock::Clock;
    use crate::config::snapshot::Snapshot;
    use crate::listen::socket::Sockets;
    use crate::runtime::{Shared, worker};

    fn slots(worker: &Worker) -> Slots {
        let cx = Context::from_waker(Waker::noop());
        let slot = || match worker.connection_limit().poll_slot(&cx) {
            Poll::Ready(slot) => slot,
            Poll::Pending => panic!("a connection kept its slot"),
        };
        (slot(), slot())
    }

    #[test]
    fn a_panic_ends_its_connection_and_no_other() {
        let snapshot = Arc::new(Snapshot::default());
        let shared = Shared::new(Clock::manual(), 1, 4, snapshot, Sockets::new());
        let worker = Rc::new(Worker::new(0, Arc::new(shared)));
        let (finish, finished) = tokio::sync::oneshot::channel::<()>();
        let runtime = worker::runtime().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let open = conn::Open::new(&worker);
            let other = async move {
                let _open = open;
                finished.await.unwrap();
            };
            spawn(move || other, slots(&worker));
            for _ in 0..3 {
                let open = conn::Open::new(&worker);
                let broken = async move {
                    let _open = open;
                    panic!("an injected bug");
                };
                spawn(move || broken, slots(&worker));
                yield_now().await;
                yield_now().await;
            }
            assert_eq!(worker.stats().downstream_cx_panicked.value(), 3);
            assert_eq!(worker.stats().downstream_cx_active.value(), 1);
            finish.send(()).unwrap();
            yield_now().await;
            yield_now().await;
            assert_eq!(worker.stats().downstream_cx_active.value(), 0);
        });
    }
}
