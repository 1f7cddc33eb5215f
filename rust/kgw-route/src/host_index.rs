//! From a request's host to the hostnames that match it, most specific first.

use std::fmt;
use std::hash::{BuildHasher, Hasher};

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::hostname::{Pattern, requested, with_lower};
use crate::path_index::Depths;

/// Hostnames and what is known of their rules. Exact names and suffixes are probes of hash tables; a
/// suffix is probed only if there is one of that many labels.
///
/// A clone copies a few blocks of memory, whatever the number of hostnames.
#[derive(Clone)]
pub(crate) struct HostIndex {
    hasher: RandomState,
    exact: HashTable<HostEntry>,
    suffix: HashTable<HostEntry>,
    /// Bit n is set if there is a suffix of n labels; the last bit stands for all greater numbers.
    suffix_labels: u64,
    any: Option<HostEntry>,
    names: String,
    /// Bytes of `names` that belong to hostnames which are gone.
    unused: usize,
    next: u32,
}

/// A hostname.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostEntry {
    at: u32,
    len: u32,
    /// Unique in the table and in those that are made of it.
    pub(crate) number: u32,
    /// Whether any path is a regular expression.
    pub(crate) has_regex: bool,
    /// Where the hostname has rules.
    pub(crate) depths: Depths,
}

// === impl HostIndex ===

impl HostIndex {
    pub(crate) fn new() -> Self {
        Self {
            hasher: RandomState::default(),
            exact: HashTable::new(),
            suffix: HashTable::new(),
            suffix_labels: 0,
            any: None,
            names: String::new(),
            unused: 0,
            next: 0,
        }
    }

    /// The entry of a hostname, if it has one.
    pub(crate) fn get(&self, pattern: &Pattern) -> Option<&HostEntry> {
        match pattern {
            Pattern::Any => self.any.as_ref(),
            Pattern::Exact(name) => self.probe(&self.exact, 0, name.as_bytes()),
            Pattern::Suffix(name) => self.probe(&self.suffix, WILDCARD, name.as_bytes()),
        }
    }

    /// The entry of a hostname, made if there is none.
    pub(crate) fn get_or_insert(&mut self, pattern: &Pattern) -> &mut HostEntry {
        if self.get(pattern).is_none() {
            self.insert(pattern);
        }
        let (hasher, names) = (&self.hasher, self.names.as_bytes());
        let found = match pattern {
            Pattern::Any => self.any.as_mut(),
            Pattern::Exact(name) => self.exact.find_mut(hash(hasher, name.as_bytes()), |entry| {
                entry.name(names, 0) == name.as_bytes()
            }),
            Pattern::Suffix(name) => self
                .suffix
                .find_mut(hash(hasher, name.as_bytes()), |entry| {
                    entry.name(names, WILDCARD) == name.as_bytes()
                }),
        };
        found.expect("it was inserted above")
    }

    fn insert(&mut self, pattern: &Pattern) {
        let entry = HostEntry {
            at: self.names.len() as u32,
            len: 0,
            number: self.next,
            has_regex: false,
            depths: Depths::default(),
        };
        self.next += 1;
        let (table, skip, name) = match pattern {
            Pattern::Any => {
                self.names.push('*');
                self.any = Some(HostEntry { len: 1, ..entry });
                return;
            }
            Pattern::Exact(name) => (&mut self.exact, 0, name),
            Pattern::Suffix(name) => {
                self.suffix_labels |= label_bit(name.split('.').count());
                self.names.push_str("*.");
                (&mut self.suffix, WILDCARD, name)
            }
        };
        self.names.push_str(name);
        let len = (skip + name.len()) as u32;
        let (hasher, names) = (&self.hasher, self.names.as_bytes());
        table.insert_unique(
            hash(hasher, name.as_bytes()),
            HostEntry { len, ..entry },
            |entry| hash(hasher, entry.name(names, skip)),
        );
    }

    /// Takes a hostname away; returns its number.
    pub(crate) fn remove(&mut self, pattern: &Pattern) -> Option<u32> {
        let (hasher, names) = (&self.hasher, self.names.as_bytes());
        let (table, skip, name) = match pattern {
            Pattern::Any => return self.any.take().map(|entry| entry.number),
            Pattern::Exact(name) => (&mut self.exact, 0, name.as_bytes()),
            Pattern::Suffix(name) => (&mut self.suffix, WILDCARD, name.as_bytes()),
        };
        let found = table.find_entry(hash(hasher, name), |entry| entry.name(names, skip) == name);
        let (entry, _) = found.ok()?.remove();
        self.unused += entry.len as usize;
        if self.unused > self.names.len() / 2 {
            self.compact();
        }
        Some(entry.number)
    }

    /// Forgets the names of hostnames that are gone.
    fn compact(&mut self) {
        let mut names = String::with_capacity(self.names.len() - self.unused);
        let entries = self.exact.iter_mut().chain(self.suffix.iter_mut());
        for entry in entries.chain(self.any.iter_mut()) {
            let at = names.len() as u32;
            names.push_str(entry.hostname(&self.names));
            entry.at = at;
        }
        self.names = names;
        self.unused = 0;
    }

    /// The name of an entry, `*.` included.
    pub(crate) fn hostname(&self, entry: &HostEntry) -> &str {
        entry.hostname(&self.names)
    }

    /// The name of the entry of a number.
    pub(crate) fn hostname_of(&self, number: u32) -> Option<&str> {
        let mut entries = self.exact.iter().chain(&self.suffix).chain(&self.any);
        let entry = entries.find(|entry| entry.number == number)?;
        Some(self.hostname(entry))
    }

