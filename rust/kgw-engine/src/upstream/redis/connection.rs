//! One connection of a worker to a Redis server, for all that the worker asks it: commands are pipelined.
//!
//! A task of its own reads and writes it. Whoever asks leaves a command here and waits for its answer; when
//! he stops waiting, the answer is dropped when it comes.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use tokio::sync::oneshot;

use super::Server;
use super::resp::{MAX_REPLY, Reply, read_reply, write_command};
use crate::clock::{Nanos, Timer};
use crate::conn::io::Stream;
use crate::runtime::{Phase, Registration, Worker};
use crate::upstream::connect::{Waiting, connect, secure};

/// Time for connecting and logging in, and for the oldest answer that is waited for. Milliseconds: a
/// server that takes longer is as good as dead, however long its clients would wait.
const STALLED_MS: u64 = 1_000;

/// How long a connection may sit idle. Milliseconds.
const IDLE_MS: u64 = 60_000;

/// Answers that are waited for at once.
const MAX_ASKED: usize = 1024;

/// Commands that are not written yet. Bytes.
const MAX_UNSENT: usize = 256 * 1024;

/// Where commands are left for the connection's task.
#[derive(Debug, Default)]
pub(super) struct Connection(RefCell<State>);

#[derive(Debug, Default)]
struct State {
    /// Commands that the task has not taken yet.
    unsent: Vec<u8>,
    /// Who waits, in the order of the commands.
    asked: VecDeque<Asked>,
    waker: Option<Waker>,
    is_proven: bool,
    is_ended: bool,
}

#[derive(Debug)]
struct Asked {
    answer: oneshot::Sender<Reply>,
    since: Nanos,
}

/// Why a command was not taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Refused {
    /// The connection is no more.
    Ended,
    /// As many as may be wait already.
    Full,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Ended {
    /// Nobody waited for anything.
    Idle,
    /// It was not opened, or broke, or its server did not answer.
    Failed,
}

impl Connection {
    /// Leaves a command.
    pub(super) fn ask(
        &self,
        command: &[u8],
        now: Nanos,
    ) -> Result<oneshot::Receiver<Reply>, Refused> {
        let mut state = self.0.borrow_mut();
        if state.is_ended {
            return Err(Refused::Ended);
        }
        if state.asked.len() >= MAX_ASKED || state.unsent.len() + command.len() > MAX_UNSENT {
            return Err(Refused::Full);
        }
        let (answer, answered) = oneshot::channel();
        state.unsent.extend_from_slice(command);
        state.asked.push_back(Asked { answer, since: now });
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
        Ok(answered)
    }

    /// Whether the server has let it log in.
    pub(super) fn is_proven(&self) -> bool {
        self.0.borrow().is_proven
    }

    /// Nothing more is taken, and nobody waits any longer.
    fn end(&self) {
        let mut state = self.0.borrow_mut();
        state.is_ended = true;
        state.asked.clear();
        state.unsent.clear();
    }
}

/// Opens the connection and serves it to its end. `answered` is told of each answer.
pub(super) async fn run(
    worker: Rc<Worker>,
    server: &Server,
    connection: &Connection,
    mut answered: impl FnMut(),
) -> Ended {
    let ended = match open(&worker, server).await {
        Some(stream) => serve(&worker, stream, connection, &mut answered).await,
        None => Ended::Failed,
    };
    connection.end();
    ended
}

/// Connects and logs in.
async fn open(worker: &Rc<Worker>, server: &Server) -> Option<Stream> {
    let registration = worker.register();
    let mut timer = Timer::new(worker.clock().clone());
    let cluster = &*server.cluster;
    if cluster.proxy_protocol.is_some() {
        // It would be the connection of one client.
        return None;
    }
    let deadline = worker.clock().now().after_ms(STALLED_MS);
    let waiting = Waiting {
        worker,
        registration: &registration,
        timer: &mut timer,
    };
    let endpoint = server.endpoint()?;
    let opening = connect(waiting, endpoint, cluster, deadline, |_| false);
    let mut opened = opening.await.ok()?;
    if let Some(tls) = &cluster.tls {
        let waiting = Waiting {
            worker,
            registration: &registration,
            timer: &mut timer,
        };
        opened = secure(waiting, opened, tls, deadline, |_| false)
            .await
            .ok()?;
    }
    let mut stream = opened.stream;
    let mut awaited = greet(stream.output(), server);
    poll_fn(|cx| {
        registration.update(cx);
        if worker.phase() == Phase::Closing {
            return Poll::Ready(None);
        }
        match poll_replies(cx, &mut stream, |reply| {
            awaited -= 1;
            matches!(reply, Reply::Status(_))
        }) {
            Poll::Ready(()) => return Poll::Ready(None),
            Poll::Pending if awaited == 0 => return Poll::Ready(Some(())),
            Poll::Pending => {}
        }
        timer.poll(cx, deadline).map(|()| None)
    })
    .await?;
    Some(stream)
}

