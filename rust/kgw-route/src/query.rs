//! The query string, split at most once per lookup and only if a candidate asks.

use std::cell::OnceCell;

use smallvec::SmallVec;

/// The parameters of a request's query, with Envoy's reading of it: split on `&` only, names and values
/// raw (no percent or plus decoding), the first of equal names counts, `a` and `a=` are both empty.
pub(crate) struct Query<'a> {
    raw: Option<&'a [u8]>,
    parameters: OnceCell<SmallVec<[Parameter<'a>; 8]>>,
}

/// Name and value.
type Parameter<'a> = (&'a [u8], &'a [u8]);

impl<'a> Query<'a> {
    #[inline]
    pub(crate) fn new(raw: Option<&'a [u8]>) -> Self {
        Self {
            raw,
            parameters: OnceCell::new(),
        }
    }

    /// The value of the first parameter of this name.
    pub(crate) fn first(&self, name: &[u8]) -> Option<&'a [u8]> {
        let parameters = self.parameters.get_or_init(|| {
            self.raw.map_or_else(SmallVec::new, |raw| {
                raw.split(|&b| b == b'&')
                    .map(|parameter| match memchr::memchr(b'=', parameter) {
                        Some(at) => (&parameter[..at], &parameter[at + 1..]),
                        None => (parameter, &b""[..]),
                    })
                    .collect()
            })
        });
        parameters
            .iter()
            .find(|(n, _)| *n == name)
            .map(|(_, value)| *value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_as_envoy_does() {
        let query = Query::new(Some(b"a=1&b&c=&a=2&d=x=y&e;f=1&%61=3&=v"));
        assert_eq!(query.first(b"a"), Some(&b"1"[..]));
        assert_eq!(query.first(b"b"), Some(&b""[..]));
        assert_eq!(query.first(b"c"), Some(&b""[..]));
        assert_eq!(query.first(b"d"), Some(&b"x=y"[..]));
        assert_eq!(query.first(b"e"), None);
        assert_eq!(query.first(b"e;f"), Some(&b"1"[..]));
        assert_eq!(query.first(b"%61"), Some(&b"3"[..]));
        assert_eq!(query.first(b"A"), None);
    }

    #[test]
    fn no_query_has_no_parameters() {
        assert_eq!(Query::new(None).first(b"a"), None);
        assert_eq!(Query::new(Some(b"")).first(b"a"), None);
    }
}
