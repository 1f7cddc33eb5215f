//! Requests that pages of other origins make (Envoy `csrf`).
//!
//! A browser says which page a request comes from, in `origin` or `referer`. A request that changes
//! something has to come from a page of its own host and port, or of one that is allowed.

use kgw_h1::Request;

use crate::config::ir;
use crate::filter::string_match::StringMatcher;
use crate::filter::{Decide, RequestView, Step};
use crate::pipeline::reply::Reply;

/// Requests that change something have to come from a page of the host that they are for.
#[derive(Debug)]
pub(crate) struct Csrf {
    percent_enabled: u8,
    percent_shadowed: u8,
    additional_origins: Box<[StringMatcher]>,
}

/// Where a request comes from, judged.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Origin {
    Valid,
    /// Nothing says.
    Missing,
    Invalid,
}

impl Csrf {
    /// Compiles the filter, or says which origin is none.
    pub(crate) fn compile(csrf: &ir::Csrf) -> Result<Self, String> {
        let shares = [csrf.percent_enabled, csrf.percent_shadowed];
        if let Some(share) = shares.into_iter().find(|share| *share > 100) {
            return Err(format!("{share} is not a percentage"));
        }
        let origins = csrf.additional_origins.iter().map(StringMatcher::compile);
        Ok(Self {
            percent_enabled: csrf.percent_enabled,
            percent_shadowed: csrf.percent_shadowed,
            additional_origins: origins.collect::<Result<_, _>>()?,
        })
    }

    fn judge(&self, request: &Request) -> Origin {
        let fields = request.headers();
        let of = |name: &[u8]| {
            fields
                .get(name)
                .map(host_and_port)
                .filter(|at| !at.is_empty())
        };
        let Some(source) = of(b"origin").or_else(|| of(b"referer")) else {
            return Origin::Missing;
        };
        let origins = &self.additional_origins;
        if source == request.authority() || origins.iter().any(|one| one.matches(source)) {
            Origin::Valid
        } else {
            Origin::Invalid
        }
    }
}

impl Decide for Csrf {
    fn on_request(&self, view: &mut RequestView<'_, '_>) -> Result<Step, Reply> {
        let changes = [&b"DELETE"[..], b"PATCH", b"POST", b"PUT"];
        if !changes.contains(&view.request.method()) {
            return Ok(Step::Pass);
        }
        let is_enforced = is_among(self.percent_enabled);
        if !is_enforced && !is_among(self.percent_shadowed) {
            return Ok(Step::Pass);
        }
        let stats = view.worker.stats();
        match self.judge(view.request) {
            Origin::Valid => {
                stats.csrf_request_valid.increment();
                return Ok(Step::Pass);
            }
            Origin::Missing => stats.csrf_missing_source_origin.increment(),
            Origin::Invalid => stats.csrf_request_invalid.increment(),
        }
        if is_enforced {
            Err(Reply::invalid_origin())
        } else {
            Ok(Step::Pass)
        }
    }
}

/// Whether a request is among a share of all, in percent.
fn is_among(percent: u8) -> bool {
    match percent {
        0 => false,
        100.. => true,
        some => fastrand::u8(0..100) < some,
    }
}

/// Host and port of a URL, as they are written. All of a text that is none.
fn host_and_port(text: &[u8]) -> &[u8] {
    let Some(at) = memchr::memmem::find(text, b"://") else {
        return text;
    };
    let rest = &text[at + 3..];
    let end = rest.iter().position(|byte| b"/?#".contains(byte));
    let authority = &rest[..end.unwrap_or(rest.len())];
    match memchr::memrchr(b'@', authority) {
        Some(at) => &authority[at + 1..],
        None => authority,
    }
}

#[cfg(test)]
mod tests {
    use kgw_h1::Limits;

    use super::*;

    fn judged(origins: &str, fields: &str) -> Origin {
        let json = format!(r#"{{"percent_enabled": 100, "additional_origins": [{origins}]}}"#);
        let csrf = Csrf::compile(&serde_json::from_str(&json).unwrap()).unwrap();
        let limits = Limits {
            max_head_bytes: 4096,
            max_fields: 100,
        };
        let mut request = Request::new();
        let bytes = format!("POST / HTTP/1.1\r\nhost: a.example:8080\r\n{fields}\r\n");
        request.parse(bytes.as_bytes(), &limits).unwrap();
        csrf.judge(&request)
    }

    #[test]
    fn host_and_port_have_to_be_the_same() {
        for (fields, expected) in [
            ("origin: http://a.example:8080\r\n", Origin::Valid),
            ("origin: https://a.example:8080\r\n", Origin::Valid),
            ("origin: http://a.example\r\n", Origin::Invalid),
            ("origin: http://b.example:8080\r\n", Origin::Invalid),
            ("origin: null\r\n", Origin::Invalid),
            (
                "referer: http://a.example:8080/page?x=//y\r\n",
                Origin::Valid,
            ),
            ("referer: http://b.example:8080/page\r\n", Origin::Invalid),
            (
                "referer: http://a.example:8080@evil.example/\r\n",
                Origin::Invalid,
            ),
            // What `origin` says counts.
            (
                "origin: http://b.example\r\nreferer: http://a.example:8080/\r\n",
                Origin::Invalid,
            ),
            (
                "origin:\r\nreferer: http://a.example:8080/\r\n",
                Origin::Valid,
            ),
            ("", Origin::Missing),
        ] {
            assert_eq!(judged("", fields), expected, "{fields}");
        }
    }

    #[test]
    fn other_hosts_may_be_allowed() {
        let origins = r#"{"type": "exact", "value": "b.example"},
            {"type": "suffix", "value": ".C.example:1", "ignore_case": true}"#;
        for (origin, expected) in [
            ("https://b.example", Origin::Valid),
            ("https://b.example:1", Origin::Invalid),
            ("https://x.c.example:1", Origin::Valid),
            ("https://c.example:1", Origin::Invalid),
        ] {
            let fields = format!("origin: {origin}\r\n");
            assert_eq!(judged(origins, &fields), expected, "{origin}");
        }
    }

    #[test]
    fn shares_are_percentages() {
        assert!(!(0..1000).any(|_| is_among(0)));
        assert!((0..1000).all(|_| is_among(100)));
        // Either not happening is less likely than a broken machine: 0.99^20000.
        assert!((0..20_000).any(|_| is_among(1)));
        assert!(!(0..20_000).all(|_| is_among(99)));
        let wrong = ir::Csrf {
            percent_shadowed: 101,
            ..ir::Csrf::default()
        };
        assert!(Csrf::compile(&wrong).is_err());
    }
}
