//! What a service, or another filter, does to the parameters of a request's query.

use kgw_h1::Request;

/// Changes to parameters.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct QueryEdits {
    /// Names and values, decoded.
    pub(crate) set: Vec<(Vec<u8>, Vec<u8>)>,
    /// Names, decoded.
    pub(crate) remove: Vec<Vec<u8>>,
}

impl QueryEdits {
    /// Changes a request. What no change is about stays as it is written.
    pub(crate) fn apply(&self, request: &mut Request) {
        if self.set.is_empty() && self.remove.is_empty() || request.path_only().is_empty() {
            return;
        }
        let mut path = request.path_only().to_vec();
        let mut separator = b'?';
        let mut add = |piece: &[u8]| {
            path.push(separator);
            path.extend_from_slice(piece);
            separator = b'&';
        };
        let is_gone = |name: &[u8]| {
            let mut set = self.set.iter().map(|(name, _)| name);
            self.remove.iter().any(|one| *one == name) || set.any(|one| *one == name)
        };
        for piece in request
            .query()
            .unwrap_or_default()
            .split(|&byte| byte == b'&')
        {
            let name = piece.split(|&byte| byte == b'=').next().unwrap_or_default();
            if !piece.is_empty() && !is_gone(&decoded(name, true)) {
                add(piece);
            }
        }
        for (name, value) in &self.set {
            let mut piece = encoded(name);
            piece.push(b'=');
            piece.extend(encoded(value));
            add(&piece);
        }
        request.set_path(&path);
    }
}

/// Text without percent-encoding, and with spaces for `+` if that stands for one.
pub(crate) fn decoded(text: &[u8], plus_is_space: bool) -> Vec<u8> {
    let hex = |byte: u8| char::from(byte).to_digit(16);
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match (byte, after) {
            (b'%', [high, low, behind @ ..]) if hex(*high).is_some() && hex(*low).is_some() => {
                let value = hex(*high).unwrap_or(0) * 16 + hex(*low).unwrap_or(0);
                decoded.push(value as u8);
                rest = behind;
            }
            (b'+', _) if plus_is_space => decoded.push(b' '),
            _ => decoded.push(byte),
        }
    }
    decoded
}

/// Text as a part of a query (RFC 3986 2.3: what is unreserved stays).
fn encoded(text: &[u8]) -> Vec<u8> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = Vec::with_capacity(text.len());
    for &byte in text {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(byte);
        } else {
            encoded.push(b'%');
            encoded.extend([byte >> 4, byte & 15].map(|digit| HEX[usize::from(digit)]));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use kgw_h1::Limits;

    use super::*;

    #[test]
    fn parameters_are_set_and_removed() {
        for (path, set, remove, expected) in [
            ("/a", vec![], vec!["x"], "/a"),
            ("/a?x=1&y=2", vec![], vec!["x"], "/a?y=2"),
            ("/a?x=1", vec![], vec!["x"], "/a"),
            (
                "/a?x=1&y=%20&x=3",
                vec![("x", "a b&c")],
                vec![],
                "/a?y=%20&x=a%20b%26c",
            ),
            ("/a", vec![("x", "1"), ("y", "2")], vec![], "/a?x=1&y=2"),
            ("/a?%78=1", vec![], vec!["x"], "/a"),
            ("/a?x=1&y", vec![("z", "")], vec!["x"], "/a?y&z="),
        ] {
            let mut request = Request::new();
            let limits = Limits {
                max_head_bytes: 4096,
                max_fields: 100,
            };
            let bytes = format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
            request.parse(bytes.as_bytes(), &limits).unwrap();
            let edits = QueryEdits {
                set: set
                    .iter()
                    .map(|(name, value)| ((*name).into(), (*value).into()))
                    .collect(),
                remove: remove.iter().map(|name| (*name).into()).collect(),
            };
            edits.apply(&mut request);
            assert_eq!(std::str::from_utf8(request.path()), Ok(expected), "{path}");
        }
    }
}
