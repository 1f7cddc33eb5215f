//! Accepting connections and starting their tasks.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use super::socket::BACKLOG;
use crate::conn;
use crate::runtime::{Phase, Registration, Worker};

/// Pause after a failed `accept`: the usual cause is a want of file descriptors, which only other
/// connections' ends can mend.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// What an accepting task is told by its worker.
#[derive(Debug)]
pub(crate) struct Orders {
    listener: RefCell<Arc<str>>,
    stop: Cell<bool>,
}

impl Orders {
    pub(crate) fn new(listener: &Arc<str>) -> Self {
        Self {
            listener: RefCell::new(Arc::clone(listener)),
            stop: Cell::new(false),
        }
    }

    /// Connections are the listener's from now on.
    pub(crate) fn accept_for(&self, listener: &Arc<str>) {
        if *self.listener.borrow() != *listener {
            *self.listener.borrow_mut() = Arc::clone(listener);
        }
    }

    /// The socket is given up; what waits on it is still taken.
    pub(crate) fn stop(&self) {
        self.stop.set(true);
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
    loop {
        let accepted = poll_fn(|cx| {
            registration.update(cx);
            match socket.poll_accept(cx) {
                Poll::Ready(accepted) => Poll::Ready(Some(accepted)),
                Poll::Pending if orders.stop.get() || worker.phase() != Phase::Running => {
                    Poll::Ready(None)
                }
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
        match accepted {
            None => break,
            Some(Ok((stream, peer))) => start(&worker, &orders, stream, peer),
            Some(Err(error)) => {
                worker.stats().downstream_accept_error.increment();
                if !is_of_one_connection(&error) {
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    take_waiting(&worker, &orders, socket);
    drop(lease);
}

/// Takes what waits in the queue, whether or not the event loop has heard of it.
fn take_waiting(worker: &Rc<Worker>, orders: &Orders, socket: TcpListener) {
    let Ok(socket) = socket.into_std() else {
        return;
    };
    for _ in 0..BACKLOG {
        let Ok((stream, peer)) = socket.accept() else {
            return;
        };
        let stream = stream
            .set_nonblocking(true)
            .and_then(|()| TcpStream::from_std(stream));
        if let Ok(stream) = stream {
            start(worker, orders, stream, peer);
        }
    }
}

fn start(worker: &Rc<Worker>, orders: &Orders, stream: TcpStream, peer: SocketAddr) {
    let stats = worker.stats();
    if stats.downstream_cx_active.value() >= worker.max_connections() {
        stats.downstream_cx_overflow.increment();
        return;
    }
    // An answer is written whole; waiting for more of it would only delay it.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let Ok(local) = stream.local_addr() else {
        return;
    };
    let worker_of_task = Rc::clone(worker);
    let listener = Arc::clone(&orders.listener.borrow());
    // Counted here and not in the task, which may run only after many more were accepted.
    let open = conn::Open::new(worker);
    tokio::task::spawn_local(async move {
        conn::serve(worker_of_task, listener, stream, peer, local, open).await;
    });
}

/// Whether an error is about the connection that would have been accepted, not about accepting.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted
    )
}
