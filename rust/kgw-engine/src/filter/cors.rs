//! `CORS`: which pages of other origins may use a route (GEP-1767, the Fetch standard).
//!
//! The proxy decides alone. A preflight request is answered here, whatever the origin, and what a
//! backend says about origins is replaced, or taken off where the origin may not read the answer.
//! Every answer of a route with this filter depends on the origin, and says so to caches.
//!
//! Differences from Envoy's filter: that one passes on preflight requests of origins that it does not
//! allow, leaves a backend's own fields on such answers, and adds no `vary`.

use bytes::Bytes;
use kgw_h1::{Headers, Method, Request};

use crate::bridge::Answer;
use crate::config::ir;
use crate::pipeline::reply::Reply;

const ALLOW_ORIGIN: &[u8] = b"access-control-allow-origin";
const ALLOW_CREDENTIALS: &[u8] = b"access-control-allow-credentials";
const ALLOW_METHODS: &[u8] = b"access-control-allow-methods";
const ALLOW_HEADERS: &[u8] = b"access-control-allow-headers";
const EXPOSE_HEADERS: &[u8] = b"access-control-expose-headers";
const MAX_AGE: &[u8] = b"access-control-max-age";
const REQUEST_METHOD: &[u8] = b"access-control-request-method";
const REQUEST_HEADERS: &[u8] = b"access-control-request-headers";

/// Who may use a route from another origin.
#[derive(Debug)]
pub(crate) struct Cors {
    origins: Box<[OriginPattern]>,
    credentials: bool,
    methods: Names,
    headers: Names,
    expose: Names,
    max_age: Box<[u8]>,
}

/// Origins that are allowed.
#[derive(Debug, Eq, PartialEq)]
enum OriginPattern {
    Any,
    /// `*://*`: any that is a URL, as kgateway's `*`. `null` is none.
    AnyUrl,
    /// A `*` anywhere, for any bytes, as in kgateway: what is in front of, between and behind them.
    Glob(Box<[Box<[u8]>]>),
    /// `https://*`: any host, and any port as in kgateway, unless the pattern has one.
    Scheme(Box<[u8]>, AnyPort),
    /// `https://*.example.com:8443`: what is in front of the `*`, and what is behind it.
    Suffix(Box<[u8]>, Box<[u8]>),
    Exact(Box<[u8]>),
}

/// Whether the port does not matter.
type AnyPort = bool;

/// Names of methods or fields.
#[derive(Debug)]
enum Names {
    None,
    Any,
    /// Joined by commas.
    List(Box<[u8]>),
}

/// What an answer is to say about origins.
#[derive(Debug)]
pub(crate) struct Sharing<'a> {
    cors: &'a Cors,
    /// The page's origin, if it may read the answer.
    origin: Option<Box<[u8]>>,
}

// === impl Cors ===

impl Cors {
    /// Compiles the filter, or names the origin or name that is none.
    pub(crate) fn compile(cors: &ir::Cors) -> Result<Self, String> {
        let origins = cors.allow_origins.iter();
        Ok(Self {
            origins: origins
                .map(|origin| OriginPattern::compile(origin))
                .collect::<Result<_, _>>()?,
            credentials: cors.allow_credentials,
            methods: Names::compile(&cors.allow_methods)?,
            headers: Names::compile(&cors.allow_headers)?,
            expose: Names::compile(&cors.expose_headers)?,
            max_age: cors.max_age_s.to_string().into_bytes().into(),
        })
    }

    /// Answers a preflight request, or says what the answer to another one is to say.
    pub(crate) fn on_request(&self, request: &Request) -> Result<Sharing<'_>, Reply> {
        let fields = request.headers();
        let origin = fields.get(b"origin").filter(|origin| self.allows(origin));
        let sharing = Sharing {
            cors: self,
            origin: origin.map(Into::into),
        };
        let asked = fields.get(REQUEST_METHOD).unwrap_or_default();
        let is_preflight = request.method_kind() == Method::Options
            && fields.contains(b"origin")
            && !asked.is_empty();
        if is_preflight {
            Err(sharing.preflight(asked, fields.get(REQUEST_HEADERS)))
        } else {
            Ok(sharing)
        }
    }

    fn allows(&self, origin: &[u8]) -> bool {
        let bare = without_default_port(origin);
        self.origins
            .iter()
            .any(|pattern| pattern.matches(bare, self.credentials))
    }
}

