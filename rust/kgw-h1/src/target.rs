//! Request targets and authorities (RFC 9112 §3.2, RFC 3986 §3.2).

use crate::error::RequestError;

/// A target taken apart. Slices are of the request line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target<'a> {
    /// `/path?query`
    Origin(&'a [u8]),
    /// `http://authority/path?query`; `path` may be empty or start with `?`.
    Absolute {
        /// Authority, checked.
        authority: &'a [u8],
        /// What follows the authority.
        path: &'a [u8],
    },
    /// `host:port` of a CONNECT.
    Authority(&'a [u8]),
    /// `*` of an OPTIONS.
    Asterisk,
}

/// Takes a target of printable US-ASCII apart.
pub(crate) fn parse(
    method: crate::Method,
    target: &[u8],
    secure: bool,
) -> Result<Target<'_>, RequestError> {
    if method == crate::Method::Connect {
        let has_port = matches!(
            memchr::memrchr(b':', target), Some(at) if at + 1 < target.len()
        );
        return if has_port && is_valid_authority(target) {
            Ok(Target::Authority(target))
        } else {
            Err(RequestError::BadTarget)
        };
    }
    match target {
        [b'/', ..] => Ok(Target::Origin(target)),
        b"*" if method == crate::Method::Options => Ok(Target::Asterisk),
        b"*" => Err(RequestError::InvalidUrl),
        _ => absolute(target, secure),
    }
}

fn absolute(target: &[u8], secure: bool) -> Result<Target<'_>, RequestError> {
    let Some(colon) = memchr::memmem::find(target, b"://") else {
        return Err(RequestError::BadTarget);
    };
    let (scheme, rest) = (&target[..colon], &target[colon + 3..]);
    if scheme.eq_ignore_ascii_case(b"https") {
        if !secure {
            return Err(RequestError::HttpsOnPlaintext);
        }
    } else if !scheme.eq_ignore_ascii_case(b"http") {
        let is_scheme = scheme.first().is_some_and(u8::is_ascii_alphabetic)
            && scheme
                .iter()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
        return Err(if is_scheme {
            RequestError::InvalidScheme
        } else {
            RequestError::BadTarget
        });
    }
    let end = rest
        .iter()
        .position(|byte| matches!(byte, b'/' | b'?' | b'#' | b'\\'))
        .unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    // Userinfo is an error here (RFC 9110 §4.2.4: "SHOULD ... treat its presence as an error").
    if !is_valid_authority(authority) || matches!(path.first(), Some(b'#' | b'\\')) {
        return Err(RequestError::InvalidUrl);
    }
    Ok(Target::Absolute { authority, path })
}

/// Returns whether `authority` is `uri-host [ ":" port ]` with a host that is not empty, a port of
/// at most 65535 and no userinfo (RFC 9110 §7.2, RFC 3986 §3.2).
///
/// Stricter than the grammar where intermediaries disagree: no comma (a joined list of hosts), no
/// `IPvFuture`, no zone.
pub fn is_valid_authority(authority: &[u8]) -> bool {
    let port = if let [b'[', rest @ ..] = authority {
        let Some(end) = memchr::memchr(b']', rest) else {
            return false;
        };
        let address = std::str::from_utf8(&rest[..end]).unwrap_or_default();
        if address.parse::<std::net::Ipv6Addr>().is_err() {
            return false;
        }
        &rest[end + 1..]
    } else {
        let end = memchr::memchr(b':', authority).unwrap_or(authority.len());
        let (host, port) = authority.split_at(end);
        if !is_reg_name(host) {
            return false;
        }
        port
    };
    match port {
        [] => true,
        [b':', digits @ ..] => {
            digits.len() <= 5
                && digits.iter().all(u8::is_ascii_digit)
                && digits
                    .iter()
                    .fold(0_u32, |port, digit| port * 10 + u32::from(digit - b'0'))
                    <= 65535
        }
        _ => false,
    }
}

/// `1*( unreserved / pct-encoded / sub-delims )` without comma.
fn is_reg_name(host: &[u8]) -> bool {
    let mut at = 0;
    while let Some(&byte) = host.get(at) {
        match byte {
            b'%' => {
                let is_escape = matches!(
                    host.get(at + 1..at + 3),
                    Some([high, low]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit()
                );
                if !is_escape {
                    return false;
                }
                at += 3;
            }
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b';' | b'=' => at += 1,
            _ if crate::chars::is_unreserved(byte) => at += 1,
            _ => return false,
        }
    }
    at > 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Method;

    #[test]
    fn authorities() {
        for good in [
            "a",
            "A.b-c_d~",
            "a:80",
            "a:",
            "a:65535",
            "1.2.3.4:1",
            "[::1]",
            "[::1]:8080",
            "[::ffff:1.2.3.4]",
            "lab%2etest",
            "a.b.",
            "x!$&'()*+;=",
        ] {
            assert!(is_valid_authority(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            ":80",
            "a:80x",
            "a:-1",
            "a:65536",
            "a:000080",
            "u@h",
            "u:p@h",
            "a,b",
            "a b",
            "a/",
            "a?",
            "a#",
            "a\"",
            "a<b>",
            "[::1",
            "[::1]x",
            "[]",
            "::1",
            "[v1.a]",
            "[fe80::1%25eth0]",
            "a%2",
            "a%zz",
            "l\u{e4}b",
            "a\\b",
            "a[",
            "a:1:2",
        ] {
            assert!(!is_valid_authority(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn targets() {
        let parse = |method, target: &'static str| super::parse(method, target.as_bytes(), false);
        let absolute = |authority: &'static str, path: &'static str| {
            Ok(Target::Absolute {
                authority: authority.as_bytes(),
                path: path.as_bytes(),
            })
        };
        assert_eq!(parse(Method::Get, "/a?b"), Ok(Target::Origin(b"/a?b")));
        assert_eq!(parse(Method::Get, "/a://b"), Ok(Target::Origin(b"/a://b")));
        assert_eq!(parse(Method::Get, "HTTP://h:1/p"), absolute("h:1", "/p"));
        assert_eq!(parse(Method::Get, "http://h"), absolute("h", ""));
        assert_eq!(parse(Method::Get, "http://h?q"), absolute("h", "?q"));
        assert_eq!(parse(Method::Options, "*"), Ok(Target::Asterisk));
        assert_eq!(
            parse(Method::Connect, "h:443"),
            Ok(Target::Authority(b"h:443"))
        );
        for (method, target, error) in [
            (Method::Get, "*", RequestError::InvalidUrl),
            (Method::Get, "a/b", RequestError::BadTarget),
            (Method::Get, "h:80", RequestError::BadTarget),
            (Method::Get, "?x=1", RequestError::BadTarget),
            (Method::Get, "\\a\\b", RequestError::BadTarget),
            (Method::Get, "://h/", RequestError::BadTarget),
            (Method::Get, "http:///p", RequestError::InvalidUrl),
            (Method::Get, "http://u@h/p", RequestError::InvalidUrl),
            (Method::Get, "http://h#f", RequestError::InvalidUrl),
            (Method::Get, "http://h\\p", RequestError::InvalidUrl),
            (Method::Get, "https://h/", RequestError::HttpsOnPlaintext),
            (Method::Get, "ftp://h/", RequestError::InvalidScheme),
            (Method::Connect, "/", RequestError::BadTarget),
            (Method::Connect, "h", RequestError::BadTarget),
            (Method::Connect, "h:", RequestError::BadTarget),
        ] {
            assert_eq!(parse(method, target), Err(error), "{target}");
        }
        assert!(super::parse(Method::Get, b"https://h/", true).is_ok());
    }
}
