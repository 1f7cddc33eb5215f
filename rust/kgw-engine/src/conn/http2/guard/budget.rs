//! What a peer may send that is not work: a leaky budget for each kind of frame.
//!
//! Each frame that costs the receiver more than it brings is charged to a budget. Charges leak away with
//! time, and useful work on the connection pays them back, since honest peers send such frames in
//! proportion to it: window updates for the data they receive, pings to measure the path while data
//! moves, priorities for each request. The manner is Envoy's, nghttp2's and nginx's; the numbers are
//! below, with their reasons.

use super::frames::{END_HEADERS, FrameHead, kind};
use crate::clock::{Clock, Nanos};

/// A kind of flood.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(crate) enum Flood {
    Ping,
    Settings,
    Priority,
    WindowUpdate,
    /// Streams reset before they were answered, by the peer ("rapid reset", CVE-2023-44487) or by us
    /// for what the peer did ("`MadeYouReset`", CVE-2025-8671).
    Reset,
    EmptyData,
    EmptyHeaders,
    Unknown,
    /// A header block of too many frames or bytes (CVE-2024-27316 and its kin).
    Continuation,
    /// Heads that are no requests, or too large.
    Malformed,
}

/// Which end of the connection we are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Role {
    /// The peer is a client, and may be anybody.
    Server,
    /// The peer is an upstream, whose connection many clients' requests share: all budgets are
    /// [`UPSTREAM_SCALE`] times as large, and what we reset is not charged to it.
    Client,
}

/// The size of a budget.
#[derive(Clone, Copy, Debug)]
struct Size {
    /// Charges that may stand.
    burst: u32,
    /// Charges that leak away in a second.
    per_second: u32,
    /// Charges that a unit of work pays back; see [`Meter::work`].
    per_work: u32,
}

/// The budgets, by [`Flood`]. A flood of 50,000 frames a second ends after the burst plus some
/// milliseconds' leak, so each costs the proxy a few thousand cheap frames at the most.
const SIZES: [Size; 8] = [
    // Ping, also its acknowledgements: a keepalive is one in seconds (gRPC servers refuse more than one
    // in 5 min); the ping that measures bandwidth (grpc, Go) is one per round trip while data moves.
    // 50 a second holds for round trips of 20 ms without any data.
    Size {
        burst: 200,
        per_second: 50,
        per_work: 1,
    },
    // Settings, also GOAWAY: one or two at the start; grpc follows the measured bandwidth with a new
    // window, at most as often as it pings.
    Size {
        burst: 200,
        per_second: 50,
        per_work: 1,
    },
    // Priority: nghttp sends five at the start and one a request, old Firefox a tree at the start.
    // Envoy: 100 per stream.
    Size {
        burst: 1000,
        per_second: 200,
        per_work: 10,
    },
    // Window updates: commonly two per DATA frame received, or one per half window. Envoy: 10 per DATA
    // frame sent.
    Size {
        burst: 1000,
        per_second: 200,
        per_work: 10,
    },
    // Reset: a page that is left resets what it had open, 100 streams. Each answer that begins pays one
    // back, so a client that resets fewer streams than are answered can go on for ever (Envoy: more
    // than half of 500 streams).
    Size {
        burst: 200,
        per_second: 100,
        per_work: 0,
    },
    // Empty DATA that ends nothing: no known client sends them in numbers (Envoy: 1 in succession;
    // the h2 crate: 100 in a connection's life).
    Size {
        burst: 50,
        per_second: 10,
        per_work: 0,
    },
    // HEADERS without a byte: no message is empty, so each is a fault.
    Size {
        burst: 10,
        per_second: 1,
        per_work: 0,
    },
    // Unknown frames: browsers send PRIORITY_UPDATE (RFC 9218) for each request, some send grease.
    Size {
        burst: 1000,
        per_second: 200,
        per_work: 10,
    },
];

const UPSTREAM_SCALE: u32 = 10;

/// Settings in a SETTINGS frame that cost as much as the frame.
const SETTINGS_PER_CHARGE: u32 = 10;
const SETTING_BYTES: u32 = 6;

/// Received payload that is a unit of work. Bytes.
const RECEIVED_PER_WORK: u32 = 1024;
/// Sent payload that is a unit of work, beside one for the frame. Bytes. A peer that takes a frame of
/// 16 KiB in small reads may acknowledge each.
const SENT_PER_WORK: u32 = 4096;

/// Header frames hold 16 KiB by default and commonly; CONTINUATION frames beyond this many for each
/// 16 KiB of the largest head are a flood.
const CONTINUATIONS_PER_16_KIB: usize = 2;
/// CONTINUATION frames that may be empty in one block: none is needed, one is a curiosity.
const EMPTY_CONTINUATIONS: u32 = 1;

/// One leaky budget.
#[derive(Debug)]
struct Budget {
    spent: u32,
    settled: Nanos,
}

/// The budgets of one connection.
#[derive(Debug)]
pub(crate) struct Meter {
    role: Role,
    budgets: [Budget; SIZES.len()],
    /// Received payload that is not a whole unit of work yet. Bytes.
    received: u32,
    block: Block,
    max_continuations: u32,
    max_block_bytes: u32,
}

/// The header block that is arriving.
#[derive(Debug, Default)]
struct Block {
    continuations: u32,
    empty: u32,
    bytes: u32,
}

