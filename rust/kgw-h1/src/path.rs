//! The one form of a path that is matched, logged and forwarded.
//!
//! Normalisation is Envoy 1.40's with `normalize_path` and `merge_slashes`, but for what makes two
//! readings of one path: escapes are written in upper case (RFC 3986 §6.2.2.1), and what would turn
//! into a dot segment behind the proxy is refused.

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

/// What becomes of `%2F` and `%5C` (Envoy `path_with_escaped_slashes_action`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum EscapedSlashes {
    /// They stay, and are no separators.
    #[default]
    Keep,
    /// The path is refused.
    Reject,
    /// They become slashes before anything else is done.
    Unescape,
    /// As [`Unescape`](Self::Unescape), and the client is sent to the result.
    Redirect,
}

/// How paths are brought into their one form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PathOptions {
    /// Escapes and dot segments are normalised (Envoy `normalize_path`).
    pub normalize: bool,
    /// Runs of slashes become one (Envoy `merge_slashes`).
    pub merge_slashes: bool,
    /// What becomes of `%2F` and `%5C`.
    pub escaped_slashes: EscapedSlashes,
    /// With `normalize`, more is refused that some backends read as something else: escaped
    /// control characters, escapes of escapes of `.`, `/`, `\` or `;`, escaped blanks at the ends
    /// of a segment, and bytes that are never part of UTF-8.
    pub strict: bool,
}

/// What a path's options ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum PathOutcome {
    /// The path is in its one form.
    Normal,
    /// It is, and the client is to be redirected (307) to it: it had escaped slashes.
    Redirect,
}

/// Normalises the path part; the query is left as it is.
///
/// In this order: `%XX` of an unreserved character is decoded and other escapes get upper-case
/// digits, `\` becomes `/`, the characters ``"<>^`{|}`` are percent-encoded, dot segments are removed
/// (RFC 3986 §5.2.4, `%2e` counts as a dot), and runs of slashes are merged if `merge_slashes`. Other
/// escapes stay, also `%2F`, `%5C` and broken ones. The result is a fixed point: normalising it again
/// changes nothing.
///
/// # Errors
/// [`RequestError::PathNormalization`] for `%00`, for `#` anywhere, when the path does not start with
/// `/` or `\`, for a dot segment that only a backend would see (`..%2F`, `..;x`), and for the
/// overlong escapes `%C0%80`-`%C1%BF` (RFC 3629 §3).
pub fn normalize(path: &[u8], merge_slashes: bool) -> Result<Vec<u8>, RequestError> {
    let options = PathOptions {
        normalize: true,
        merge_slashes,
        ..PathOptions::default()
    };
    canonicalize(path, options).map(|(path, _)| path)
}

/// Brings a path into the form that `options` ask for; see [`normalize`] for what that means and for
/// the errors. The query is left as it is, and `#` is refused whatever the options: a target has no
/// fragment (RFC 9112 §3.2).
pub fn canonicalize(
    path: &[u8],
    options: PathOptions,
) -> Result<(Vec<u8>, PathOutcome), RequestError> {
    const REFUSED: RequestError = RequestError::PathNormalization;
    let (part, query) = split_path_and_query(path);
    if memchr::memchr(b'#', path).is_some() || !matches!(part.first(), Some(b'/' | b'\\')) {
        return Err(REFUSED);
    }
    let mut outcome = PathOutcome::Normal;
    let mut unescaped = Vec::new();
    let mut part = part;
    if options.escaped_slashes != EscapedSlashes::Keep && unescape_slashes(part, &mut unescaped) {
        match options.escaped_slashes {
            EscapedSlashes::Reject => return Err(REFUSED),
            EscapedSlashes::Redirect => outcome = PathOutcome::Redirect,
            EscapedSlashes::Keep | EscapedSlashes::Unescape => {}
        }
        part = &unescaped;
    }
    let mut out = Vec::with_capacity(path.len() + 8);
    if options.normalize {
        remove_dot_segments(&decode(part)?, &mut out);
    } else {
        out.extend_from_slice(part);
    }
    if options.merge_slashes {
        out.dedup_by(|next, before| *next == b'/' && *before == b'/');
    }
    if options.normalize && (is_ambiguous(&out) || (options.strict && is_suspicious(&out))) {
        return Err(REFUSED);
    }
    if let Some(query) = query {
        out.push(b'?');
        out.extend_from_slice(query);
    }
    Ok((out, outcome))
}

