//! A deny rule on `/admin` against 56 spellings of paths: what equals a denied path by RFC 3986 is
//! denied, and few of the others reach a backend that reads them more loosely.

use std::collections::BTreeSet;

use kgw_h1::{EscapedSlashes, Limits, PathOptions, Request, Status};

/// Spellings that RFC 3986 §6.2.2 makes equal to a path under `/admin`.
const EQUAL: [&str; 19] = [
    "/admin/secret",
    "/./admin/secret",
    "/x/../admin/secret",
    "/x/y/../../admin/secret",
    "/admin/./secret",
    "/../admin/secret",
    "/../../admin/secret",
    "/%61dmin/secret",
    "/%61%64%6d%69%6e/secret",
    "/%2e/admin/secret",
    "/x/%2e%2e/admin/secret",
    "/x/.%2e/admin/secret",
    "/x/%2E%2E/admin/secret",
    "/admin/%73ecret",
    "http://lab.test/admin/secret",
    "http://lab.test/x/../admin/secret",
    "HTTP://LAB.TEST/admin/secret",
    "/admin/secret?x=y",
    "http://lab.test//../admin/secret",
];

/// Spellings that only some backends take for a path under `/admin`.
const LOOSE: [&str; 37] = [
    "//admin/secret",
    "///admin/secret",
    "/x//../admin/secret",
    "/%2fadmin/secret",
    "/x%2f..%2fadmin/secret",
    "/x/..%2fadmin/secret",
    "/admin%2fsecret",
    "/%2561dmin/secret",
    "/x/%252e%252e/admin/secret",
    "/x%252f..%252fadmin/secret",
    "/x\\..\\admin\\secret",
    "/x%5c..%5cadmin%5csecret",
    "\\admin\\secret",
    "/admin;/secret",
    "/admin;a=b/secret",
    "/x/..;/admin/secret",
    "/x/..%3b/admin/secret",
    "/ADMIN/secret",
    "/Admin/secret",
    "/admin%00/secret",
    "/%00/../admin/secret",
    "/%09admin/secret",
    "/%20admin/secret",
    "/admin%20/secret",
    "/admin./secret",
    "/%c0%afadmin/secret",
    "/x/%c0%ae%c0%ae/admin/secret",
    "/%ef%bc%8fadmin/secret",
    "/x#/../admin/secret",
    "/admin#x",
    "/admin%3f/secret",
    "/admin%23/secret",
    "/%u0061dmin/secret",
    "/admin/../x",
    "/administrator",
    "/%0aadmin/secret",
    "/admin/%2e%2e%2fadmin/secret",
];

const KGATEWAY: PathOptions = PathOptions {
    normalize: true,
    merge_slashes: true,
    escaped_slashes: EscapedSlashes::Keep,
    strict: false,
};

const STRICT: PathOptions = PathOptions {
    escaped_slashes: EscapedSlashes::Reject,
    strict: true,
    ..KGATEWAY
};

/// What a backend gets to see, past a deny rule on the prefix `/admin`.
fn forwarded(target: &str, options: PathOptions) -> Option<String> {
    let mut request = Request::new();
    let head = format!("GET {target} HTTP/1.1\r\nHost: lab.test\r\n\r\n");
    let status = request.parse(head.as_bytes(), &Limits::REQUEST).ok()?;
    assert_eq!(status, Status::Complete(head.len()));
    let _ = request.canonicalize_path(options).ok()?;
    let path = String::from_utf8(request.path().to_vec()).expect("targets are ASCII");
    (!path.starts_with("/admin")).then_some(path)
}

/// Paths that a lax backend might take this one for: decoded once or twice, `\` for `/`, parameters
/// cut off, blanks trimmed, overlong escapes decoded, case ignored.
fn loose_readings(path: &str) -> BTreeSet<String> {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let mut readings = BTreeSet::new();
    for (times, backslash, parameters) in [1, 2]
        .iter()
        .flat_map(|&times| [(times, false), (times, true)])
        .flat_map(|(times, slash)| [(times, slash, false), (times, slash, true)])
    {
        let mut bytes = path.as_bytes().to_vec();
        for _ in 0..times {
            bytes = unescape(&bytes);
        }
        let text: String = bytes.iter().map(|&byte| char::from(byte)).collect();
        let mut text = text
            .replace("\u{c0}\u{af}", "/")
            .replace("\u{c0}\u{ae}", ".")
            .replace('\0', "");
        if backslash {
            text = text.replace('\\', "/");
        }
        let mut out: Vec<String> = Vec::new();
        for segment in text.to_lowercase().split('/') {
            let segment = match segment.split_once(';') {
                Some((before, _)) if parameters => before,
                _ => segment,
            };
            match segment.trim() {
                "" | "." => {}
                ".." => {
                    out.pop();
                }
                segment => out.push(segment.to_owned()),
            }
        }
        readings.insert(format!("/{}", out.join("/")));
    }
    readings
}

fn unescape(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let escape = bytes
            .get(at..at + 3)
            .filter(|escape| escape[0] == b'%')
            .and_then(|escape| std::str::from_utf8(&escape[1..]).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(escape.unwrap_or(bytes[at]));
        at += if escape.is_some() { 3 } else { 1 };
    }
    out
}

fn exposed(options: PathOptions) -> Vec<(&'static str, String)> {
    LOOSE
        .iter()
        .filter_map(|&target| Some((target, forwarded(target, options)?)))
        .filter(|(_, path)| {
            loose_readings(path)
                .iter()
                .any(|reading| reading == "/admin" || reading.starts_with("/admin/"))
        })
        .collect()
}

#[test]
fn no_equal_spelling_gets_past() {
    for options in [KGATEWAY, STRICT] {
        for target in EQUAL {
            assert_eq!(forwarded(target, options), None, "{target}");
        }
    }
}

#[test]
fn few_loose_spellings_are_exposed() {
    let default = exposed(KGATEWAY);
    assert!(default.len() <= 9, "{default:#?}");
    let strict = exposed(STRICT);
    assert!(strict.len() <= 2, "{strict:#?}");
    // Letter case is the backend's own affair: RFC 3986 makes it count.
    assert!(
        strict
            .iter()
            .all(|(target, _)| target.eq_ignore_ascii_case("/admin/secret"))
    );
}

/// The reading model finds what it should: without options most spellings get past.
#[test]
fn the_model_sees_what_a_lax_proxy_lets_through() {
    let lax = PathOptions::default();
    assert!(exposed(lax).len() >= 18, "{:#?}", exposed(lax));
    assert!(
        EQUAL
            .iter()
            .filter(|target| forwarded(target, lax).is_some())
            .count()
            >= 12
    );
}

#[test]
fn escaped_slashes_are_redirected_to_the_path_that_they_mean() {
    let options = PathOptions {
        escaped_slashes: EscapedSlashes::Redirect,
        ..KGATEWAY
    };
    assert_eq!(forwarded("/x/..%2fadmin/secret", options), None);
    assert_eq!(forwarded("/a%2Fb", options).as_deref(), Some("/a/b"));
}