impl Budget {
    /// Charges `cost`. Returns whether the budget holds.
    ///
    /// The clock is read only when it seems not to: what leaked since then is taken off all at once, so
    /// a peer that was quiet has at most twice the burst.
    fn charge(&mut self, cost: u32, scale: u32, size: Size, clock: &Clock) -> bool {
        let (burst, per_second) = (size.burst * scale, u64::from(size.per_second * scale));
        self.spent = self.spent.saturating_add(cost);
        if self.spent <= burst {
            return true;
        }
        let now = clock.now();
        let leaked = now.since(self.settled).saturating_mul(per_second) / SECOND;
        if leaked >= u64::from(self.spent) {
            self.spent = cost;
            self.settled = now;
        } else {
            self.spent -= leaked as u32;
            self.settled = Nanos(self.settled.0 + leaked * SECOND / per_second);
        }
        self.spent <= burst
    }

    fn pay(&mut self, amount: u32) {
        self.spent = self.spent.saturating_sub(amount);
    }
}

impl Meter {
    /// A meter of a new connection, whose peer may send heads of `max_head_bytes`.
    pub(crate) fn new(role: Role, max_head_bytes: usize, now: Nanos) -> Self {
        let frames = max_head_bytes.div_ceil(16 * 1024).max(2) * CONTINUATIONS_PER_16_KIB;
        Self {
            role,
            budgets: std::array::from_fn(|_| Budget {
                spent: 0,
                settled: now,
            }),
            received: 0,
            block: Block::default(),
            max_continuations: u32::try_from(frames).unwrap_or(u32::MAX),
            // A block is shorter than the fields it stands for, but for the lengths of tiny ones.
            max_block_bytes: u32::try_from(max_head_bytes.saturating_mul(2)).unwrap_or(u32::MAX),
        }
    }

    /// Counts a frame that the peer sent.
    pub(crate) fn received(&mut self, head: FrameHead, clock: &Clock) -> Result<(), Flood> {
        match head.kind {
            kind::DATA => {
                if head.length == 0 && !head.ends_stream() {
                    return self.charge(Flood::EmptyData, 1, clock);
                }
                self.received = self.received.saturating_add(head.length);
                self.work(self.received / RECEIVED_PER_WORK);
                self.received %= RECEIVED_PER_WORK;
            }
            kind::HEADERS | kind::PUSH_PROMISE => {
                self.block = Block {
                    bytes: head.length,
                    ..Block::default()
                };
                if self.role == Role::Client {
                    self.answered(head);
                }
                if head.length == 0 {
                    return self.charge(Flood::EmptyHeaders, 1, clock);
                }
            }
            kind::CONTINUATION => return self.continuation(head),
            kind::RST_STREAM => return self.charge(Flood::Reset, 1, clock),
            kind::PRIORITY => return self.charge(Flood::Priority, 1, clock),
            kind::SETTINGS | kind::GOAWAY => {
                let cost = 1 + head.length / (SETTING_BYTES * SETTINGS_PER_CHARGE);
                return self.charge(Flood::Settings, cost, clock);
            }
            kind::PING => return self.charge(Flood::Ping, 1, clock),
            kind::WINDOW_UPDATE => return self.charge(Flood::WindowUpdate, 1, clock),
            _ => return self.charge(Flood::Unknown, 1, clock),
        }
        Ok(())
    }

    /// Counts a frame that we sent.
    pub(crate) fn sent(&mut self, head: FrameHead, clock: &Clock) -> Result<(), Flood> {
        match (head.kind, self.role) {
            (kind::DATA, _) if head.length > 0 => self.work(1 + head.length / SENT_PER_WORK),
            (kind::HEADERS, Role::Server) => self.answered(head),
            (kind::RST_STREAM, Role::Server) => return self.charge(Flood::Reset, 1, clock),
            _ => {}
        }
        Ok(())
    }

    /// An answer's head, or its trailers.
    fn answered(&mut self, head: FrameHead) {
        self.budgets[Flood::Reset as usize].pay(1);
        if head.ends_stream() {
            self.work(1);
        }
    }

    fn continuation(&mut self, head: FrameHead) -> Result<(), Flood> {
        let block = &mut self.block;
        block.continuations += 1;
        block.empty += u32::from(head.length == 0 && !head.has(END_HEADERS));
        block.bytes = block.bytes.saturating_add(head.length);
        if block.continuations > self.max_continuations
            || block.empty > EMPTY_CONTINUATIONS
            || block.bytes > self.max_block_bytes
        {
            return Err(Flood::Continuation);
        }
        Ok(())
    }

    fn charge(&mut self, flood: Flood, cost: u32, clock: &Clock) -> Result<(), Flood> {
        let scale = match self.role {
            Role::Server => 1,
            Role::Client => UPSTREAM_SCALE,
        };
        let index = flood as usize;
        if self.budgets[index].charge(cost, scale, SIZES[index], clock) {
            Ok(())
        } else {
            Err(flood)
        }
    }

    /// Pays back for `units` of work: a DATA frame sent and each 4 KiB in it, a KiB of payload received,
    /// an answer that ended.
    fn work(&mut self, units: u32) {
        if units > 0 {
            for (budget, size) in self.budgets.iter_mut().zip(SIZES) {
                budget.pay(units.saturating_mul(size.per_work));
            }
        }
    }
}

const SECOND: u64 = 1_000_000_000;