// === impl Sharing ===

impl Sharing<'_> {
    /// Says on an answer who may read it.
    pub(crate) fn apply(&self, headers: &mut Headers) {
        headers.remove(ALLOW_ORIGIN);
        headers.remove(ALLOW_CREDENTIALS);
        if self.origin.is_some() {
            let exposed = match &self.cors.expose {
                Names::None => None,
                // With credentials `*` is a name like any other (Fetch 3.3.3).
                Names::Any if self.cors.credentials => Some(join(headers.iter().map(|one| one.0))),
                Names::Any => Some(b"*".to_vec()),
                Names::List(names) => Some(names.to_vec()),
            };
            headers.remove(EXPOSE_HEADERS);
            if let Some(names) = exposed.filter(|names| !names.is_empty()) {
                headers.append(EXPOSE_HEADERS, &names);
            }
        }
        self.state_origin(headers);
    }

    fn state_origin(&self, headers: &mut Headers) {
        if let Some(origin) = &self.origin {
            headers.append(ALLOW_ORIGIN, origin);
            if self.cors.credentials {
                headers.append(ALLOW_CREDENTIALS, b"true");
            }
        }
        vary_by_origin(headers);
    }

    fn preflight(&self, method: &[u8], asked: Option<&[u8]>) -> Reply {
        let mut headers = Headers::new();
        if self.origin.is_some() {
            let cors = self.cors;
            // `*` would be a name with credentials; what is asked for says the same without them.
            if let Some(methods) = cors.methods.or_asked(Some(method)) {
                headers.append(ALLOW_METHODS, methods);
            }
            if let Some(names) = cors.headers.or_asked(asked) {
                headers.append(ALLOW_HEADERS, names);
            }
            match &cors.expose {
                Names::List(names) => {
                    headers.append(EXPOSE_HEADERS, names);
                }
                Names::Any if !cors.credentials => {
                    headers.append(EXPOSE_HEADERS, b"*");
                }
                Names::Any | Names::None => {}
            }
            headers.append(MAX_AGE, &cors.max_age);
        }
        self.state_origin(&mut headers);
        // Envoy answers 200 without a body, too.
        Reply::cors(Answer {
            status: 200,
            headers,
            body: Bytes::new(),
        })
    }
}

// === impl OriginPattern ===

impl OriginPattern {
    fn compile(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Any);
        }
        if text == "*://*" {
            return Ok(Self::AnyUrl);
        }
        let wrong = || format!("{text:?} is not an origin");
        let (scheme, host) = text.split_once("://").ok_or_else(wrong)?;
        let is_clean = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_scheme(scheme.as_bytes()) || host.is_empty() || !is_clean(host) {
            return Err(wrong());
        }
        let bytes = without_default_port(text.as_bytes());
        let mut stars = memchr::memchr_iter(b'*', bytes);
        Ok(match (stars.next(), stars.next()) {
            (None, _) => Self::Exact(bytes.into()),
            (Some(at), None) if bytes[..at].ends_with(b"://") => {
                if at + 1 == bytes.len() {
                    Self::Scheme(bytes[..at].into(), bytes.len() == text.len())
                } else {
                    Self::Suffix(bytes[..at].into(), bytes[at + 1..].into())
                }
            }
            _ => {
                let parts = bytes.split(|&byte| byte == b'*').map(Box::from);
                Self::Glob(parts.collect())
            }
        })
    }

    /// Whether `origin`, whose port is not its scheme's own, is one of these. Schemes and hosts know no
    /// case.
    fn matches(&self, origin: &[u8], credentials: bool) -> bool {
        match self {
            // `null` is anybody's: any page can make a frame without an origin of its own.
            Self::Any => !credentials || memchr::memmem::find(origin, b"://").is_some(),
            Self::AnyUrl => memchr::memmem::find(origin, b"://").is_some_and(|at| {
                let (scheme, host) = (&origin[..at], &origin[at + 3..]);
                let is_of_host = |byte: &u8| byte.is_ascii_graphic() && !b"/?#".contains(byte);
                is_scheme(scheme) && !host.is_empty() && host.iter().all(is_of_host)
            }),
            Self::Glob(parts) => is_like(origin, parts),
            Self::Exact(exact) => origin.eq_ignore_ascii_case(exact),
            Self::Scheme(scheme, any_port) => split_prefix(origin, scheme)
                .is_some_and(|host| !host.is_empty() && (*any_port || !host.contains(&b':'))),
            Self::Suffix(scheme, suffix) => split_prefix(origin, scheme).is_some_and(|host| {
                host.len() > suffix.len()
                    && host[host.len() - suffix.len()..].eq_ignore_ascii_case(suffix)
            }),
        }
    }
}

