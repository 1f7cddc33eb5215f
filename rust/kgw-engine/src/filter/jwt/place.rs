//! Where tokens are in requests.

use std::borrow::Cow;

use kgw_h1::Request;

use crate::config::ir::TokenPlace;

/// A place where a token may be.
#[derive(Debug)]
pub(super) enum Place {
    Header { name: Box<[u8]>, prefix: Box<[u8]> },
    Query(Box<str>),
}

impl Place {
    /// The places of a configuration, in the order in which Envoy looks at the tokens there.
    pub(super) fn of(place: Option<&TokenPlace>) -> Box<[Self]> {
        match place {
            None => Box::new([
                Self::header("authorization", "Bearer "),
                Self::Query("access_token".into()),
            ]),
            Some(TokenPlace::Header { name, prefix }) => Box::new([Self::header(name, prefix)]),
            Some(TokenPlace::Query(name)) => Box::new([Self::Query(name.as_str().into())]),
        }
    }

    fn header(name: &str, prefix: &str) -> Self {
        Self::Header {
            name: name.to_ascii_lowercase().into_bytes().into(),
            prefix: prefix.as_bytes().into(),
        }
    }

    /// The token at the place. As in Envoy the prefix may be anywhere in the field.
    pub(super) fn find<'r>(&'r self, request: &'r Request) -> Option<Cow<'r, str>> {
        match self {
            Self::Header { name, prefix } => {
                let mut values = request.headers().get_all(name);
                let first = values.next()?;
                let value = match values.next() {
                    None => Cow::Borrowed(first),
                    Some(second) => {
                        let mut joined = [first, b",", second].concat();
                        for value in values {
                            joined.push(b',');
                            joined.extend_from_slice(value);
                        }
                        Cow::Owned(joined)
                    }
                };
                if prefix.is_empty() {
                    return Some(lossy(value));
                }
                let at = memchr::memmem::find(&value, prefix)? + prefix.len();
                Some(lossy(match value {
                    Cow::Borrowed(value) => Cow::Borrowed(value[at..].trim_ascii()),
                    Cow::Owned(value) => Cow::Owned(value[at..].trim_ascii().to_vec()),
                }))
            }
            Self::Query(name) => {
                let query = request.query()?;
                let mut pairs = query.split(|byte| *byte == b'&').map(pair);
                let (_, value) = pairs.find(|(one, _)| decoded(one) == name.as_bytes())?;
                Some(lossy(decoded(value)))
            }
        }
    }

    /// Takes what is at the place out of the request.
    pub(super) fn remove(&self, request: &mut Request) {
        match self {
            Self::Header { name, .. } => {
                request.headers_mut().remove(name);
            }
            Self::Query(name) => {
                let Some(query) = request.query() else {
                    return;
                };
                let pairs = query.split(|byte| *byte == b'&');
                let left = pairs.filter(|one| decoded(pair(one).0) != name.as_bytes());
                let left: Vec<&[u8]> = left.collect();
                let mut path = request.path_only().to_vec();
                if !left.is_empty() {
                    path.push(b'?');
                    path.extend_from_slice(&left.join(&b'&'));
                }
                request.set_path(&path);
            }
        }
    }
}

/// A text; what is none is none of a token either.
fn lossy(bytes: Cow<'_, [u8]>) -> Cow<'_, str> {
    match bytes {
        Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
        Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
    }
}

fn pair(one: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b'=', one) {
        Some(at) => (&one[..at], &one[at + 1..]),
        None => (one, b""),
    }
}

/// Percent-decoded bytes.
fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'%') {
        return Cow::Borrowed(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        let digit = |place: usize| {
            after
                .get(place)
                .and_then(|&byte| (byte as char).to_digit(16))
        };
        if let (b'%', Some(high), Some(low)) = (first, digit(0), digit(1)) {
            bytes.push((high * 16 + low) as u8);
            rest = &after[2..];
        } else {
            bytes.push(first);
            rest = after;
        }
    }
    Cow::Owned(bytes)
}

#[cfg(test)]
mod tests {
    use kgw_h1::{Limits, Status};

    use super::*;

    fn request(head: &str) -> Request {
        let mut request = Request::new();
        let parsed = request.parse(head.as_bytes(), &Limits::REQUEST);
        assert!(matches!(parsed, Ok(Status::Complete(_))), "{parsed:?}");
        request
    }

    fn get(target: &str, fields: &str) -> Request {
        request(&format!("GET {target} HTTP/1.1\r\nhost: a\r\n{fields}\r\n"))
    }

    #[test]
    fn tokens_are_found_behind_their_prefix() {
        let [header, query] = &*Place::of(None) else {
            panic!("two places");
        };
        let table = [
            ("authorization: Bearer a.b.c\r\n", Some("a.b.c")),
            ("authorization: Bearer   a.b-c_d.e\r\n", Some("a.b-c_d.e")),
            ("authorization: Bearer a.b.c, x\r\n", Some("a.b.c, x")),
            (
                "authorization: Basic x\r\nauthorization: Bearer a.b.c\r\n",
                Some("a.b.c"),
            ),
            ("authorization: bearer a.b.c\r\n", None),
            ("authorization: Bearer\r\n", None),
            ("authorization: Basic x\r\n", None),
            ("", None),
        ];
        for (fields, token) in table {
            assert_eq!(header.find(&get("/", fields)).as_deref(), token, "{fields}");
        }
        let table = [
            ("/?access_token=a.b.c", Some("a.b.c")),
            (
                "/x?y=1&access%5Ftoken=a%2Eb.c&access_token=d",
                Some("a.b.c"),
            ),
            ("/?access_token", Some("")),
            ("/?xaccess_token=a", None),
            ("/", None),
        ];
        for (target, token) in table {
            assert_eq!(query.find(&get(target, "")).as_deref(), token, "{target}");
        }
        let place = TokenPlace::Header {
            name: "X-Token".to_owned(),
            prefix: String::new(),
        };
        let [whole] = &*Place::of(Some(&place)) else {
            panic!("one place");
        };
        let found = get("/", "x-token: a b\r\n");
        assert_eq!(whole.find(&found).as_deref(), Some("a b"));
    }

    #[test]
    fn tokens_are_taken_out() {
        let [header, query] = &*Place::of(None) else {
            panic!("two places");
        };
        let fields = "authorization: Bearer a\r\nauthorization: Bearer b\r\nx: 1\r\n";
        let mut found = get("/", fields);
        header.remove(&mut found);
        assert!(!found.headers().contains(b"authorization"));
        assert!(found.headers().contains(b"x"));
        let table = [
            ("/?access_token=a", "/"),
            ("/x?a=1&access_token=a&b=2&access_token=b", "/x?a=1&b=2"),
            ("/x?a=1", "/x?a=1"),
            ("/x", "/x"),
        ];
        for (target, left) in table {
            let mut found = get(target, "");
            query.remove(&mut found);
            assert_eq!(found.path(), left.as_bytes());
        }
    }
}
