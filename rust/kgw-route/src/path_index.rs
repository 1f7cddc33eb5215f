//! From a path to the rules of its leading segments.
//!
//! There is a node for every (hostname, path) that some rule names: the path of exact rules, the prefix
//! of prefix rules (the empty path for `/`), the literal leading segments of regular expressions. A
//! lookup hashes the request's path once, segment by segment, and probes only the depths at which the
//! hostname has nodes, so that its cost depends on the path and not on the number of rules.
//!
//! A trie of segments asks the same questions, but each of its steps waits for the memory of the one
//! before; here the deepest node is usually the first and only probe.
//!
//! The nodes are spread over many small tables by their hash. A change makes those anew that it
//! touches and shares the others with the table before it.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use foldhash::fast::RandomState;
use smallvec::SmallVec;

use crate::draft::Draft;
use crate::parts::Parts;
use crate::shard::{GroupFault, Node, Shard};

/// The nodes of all hostnames.
pub(crate) struct PathIndex<T> {
    hasher: RandomState,
    /// A power of two of them.
    pub(crate) shards: Box<[Arc<Shard<T>>]>,
}

impl<T> Clone for PathIndex<T> {
    fn clone(&self) -> Self {
        Self {
            hasher: self.hasher.clone(),
            shards: self.shards.clone(),
        }
    }
}

/// The depths at which a hostname has nodes: bit n for n segments, the last bit for all beyond.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Depths {
    mask: u64,
    deepest: u32,
}

/// A leading run of whole segments of a path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Boundary {
    pub(crate) end: usize,
    hash: u64,
}

/// The boundaries worth a probe, shortest first. More than a few distinct depths are rare.
pub(crate) type Boundaries = SmallVec<[Boundary; 8]>;

const LAST_BIT: u32 = u64::BITS - 1;

// === impl PathIndex ===

impl<T> PathIndex<T> {
    /// An index of as many tables as suit a number of rules.
    pub(crate) fn for_rules(rules: usize) -> Self {
        let mut index = Self {
            hasher: RandomState::default(),
            shards: Box::default(),
        };
        index.clear_for(rules);
        index
    }

    /// Makes as many tables as suit a number of rules, empty ones.
    pub(crate) fn clear_for(&mut self, rules: usize) {
        let count = rules.div_ceil(Self::RULES_OF_SHARD).next_power_of_two();
        let empty = Arc::new(Shard::empty());
        self.shards = (0..count).map(|_| Arc::clone(&empty)).collect();
    }

    /// Adds rules to tables that are empty.
    pub(crate) fn fill(
        &mut self,
        drafts: Vec<Draft<'_, T>>,
        tie: fn(&T, &T) -> Ordering,
        parts: &mut Parts,
    ) -> Result<(), GroupFault> {
        let mut by_shard: Vec<Vec<Draft<'_, T>>> = Vec::new();
        by_shard.resize_with(self.shards.len(), Vec::new);
        for draft in drafts {
            by_shard[self.shard_of(draft.hash)].push(draft);
        }
        for (shard, drafts) in self.shards.iter_mut().zip(by_shard) {
            if !drafts.is_empty() {
                *shard = Arc::new(Shard::new(drafts, tie, &mut parts.automata)?);
            }
        }
        Ok(())
    }

    /// Empties a table.
    pub(crate) fn clear(&mut self, shard: usize) {
        self.shards[shard] = Arc::new(Shard::empty());
    }

    /// The number of rules.
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.len()).sum()
    }

    /// Bytes of text.
    pub(crate) fn text_len(&self) -> usize {
        self.shards.iter().map(|shard| shard.text_len()).sum()
    }

    /// The rules for which there are enough tables.
    pub(crate) fn capacity(&self) -> usize {
        2 * Self::RULES_OF_SHARD * self.shards.len()
    }

    /// The rules that a table is meant for: few enough that making it anew costs little, many enough
    /// that it costs little memory.
    pub(crate) const RULES_OF_SHARD: usize = 256;

    /// The hash of a node.
    pub(crate) fn hash(&self, host: u32, path: &[u8]) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        let mut end = 0;
        while end < path.len() {
            let start = end;
            end = segment_end(path, start);
            hasher.write(&path[start..end]);
        }
        key_hash(hasher.finish(), host)
    }

    /// The table that has the node of a hash.
    #[inline]
    pub(crate) fn shard_of(&self, hash: u64) -> usize {
        // The tables read the highest and the lowest bits.
        (hash >> 32) as usize & (self.shards.len() - 1)
    }

    /// The leading runs of segments of a path that may have nodes. A path that does not start with a
    /// slash has none but the empty one.
    #[inline]
    pub(crate) fn boundaries(&self, path: &[u8], depths: Depths) -> Boundaries {
        let mut boundaries = Boundaries::new();
        let deepest = if path.first() == Some(&b'/') {
            depths.deepest
        } else {
            0
        };
        let mut hasher = self.hasher.build_hasher();
        let mut end = 0;
        for depth in 0..=deepest {
            if depths.has(depth) {
                boundaries.push(Boundary {
                    end,
                    hash: hasher.finish(),
                });
            }
            if end == path.len() {
                break;
            }
            let start = end;
            end = segment_end(path, start);
            hasher.write(&path[start..end]);
        }
        boundaries
    }

    /// The node of a leading run of segments.
    #[inline]
    pub(crate) fn node(
        &self,
        host: u32,
        path: &[u8],
        boundary: Boundary,
    ) -> Option<(&Shard<T>, Node)> {
        let hash = key_hash(boundary.hash, host);
        let shard = &*self.shards[self.shard_of(hash)];
        let node = shard.node(hash, host, &path[..boundary.end])?;
        Some((shard, node))
    }
}

