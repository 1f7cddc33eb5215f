//! When the parts of a request happened.

/// A moment in the life of a request; the names are Envoy's (`%COMMON_DURATION%`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Point {
    /// `DS_RX_BEG`: the first byte of the request arrived.
    DownstreamRxBegin,
    /// `DS_RX_END`: the last byte of the request arrived.
    DownstreamRxEnd,
    /// `US_CX_BEG`: the connect to the upstream began.
    UpstreamConnectBegin,
    /// `US_CX_END`: the upstream connection is established.
    UpstreamConnectEnd,
    /// `US_HS_END`: the TLS handshake with the upstream is complete.
    UpstreamHandshakeEnd,
    /// `US_TX_BEG`: the first byte of the request was sent upstream.
    UpstreamTxBegin,
    /// `US_TX_END`: the last byte of the request was sent upstream.
    UpstreamTxEnd,
    /// `US_RX_BEG`: the first byte of the response arrived.
    UpstreamRxBegin,
    /// `US_RX_BODY_BEG`: the first byte of the response's body arrived.
    UpstreamRxBodyBegin,
    /// `US_RX_END`: the last byte of the response arrived.
    UpstreamRxEnd,
    /// `DS_TX_BEG`: the first byte of the response was sent.
    DownstreamTxBegin,
    /// `DS_TX_END`: the last byte of the response was sent.
    DownstreamTxEnd,
    /// The request is over and is being logged; `%DURATION%` ends here.
    StreamEnd,
}

/// The moments of one request. Nanoseconds on one monotonic clock of any origin.
///
/// A point that was not reached has no value, and a duration that needs it is missing from the log.
/// Envoy leaves every upstream point, and thus every duration but `%DURATION%`, unset for local
/// replies.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Timings {
    at: [u64; POINTS],
}

impl Timings {
    /// Returns timings in which nothing has happened yet.
    pub const fn new() -> Self {
        Self {
            at: [UNSET; POINTS],
        }
    }

    /// Sets when `point` happened, whether or not it was set before.
    pub fn set(&mut self, point: Point, nanos: u64) {
        self.at[point as usize] = nanos;
    }

    /// Forgets `point`; a retry forgets the points of the failed attempt.
    pub fn clear(&mut self, point: Point) {
        self.at[point as usize] = UNSET;
    }

    /// Returns when `point` happened.
    pub fn at(&self, point: Point) -> Option<u64> {
        let nanos = self.at[point as usize];
        (nanos != UNSET).then_some(nanos)
    }

    /// Returns the nanoseconds from `begin` to `end`, if both happened in this order.
    pub fn between(&self, begin: Point, end: Point) -> Option<u64> {
        self.at(end)?.checked_sub(self.at(begin)?)
    }
}

impl Default for Timings {
    fn default() -> Self {
        Self::new()
    }
}

const POINTS: usize = Point::StreamEnd as usize + 1;
const UNSET: u64 = u64::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_needs_both_ends_in_order() {
        let mut timings = Timings::new();
        assert_eq!(
            timings.between(Point::UpstreamTxBegin, Point::UpstreamRxBegin),
            None
        );
        timings.set(Point::UpstreamTxBegin, 100);
        assert_eq!(
            timings.between(Point::UpstreamTxBegin, Point::UpstreamRxBegin),
            None
        );
        timings.set(Point::UpstreamRxBegin, 350);
        assert_eq!(
            timings.between(Point::UpstreamTxBegin, Point::UpstreamRxBegin),
            Some(250)
        );
        assert_eq!(
            timings.between(Point::UpstreamRxBegin, Point::UpstreamTxBegin),
            None
        );
        timings.clear(Point::UpstreamRxBegin);
        assert_eq!(timings.at(Point::UpstreamRxBegin), None);
    }
}