/// Copies `part` with `%2F` and `%5C` as the slashes that they are escapes of. Returns whether there
/// were any.
fn unescape_slashes(part: &[u8], out: &mut Vec<u8>) -> bool {
    let mut found = false;
    let mut at = 0;
    while let Some(&byte) = part.get(at) {
        match part.get(at..at + 3) {
            Some([b'%', b'2', b'f' | b'F']) => out.push(b'/'),
            Some([b'%', b'5', b'c' | b'C']) => out.push(b'\\'),
            _ => {
                out.push(byte);
                at += 1;
                continue;
            }
        }
        found = true;
        at += 3;
    }
    found
}

/// Whether a normalised path holds a dot segment for a reader that decodes slashes or cuts
/// parameters off, or an overlong escape, which some decoders turn into the character it hides.
fn is_ambiguous(path: &[u8]) -> bool {
    path.split(|&byte| byte == b'/').any(|segment| {
        if !segment.iter().any(|&byte| matches!(byte, b'%' | b';')) {
            return false;
        }
        let mut start = 0;
        let mut at = 0;
        while at <= segment.len() {
            // The end of a piece, and where the next one starts.
            let (ends, width) = match &segment[at..] {
                [] => (true, 1),
                [b'%', b'2', b'F', ..] | [b'%', b'5', b'C', ..] => (true, 3),
                [b'%', b'C', b'0' | b'1', b'%', b'8' | b'9' | b'A' | b'B', ..] => return true,
                _ => (false, 1),
            };
            if ends {
                let piece = &segment[start..at];
                let bare = piece
                    .iter()
                    .position(|&byte| byte == b';')
                    .unwrap_or(piece.len());
                let bare = memchr::memmem::find(piece, b"%3B").map_or(bare, |at| at.min(bare));
                if matches!(&piece[..bare], b"." | b"..") {
                    return true;
                }
                start = at + width;
            }
            at += width;
        }
        false
    })
}

/// Whether a normalised path holds what [`PathOptions::strict`] refuses.
fn is_suspicious(path: &[u8]) -> bool {
    path.split(|&byte| byte == b'/').any(|segment| {
        segment.starts_with(b"%20")
            || segment.ends_with(b"%20")
            || segment.windows(3).enumerate().any(|(at, escape)| {
                let &[b'%', high, low] = escape else {
                    return false;
                };
                let Some((high, low)) = chars::hex_value(high).zip(chars::hex_value(low)) else {
                    return false;
                };
                match high << 4 | low {
                    0..=0x1f | 0x7f | 0xc0 | 0xc1 | 0xf5..=0xff => true,
                    b'%' => hides_separator(&segment[at + 3..]),
                    _ => false,
                }
            })
    })
}