/// Writes what a connection begins with. Returns how many replies there will be to it.
fn greet(out: &mut Vec<u8>, server: &Server) -> usize {
    let mut count = 1;
    if let Some(password) = &server.login.password {
        count += 1;
        let password = password.as_bytes();
        match &server.login.username {
            Some(username) => write_command(out, &[b"AUTH", username.as_bytes(), password]),
            None => write_command(out, &[b"AUTH", password]),
        }
    }
    if server.login.database != 0 {
        count += 1;
        let database = server.login.database.to_string();
        write_command(out, &[b"SELECT", database.as_bytes()]);
    }
    write_command(out, &[b"PING"]);
    count
}

/// Passes commands and answers on until there is an end to it.
async fn serve(
    worker: &Rc<Worker>,
    mut stream: Stream,
    connection: &Connection,
    answered: &mut impl FnMut(),
) -> Ended {
    let mut timer = Timer::new(worker.clock().clone());
    // A worker that drains does not wait for a connection that nobody waits for.
    let mut registration: Option<Registration> = None;
    let mut used = worker.clock().now();
    connection.0.borrow_mut().is_proven = true;
    poll_fn(|cx| {
        let now = worker.clock().now();
        {
            let mut state = connection.0.borrow_mut();
            if !state.unsent.is_empty() {
                stream.output().append(&mut state.unsent);
                used = now;
            }
            state.waker = Some(cx.waker().clone());
        }
        let received = poll_replies(cx, &mut stream, |reply| {
            let asked = connection.0.borrow_mut().asked.pop_front();
            answered();
            // Nothing is said that was not asked for.
            asked.is_some_and(|asked| {
                // Who has stopped waiting does not want it.
                let _ = asked.answer.send(reply);
                true
            })
        });
        let oldest = connection.0.borrow().asked.front().map(|asked| asked.since);
        let Some(oldest) = oldest else {
            registration = None;
            if received.is_ready() || worker.phase() >= Phase::Draining {
                return Poll::Ready(Ended::Idle);
            }
            return timer.poll(cx, used.after_ms(IDLE_MS)).map(|()| Ended::Idle);
        };
        registration
            .get_or_insert_with(|| worker.register())
            .update(cx);
        if received.is_ready() || worker.phase() == Phase::Closing {
            return Poll::Ready(Ended::Failed);
        }
        timer
            .poll(cx, oldest.after_ms(STALLED_MS))
            .map(|()| Ended::Failed)
    })
    .await
}

/// Writes what there is to write, and calls `take` with each reply that has come. Ready once the connection
/// is of no more use: it has ended, what came is no reply, or `take` says so.
fn poll_replies(
    cx: &mut Context<'_>,
    stream: &mut Stream,
    mut take: impl FnMut(Reply) -> bool,
) -> Poll<()> {
    if let Poll::Ready(Err(_)) = stream.poll_flush(cx) {
        return Poll::Ready(());
    }
    loop {
        loop {
            match read_reply(stream.input()) {
                Ok(Some((reply, length))) => {
                    stream.consume(length);
                    if !take(reply) {
                        return Poll::Ready(());
                    }
                }
                Ok(None) => break,
                Err(_) => return Poll::Ready(()),
            }
        }
        match stream.poll_fill(cx, MAX_REPLY) {
            Poll::Ready(Ok(count)) if count > 0 => {}
            Poll::Ready(_) => return Poll::Ready(()),
            Poll::Pending => return Poll::Pending,
        }
    }
}
