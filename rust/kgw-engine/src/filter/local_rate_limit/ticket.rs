//! A request that waits for tokens.

use std::task::{Context, Poll};
use std::time::Duration;

use kgw_limit::{Entered, Place, Refused, Tick, Unreserved};

use super::Take;
use super::bucket::Bucket;
use crate::clock::Nanos;

/// The tokens that a request has taken and reserved. It gives them back when it is dropped, unless it was
/// [served](Self::serve).
#[derive(Debug, Default)]
pub(crate) struct Ticket<'f> {
    held: Vec<Held<'f>>,
    is_served: bool,
}

/// Tokens of one bucket.
#[derive(Debug)]
struct Held<'f> {
    bucket: &'f Bucket,
    key: Option<u128>,
    n: u64,
    /// Where it waits for them. None if it has them.
    place: Option<Place>,
    /// When they are there.
    ready: Nanos,
}

impl<'f> Ticket<'f> {
    /// Gets in line for the tokens of a bucket, or takes them.
    ///
    /// # Errors
    /// Why that cannot be. What was entered before is given back with the ticket.
    pub(super) fn enter(
        &mut self,
        now: Nanos,
        take: &Take<'f>,
        longest: Duration,
        most: usize,
    ) -> Result<(), Refused> {
        let tick = Tick::from_nanos(now.0);
        let entered = take.bucket.enter(tick, take.key, take.n, longest, most)?;
        let (place, ready) = match entered {
            Entered::Ready => (None, now),
            Entered::Waiting { place, wait } => (Some(place), after(now, wait)),
        };
        self.held.push(Held {
            bucket: take.bucket,
            key: take.key,
            n: take.n,
            place,
            ready,
        });
        Ok(())
    }

    /// When all tokens are there.
    pub(crate) fn ready(&self) -> Nanos {
        let ready = self.held.iter().map(|held| held.ready);
        ready.max().unwrap_or_default()
    }

    /// Waits until it may go earlier than it was told, since others have given up.
    pub(crate) fn poll_called(&mut self, now: Nanos, cx: &Context<'_>) -> Poll<()> {
        let mut is_called = false;
        for held in &mut self.held {
            let Some(place) = &held.place else { continue };
            while let Some(wait) = held.bucket.with_line(held.key, |lines, bucket| {
                let tick = Tick::from_nanos(now.0);
                lines.look(bucket, &held.key, place, tick, cx.waker())
            }) {
                held.ready = held.ready.min(after(now, wait));
                is_called = true;
            }
        }
        if is_called {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Keeps the tokens.
    pub(crate) fn serve(mut self) {
        self.is_served = true;
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        for held in self.held.drain(..) {
            match held.place {
                Some(place) => held.bucket.leave(held.key, place, self.is_served),
                None if self.is_served => {}
                None => held.bucket.with_line(held.key, |lines, bucket| {
                    lines.give_back(bucket, &held.key, held.n);
                }),
            }
        }
    }
}

/// How long whoever was refused would have had to wait. None: for ever.
pub(super) fn wait_of(refused: Refused) -> Option<Duration> {
    match refused {
        Refused::Full { wait } | Refused::Unreserved(Unreserved::TooLate { wait }) => Some(wait),
        Refused::Unreserved(Unreserved::Never) => None,
    }
}

fn after(now: Nanos, wait: Duration) -> Nanos {
    let nanos = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
    Nanos(now.0.saturating_add(nanos))
}
