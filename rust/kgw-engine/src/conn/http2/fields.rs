//! Header fields between the two forms in which the versions of HTTP carry them.

use std::cell::RefCell;

use http::{HeaderMap, HeaderName, HeaderValue};
use kgw_h1::Headers;

/// Fields that are about a connection and have no place in HTTP/2 (RFC 9113 8.2.2).
const OF_CONNECTIONS: [&[u8]; 5] = [
    b"connection",
    b"keep-alive",
    b"proxy-connection",
    b"transfer-encoding",
    b"upgrade",
];

/// The fields of an HTTP/2 message that may be sent, in their order.
pub(crate) fn map_of(headers: &Headers) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(headers.len());
    append_to(&mut map, headers, &[]);
    map
}

/// Appends `headers` to `map`, save for those called as one in `without`, and for what has no place in
/// HTTP/2. Returns how many bytes they would have in HTTP/1.
pub(crate) fn append_to(map: &mut HeaderMap, headers: &Headers, without: &[&[u8]]) -> usize {
    RECENT.with_borrow_mut(|recent| {
        let mut bytes = 0;
        for (name, value) in headers {
            let is = |other: &&[u8]| name.eq_ignore_ascii_case(other);
            if without.iter().any(is) {
                continue;
            }
            // Both hold for every field that `Headers` takes.
            if let Some((name, value)) = recent.field(name, value) {
                bytes += length_of(&name, &value);
                map.append(name, value);
            }
        }
        bytes
    })
}

/// Appends `content-length` to `map`. Returns how many bytes it would have in HTTP/1.
pub(crate) fn append_length(map: &mut HeaderMap, length: u64) -> usize {
    let mut number = itoa::Buffer::new();
    let text = number.format(length).as_bytes();
    RECENT.with_borrow_mut(|recent| match recent.field(b"content-length", text) {
        Some((name, value)) => {
            let bytes = length_of(&name, &value);
            map.append(name, value);
            bytes
        }
        None => 0,
    })
}

fn length_of(name: &HeaderName, value: &HeaderValue) -> usize {
    name.as_str().len() + value.len() + b": \r\n".len()
}

/// The trailer fields of an HTTP/2 message, save for those that may not be there.
pub(crate) fn headers_of(map: &HeaderMap) -> Headers {
    let mut headers = Headers::new();
    for (name, value) in map {
        if kgw_h1::may_be_trailer(name.as_str().as_bytes()) {
            headers.append(name.as_str().as_bytes(), value.as_bytes());
        }
    }
    headers
}

/// The fields of an HTTP/2 message, as the parser takes them.
pub(crate) fn iter(map: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    map.iter()
        .map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()))
}

thread_local! {
    /// Every worker has a thread.
    static RECENT: RefCell<Recent> = const { RefCell::new(Recent([const { None }; PLACES])) };
}

/// Places for names.
const PLACES: usize = 128;
/// Longest name and value that are remembered. Bytes.
const LONGEST: usize = 128;
/// One of this many values that are not the one remembered takes its place: to remember one costs as
/// much as to make it.
const OTHER_VALUES: u64 = 16;
/// As many fields of another name take a place over, so that two that are sent in turn do not take it from
/// each other each time.
const RIVALS: u64 = 16;
/// How [varied](Field::variety) the values of a name are at the most before they are kept out of tables,
/// how varied they ever count, and by how much less for each that is the one remembered: about one in
/// nine has to be.
const VARIED: u8 = 32;
const MOST_VARIED: u8 = 64;
const SAME: u8 = 8;

/// Names and values that were sent a moment ago, in the library's form. Most answers have the same
/// fields as the last one, and to make one is to look the name up, to check both, and to allocate twice.
#[derive(Debug)]
struct Recent([Option<Field>; PLACES]);

#[derive(Debug)]
struct Field {
    /// The name as it was written.
    written: Box<[u8]>,
    /// None of one that has no place in HTTP/2.
    name: Option<HeaderName>,
    value: HeaderValue,
    /// How many have been others.
    other_values: u64,
    /// How seldom the value is the one remembered: `x-request-id` has another one each time.
    variety: u8,
    /// Fields of another name that have asked for the place.
    rivals: u64,
}

impl Recent {
    /// A field in the library's form. None if it has no place in HTTP/2.
    fn field(&mut self, name: &[u8], value: &[u8]) -> Option<(HeaderName, HeaderValue)> {
        if name.len() > LONGEST || value.len() > LONGEST || is_te(name) {
            return Some((sendable(name, value)?, HeaderValue::from_bytes(value).ok()?));
        }
        let place = &mut self.0[place_of(name)];
        match place {
            Some(field) if *field.written == *name => return field.with(value),
            Some(field) => {
                field.rivals += 1;
                if !field.rivals.is_multiple_of(RIVALS) {
                    return Some((sendable(name, value)?, HeaderValue::from_bytes(value).ok()?));
                }
            }
            None => {}
        }
        let sent = sendable(name, value);
        let value = HeaderValue::from_bytes(value).ok()?;
        *place = Some(Field {
            written: name.into(),
            name: sent.clone(),
            value: value.clone(),
            other_values: 0,
            variety: 0,
            rivals: 0,
        });
        Some((sent?, value))
    }
}

