//! Sending a body no faster than so many bytes a second.

use crate::clock::Nanos;

/// The parts of a second in which bytes are given out, as in Envoy.
const PARTS: u64 = 16;

/// How much of a body may go on by now.
///
/// A share of a second's bytes goes on at once, then as many in each part of a second.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Bytes of a part of a second, at least 1.
    share: u64,
    /// What may go on at once.
    left: u64,
    /// When the share under way was given out.
    since: Nanos,
}

impl Pace {
    /// Begins with a share.
    pub(crate) fn new(bytes_per_second: u64, now: Nanos) -> Self {
        let share = (bytes_per_second / PARTS).max(1);
        Self {
            share,
            left: share,
            since: now,
        }
    }

    /// How many of `length` bytes may go on. None has the time at which some may.
    pub(crate) fn take(&mut self, length: usize, now: Nanos) -> Result<usize, Nanos> {
        const PART: u64 = 1_000_000_000 / PARTS;
        let parts = now.since(self.since) / PART;
        if parts > 0 {
            // What was not used is not saved up.
            self.left = self.share.saturating_mul(parts.min(PARTS));
            self.since = Nanos(self.since.0 + parts * PART);
        }
        if self.left == 0 && length > 0 {
            return Err(Nanos(self.since.0 + PART));
        }
        let count = (length as u64).min(self.left);
        self.left -= count;
        Ok(count as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_takes_its_time() {
        let mut pace = Pace::new(1_600, Nanos(0));
        let (mut left, mut now) = (1_000, Nanos(0));
        while left > 0 {
            match pace.take(left, now) {
                Ok(count) => {
                    assert!(count <= 100);
                    left -= count;
                }
                Err(at) => {
                    assert!(at > now);
                    now = at;
                }
            }
        }
        // The first share goes at once, the other nine in a sixteenth of a second each.
        assert_eq!(now, Nanos(9 * 62_500_000));
    }

    #[test]
    fn what_was_not_used_is_not_saved_up() {
        let mut pace = Pace::new(1_600, Nanos(0));
        assert_eq!(pace.take(100, Nanos(0)), Ok(100));
        assert_eq!(pace.take(1_000_000, Nanos(60_000_000_000)), Ok(1_600));
        assert!(pace.take(1, Nanos(60_000_000_000)).is_err());
    }

    #[test]
    fn the_end_of_a_body_does_not_wait() {
        let mut pace = Pace::new(16, Nanos(0));
        assert_eq!(pace.take(5, Nanos(0)), Ok(1));
        assert_eq!(pace.take(0, Nanos(0)), Ok(0));
        assert!(pace.take(1, Nanos(0)).is_err());
    }
}
