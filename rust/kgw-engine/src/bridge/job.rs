//! One question to a filter.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::head::{RequestHead, ResponseHead};
use super::session::Session;
use super::verdict::{Failure, Verdict};

/// What a filter is asked about.
#[derive(Debug)]
#[non_exhaustive]
pub enum Message {
    /// A request's head, before it goes anywhere.
    RequestHead(Box<RequestHead>),
    /// A response's head, before the client sees it, and the head of the request as it was sent on.
    ResponseHead(Box<RequestHead>, Box<ResponseHead>),
    /// A piece of a request's body; with the head if the filter has not seen it in this session.
    RequestChunk(Option<Box<RequestHead>>, Chunk),
    /// A piece of a response's body; with the heads if the filter has not seen that of the response in
    /// this session.
    ResponseChunk(Option<(Box<RequestHead>, Box<ResponseHead>)>, Chunk),
}

/// A piece of a body.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// Some of it; empty only at the end.
    pub data: Bytes,
    /// Nothing follows.
    pub end: bool,
}

/// One question to a filter, which has one answer.
#[derive(Debug)]
pub struct Job {
    id: u64,
    filter: u16,
    message: Option<Message>,
    session: Option<Arc<Session>>,
    is_last: bool,
    reply: Option<oneshot::Sender<Verdict>>,
    _place: Place,
}

impl Job {
    pub(super) fn new(
        id: u64,
        filter: u16,
        message: Message,
        (session, is_last): (Option<Arc<Session>>, bool),
        reply: oneshot::Sender<Verdict>,
        place: Place,
    ) -> Self {
        Self {
            id,
            filter,
            message: Some(message),
            session,
            is_last,
            reply: Some(reply),
            _place: place,
        }
    }

    /// Returns its number, which [`Bridge::begin`](super::Bridge::begin) names if it is cancelled.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Returns the place of the filter among those that were declared.
    pub fn filter(&self) -> usize {
        usize::from(self.filter)
    }

    /// Takes out what the filter is asked about. It is there once.
    pub fn take_message(&mut self) -> Option<Message> {
        self.message.take()
    }

    /// Returns the number of its session, if it has one: what the jobs of one filter about one exchange
    /// have in common. Unless a job of it [is the last](Self::is_last),
    /// [`Bridge::ended`](super::Bridge::ended) tells when the session is over.
    pub fn session(&self) -> Option<u64> {
        self.session.as_ref().map(|session| session.id())
    }

    /// Returns whether no other job of its session follows.
    pub fn is_last(&self) -> bool {
        self.is_last
    }

    /// Returns whether nobody waits for the verdict any longer.
    pub fn is_cancelled(&self) -> bool {
        self.reply.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    /// Notes that it is about to be handed out. Returns whether somebody waits for its verdict still.
    pub(super) fn deliver(&self) -> bool {
        if let Some(session) = &self.session {
            session.deliver();
        }
        let is_waited_for = !self.is_cancelled();
        if is_waited_for
            && self.is_last
            && let Some(session) = &self.session
        {
            session.forget();
        }
        is_waited_for
    }

    /// Sends the verdict.
    pub fn answer(mut self, verdict: Verdict) {
        self.send(verdict);
    }

    fn send(&mut self, verdict: Verdict) {
        if let Some(reply) = self.reply.take() {
            // Who waited may have stopped in this moment.
            let _ = reply.send(verdict);
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.send(Verdict::Failed(Failure::Closed));
    }
}

/// A place among the jobs that may exist.
#[derive(Debug)]
pub(super) struct Place(Arc<AtomicUsize>);

impl Place {
    /// Takes one of `capacity` places, if one is free.
    pub(super) fn take(taken: &Arc<AtomicUsize>, capacity: usize) -> Option<Self> {
        if taken.fetch_add(1, Ordering::AcqRel) >= capacity {
            taken.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        Some(Self(Arc::clone(taken)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
