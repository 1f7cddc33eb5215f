//! From a path to the rules of its leading segments.
//!
//! One hash table holds a node for every (hostname, path) that some rule names, but for the root: the path of exact
//! rules, the prefix of prefix rules, the literal leading segments of regular expressions. A lookup
//! hashes the request's path once, segment by segment, and probes only the depths at which the
//! hostname has nodes, so that its cost depends on the path and not on the number of rules.
//!
//! A trie of segments asks the same questions, but each of its steps waits for the memory of the one
//! before; here the deepest node is usually the first and only probe.

use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::ops::Range;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Slot;
use smallvec::SmallVec;

/// All nodes of all hostnames.
pub(crate) struct PathIndex {
    hasher: RandomState,
    nodes: HashTable<Entry>,
    paths: Vec<u8>,
}

struct Entry {
    host: u32,
    at: u32,
    len: u32,
    node: Node,
}

/// The rules of one path: `exact` candidates are those of the path itself, `prefix` candidates those
/// of every path below; both in order of precedence, side by side.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Node {
    first: u32,
    first_prefix: u32,
    end: u32,
    /// Regular expressions to try below this path, or [`NO_REGEX`].
    regex: u32,
}

/// The depths at which a hostname has nodes in the table: bit n for n segments, the last bit for all beyond.
#[derive(Clone, Copy, Debug, Default)]
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

const NO_REGEX: u32 = u32::MAX;
const LAST_BIT: u32 = u64::BITS - 1;

// === impl PathIndex ===

impl PathIndex {
    pub(crate) fn with_capacity(nodes: usize) -> Self {
        Self {
            hasher: RandomState::default(),
            nodes: HashTable::with_capacity(nodes),
            paths: Vec::new(),
        }
    }

    /// The node of a path, made if there is none.
    pub(crate) fn node_mut(&mut self, host: u32, path: &[u8], depths: &mut Depths) -> &mut Node {
        let depth = depth(path);
        depths.mask |= 1 << depth.min(LAST_BIT);
        depths.deepest = depths.deepest.max(depth);
        let (hasher, paths) = (&self.hasher, &self.paths);
        let entry = self.nodes.entry(
            key_hash(hash(hasher, path), host),
            |entry| entry.host == host && entry.path(paths) == path,
            |entry| key_hash(hash(hasher, entry.path(paths)), entry.host),
        );
        let entry = match entry {
            Slot::Occupied(occupied) => occupied.into_mut(),
            Slot::Vacant(vacant) => {
                let at = self.paths.len() as u32;
                self.paths.extend_from_slice(path);
                let len = path.len() as u32;
                vacant
                    .insert(Entry {
                        host,
                        at,
                        len,
                        node: Node::EMPTY,
                    })
                    .into_mut()
            }
        };
        &mut entry.node
    }

    /// The leading runs of segments of a path that may have nodes.
    #[inline]
    pub(crate) fn boundaries(&self, path: &[u8], depths: Depths) -> Boundaries {
        let mut boundaries = Boundaries::new();
        if path.first() != Some(&b'/') {
            return boundaries;
        }
        let mut hasher = self.hasher.build_hasher();
        let mut end = 0;
        for depth in 0..=depths.deepest {
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
    pub(crate) fn node(&self, host: u32, path: &[u8], boundary: Boundary) -> Option<Node> {
        let path = &path[..boundary.end];
        self.nodes
            .find(key_hash(boundary.hash, host), |entry| {
                entry.host == host && entry.path(&self.paths) == path
            })
            .map(|entry| entry.node)
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.nodes.len()
    }
}

impl fmt::Debug for PathIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PathIndex")
            .field("nodes", &self.nodes.len())
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

/// Hash of a whole path, segment by segment as [`PathIndex::boundaries`] does.
fn hash(hasher: &RandomState, path: &[u8]) -> u64 {
    let mut hasher = hasher.build_hasher();
    let mut end = 0;
    while end < path.len() {
        let start = end;
        end = segment_end(path, start);
        hasher.write(&path[start..end]);
    }
    hasher.finish()
}

/// Tells the nodes of hostnames apart. The multiplication spreads the host over the bits that the hash
/// table reads, the highest and the lowest.
#[inline]
fn key_hash(path: u64, host: u32) -> u64 {
    path ^ u64::from(host).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

// === impl Entry ===

impl Entry {
    #[inline]
    fn path<'a>(&self, paths: &'a [u8]) -> &'a [u8] {
        &paths[self.at as usize..][..self.len as usize]
    }
}

// === impl Node ===

impl Node {
    pub(crate) const EMPTY: Self = Self {
        first: 0,
        first_prefix: 0,
        end: 0,
        regex: NO_REGEX,
    };