impl Field {
    /// The field with `value`.
    ///
    /// Values that are varied are marked as never to be indexed (RFC 7541 6.2.3): each would push another field
    /// out of the peer's table, and the library looks through all that it has there of the name.
    fn with(&mut self, value: &[u8]) -> Option<(HeaderName, HeaderValue)> {
        let name = self.name.clone()?;
        let mut value = if self.value == *value {
            self.variety = self.variety.saturating_sub(SAME);
            self.value.clone()
        } else {
            let value = HeaderValue::from_bytes(value).ok()?;
            self.variety = MOST_VARIED.min(self.variety + 1);
            self.other_values += 1;
            if self.other_values.is_multiple_of(OTHER_VALUES) {
                self.value = value.clone();
            }
            value
        };
        value.set_sensitive(self.variety > VARIED);
        Some((name, value))
    }
}

/// The name of a field that may be sent.
fn sendable(name: &[u8], value: &[u8]) -> Option<HeaderName> {
    let is = |other: &&[u8]| name.eq_ignore_ascii_case(other);
    if OF_CONNECTIONS.iter().any(is) || is_te(name) && !value.eq_ignore_ascii_case(b"trailers") {
        return None;
    }
    HeaderName::from_bytes(name).ok()
}

/// Whether its value says if a field may be sent (RFC 9113 8.2.2).
fn is_te(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"te")
}

/// The place of a name, whatever its case. The factors were found by trial: no two of the names that are
/// most common share one.
fn place_of(name: &[u8]) -> usize {
    let at = |index: usize| name.get(index).map_or(0, |byte| usize::from(byte | 0x20));
    let length = name.len();
    (length * 51 + at(0) * 7 + at(length / 2) * 28 + at(length.saturating_sub(1)) * 58) % PLACES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(fields: &[(&str, &str)]) -> Vec<(String, String)> {
        let mut headers = Headers::new();
        for (name, value) in fields {
            assert!(headers.append(name.as_bytes(), value.as_bytes()));
        }
        let map = map_of(&headers);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        iter(&map)
            .map(|(name, value)| (text(name), text(value)))
            .collect()
    }

    #[test]
    fn fields_are_sent_as_they_are_whatever_was_sent_before() {
        for round in 0..100 {
            for value in ["a", "b", "", &round.to_string(), &"l".repeat(LONGEST + 1)] {
                assert_eq!(
                    sent(&[("Server", value), ("x-a", value), ("X-A", "other")]),
                    [("server", value), ("x-a", value), ("x-a", "other")]
                        .map(|(name, value)| (name.to_owned(), value.to_owned()))
                );
            }
        }
    }

    #[test]
    fn names_that_share_a_place_are_told_apart() {
        let names: Vec<String> = (0..10 * PLACES)
            .map(|number| format!("x-{number}"))
            .collect();
        for _ in 0..2 {
            for name in &names {
                assert_eq!(sent(&[(name, name)]), [(name.clone(), name.clone())]);
            }
        }
    }

    #[test]
    fn common_names_do_not_share_a_place() {
        let names = [
            "accept",
            "accept-encoding",
            "cache-control",
            "content-encoding",
            "content-length",
            "content-type",
            "cookie",
            "date",
            "etag",
            "grpc-encoding",
            "grpc-message",
            "grpc-status",
            "server",
            "set-cookie",
            "te",
            "traceparent",
            "user-agent",
            "vary",
            "x-envoy-external-address",
            "x-envoy-upstream-service-time",
            "x-forwarded-for",
            "x-forwarded-proto",
            "x-request-id",
        ];
        let places: std::collections::HashSet<_> =
            names.map(|name| place_of(name.as_bytes())).into();
        assert_eq!(places.len(), names.len());
        assert_eq!(place_of(b"Content-Type"), place_of(b"content-type"));
    }

    #[test]
    fn what_is_about_a_connection_is_never_sent() {
        for _ in 0..3 {
            for name in OF_CONNECTIONS {
                let name = String::from_utf8_lossy(name);
                assert_eq!(sent(&[(&name, "x"), (&name.to_uppercase(), "y")]), []);
            }
            assert_eq!(sent(&[("te", "gzip"), ("TE", "trailers")]).len(), 1);
            assert_eq!(sent(&[("TE", "trailers, gzip")]), []);
        }
    }

    #[test]
    fn only_what_is_another_each_time_is_kept_out_of_tables() {
        let is_sensitive = |name: &str, value: &str| {
            let mut headers = Headers::new();
            headers.append(name.as_bytes(), value.as_bytes());
            map_of(&headers)[name].is_sensitive()
        };
        let few = u64::from(VARIED);
        for round in 0..4 * few {
            let varies = is_sensitive("x-request-id", &round.to_string());
            assert_eq!(varies, round > few, "{round}");
            assert!(!is_sensitive("date", &(round / 100).to_string()));
            assert!(!is_sensitive("x-few", &(round % 4).to_string()));
        }
        let again: Vec<_> = (0..2 * OTHER_VALUES)
            .map(|_| is_sensitive("x-request-id", "the same"))
            .collect();
        assert_eq!(again.first(), Some(&true));
        assert_eq!(again.last(), Some(&false));
    }

    #[test]
    fn lengths_are_those_of_http_1() {
        let mut headers = Headers::new();
        headers.append(b"a", b"bc");
        headers.append(b"Content-Length", b"1");
        let mut map = HeaderMap::new();
        assert_eq!(append_to(&mut map, &headers, &[b"content-length"]), 7);
        assert_eq!(
            append_length(&mut map, 120),
            "content-length: 120\r\n".len()
        );
        assert_eq!(map.get("content-length").unwrap(), "120");
    }
}