    /// Calls back with each hostname that matches, most specific first, until it answers something.
    #[inline]
    pub(crate) fn find<'a, T>(
        &'a self,
        raw: &[u8],
        mut visit: impl FnMut(&'a HostEntry) -> Option<T>,
    ) -> Option<T> {
        if (!self.exact.is_empty() || self.suffix_labels != 0)
            && let Some(host) = requested(raw)
            && let Some(found) = with_lower(host, |host| self.find_named(host, &mut visit))
        {
            return Some(found);
        }
        self.any.as_ref().and_then(visit)
    }

    fn find_named<'a, T>(
        &'a self,
        host: &[u8],
        visit: &mut impl FnMut(&'a HostEntry) -> Option<T>,
    ) -> Option<T> {
        if let Some(found) = self.probe(&self.exact, 0, host).and_then(&mut *visit) {
            return Some(found);
        }
        if self.suffix_labels == 0 {
            return None;
        }
        let mut labels = memchr::memchr_iter(b'.', host).count();
        for dot in memchr::memchr_iter(b'.', host) {
            // What stands before the suffix is at least one label: `.foo.example` has none.
            if dot > 0
                && self.suffix_labels & label_bit(labels) != 0
                && let Some(found) = self
                    .probe(&self.suffix, WILDCARD, &host[dot + 1..])
                    .and_then(&mut *visit)
            {
                return Some(found);
            }
            labels -= 1;
        }
        None
    }

    #[inline]
    fn probe<'a>(
        &self,
        table: &'a HashTable<HostEntry>,
        skip: usize,
        name: &[u8],
    ) -> Option<&'a HostEntry> {
        if table.is_empty() {
            return None;
        }
        table.find(hash(&self.hasher, name), |entry| {
            entry.name(self.names.as_bytes(), skip) == name
        })
    }
}

/// The length of `*.`.
const WILDCARD: usize = 2;

impl HostEntry {
    #[inline]
    fn name<'a>(&self, names: &'a [u8], skip: usize) -> &'a [u8] {
        &names[self.at as usize..][skip..self.len as usize]
    }

    #[inline]
    fn hostname<'a>(&self, names: &'a str) -> &'a str {
        &names[self.at as usize..][..self.len as usize]
    }
}

impl fmt::Debug for HostIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostIndex")
            .field("exact", &self.exact.len())
            .field("suffix", &self.suffix.len())
            .field("any", &self.any.is_some())
            .finish_non_exhaustive()
    }
}

#[inline]
fn hash(hasher: &RandomState, name: &[u8]) -> u64 {
    let mut hasher = hasher.build_hasher();
    hasher.write(name);
    hasher.finish()
}

#[inline]
fn label_bit(labels: usize) -> u64 {
    1 << labels.min(63)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(hostnames: &[&str]) -> HostIndex {
        let mut index = HostIndex::new();
        for (number, hostname) in (0..).zip(hostnames) {
            let pattern = Pattern::parse(hostname).expect("valid");
            assert_eq!(index.get_or_insert(&pattern).number, number);
        }
        index
    }

    fn found(index: &HostIndex, host: &str) -> Vec<String> {
        let mut found = Vec::new();
        let none = index.find(host.as_bytes(), |entry| {
            found.push(index.hostname(entry).to_owned());
            None::<()>
        });
        assert_eq!(none, None);
        found
    }

    fn find(hostnames: &[&str], host: &str) -> Vec<String> {
        found(&index(hostnames), host)
    }

    #[test]
    fn most_specific_first() {
        let hostnames = ["*", "*.example", "*.b.example", "a.b.example", "b.example"];
        assert_eq!(
            find(&hostnames, "a.b.example"),
            ["a.b.example", "*.b.example", "*.example", "*"]
        );
        assert_eq!(
            find(&hostnames, "x.a.b.example:80"),
            ["*.b.example", "*.example", "*"]
        );
        assert_eq!(
            find(&hostnames, "B.EXAMPLE."),
            ["b.example", "*.example", "*"]
        );
        assert_eq!(find(&hostnames, "other.test"), ["*"]);
        assert_eq!(find(&hostnames, ""), ["*"]);
    }

    #[test]
    fn a_wildcard_stands_for_one_or_more_labels() {
        assert_eq!(find(&["*.example"], "a.example").len(), 1);
        assert_eq!(find(&["*.example"], "a.b.c.example").len(), 1);
        for bare in [
            "example",
            ".example",
            "aexample",
            "example.",
            "a.example.test",
        ] {
            assert_eq!(find(&["*.example"], bare).len(), 0, "{bare}");
        }
    }

    #[test]
    fn many_labels() {
        let host = vec!["a"; 100].join(".");
        let deep = format!("*.{}", vec!["a"; 70].join("."));
        assert_eq!(find(&[&deep, "*.a.a"], &host), [deep.as_str(), "*.a.a"]);
        assert_eq!(find(&[&deep], &vec!["a"; 70].join(".")).len(), 0);
    }

    #[test]
    fn names_go_without_a_trace() {
        let pattern = |name: &str| Pattern::parse(name).expect("valid");
        let mut index = index(&["*", "*.example", "a.example"]);
        for round in 0..100 {
            let name = format!("host-{round}.example");
            let number = index.get_or_insert(&pattern(&name)).number;
            assert_eq!(number, round + 3);
            assert_eq!(found(&index, &name), [name.as_str(), "*.example", "*"]);
            assert_eq!(index.remove(&pattern(&name)), Some(number));
            assert_eq!(index.remove(&pattern(&name)), None);
            assert_eq!(found(&index, &name), ["*.example", "*"]);
            assert!(index.names.len() < 100);
        }
        index.remove(&pattern("*.example"));
        index.remove(&pattern("*"));
        assert_eq!(found(&index, "a.example"), ["a.example"]);
        assert_eq!(found(&index, "b.example"), [""; 0]);
    }
}
