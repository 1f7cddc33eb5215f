//! Names in certificates: host names with wildcards, and those of peers.

use x509_parser::extensions::GeneralName;

use crate::config::ir::SubjectAltName;

/// A DNS name as it is compared: lower case, no dot at the end.
pub(super) fn normalized(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// Whether `pattern`, a name in a certificate, stands for `name` (RFC 6125 6.4.3): a `*` as its whole
/// first label stands for exactly one label. Both are normalized.
pub(super) fn stands_for(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix("*.") {
        None => pattern == name,
        Some(parent) => name
            .split_once('.')
            .is_some_and(|(label, rest)| !label.is_empty() && !parent.is_empty() && rest == parent),
    }
}

/// Names that a certificate must have one of.
#[derive(Debug)]
pub(super) struct Wanted(Box<[SubjectAltName]>);

impl Wanted {
    pub(super) fn new(names: &[SubjectAltName]) -> Self {
        Self(
            names
                .iter()
                .map(|name| match name {
                    SubjectAltName::Dns(name) => SubjectAltName::Dns(normalized(name)),
                    SubjectAltName::Uri(uri) => SubjectAltName::Uri(uri.clone()),
                })
                .collect(),
        )
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of the certificate's names is wanted. A name that holds a control character is no
    /// name: some cut it there, and would see another.
    pub(super) fn includes_one_of(&self, names: &[GeneralName<'_>]) -> bool {
        names.iter().any(|name| match name {
            GeneralName::DNSName(name) if is_clean(name) => {
                let pattern = normalized(name);
                self.0.iter().any(|wanted| {
                    matches!(wanted, SubjectAltName::Dns(wanted) if stands_for(&pattern, wanted))
                })
            }
            GeneralName::URI(uri) if is_clean(uri) => self
                .0
                .iter()
                .any(|wanted| matches!(wanted, SubjectAltName::Uri(wanted) if wanted == uri)),
            _ => false,
        })
    }
}

/// Whether a name of a certificate consists of visible ASCII characters (`IA5String`, less controls).
pub(super) fn is_clean(name: &str) -> bool {
    name.bytes().all(|byte| (0x21..0x7f).contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_stands_for_one_label() {
        assert!(stands_for("*.example.com", "a.example.com"));
        assert!(!stands_for("*.example.com", "example.com"));
        assert!(!stands_for("*.example.com", "a.b.example.com"));
        assert!(!stands_for("*.example.com", ".example.com"));
        assert!(!stands_for("a*.example.com", "ab.example.com"));
        assert!(!stands_for("*.", "a."));
        assert!(stands_for("example.com", "example.com"));
    }

    #[test]
    fn uris_are_compared_exactly_and_control_characters_make_no_name() {
        let wanted = Wanted::new(&[
            SubjectAltName::Uri("spiffe://a/ns/b".to_owned()),
            SubjectAltName::Dns("Good.example.".to_owned()),
        ]);
        let has = |name| wanted.includes_one_of(&[name]);
        assert!(has(GeneralName::URI("spiffe://a/ns/b")));
        assert!(!has(GeneralName::URI("spiffe://a/ns/b/c")));
        assert!(!has(GeneralName::URI("SPIFFE://a/ns/b")));
        assert!(has(GeneralName::DNSName("good.Example")));
        assert!(has(GeneralName::DNSName("*.example")));
        assert!(!has(GeneralName::DNSName("good.example\0.evil")));
        assert!(!has(GeneralName::RFC822Name("good.example")));
        let nul = Wanted::new(&[SubjectAltName::Uri("spiffe://a\0b".to_owned())]);
        assert!(!nul.includes_one_of(&[GeneralName::URI("spiffe://a\0b")]));
    }
}
