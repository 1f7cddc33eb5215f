//! What an attempt was sent of a request's body, kept for the next one.
//!
//! Rules:
//! 1. What is passed on is kept at the same time, until it is more than the limit, or than there is room for
//!    in the process. Then all of it is let go and the request can be sent no further time; what is under
//!    way goes on.
//! 2. After [`Replay::begin_again`] what was kept goes first, and then what still comes in. So an attempt may
//!    fail while the client is sending.
//! 3. What is kept is what went out, behind filters and translations: they see each byte once.
//! 4. After [`Replay::no_more`] nothing more is kept, and what was is let go once the attempt under way has
//!    it: an answer may take hours.

use std::sync::Arc;

use kgw_h1::{Framing, Headers};

use crate::room::{Held, Room};

/// What is given out at a time. Bytes.
const PIECE: usize = 16 * 1024;

/// A request's body, as far as it has been passed on.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(crate) struct Replay {
    limit: usize,
    kept: Vec<u8>,
    /// Counts what `kept` takes up; none for an empty one.
    held: Option<Held>,
    /// How much of it the attempt under way was given.
    at: usize,
    /// The end was passed on, and is kept as well.
    has_end: bool,
    trailers: Option<Headers>,
    end_sent: bool,
    /// It was longer than the limit, or there was no room.
    is_lost: bool,
    /// No attempt follows.
    is_last: bool,
    /// The framing of the first attempt, which the others have too: what it was found from may be gone.
    framing: Option<Framing>,
}