// === impl Names ===

impl Names {
    fn compile(names: &[String]) -> Result<Self, String> {
        if let Some(name) = names
            .iter()
            .find(|name| !kgw_h1::is_valid_name(name.as_bytes()))
        {
            return Err(format!("{name:?} is not a name"));
        }
        Ok(match names {
            [] => Self::None,
            names if names.iter().any(|name| name == "*") => Self::Any,
            names => Self::List(names.join(", ").into_bytes().into()),
        })
    }

    /// The names, or those that are asked for where all are meant.
    fn or_asked<'n>(&'n self, asked: Option<&'n [u8]>) -> Option<&'n [u8]> {
        match self {
            Self::None => None,
            Self::Any => asked,
            Self::List(names) => Some(names),
        }
    }
}

/// RFC 3986 3.1.
fn is_scheme(text: &[u8]) -> bool {
    text.first().is_some_and(u8::is_ascii_alphabetic)
        && text
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte))
}

/// Whether a text is these parts, with anything between them.
fn is_like(text: &[u8], parts: &[Box<[u8]>]) -> bool {
    let [first, middle @ .., last] = parts else {
        return false;
    };
    let Some(mut rest) = split_prefix(text, first) else {
        return false;
    };
    for part in middle {
        // The first place that does leaves the most for the parts behind it.
        let found = (0..=rest.len()).find_map(|at| split_prefix(&rest[at..], part));
        match found {
            Some(behind) => rest = behind,
            None => return false,
        }
    }
    let start = rest.len().checked_sub(last.len());
    start.is_some_and(|start| rest[start..].eq_ignore_ascii_case(last))
}

fn split_prefix<'t>(text: &'t [u8], prefix: &[u8]) -> Option<&'t [u8]> {
    let (head, rest) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// An origin without the port that its scheme has anyhow.
fn without_default_port(origin: &[u8]) -> &[u8] {
    let port: &[u8] = if split_prefix(origin, b"https://").is_some() {
        b":443"
    } else {
        b":80"
    };
    origin.strip_suffix(port).unwrap_or(origin)
}

fn join<'n>(names: impl Iterator<Item = &'n [u8]>) -> Vec<u8> {
    let mut joined = Vec::new();
    for name in names {
        if !joined.is_empty() {
            joined.extend_from_slice(b", ");
        }
        joined.extend_from_slice(name);
    }
    joined
}