/// Whether these digits, behind an escaped `%`, would make it an escape that matters: of an
/// unreserved character, a separator, or another `%`.
fn hides_separator(digits: &[u8]) -> bool {
    let &[high, low, ..] = digits else {
        return false;
    };
    let value = chars::hex_value(high)
        .zip(chars::hex_value(low))
        .map(|(high, low)| high << 4 | low);
    value.is_some_and(|value| {
        chars::is_unreserved(value)
            || matches!(
                value,
                0..=0x20 | 0x7f | b'/' | b'\\' | b';' | b'%' | b'?' | b'#'
            )
    })
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
                    push_escaped(&mut out, value);
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
            ("/a%2Fb%20c", "/a%2Fb%20c"),
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
    fn escapes_get_upper_case_digits() {
        assert_eq!(
            normal("/a%2fb%5cc%c3%a4%e2").as_deref(),
            Ok("/a%2Fb%5Cc%C3%A4%E2")
        );
    }

    #[test]
    fn a_dot_segment_that_only_a_backend_sees_is_refused() {
        for bad in [
            "/x/..%2fadmin",
            "/x%2F..%2Fadmin",
            "/x%5c..%5cadmin",
            "/x/..;/admin",
            "/x/..;a=b/admin",
            "/x/..%3b/admin",
            "/.;/admin",
            "/x%2f..",
            "/x%2f%2e%2e",
            "/%2e%2e%2fadmin",
            "/%c0%afadmin",
            "/%C1%9C",
        ] {
            assert_eq!(normal(bad), Err(RequestError::PathNormalization), "{bad}");
        }
        for good in [
            "/a%2Fb",
            "/a;v=1",
            "/...;x",
            "/..a%2F..b",
            "/a%3B..",
            "/%C0",
            "/%C3%80",
        ] {
            assert_eq!(normal(good).as_deref(), Ok(good));
        }
    }

    #[test]
    fn escaped_slashes_by_policy() {
        use EscapedSlashes::{Keep, Redirect, Reject, Unescape};
        let refused = Err(RequestError::PathNormalization);
        let (normal, redirect) = (PathOutcome::Normal, PathOutcome::Redirect);
        for (path, escaped_slashes, expected) in [
            ("/a%2Fb%5cc?x=%2F", Keep, Ok(("/a%2Fb%5Cc?x=%2F", normal))),
            ("/a%2Fb%5cc?x=%2F", Reject, refused),
            ("/a%2Fb%5cc?x=%2F", Unescape, Ok(("/a/b/c?x=%2F", normal))),
            ("/a%2Fb%5cc?x=%2F", Redirect, Ok(("/a/b/c?x=%2F", redirect))),
            ("/a%2F..%2fb", Unescape, Ok(("/b", normal))),
            ("/a%2f%2fb", Redirect, Ok(("/a/b", redirect))),
            ("/a%252fb", Unescape, Ok(("/a%252fb", normal))),
            ("/a?x=%2F", Reject, Ok(("/a?x=%2F", normal))),
            ("/a?x=%2F", Redirect, Ok(("/a?x=%2F", normal))),
        ] {
            let options = PathOptions {
                normalize: true,
                merge_slashes: true,
                escaped_slashes,
                strict: false,
            };
            let found = canonicalize(path.as_bytes(), options);
            let expected = expected.map(|(path, outcome)| (path.as_bytes().to_vec(), outcome));
            assert_eq!(found, expected, "{path} {escaped_slashes:?}");
        }
    }

    #[test]
    fn without_normalisation_only_what_is_asked_for_is_done() {
        let as_it_is = PathOptions::default();
        let path = b"//a/../%41%2f%00";
        assert_eq!(
            canonicalize(path, as_it_is),
            Ok((path.to_vec(), PathOutcome::Normal))
        );
        let merged = PathOptions {
            merge_slashes: true,
            ..as_it_is
        };
        let found = canonicalize(path, merged).unwrap().0;
        assert_eq!(found, b"/a/../%41%2f%00");
        for bad in [&b"/a#b"[..], b"/a?b#c"] {
            assert_eq!(
                canonicalize(bad, as_it_is),
                Err(RequestError::PathNormalization)
            );
        }
    }

    #[test]
    fn what_strict_refuses_beyond() {
        let strict = PathOptions {
            normalize: true,
            merge_slashes: true,
            escaped_slashes: EscapedSlashes::Reject,
            strict: true,
        };
        for bad in [
            "/%09a", "/a%0a", "/a%7f", "/%c0", "/%ff", "/%252e", "/%252f", "/%255c", "/%253b",
            "/%2561", "/%25252f", "/%20a", "/a%20/b",
        ] {
            assert!(normal(bad).is_ok(), "{bad}");
            assert!(canonicalize(bad.as_bytes(), strict).is_err(), "{bad}");
        }
        for good in [
            "/a%20b",
            "/100%25",
            "/%C3%A4",
            "/%25zz",
            "/a;b=c",
            "/%E2%82%AC",
        ] {
            assert!(canonicalize(good.as_bytes(), strict).is_ok(), "{good}");
        }
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
        fn a_second_time_changes_nothing(
            path in "/([/\\\\.%?2eE5fFc0-9a-c#|^;]|%2e|%2E|%41|%25|%2f|%5C|\\.\\./|//){0,24}",
            normalize in any::<bool>(),
            merge_slashes in any::<bool>(),
            strict in any::<bool>(),
            policy in 0_usize..4,
        ) {
            use EscapedSlashes::{Keep, Redirect, Reject, Unescape};
            let escaped_slashes = [Keep, Reject, Unescape, Redirect][policy];
            let options = PathOptions { normalize, merge_slashes, escaped_slashes, strict };
            if let Ok((once, _)) = canonicalize(path.as_bytes(), options) {
                let twice = canonicalize(&once, options);
                prop_assert_eq!(twice, Ok((once.clone(), PathOutcome::Normal)));
                let (part, _) = split_path_and_query(&once);
                let has_dots = part.split(|&b| b == b'/').any(|s| s == b"." || s == b"..");
                prop_assert!(!normalize || !has_dots);
                prop_assert!(!merge_slashes || memchr::memmem::find(part, b"//").is_none());
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