    /// Candidates, exact ones before `first_prefix` and prefix ones from there.
    pub(crate) fn set_candidates(&mut self, candidates: Range<u32>, first_prefix: u32) {
        (self.first, self.first_prefix, self.end) =
            (candidates.start, first_prefix, candidates.end);
    }

    pub(crate) fn set_regex(&mut self, group: u32) {
        self.regex = group;
    }

    #[inline]
    pub(crate) fn exact(&self) -> Range<u32> {
        self.first..self.first_prefix
    }

    #[inline]
    pub(crate) fn prefix(&self) -> Range<u32> {
        self.first_prefix..self.end
    }

    #[inline]
    pub(crate) fn regex(&self) -> Option<u32> {
        (self.regex != NO_REGEX).then_some(self.regex)
    }
}

// === impl Depths ===

impl Depths {
    #[inline]
    fn has(self, depth: u32) -> bool {
        self.mask >> depth.min(LAST_BIT) & 1 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(paths: &[&str]) -> (PathIndex, Depths) {
        let mut index = PathIndex::with_capacity(0);
        let mut depths = Depths::default();
        for (at, path) in (0..).zip(paths) {
            index
                .node_mut(7, path.as_bytes(), &mut depths)
                .set_candidates(at..at + 1, at);
        }
        (index, depths)
    }

    fn find(paths: &[&str], path: &str) -> Vec<String> {
        let (index, depths) = index(paths);
        index
            .boundaries(path.as_bytes(), depths)
            .into_iter()
            .filter_map(|boundary| index.node(7, path.as_bytes(), boundary))
            .map(|node| paths[node.prefix().start as usize].to_owned())
            .collect()
    }

    #[test]
    fn every_leading_run_of_segments() {
        let paths = ["", "/a", "/a/b", "/a/b/c", "/ab", "/a/", "/a//b"];
        assert_eq!(find(&paths, "/a/b/c/d"), ["", "/a", "/a/b", "/a/b/c"]);
        assert_eq!(find(&paths, "/a/b/cd"), ["", "/a", "/a/b"]);
        assert_eq!(find(&paths, "/a/"), ["", "/a", "/a/"]);
        assert_eq!(find(&paths, "/a//b"), ["", "/a", "/a/", "/a//b"]);
        assert_eq!(find(&paths, "/abc"), [""]);
        assert_eq!(find(&paths, "/"), [""]);
        assert_eq!(find(&paths, "*"), [""; 0]);
        assert_eq!(find(&paths, ""), [""; 0]);
    }

    #[test]
    fn only_depths_with_nodes_are_probed() {
        let (index, depths) = index(&["/a/b", "/a/b/c/d"]);
        let ends: Vec<_> = index
            .boundaries(b"/1/2/3/4/5/6/7/8", depths)
            .into_iter()
            .map(|boundary| boundary.end)
            .collect();
        assert_eq!(ends, [4, 8]);
    }

    #[test]
    fn depths_beyond_the_mask_still_match() {
        let deep = "/x".repeat(100);
        let deeper = "/x".repeat(101);
        assert_eq!(find(&[&deep, "/x"], &deeper), ["/x", deep.as_str()]);
        assert_eq!(find(&[&deeper], &deep), [""; 0]);
    }

    #[test]
    fn a_node_is_made_once_and_belongs_to_its_host() {
        let (mut index, mut depths) = index(&["/a", "/b"]);
        assert_eq!(index.node_mut(7, b"/a", &mut depths).prefix(), 0..1);
        assert_eq!(index.len(), 2);
        assert_eq!(index.node_mut(8, b"/a", &mut depths).prefix(), 0..0);
        assert_eq!(index.len(), 3);
    }
}
