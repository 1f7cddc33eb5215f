//! A mapping whose end has not been seen: its entries, and the key that waits for a value.

use std::collections::HashMap;

use crate::source::Range;
use crate::tree::{Entry, NodeId};

#[derive(Default)]
pub(crate) struct OpenMapping {
    pub(crate) entries: Vec<Entry>,
    /// The key that waits for its value; without one the next node is a key.
    pub(crate) key: Option<Key>,
    /// Where `<<` stands, and what it merges once that is seen.
    pub(crate) merge: Option<(Range, Option<NodeId>)>,
    /// Where in `entries` a key is, once there are too many to look through.
    index: HashMap<Box<str>, usize>,
}

/// A key whose value has not been seen.
pub(crate) enum Key {
    Name(Box<str>, Range),
    Merge(Range),
    /// A key that was reported; its value is parsed and dropped.
    Refused,
}

impl OpenMapping {
    /// Returns where a key stands already.
    pub(crate) fn find(&self, key: &str) -> Option<Range> {
        let found = if self.entries.len() < MANY_KEYS {
            self.entries.iter().find(|entry| *entry.key == *key)
        } else {
            self.index.get(key).and_then(|at| self.entries.get(*at))
        };
        found.map(|entry| entry.key_range)
    }

    pub(crate) fn add(&mut self, entry: Entry) {
        if self.entries.len() >= MANY_KEYS {
            self.index.insert(entry.key.clone(), self.entries.len());
        }
        self.entries.push(entry);
        if self.entries.len() == MANY_KEYS {
            let keys = self.entries.iter().enumerate();
            self.index = keys.map(|(at, entry)| (entry.key.clone(), at)).collect();
        }
    }
}

/// Up to here a list of keys is looked through; from here on there is an index.
const MANY_KEYS: usize = 16;
