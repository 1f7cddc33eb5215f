//! Path normalisation as Envoy 1.40 does it with `normalize_path` and `merge_slashes`.

use crate::chars;
use crate::error::RequestError;

/// Splits at the first `?`; the query comes without it.
pub fn split_path_and_query(path: &[u8]) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(b'?', path) {
        Some(at) => (&path[..at], Some(&path[at + 1..])),
        None => (path, None),
    }
}

/// Returns whether [`normalize`] could change `path` or refuse it.
pub fn needs_normalization(path: &[u8]) -> bool {
    scan(path) != Some(true)
}

/// Checks that a target is printable US-ASCII and tells whether normalisation would leave it as it
/// is: `Some(true)` if so, `Some(false)` if it might not, `None` for a byte that is not allowed.
pub(crate) fn scan(target: &[u8]) -> Option<bool> {
    let mut classes = 0;
    let mut before = 0;
    let mut bytes = target.iter();
    for &byte in bytes.by_ref() {
        let class = CLASSES[usize::from(byte)];
        classes |= class;
        // A slash or a dot matters behind a slash only.
        classes |= (before & class & AFTER_SLASH) << 1;
        before = if byte == b'/' { AFTER_SLASH } else { 0 };
        if byte == b'?' {
            break;
        }
    }
    for &byte in bytes {
        classes |= CLASSES[usize::from(byte)] & (ILLEGAL | FRAGMENT);
    }
    if classes & ILLEGAL != 0 {
        return None;
    }
    Some(classes & (FRAGMENT | REWRITE | SLASHED) == 0)
}

/// Normalises the path part; the query is left as it is.
///
/// In this order: `%XX` of an unreserved character is decoded, `\` becomes `/`, the characters
/// ``"<>^`{|}`` are percent-encoded, dot segments are removed (RFC 3986 §5.2.4, `%2e` counts as a
/// dot), and runs of slashes are merged if `merge_slashes`. Other escapes stay, also `%2F`, `%5C`
/// and broken ones. The result is a fixed point: normalising it again changes nothing.
///
/// # Errors
/// [`RequestError::PathNormalization`] for `%00`, for `#` anywhere, and when the path does not
/// start with `/` or `\`.
pub fn normalize(path: &[u8], merge_slashes: bool) -> Result<Vec<u8>, RequestError> {
    let (part, query) = split_path_and_query(path);
    if memchr::memchr(b'#', path).is_some() || !matches!(part.first(), Some(b'/' | b'\\')) {
        return Err(RequestError::PathNormalization);
    }
    let decoded = decode(part)?;
    let mut out = Vec::with_capacity(path.len() + 8);
    remove_dot_segments(&decoded, &mut out);
    if merge_slashes {
        out.dedup_by(|next, before| *next == b'/' && *before == b'/');
    }
    if let Some(query) = query {
        out.push(b'?');
        out.extend_from_slice(query);
    }
    Ok(out)
}

/// Percent-encodes what cannot stand in a request target, and makes the path start with `/`.
pub(crate) fn escape(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len() + 8);
    if path.first() != Some(&b'/') {
        out.push(b'/');
    }
    for &byte in path {
        if chars::is_target(byte) {
            out.push(byte);
        } else {
            push_escaped(&mut out, byte);
        }
    }
    out
}

/// Decodes unreserved characters, encodes the ones that must not stand bare, turns `\` into `/`.
fn decode(part: &[u8]) -> Result<Vec<u8>, RequestError> {
    let mut out = Vec::with_capacity(part.len() + 8);
    // Where a `%` that starts no escape was put. A character decoded close behind it stays
    // encoded: `%%32e` must not turn into the escape `%2e`.
    let mut stray = None;
    let mut at = 0;
    while let Some(&byte) = part.get(at) {
        at += 1;
        match byte {
            b'%' => {
                let digits = part.get(at..at + 2).and_then(|digits| {
                    Some((chars::hex_value(digits[0])? << 4) | chars::hex_value(digits[1])?)
                });
                let Some(value) = digits else {
                    stray = Some(out.len());
                    out.push(b'%');
                    continue;
                };
                if value == 0 {
                    return Err(RequestError::PathNormalization);
                }
                let near_stray = stray.is_some_and(|stray| out.len() - stray <= 2);
                if chars::is_unreserved(value) && !near_stray {
                    out.push(value);
                } else {
                    out.extend_from_slice(&part[at - 1..at + 2]);
                }
                at += 2;
            }
            b'\\' => out.push(b'/'),
            b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}' => push_escaped(&mut out, byte),
            _ => out.push(byte),
        }
    }
    Ok(out)
}

/// RFC 3986 §5.2.4 for a path that starts with `/`.
fn remove_dot_segments(path: &[u8], out: &mut Vec<u8>) {
    let mut segments = path[1..].split(|&byte| byte == b'/').peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            b"." => {
                if is_last {
                    out.push(b'/');
                }
            }
            b".." => {
                let parent = memchr::memrchr(b'/', out).unwrap_or(0);
                out.truncate(parent);
                if is_last {
                    out.push(b'/');
                }
            }
            _ => {
                out.push(b'/');
                out.extend_from_slice(segment);
            }
        }
    }
}

