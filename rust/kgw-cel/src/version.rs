//! Semantic versions.

use std::cmp::Ordering;

/// A semantic version without its build metadata, which says nothing about the order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    pub(crate) numbers: [u64; 3],
    before: Vec<String>,
}

impl Version {
    /// Reads a version. A lenient one may begin with `v`, have fewer numbers, and leading zeros.
    pub(crate) fn parse(text: &str, lenient: bool) -> Option<Self> {
        let text = if lenient {
            text.strip_prefix('v').unwrap_or(text)
        } else {
            text
        };
        let (text, build) = text.split_once('+').unwrap_or((text, "0"));
        let (core, before) = match text.split_once('-') {
            Some((core, before)) => (core, before.split('.').map(str::to_owned).collect()),
            None => (text, Vec::new()),
        };
        let mut numbers = [0; 3];
        let parts: Vec<_> = core.split('.').collect();
        if parts.len() > 3 || (parts.len() < 3 && (!lenient || !before.is_empty())) {
            return None;
        }
        for (number, part) in numbers.iter_mut().zip(&parts) {
            let zeros = part.len() > 1 && part.starts_with('0');
            if part.is_empty() || !is_number(part) || (zeros && !lenient) {
                return None;
            }
            *number = part.parse().ok()?;
        }
        let identifier = |part: &str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        let numeric = |part: &str| !is_number(part) || part.len() == 1 || !part.starts_with('0');
        (before
            .iter()
            .all(|part: &String| identifier(part) && numeric(part))
            && build.split('.').all(identifier))
        .then_some(Self { numbers, before })
    }
}

fn is_number(part: &str) -> bool {
    part.bytes().all(|byte| byte.is_ascii_digit())
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        let numbers = self.numbers.cmp(&other.numbers);
        numbers.then_with(|| match (self.before.is_empty(), other.before.is_empty()) {
            // What has a pre-release comes before what has none.
            (true, other) => (!other).cmp(&false),
            (false, true) => Ordering::Less,
            (false, false) => {
                let pairs = self.before.iter().zip(&other.before);
                pairs
                    .map(|(one, two)| match (is_number(one), is_number(two)) {
                        (true, true) => (one.len(), one).cmp(&(two.len(), two)),
                        (true, false) => Ordering::Less,
                        (false, true) => Ordering::Greater,
                        (false, false) => one.cmp(two),
                    })
                    .find(|order| order.is_ne())
                    .unwrap_or_else(|| self.before.len().cmp(&other.before.len()))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered() {
        let ordered = [
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "1.0.1",
            "1.10.0",
            "2.0.0",
        ];
        for two in ordered.windows(2) {
            let parsed = |text: &str| Version::parse(text, false).expect("a version");
            assert!(parsed(two[0]) < parsed(two[1]), "{two:?}");
        }
        for text in [
            "1.0", "v1.0.0", "01.0.0", "1.0.0-", "1.0.0-01", "1.0.0+", "",
        ] {
            assert_eq!(Version::parse(text, false), None, "{text:?}");
        }
        assert_eq!(
            Version::parse("v1.02", true),
            Version::parse("1.2.0", false)
        );
    }
}