impl<T> fmt::Debug for PathIndex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PathIndex")
            .field("shards", &self.shards.len())
            .finish_non_exhaustive()
    }
}

/// Where the segment that starts with the slash at `start` ends.
#[inline]
fn segment_end(path: &[u8], start: usize) -> usize {
    // Segments are short: a plain loop beats memchr's set-up.
    path[start + 1..]
        .iter()
        .position(|&b| b == b'/')
        .map_or(path.len(), |at| start + 1 + at)
}

/// The number of segments: 0 for the root prefix (the empty path), 1 for `/` and `/a`.
fn depth(path: &[u8]) -> u32 {
    memchr::memchr_iter(b'/', path).count() as u32
}

/// Tells the nodes of hostnames apart. The multiplications spread the host, and the little that short
/// paths put into some bits, over all that are read: the highest, the lowest and the middle ones.
#[inline]
fn key_hash(path: u64, host: u32) -> u64 {
    let mixed = (path ^ u64::from(host).wrapping_mul(0x9e37_79b9_7f4a_7c15))
        .wrapping_mul(0xd6e8_feb8_6659_fd93);
    mixed ^ (mixed >> 32)
}

// === impl Depths ===

impl Depths {
    /// Adds the depth of a path.
    pub(crate) fn add(&mut self, path: &[u8]) {
        let depth = depth(path);
        self.mask |= 1 << depth.min(LAST_BIT);
        self.deepest = self.deepest.max(depth);
    }

    #[inline]
    fn has(self, depth: u32) -> bool {
        self.mask >> depth.min(LAST_BIT) & 1 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(of: &[&str], path: &str) -> Vec<usize> {
        let mut depths = Depths::default();
        for path in of {
            depths.add(path.as_bytes());
        }
        let index: PathIndex<()> = PathIndex::for_rules(0);
        let boundaries = index.boundaries(path.as_bytes(), depths);
        for boundary in &boundaries {
            let run = &path.as_bytes()[..boundary.end];
            assert_eq!(index.hash(7, run), key_hash(boundary.hash, 7));
        }
        boundaries.iter().map(|boundary| boundary.end).collect()
    }

    #[test]
    fn every_leading_run_of_segments() {
        let depths = ["", "/a", "/a/b", "/a/b/c"];
        assert_eq!(ends(&depths, "/a/b/c/d"), [0, 2, 4, 6]);
        assert_eq!(ends(&depths, "/ab/"), [0, 3, 4]);
        assert_eq!(ends(&depths, "/a//b"), [0, 2, 3, 5]);
        assert_eq!(ends(&depths, "/"), [0, 1]);
        assert_eq!(ends(&depths, "*"), [0]);
        assert_eq!(ends(&depths, ""), [0]);
    }

    #[test]
    fn only_depths_with_nodes_are_probed() {
        assert_eq!(ends(&["/a/b", "/a/b/c/d"], "/1/2/3/4/5/6/7/8"), [4, 8]);
        assert_eq!(ends(&[], "/1/2"), [0; 0]);
    }

    #[test]
    fn depths_beyond_the_mask_are_probed() {
        let deep = "/x".repeat(100);
        assert_eq!(ends(&[&deep, "/x"], &deep).len(), 1 + 100 - 62);
        assert_eq!(ends(&[&deep, "/x"], &deep).last(), Some(&200));
    }

    #[test]
    fn tables_grow_with_the_rules() {
        let tables = |rules| PathIndex::<()>::for_rules(rules).shards.len();
        assert_eq!([0, 1, 256, 257, 100_000].map(tables), [1, 1, 1, 2, 512]);
    }
}
