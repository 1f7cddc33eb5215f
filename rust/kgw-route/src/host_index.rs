//! From a request's host to the hostnames that match it, most specific first.

use std::fmt;
use std::hash::{BuildHasher, Hasher};

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::hostname::{Host, Pattern};

/// Hostnames by number. Exact names and suffixes are probes of hash tables; a suffix is probed only if
/// there is one of that many labels.
pub(crate) struct HostIndex {
    hasher: RandomState,
    exact: HashTable<Entry>,
    suffix: HashTable<Entry>,
    /// Bit n is set if there is a suffix of n labels; the last bit stands for all greater numbers.
    suffix_labels: u64,
    any: Option<u32>,
    names: Vec<u8>,
}

struct Entry {
    host: u32,
    at: u32,
    len: u32,
}

impl HostIndex {
    pub(crate) fn new<'a>(hosts: impl Iterator<Item = (u32, &'a Pattern)>) -> Self {
        let mut index = Self {
            hasher: RandomState::default(),
            exact: HashTable::new(),
            suffix: HashTable::new(),
            suffix_labels: 0,
            any: None,
            names: Vec::new(),
        };
        for (host, pattern) in hosts {
            let (table, name) = match pattern {
                Pattern::Exact(name) => (&mut index.exact, name),
                Pattern::Suffix(name) => {
                    index.suffix_labels |= label_bit(name.split('.').count());
                    (&mut index.suffix, name)
                }
                Pattern::Any => {
                    index.any = Some(host);
                    continue;
                }
            };
            let entry = Entry {
                host,
                at: index.names.len() as u32,
                len: name.len() as u32,
            };
            index.names.extend_from_slice(name.as_bytes());
            let (hasher, names) = (&index.hasher, &index.names);
            table.insert_unique(hash(hasher, name.as_bytes()), entry, |entry| {
                hash(hasher, entry.name(names))
            });
        }
        index
    }

    /// Calls back with the number of each hostname that matches, most specific first, until it
    /// answers something.
    #[inline]
    pub(crate) fn find<T>(&self, raw: &[u8], mut visit: impl FnMut(u32) -> Option<T>) -> Option<T> {
        if (!self.exact.is_empty() || self.suffix_labels != 0)
            && let Some(host) = Host::normalise(raw)
            && let Some(found) = self.find_named(host.as_bytes(), &mut visit)
        {
            return Some(found);
        }
        self.any.and_then(visit)
    }

    fn find_named<T>(&self, host: &[u8], visit: &mut impl FnMut(u32) -> Option<T>) -> Option<T> {
        if let Some(found) = self.probe(&self.exact, host).and_then(&mut *visit) {
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
                    .probe(&self.suffix, &host[dot + 1..])
                    .and_then(&mut *visit)
            {
                return Some(found);
            }
            labels -= 1;
        }
        None
    }

    #[inline]
    fn probe(&self, table: &HashTable<Entry>, name: &[u8]) -> Option<u32> {
        if table.is_empty() {
            return None;
        }
        table
            .find(hash(&self.hasher, name), |entry| {
                entry.name(&self.names) == name
            })
            .map(|entry| entry.host)
    }
}

impl Entry {
    #[inline]
    fn name<'a>(&self, names: &'a [u8]) -> &'a [u8] {
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

    fn find(hostnames: &[&str], host: &str) -> Vec<String> {
        let patterns: Vec<_> = hostnames
            .iter()
            .map(|name| Pattern::parse(name).expect("valid"))
            .collect();
        let index = HostIndex::new((0..).zip(&patterns));
        let mut found = Vec::new();
        let none = index.find(host.as_bytes(), |at| {
            found.push(hostnames[at as usize].to_owned());
            None::<()>
        });
        assert_eq!(none, None);
        found
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
}
