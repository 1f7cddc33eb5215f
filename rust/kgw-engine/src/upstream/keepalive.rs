//! PING frames that find out whether the peer of an HTTP/2 connection is still there.

use std::cell::Cell;
use std::rc::Rc;
use std::task::{Context, Poll};

use h2::{Ping, PingPong};

use crate::clock::Nanos;
use crate::config::ir::Http2Keepalive;

/// Percent of an interval by which it may be longer, so that connections do not ask in step (Envoy).
const JITTER_PERCENT: u64 = 15;

/// Whether a stream is to begin on a connection that was idle for long.
#[derive(Clone, Debug, Default)]
pub(super) struct Doubt(Rc<Cell<bool>>);

impl Doubt {
    /// Asks for a PING. The connection's task is about to run.
    pub(super) fn raise(&self) {
        self.0.set(true);
    }
}

/// The peer has not answered in time.
pub(super) struct Gone;

/// Asks the peer of one connection.
pub(super) struct Keepalive {
    interval_ms: u64,
    timeout_ms: u64,
    doubt: Doubt,
    ping: PingPong,
    /// When the next one goes.
    due: Nanos,
    /// Until when the answer to the last one has to be there.
    until: Nanos,
}

impl Keepalive {
    pub(super) fn new(options: &Http2Keepalive, ping: PingPong, doubt: Doubt, now: Nanos) -> Self {
        let mut keepalive = Self {
            interval_ms: options.interval_ms,
            timeout_ms: options.timeout_ms,
            doubt,
            ping,
            due: Nanos::NEVER,
            until: Nanos::NEVER,
        };
        keepalive.schedule(now);
        keepalive
    }

    fn schedule(&mut self, now: Nanos) {
        self.until = Nanos::NEVER;
        let jitter = fastrand::u64(0..=self.interval_ms.saturating_mul(JITTER_PERCENT) / 100);
        self.due = match self.interval_ms {
            0 => Nanos::NEVER,
            interval_ms => now.after_ms(interval_ms.saturating_add(jitter)),
        };
    }

    /// Sends what is due, and looks for answers.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, now: Nanos) -> Result<(), Gone> {
        if self.until != Nanos::NEVER && matches!(self.ping.poll_pong(cx), Poll::Ready(Ok(_))) {
            self.schedule(now);
        }
        let is_asked = self.doubt.0.take();
        if self.until == Nanos::NEVER && (is_asked || now >= self.due) {
            // One that cannot be sent is of a connection that has ended; its own poll says so.
            if self.ping.send_ping(Ping::opaque()).is_ok() {
                self.until = now.after_ms(self.timeout_ms);
                // It is looked for from now on.
                if matches!(self.ping.poll_pong(cx), Poll::Ready(Ok(_))) {
                    self.schedule(now);
                }
            }
            self.due = Nanos::NEVER;
        }
        if now >= self.until {
            return Err(Gone);
        }
        Ok(())
    }

    /// When it is to be polled again.
    pub(super) fn deadline(&self) -> Nanos {
        self.due.min(self.until)
    }
}