fn vary_by_origin(headers: &mut Headers) {
    let varies = headers.get_all(b"vary").any(|line| {
        line.split(|&byte| byte == b',')
            .map(<[u8]>::trim_ascii)
            .any(|name| name == b"*" || name.eq_ignore_ascii_case(b"origin"))
    });
    if !varies {
        headers.append(b"vary", b"origin");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kgw_h1::Limits;

    use crate::pipeline::reply::Extra;

    fn cors(origins: &[&str], change: impl FnOnce(&mut ir::Cors)) -> Cors {
        let mut cors = ir::Cors {
            allow_origins: origins.iter().map(|&one| one.to_owned()).collect(),
            max_age_s: 5,
            ..ir::Cors::default()
        };
        change(&mut cors);
        Cors::compile(&cors).unwrap()
    }

    fn request(method: &str, fields: &str) -> Request {
        let limits = Limits {
            max_head_bytes: 4096,
            max_fields: 100,
        };
        let mut request = Request::new();
        let bytes = format!("{method} / HTTP/1.1\r\nhost: a\r\n{fields}\r\n");
        request.parse(bytes.as_bytes(), &limits).unwrap();
        request
    }

    fn lines(headers: &Headers) -> Vec<String> {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        let lines = headers.iter();
        lines
            .map(|(name, value)| [text(name), text(value)].join(": "))
            .collect()
    }

    fn answered(cors: &Cors, fields: &str) -> Vec<String> {
        let reply = cors.on_request(&request("OPTIONS", fields)).unwrap_err();
        assert_eq!((reply.status, &*reply.details), (200, "cors_response"));
        match reply.extra {
            Extra::Answer(answer) => lines(&answer.headers),
            other => panic!("{other:?}"),
        }
    }

    fn shared(cors: &Cors, fields: &str, said: &[(&str, &str)]) -> Vec<String> {
        let request = request("GET", fields);
        let sharing = cors.on_request(&request).unwrap();
        let mut headers = Headers::new();
        for (name, value) in said {
            headers.append(name.as_bytes(), value.as_bytes());
        }
        sharing.apply(&mut headers);
        lines(&headers)
    }

    #[test]
    fn origins_match_by_scheme_host_and_port() {
        for (pattern, origin, expected) in [
            ("https://www.foo.com", "https://www.foo.com", true),
            ("https://WWW.foo.com", "https://www.Foo.com", true),
            ("https://www.foo.com", "http://www.foo.com", false),
            ("https://www.foo.com", "https://www.foo.com:443", true),
            ("https://www.foo.com:443", "https://www.foo.com", true),
            ("https://www.foo.com", "https://www.foo.com:8443", false),
            ("http://www.foo.com:443", "http://www.foo.com", false),
            ("http://www.foo.com:80", "http://www.foo.com", true),
            ("https://*.bar.com", "https://www.bar.com", true),
            ("https://*.bar.com", "https://a.b.bar.com", true),
            ("https://*.bar.com", "https://bar.com", false),
            ("https://*.bar.com", "https://.bar.com", false),
            ("https://*.bar.com", "https://xbar.com", false),
            ("https://*.bar.com", "https://a.bar.com:8443", false),
            ("https://*.bar.com:8443", "https://a.bar.com:8443", true),
            ("https://*.bar.com", "https://a.bar.com.evil.com", false),
            ("https://*", "https://a.b:8443", true),
            ("https://*", "http://a.b", false),
            ("https://*:443", "https://a.b", true),
            ("https://*:443", "https://a.b:8443", false),
            ("https://*:8443", "https://a.b:8443", true),
            ("https://*", "https://", false),
            ("*", "https://foobar.com:12345", true),
            ("*", "null", true),
            ("https://*.bar.com", "null", false),
            // kgateway's.
            ("*://*", "https://foobar.com:12345", true),
            ("*://*", "chrome-extension://abc", true),
            ("*://*", "null", false),
            ("*://*", "https://a/b", false),
            ("*://*", "https://", false),
            ("ftp://a", "ftp://a", true),
            ("https://a*", "https://abc.com:8443", true),
            ("https://a*", "https://bc.com", false),
            ("https://a.*.com", "https://a.b.c.com", true),
            ("https://a.*.com", "https://a.com", false),
            ("https://*.a.*", "https://b.a.com:1", true),
            ("https://*.a.*", "https://a.com", false),
            ("https://a*b*a", "https://aba", true),
            ("https://a*b*a", "https://ab", false),
            ("https://a:*", "https://a:8443", true),
            ("https://a:*", "https://a", false),
        ] {
            let pattern = cors(&[pattern], |_| ());
            assert_eq!(
                pattern.allows(origin.as_bytes()),
                expected,
                "{pattern:?} {origin}"
            );
        }
        assert!(!cors(&[], |_| ()).allows(b"https://a.b"));
        let with_credentials = cors(&["*"], |cors| cors.allow_credentials = true);
        assert!(!with_credentials.allows(b"null"));
        assert!(with_credentials.allows(b"https://a.b"));
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for text in ["", "foo", "*://a", "1http://a", "https://", "https://a\r\n"] {
            let cors = ir::Cors {
                allow_origins: vec![text.to_owned()],
                ..ir::Cors::default()
            };
            assert!(Cors::compile(&cors).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_preflight_is_answered_with_what_is_configured() {
        let cors = cors(&["https://www.foo.com"], |cors| {
            cors.allow_credentials = true;
            cors.allow_methods = vec!["GET".to_owned(), "OPTIONS".to_owned()];
            cors.allow_headers = vec!["x-1".to_owned(), "x-2".to_owned()];
            cors.expose_headers = vec!["x-3".to_owned()];
            cors.max_age_s = 3600;
        });
        let asked = "origin: https://www.foo.com\r\naccess-control-request-method: PUT\r\n";
        assert_eq!(
            answered(&cors, asked),
            [
                "access-control-allow-methods: GET, OPTIONS",
                "access-control-allow-headers: x-1, x-2",
                "access-control-expose-headers: x-3",
                "access-control-max-age: 3600",
                "access-control-allow-origin: https://www.foo.com",
                "access-control-allow-credentials: true",
                "vary: origin",
            ]
        );
        let other = "origin: https://other\r\naccess-control-request-method: PUT\r\n";
        assert_eq!(answered(&cors, other), ["vary: origin"]);
    }

    #[test]
    fn a_wildcard_is_what_is_asked_for() {
        for credentials in [false, true] {
            let cors = cors(&["*"], |cors| {
                cors.allow_credentials = credentials;
                cors.allow_methods = vec!["*".to_owned()];
                cors.allow_headers = vec!["*".to_owned()];
            });
            let mut asked =
                "origin: https://a\r\naccess-control-request-method: PUT\r\n".to_owned();
            let mut expected = vec![
                "access-control-allow-methods: PUT",
                "access-control-max-age: 5",
                "access-control-allow-origin: https://a",
            ];
            if credentials {
                expected.push("access-control-allow-credentials: true");
            }
            expected.push("vary: origin");
            assert_eq!(answered(&cors, &asked), expected);
            asked += "access-control-request-headers: x-1, x-2\r\n";
            expected.insert(1, "access-control-allow-headers: x-1, x-2");
            assert_eq!(answered(&cors, &asked), expected);
        }
    }

    #[test]
    fn options_requests_that_ask_for_nothing_are_passed_on() {
        let cors = cors(&["*"], |_| ());
        for fields in [
            "",
            "origin: https://a\r\n",
            "access-control-request-method: PUT\r\n",
            "origin: https://a\r\naccess-control-request-method:\r\n",
        ] {
            assert!(
                cors.on_request(&request("OPTIONS", fields)).is_ok(),
                "{fields}"
            );
        }
        let put = request(
            "PUT",
            "origin: https://a\r\naccess-control-request-method: PUT\r\n",
        );
        assert!(cors.on_request(&put).is_ok());
    }

    #[test]
    fn what_a_backend_says_is_replaced() {
        let cors = cors(&["https://a"], |cors| {
            cors.expose_headers = vec!["x-1".to_owned()];
        });
        let said = [
            ("Access-Control-Allow-Origin", "*"),
            ("access-control-allow-credentials", "true"),
            ("access-control-expose-headers", "x-9"),
            ("vary", "accept"),
        ];
        assert_eq!(
            shared(&cors, "origin: https://a\r\n", &said),
            [
                "vary: accept",
                "access-control-expose-headers: x-1",
                "access-control-allow-origin: https://a",
                "vary: origin",
            ]
        );
        for fields in ["origin: https://b\r\n", ""] {
            assert_eq!(
                shared(&cors, fields, &said),
                [
                    "access-control-expose-headers: x-9",
                    "vary: accept",
                    "vary: origin"
                ]
            );
        }
        for vary in ["*", "accept, Origin"] {
            assert_eq!(
                shared(&cors, "", &[("vary", vary)]),
                [format!("vary: {vary}")]
            );
        }
    }

    #[test]
    fn all_fields_are_exposed_by_name_where_a_wildcard_would_be_a_name() {
        let exposing = |credentials| {
            let cors = cors(&["*"], |cors| {
                cors.expose_headers = vec!["*".to_owned()];
                cors.allow_credentials = credentials;
            });
            let lines = shared(
                &cors,
                "origin: https://a\r\n",
                &[("x-1", "a"), ("x-2", "b")],
            );
            lines.into_iter().nth(2)
        };
        let exposed = |names: &str| Some(format!("access-control-expose-headers: {names}"));
        assert_eq!(exposing(false), exposed("*"));
        assert_eq!(exposing(true), exposed("x-1, x-2"));
    }
}