impl Replay {
    /// Keeps a body of up to `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            kept: Vec::new(),
            held: None,
            at: 0,
            has_end: false,
            trailers: None,
            end_sent: false,
            is_lost: false,
            is_last: false,
            framing: None,
        }
    }

    /// The framing of an attempt that by itself would have this one.
    pub(crate) fn framing(&mut self, framing: Framing) -> Framing {
        let framing = *self.framing.get_or_insert(framing);
        if framing
            .length()
            .is_some_and(|length| length > self.limit as u64)
        {
            self.is_lost = true;
        }
        framing
    }

    /// Keeps what is being passed on, if there is room for it.
    pub(crate) fn keep(&mut self, data: &[u8], room: &Arc<Room>) {
        if !self.is_whole() {
            return;
        }
        if data.len() > self.limit - self.kept.len() || !self.reserve(data.len(), room) {
            self.is_lost = true;
            self.let_go();
            return;
        }
        self.kept.extend_from_slice(data);
        self.at = self.kept.len();
    }

    /// Makes place for so many bytes more, and counts all of the allocation. Returns whether there is room.
    /// A client that only says that much is to come takes up none of it.
    fn reserve(&mut self, more: usize, room: &Arc<Room>) -> bool {
        let len = self.kept.len() + more;
        let capacity = self.kept.capacity();
        if len <= capacity {
            return true;
        }
        let wanted = len.max(capacity.saturating_mul(2)).min(self.limit);
        let held = self.held.get_or_insert_with(|| room.hold());
        if !held.grow_to(wanted) {
            return false;
        }
        self.kept.reserve_exact(wanted - self.kept.len());
        true
    }

    fn let_go(&mut self) {
        self.kept = Vec::new();
        self.at = 0;
        self.held = None;
    }

    /// Keeps the end, which is being passed on.
    pub(crate) fn keep_end(&mut self, trailers: Option<&Headers>) {
        if self.is_whole() {
            self.has_end = true;
            self.trailers = trailers.cloned();
            self.end_sent = true;
        }
    }

    /// Whether all that was passed on is there for another attempt, and what comes has to be kept.
    pub(crate) fn is_whole(&self) -> bool {
        !self.is_lost && !self.is_last
    }

    /// No attempt follows the one under way.
    pub(crate) fn no_more(&mut self) {
        self.is_last = true;
        if !self.is_behind() {
            self.let_go();
            self.trailers = None;
        }
    }

    /// Another attempt begins.
    pub(crate) fn begin_again(&mut self) {
        self.at = 0;
        self.end_sent = false;
    }

    /// Whether the attempt under way has not been given all that was kept.
    pub(crate) fn is_behind(&self) -> bool {
        self.at < self.kept.len() || self.has_end && !self.end_sent
    }

    /// The next piece of what was kept; empty if only the end is left.
    pub(crate) fn piece(&self) -> &[u8] {
        let rest = &self.kept[self.at..];
        &rest[..rest.len().min(PIECE)]
    }

    /// Notes that so much was given out.
    pub(crate) fn advance(&mut self, count: usize) {
        self.at += count;
        if self.is_last && self.at == self.kept.len() {
            self.let_go();
        }
    }

    /// Whether nothing but the end is left to be given out.
    pub(crate) fn is_end_due(&self) -> bool {
        self.at == self.kept.len() && self.has_end && !self.end_sent
    }

    /// Notes that the end was given out, and returns the trailer fields.
    pub(crate) fn end(&mut self) -> Option<&Headers> {
        self.end_sent = true;
        self.trailers.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plenty() -> Arc<Room> {
        Arc::new(Room::new(usize::MAX))
    }

    /// An endpoint that takes so many bytes before it fails; none takes everything.
    type Attempts = Vec<Option<usize>>;

    /// Sends a body in chunks to one endpoint after the other, as a relay does. Returns what each was sent,
    /// and whether it was sent the end; an endpoint that fails when it cannot be sent to again ends it.
    fn send(
        chunks: &[Vec<u8>],
        limit: usize,
        room: usize,
        attempts: &Attempts,
    ) -> Vec<(Vec<u8>, bool)> {
        let mut replay = Replay::new(limit);
        let kept_in = plenty();
        let mut sent = Vec::new();
        let (mut next, mut complete) = (0, false);
        for (number, fails_after) in attempts.iter().enumerate() {
            if number > 0 {
                if !replay.is_whole() {
                    break;
                }
                replay.begin_again();
            }
            if number + 1 == attempts.len() {
                replay.no_more();
            }
            assert_eq!(replay.framing(Framing::Chunked), Framing::Chunked);
            let (mut got, mut ended) = (Vec::new(), false);
            let has_failed = |got: &Vec<u8>| fails_after.is_some_and(|most| got.len() >= most);
            while !ended && !has_failed(&got) {
                if replay.is_behind() {
                    // There is little room each time.
                    let piece = replay.piece();
                    let count = piece.len().min(room);
                    got.extend_from_slice(&piece[..count]);
                    replay.advance(count);
                    ended = replay.is_end_due();
                    if ended {
                        replay.end();
                    }
                } else if let Some(chunk) = chunks.get(next) {
                    next += 1;
                    replay.keep(chunk, &kept_in);
                    got.extend_from_slice(chunk);
                } else {
                    assert!(!complete, "the client's end comes once");
                    complete = true;
                    replay.keep_end(None);
                    ended = true;
                }
            }
            sent.push((got, ended));
            if number + 1 == attempts.len() && !replay.is_behind() {
                assert_eq!(kept_in.used(), 0, "all of it was sent, and nothing follows");
            }
        }
        drop(replay);
        assert_eq!(kept_in.used(), 0);
        sent
    }

    proptest! {
        #[test]
        fn every_attempt_is_sent_the_body_or_a_part_from_its_beginning(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20),
            limit in 0_usize..400,
            room in 1_usize..50,
            attempts in prop::collection::vec(prop::option::of(0_usize..500), 1..5),
        ) {
            let body = chunks.concat();
            let sent = send(&chunks, limit, room, &attempts);
            for (number, (got, ended)) in sent.iter().enumerate() {
                if *ended {
                    prop_assert_eq!(got, &body);
                } else {
                    prop_assert_eq!(got, &body[..got.len()]);
                    prop_assert!(attempts[number].is_some(), "it was cut short for nothing");
                }
            }
            // A body within the limit can be sent as often as there are attempts.
            if body.len() <= limit {
                prop_assert_eq!(sent.len(), attempts.len());
            }
        }
    }

    #[test]
    fn a_body_that_is_longer_is_let_go_and_passes() {
        let (mut replay, room) = (Replay::new(4), plenty());
        replay.keep(b"abc", &room);
        assert!(replay.is_whole());
        replay.keep(b"de", &room);
        assert!(!replay.is_whole());
        assert_eq!((replay.kept.capacity(), room.used()), (0, 0));
        replay.keep(b"f", &room);
        replay.keep_end(None);
        assert!(!replay.is_behind());
    }

    #[test]
    fn a_body_that_says_it_is_longer_is_not_kept_at_all() {
        let mut replay = Replay::new(4);
        replay.framing(Framing::Length(5));
        replay.keep(b"abc", &plenty());
        assert_eq!(replay.kept.capacity(), 0);
        assert!(!replay.is_whole());
    }

    #[test]
    fn all_requests_together_have_so_much_room() {
        let room = Arc::new(Room::new(100));
        let (mut one, mut other) = (Replay::new(80), Replay::new(80));
        one.keep(&[1; 60], &room);
        other.keep(&[2; 30], &room);
        other.keep(&[2; 30], &room);
        assert!(one.is_whole() && !other.is_whole());
        assert_eq!((other.kept.capacity(), room.used()), (0, 60));
        // The one that was there goes on, and what it lets go is another's.
        one.begin_again();
        assert_eq!(one.piece(), &[1; 60]);
        drop(one);
        let mut third = Replay::new(80);
        third.keep(&[3; 80], &room);
        assert!(third.is_whole());
    }

    #[test]
    fn what_is_counted_is_what_is_allocated() {
        let (mut replay, room) = (Replay::new(1_000), plenty());
        for _ in 0..700 {
            replay.keep(b"x", &room);
            assert!(room.used() >= replay.kept.capacity());
        }
        assert_eq!(replay.kept.len(), 700);
        assert!(room.used() <= 1_000);
    }

    #[test]
    fn once_nothing_follows_what_was_sent_is_let_go_and_the_rest_is_sent() {
        let (mut replay, room) = (Replay::new(8), plenty());
        replay.keep(b"abcd", &room);
        replay.keep_end(None);
        replay.begin_again();
        replay.advance(1);
        replay.no_more();
        assert!(!replay.is_whole() && replay.is_behind());
        assert_eq!((replay.piece(), room.used()), (&b"bcd"[..], 4));
        replay.advance(3);
        assert_eq!((replay.kept.capacity(), room.used()), (0, 0));
        assert!(replay.is_end_due());
        replay.end();
        assert!(!replay.is_behind());
    }

    #[test]
    fn once_nothing_follows_nothing_more_is_kept() {
        let (mut replay, room) = (Replay::new(8), plenty());
        replay.keep(b"ab", &room);
        replay.no_more();
        assert_eq!(room.used(), 0);
        replay.keep(b"cd", &room);
        replay.keep_end(None);
        assert_eq!((replay.kept.capacity(), room.used()), (0, 0));
        assert!(!replay.is_behind());
    }

    #[test]
    fn trailer_fields_are_sent_again() {
        let mut trailers = Headers::new();
        trailers.append(b"checksum", b"1");
        let mut replay = Replay::new(4);
        replay.keep(b"ab", &plenty());
        replay.keep_end(Some(&trailers));
        assert!(!replay.is_behind());
        replay.begin_again();
        assert!(!replay.is_end_due());
        assert_eq!(replay.piece(), b"ab");
        replay.advance(2);
        assert!(replay.is_end_due());
        let fields = replay.end().cloned().unwrap();
        assert_eq!(fields.get(b"checksum"), Some(&b"1"[..]));
        assert!(!replay.is_end_due() && !replay.is_behind());
    }
}
