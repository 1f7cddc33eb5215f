//! Accepting connections and starting their tasks.

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

/// Accepts connections for `listener` until it is stopped or the worker drains, and then those that
/// are waiting already: the kernel would reset them. The registration is the caller's, so that a
/// worker that drains before this task has run knows of it.
pub(crate) async fn run(
    worker: Rc<Worker>,
    listener: Arc<str>,
    socket: TcpListener,
    stop: Rc<std::cell::Cell<bool>>,
    registration: Registration,
) {
    loop {
        let accepted = poll_fn(|cx| {
            registration.update(cx);
            match socket.poll_accept(cx) {
                Poll::Ready(accepted) => Poll::Ready(Some(accepted)),
                Poll::Pending if stop.get() || worker.phase() != Phase::Running => {
                    Poll::Ready(None)
                }
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
        match accepted {
            None => return take_waiting(&worker, &listener, socket),
            Some(Ok((stream, peer))) => start(&worker, &listener, stream, peer),
            Some(Err(error)) => {
                worker.stats().downstream_accept_error.increment();
                if is_exhaustion(&error) {
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// Takes what waits in the queue, whether or not the event loop has heard of it.
fn take_waiting(worker: &Rc<Worker>, listener: &Arc<str>, socket: TcpListener) {
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
            start(worker, listener, stream, peer);
        }
    }
}

fn start(worker: &Rc<Worker>, listener: &Arc<str>, stream: TcpStream, peer: SocketAddr) {
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
    let listener = Arc::clone(listener);
    // Counted here and not in the task, which may run only after many more were accepted.
    let open = conn::Open::new(worker);
    tokio::task::spawn_local(async move {
        conn::serve(worker_of_task, listener, stream, peer, local, open).await;
    });
}

fn is_exhaustion(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
    )
}