fn push_escaped(out: &mut Vec<u8>, byte: u8) {
    out.push(b'%');
    out.push(chars::HEX_UPPER[usize::from(byte >> 4)]);
    out.push(chars::HEX_UPPER[usize::from(byte & 15)]);
}

/// May not stand in a target.
const ILLEGAL: u8 = 1;
/// `#`
const FRAGMENT: u8 = 2;
/// `%`, `\` and what is percent-encoded.
const REWRITE: u8 = 4;
/// `/` or `.`, which matter behind a `/`; also the mark of "the byte before was a slash".
const AFTER_SLASH: u8 = 8;
/// A `/` or `.` did stand behind a `/`.
const SLASHED: u8 = AFTER_SLASH << 1;

static CLASSES: [u8; 256] = {
    let mut classes = [ILLEGAL; 256];
    let mut byte = 0x21_usize;
    while byte <= 0x7e {
        classes[byte] = match byte as u8 {
            b'#' => FRAGMENT,
            b'%' | b'\\' | b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}' => REWRITE,
            b'/' | b'.' => AFTER_SLASH,
            _ => 0,
        };
        byte += 1;
    }
    classes
};

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn normal(path: &str) -> Result<String, RequestError> {
        normalize(path.as_bytes(), true).map(|path| String::from_utf8(path).unwrap())
    }

    /// Observed on Envoy 1.40 with `normalize_path` and `merge_slashes`.
    #[test]
    fn what_envoy_does() {
        for (path, expected) in [
            ("/a/./b/../c", "/a/c"),
            ("/../../a", "/a"),
            ("/a/%2e%2E/b", "/b"),
            ("/a\\b\\..\\c", "/a/c"),
            ("//a///b//", "/a/b/"),
            ("/a//../b", "/a/b"),
            ("/%41%62%7e%2d%5F%2E", "/Ab~-_."),
            ("/a%2Fb%5cc", "/a%2Fb%5cc"),
            ("/%zz/%4", "/%zz/%4"),
            ("/%252e", "/%252e"),
            (
                "/a!$&'()*+,;=:@~|^`{}[]\"<>",
                "/a!$&'()*+,;=:@~%7C%5E%60%7B%7D[]%22%3C%3E",
            ),
            ("/a/../b?x=/../..//b&y=%2e", "/b?x=/../..//b&y=%2e"),
            ("/a;v=1/../b", "/b"),
            ("/a/.", "/a/"),
            ("/a/..", "/"),
            ("/..", "/"),
            ("/.", "/"),
            ("/", "/"),
            ("/a/...", "/a/..."),
            ("/a/.b/..c", "/a/.b/..c"),
        ] {
            assert_eq!(normal(path).as_deref(), Ok(expected), "{path}");
            if path != expected {
                assert!(needs_normalization(path.as_bytes()), "{path}");
            }
        }
        for plain in ["/", "/a/b.c/d-e_f~", "/a?x=/../..//b&y=%2e", "/a.b/c?d"] {
            assert!(!needs_normalization(plain.as_bytes()), "{plain}");
        }
        for bad in ["/a%00b", "/a#b", "/a?b#c", "", "a", "*"] {
            assert_eq!(normal(bad), Err(RequestError::PathNormalization), "{bad}");
        }
    }

    #[test]
    fn a_stray_percent_never_becomes_an_escape() {
        assert_eq!(normal("/%%32e").as_deref(), Ok("/%%32e"));
        assert_eq!(normal("/%2%65%2e/x").as_deref(), Ok("/%2%65./x"));
        assert_eq!(normal("/%g%41").as_deref(), Ok("/%g%41"));
        assert_eq!(normal("/%gg%41").as_deref(), Ok("/%ggA"));
    }

    #[test]
    fn slashes_are_kept_unless_asked_for() {
        assert_eq!(normalize(b"//a//b", false).unwrap(), b"//a//b");
        assert_eq!(normalize(b"/a//../b", false).unwrap(), b"/a/b");
    }

    #[test]
    fn escape_makes_any_bytes_a_target() {
        assert_eq!(escape(b"a b\r\n\xff"), b"/a%20b%0D%0A%FF");
        assert_eq!(escape(b""), b"/");
    }

    proptest! {
        // No file of failures: what was found becomes a test of its own.
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn normalising_twice_changes_nothing(
            path in "/([/\\\\.%?2eE5f0-9a-c#|^]|%2e|%2E|%41|%25|\\.\\./|//){0,24}",
            merge in any::<bool>(),
        ) {
            if let Ok(once) = normalize(path.as_bytes(), merge) {
                prop_assert_eq!(normalize(&once, merge), Ok(once.clone()));
                let (part, _) = split_path_and_query(&once);
                prop_assert!(!part.split(|&b| b == b'/').any(|s| s == b"." || s == b".."));
                prop_assert!(!merge || memchr::memmem::find(part, b"//").is_none());
            }
        }

        /// The fast path may only skip what the slow path would leave alone.
        #[test]
        fn what_needs_nothing_is_left_alone(path in "/[ -~]{0,24}") {
            if !needs_normalization(path.as_bytes()) {
                prop_assert_eq!(normalize(path.as_bytes(), true), Ok(path.clone().into_bytes()));
            }
        }
    }
}
