//! Session persistence: tokens that name an endpoint, in cookies and header fields (GEP-1619).
//!
//! A token is all the state there is of a session, so that any worker of any replica understands it, before
//! and after a reload. It does not hold an address but a hash of one, and is looked up among the endpoints
//! there are: whatever a client makes up leads to one of these or nowhere. What it says of time is covered by
//! a hash as well. That keeps tokens from being altered by accident, not by somebody who means to: all that
//! there is to win is the endpoint that the client had before.
//!
//! A cookie or field may hold the tokens of several sessions, one of each scope: rules that have the same
//! name for theirs do not share sessions, and do not end each other's.

use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kgw_h1::{Headers, is_valid_name};
use ring::digest::{Context, SHA256};
use smallvec::SmallVec;

use crate::config::ir::{self, SessionToken};
use crate::config::snapshot::{Backend, Cluster, FastMap};
use crate::filter::header_mutation::is_reserved;

/// Bytes of a token: scope, end, endpoint, check.
const TOKEN: usize = 4 + 4 + 8 + 8;

/// Characters of a token.
const TEXT: usize = TOKEN / 3 * 4;

/// Between tokens.
const SEPARATOR: u8 = b'.';

/// Tokens that are looked at and passed on in one cookie or field.
const MAX_TOKENS: usize = 8;

/// The sessions of some of a route's backends.
#[derive(Debug)]
pub(crate) struct Session {
    scope: Box<str>,
    scope_tag: [u8; 4],
    /// The places of its backends among the action's.
    pub(crate) backends: Box<[usize]>,
    place: Place,
    /// Seconds; 0 is none.
    absolute_timeout_s: u64,
    endpoints: FastMap<[u8; 8], Pinned>,
    /// Backends whose endpoints are what a name is found at, with their places.
    named: Box<[(usize, Arc<Cluster>)]>,
}

/// Where tokens are.
#[derive(Debug)]
enum Place {
    Cookie {
        name: Box<str>,
        path: Box<str>,
        permanent: bool,
    },
    Header(Box<str>),
}

/// Where a session leads.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Pinned {
    /// The place among the action's backends.
    pub(crate) backend: usize,
    pub(crate) endpoint: SocketAddr,
}

/// What a token says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Token {
    scope: [u8; 4],
    /// When it ends. Seconds since 1970; 0 is never.
    end: u32,
    endpoint: [u8; 8],
}

// === impl Session ===

impl Session {
    /// Compiles sessions of an action with these backends, or says what is wrong with them.
    pub(crate) fn compile(session: &ir::Session, backends: &[Backend]) -> Result<Self, String> {
        let place = match &session.token {
            SessionToken::Cookie {
                name,
                path,
                permanent,
            } => {
                if !is_valid_name(name.as_bytes()) {
                    return Err(format!("{name:?} is not the name of a cookie"));
                }
                if !path
                    .bytes()
                    .all(|byte| matches!(byte, 0x20..0x7f) && byte != b';')
                {
                    return Err(format!("{path:?} is not the path of a cookie"));
                }
                if *permanent && session.absolute_timeout_ms == 0 {
                    return Err("a permanent cookie has no absolute time-out".to_owned());
                }
                Place::Cookie {
                    name: name.as_str().into(),
                    path: path.as_str().into(),
                    permanent: *permanent,
                }
            }
            SessionToken::Header { name } => {
                if !is_valid_name(name.as_bytes()) || is_reserved(name.as_bytes()) {
                    return Err(format!("{name:?} cannot be the field of a session"));
                }
                Place::Header(name.as_str().into())
            }
        };
        let scope: Box<str> = session.scope.as_str().into();
        let mut endpoints = FastMap::default();
        let mut named = Vec::new();
        for &backend in &session.backends {
            let Some(there) = backends.get(backend) else {
                return Err(format!("a session is for backend {backend}, which is none"));
            };
            let Some(cluster) = &there.cluster else {
                continue;
            };
            if cluster.host.is_some() {
                named.push((backend, Arc::clone(cluster)));
            }
            for endpoint in cluster.endpoints.iter().map(|one| one.address) {
                let pinned = Pinned { backend, endpoint };
                endpoints
                    .entry(endpoint_hash(&scope, &cluster.name, endpoint))
                    .or_insert(pinned);
            }
        }
        Ok(Self {
            scope_tag: hash(&[b"scope", scope.as_bytes()]),
            scope,
            backends: session.backends.clone().into_boxed_slice(),
            place,
            // What is left of a second is a second.
            absolute_timeout_s: session.absolute_timeout_ms.div_ceil(1_000),
            endpoints,
            named: named.into_boxed_slice(),
        })
    }

    /// The endpoint that a request's token names, if it has one that holds and the endpoint is there.
    /// `now_s` is seconds since 1970.
    pub(crate) fn find(&self, headers: &Headers, now_s: u64) -> Option<Pinned> {
        let mut found = None;
        self.each_token(headers, |token, _| {
            if token.scope == self.scope_tag && token.is_in_time(now_s) && found.is_none() {
                found = self.pinned(token);
            }
        });
        found
    }

    /// The endpoint that a token names, if it is there.
    fn pinned(&self, token: &Token) -> Option<Pinned> {
        let given = self.endpoints.get(&token.endpoint).copied();
        given.or_else(|| {
            self.named.iter().find_map(|(backend, cluster)| {
                let endpoints = cluster.endpoints();
                let is_named = |endpoint: &SocketAddr| {
                    endpoint_hash(&self.scope, &cluster.name, *endpoint) == token.endpoint
                };
                let endpoint = endpoints.iter().map(|one| one.address).find(is_named)?;
                let backend = *backend;
                Some(Pinned { backend, endpoint })
            })
        })
    }

    /// Gives the client of a request a token for an endpoint that has answered it, unless it has one.
    pub(crate) fn issue(
        &self,
        request: &Headers,
        response: &mut Headers,
        cluster: &str,
        endpoint: SocketAddr,
        now_s: u64,
        is_secure: bool,
    ) {
        if self
            .find(request, now_s)
            .is_some_and(|pinned| pinned.endpoint == endpoint)
        {
            return;
        }
        let end = match self.absolute_timeout_s {
            0 => 0,
            timeout => u32::try_from(now_s.saturating_add(timeout)).unwrap_or(u32::MAX),
        };
        let token = Token {
            scope: self.scope_tag,
            end,
            endpoint: endpoint_hash(&self.scope, cluster, endpoint),
        };
        let mut value = token.text(&self.scope);
        let mut others: SmallVec<[[u8; 4]; MAX_TOKENS]> = SmallVec::new();
        self.each_token(request, |token, text| {
            let is_other = token.scope != self.scope_tag && !others.contains(&token.scope);
            if is_other && token.is_in_time(now_s) && others.len() < MAX_TOKENS - 1 {
                others.push(token.scope);
                value.push(char::from(SEPARATOR));
                value.push_str(text);
            }
        });
        match &self.place {
            Place::Header(name) => {
                response.set(name.as_bytes(), value.as_bytes());
            }
            Place::Cookie {
                name,
                path,
                permanent,
            } => {
                let mut cookie = format!("{name}={value}; Path={path}");
                if *permanent {
                    let mut number = itoa::Buffer::new();
                    cookie.push_str("; Max-Age=");
                    cookie.push_str(number.format(self.absolute_timeout_s));
                }
                // Browsers do not send `Secure` cookies where there is no TLS.
                if is_secure {
                    cookie.push_str("; Secure");
                }
                cookie.push_str("; HttpOnly; SameSite=Strict");
                response.append(b"set-cookie", cookie.as_bytes());
            }
        }
    }

    /// Shows the tokens of a request, of whichever scope.
    fn each_token(&self, headers: &Headers, mut show: impl FnMut(&Token, &str)) {
        let mut left = MAX_TOKENS;
        let mut show_all = |value: &[u8]| {
            for text in value.split(|&byte| byte == SEPARATOR) {
                if left == 0 {
                    return;
                }
                left -= 1;
                if let Some((token, text)) = Token::read(text, &self.scope, self.scope_tag) {
                    show(&token, text);
                }
            }
        };
        match &self.place {
            Place::Header(name) => headers.get_all(name.as_bytes()).for_each(&mut show_all),
            Place::Cookie { name, .. } => headers
                .get_all(b"cookie")
                .flat_map(|cookies| cookies.split(|&byte| byte == b';'))
                .filter_map(|cookie| cookie.trim_ascii().strip_prefix(name.as_bytes()))
                .filter_map(|rest| rest.strip_prefix(b"="))
                .map(unquoted)
                .for_each(&mut show_all),
        }
    }
}

// === impl Token ===

impl Token {
    /// Reads a token, if it is one. That it is as it was written can be told of the scope's own.
    fn read<'t>(text: &'t [u8], scope: &str, scope_tag: [u8; 4]) -> Option<(Self, &'t str)> {
        let mut bytes = [0; TOKEN];
        if text.len() != TEXT || URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) != Ok(TOKEN) {
            return None;
        }
        let (scope_in_it, rest) = bytes.split_first_chunk()?;
        let (end, rest) = rest.split_first_chunk()?;
        let (endpoint, check) = rest.split_first_chunk()?;
        let token = Self {
            scope: *scope_in_it,
            end: u32::from_be_bytes(*end),
            endpoint: *endpoint,
        };
        if token.scope == scope_tag && check != token.check(scope) {
            return None;
        }
        Some((token, std::str::from_utf8(text).ok()?))
    }

    fn text(&self, scope: &str) -> String {
        let mut bytes = [0; TOKEN];
        bytes[..4].copy_from_slice(&self.scope);
        bytes[4..8].copy_from_slice(&self.end.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.endpoint);
        bytes[16..].copy_from_slice(&self.check(scope));
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn check(&self, scope: &str) -> [u8; 8] {
        let end = self.end.to_be_bytes();
        hash(&[b"token", scope.as_bytes(), &end, &self.endpoint])
    }

    fn is_in_time(&self, now_s: u64) -> bool {
        self.end == 0 || now_s < u64::from(self.end)
    }
}

/// What names an endpoint in tokens of a scope.
fn endpoint_hash(scope: &str, cluster: &str, endpoint: SocketAddr) -> [u8; 8] {
    let endpoint = endpoint.to_string();
    hash(&[
        b"endpoint",
        scope.as_bytes(),
        cluster.as_bytes(),
        endpoint.as_bytes(),
    ])
}

/// The first bytes of a hash. The same in every version: tokens outlive upgrades.
fn hash<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let digest = context.finish();
    let mut first = [0; N];
    first.copy_from_slice(&digest.as_ref()[..N]);
    first
}

/// A cookie's value without the quotes that it may have (RFC 6265 4.1.1).
fn unquoted(value: &[u8]) -> &[u8] {
    let inner = value
        .strip_prefix(b"\"")
        .and_then(|rest| rest.strip_suffix(b"\""));
    inner.unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Nanos;
    use crate::upstream::endpoint::carried;

    const NOW: u64 = 1_790_000_000;

    fn endpoint(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn backend(name: &str, endpoints: &[&str]) -> Backend {
        let addresses: Vec<_> = endpoints.iter().map(|text| endpoint(text)).collect();
        let cluster = Cluster {
            endpoints: carried(&addresses, &[], Nanos(0), &Arc::default()).into(),
            ..Cluster::named(name)
        };
        Backend {
            cluster: Some(Arc::new(cluster)),
            weight: 1,
            request_headers: Box::default(),
            response_headers: Box::default(),
            own: None,
        }
    }

    fn backends() -> [Backend; 2] {
        [
            backend("a", &["10.0.0.1:80", "10.0.0.2:80"]),
            backend("b", &["10.0.0.2:80", "[fd00::1]:80"]),
        ]
    }

    fn ir_of(scope: &str, token: SessionToken, absolute_timeout_ms: u64) -> ir::Session {
        ir::Session {
            scope: scope.to_owned(),
            backends: vec![0, 1],
            token,
            absolute_timeout_ms,
        }
    }

    fn cookie(permanent: bool) -> SessionToken {
        SessionToken::Cookie {
            name: "session".to_owned(),
            path: "/".to_owned(),
            permanent,
        }
    }

    fn session(scope: &str, token: SessionToken, absolute_timeout_ms: u64) -> Session {
        let ir = ir_of(scope, token, absolute_timeout_ms);
        Session::compile(&ir, &backends()).unwrap()
    }

    fn fields(pairs: &[(&str, &str)]) -> Headers {
        let mut headers = Headers::new();
        for (name, value) in pairs {
            headers.append(name.as_bytes(), value.as_bytes());
        }
        headers
    }

    /// The value of the `Set-Cookie` of an answer by an endpoint, if it has one.
    fn set_cookie(
        session: &Session,
        request: &Headers,
        (cluster, at): (&str, &str),
        is_secure: bool,
    ) -> Option<String> {
        let mut response = Headers::new();
        session.issue(
            request,
            &mut response,
            cluster,
            endpoint(at),
            NOW,
            is_secure,
        );
        let value = response.get(b"set-cookie")?;
        Some(String::from_utf8(value.to_vec()).unwrap())
    }

    /// The `Cookie` that a client sends after a `Set-Cookie`.
    fn returned(set_cookie: &str) -> Headers {
        let (pair, _) = set_cookie.split_once(';').unwrap();
        fields(&[("cookie", pair)])
    }

    #[test]
    fn a_token_leads_to_the_backend_and_endpoint_that_answered() {
        let session = session("rule", cookie(false), 0);
        for (place, cluster, at) in [
            (0, "a", "10.0.0.1:80"),
            (0, "a", "10.0.0.2:80"),
            (1, "b", "10.0.0.2:80"),
            (1, "b", "[fd00::1]:80"),
        ] {
            let given = set_cookie(&session, &Headers::new(), (cluster, at), false).unwrap();
            let request = returned(&given);
            let pinned = Pinned {
                backend: place,
                endpoint: endpoint(at),
            };
            assert_eq!(session.find(&request, NOW), Some(pinned));
            // It is not given again, and another endpoint's answer gives another.
            assert_eq!(set_cookie(&session, &request, (cluster, at), false), None);
        }
    }

    #[test]
    fn another_replica_and_a_later_configuration_understand_it() {
        let request = returned(
            &set_cookie(
                &session("rule", cookie(false), 0),
                &Headers::new(),
                ("a", "10.0.0.2:80"),
                false,
            )
            .unwrap(),
        );
        let ir = ir_of("rule", cookie(false), 60_000);
        let grown = [
            backend("a", &["10.0.0.9:80", "10.0.0.2:80"]),
            backend("c", &[]),
        ];
        let later = Session::compile(&ir, &grown).unwrap();
        assert_eq!(
            later.find(&request, NOW).unwrap().endpoint,
            endpoint("10.0.0.2:80")
        );
        let shrunk = [
            backend("a", &["10.0.0.9:80"]),
            backend("c", &["10.0.0.2:80"]),
        ];
        let without = Session::compile(&ir, &shrunk).unwrap();
        assert_eq!(without.find(&request, NOW), None);
    }

    #[test]
    fn cookies_have_the_attributes_that_were_asked_for() {
        let none = Headers::new();
        let at = ("a", "10.0.0.1:80");
        let plain = set_cookie(&session("rule", cookie(false), 0), &none, at, false).unwrap();
        assert!(
            plain.ends_with("; Path=/; HttpOnly; SameSite=Strict"),
            "{plain}"
        );
        let timed = set_cookie(&session("rule", cookie(false), 60_000), &none, at, true).unwrap();
        assert!(
            timed.ends_with("; Path=/; Secure; HttpOnly; SameSite=Strict"),
            "{timed}"
        );
        let kept = set_cookie(&session("rule", cookie(true), 90_500), &none, at, true).unwrap();
        let expected = "; Path=/; Max-Age=91; Secure; HttpOnly; SameSite=Strict";
        assert!(kept.ends_with(expected), "{kept}");
        // RFC 6265 4.1.1: the name, and a value of the characters that need no quotes.
        let value = kept
            .strip_prefix("session=")
            .unwrap()
            .split(';')
            .next()
            .unwrap();
        assert_eq!(value.len(), TEXT);
    }

    #[test]
    fn sessions_end() {
        let session = session("rule", cookie(false), 60_000);
        let none = Headers::new();
        let given = set_cookie(&session, &none, ("a", "10.0.0.1:80"), false).unwrap();
        let request = returned(&given);
        assert!(session.find(&request, NOW + 59).is_some());
        assert_eq!(session.find(&request, NOW + 60), None);
        let mut response = Headers::new();
        let at = endpoint("10.0.0.1:80");
        session.issue(&request, &mut response, "a", at, NOW + 60, false);
        let anew = String::from_utf8(response.get(b"set-cookie").unwrap().to_vec()).unwrap();
        assert!(session.find(&returned(&anew), NOW + 119).is_some());
    }

    #[test]
    fn what_was_altered_leads_nowhere() {
        let session = session("rule", cookie(false), 60_000);
        let none = Headers::new();
        let given = set_cookie(&session, &none, ("a", "10.0.0.1:80"), false).unwrap();
        let value = returned(&given).get(b"cookie").unwrap().to_vec();
        let at = "session=".len();
        for place in at..value.len() {
            let mut altered = value.clone();
            altered[place] = if altered[place] == b'A' { b'B' } else { b'A' };
            let request = fields(&[("cookie", std::str::from_utf8(&altered).unwrap())]);
            assert_eq!(session.find(&request, NOW), None, "{place}");
        }
        for text in [
            "",
            "x",
            "10.0.0.1:80",
            "session=MTAuMC4wLjE6ODA=",
            &"A".repeat(TEXT),
        ] {
            let value = format!("session={text}");
            assert_eq!(
                session.find(&fields(&[("cookie", &value)]), NOW),
                None,
                "{text}"
            );
        }
    }

    #[test]
    fn the_cookie_is_found_among_others() {
        let session = session("rule", cookie(false), 0);
        let none = Headers::new();
        let given = set_cookie(&session, &none, ("a", "10.0.0.1:80"), false).unwrap();
        let token = given.split([';', '=']).nth(1).unwrap();
        for cookies in [
            vec![format!("a=b; session={token}; c=d")],
            vec![format!("session=\"{token}\"")],
            vec!["session=other".to_owned(), format!("session={token}")],
            vec![format!("xsession={token};session={token}")],
        ] {
            let pairs: Vec<_> = cookies.iter().map(|one| ("cookie", one.as_str())).collect();
            assert!(session.find(&fields(&pairs), NOW).is_some(), "{cookies:?}");
        }
        for cookies in [format!("sessions={token}"), format!("Session={token}")] {
            assert_eq!(session.find(&fields(&[("cookie", &cookies)]), NOW), None);
        }
    }

    #[test]
    fn rules_with_one_name_neither_share_sessions_nor_end_them() {
        let (first, second) = (
            session("first", cookie(false), 0),
            session("second", cookie(false), 0),
        );
        let none = Headers::new();
        let given = set_cookie(&first, &none, ("a", "10.0.0.1:80"), false).unwrap();
        assert_eq!(second.find(&returned(&given), NOW), None);
        let both = set_cookie(&second, &returned(&given), ("b", "10.0.0.2:80"), false).unwrap();
        let request = returned(&both);
        assert_eq!(
            first.find(&request, NOW).unwrap().endpoint,
            endpoint("10.0.0.1:80")
        );
        assert_eq!(
            second.find(&request, NOW).unwrap().endpoint,
            endpoint("10.0.0.2:80")
        );
    }

    #[test]
    fn a_cookie_does_not_grow_without_end() {
        let mut request = Headers::new();
        for number in 0..3 * MAX_TOKENS {
            let session = session(&format!("rule {number}"), cookie(false), 0);
            let given = set_cookie(&session, &request, ("a", "10.0.0.1:80"), false).unwrap();
            request = returned(&given);
            assert!(session.find(&request, NOW).is_some());
        }
        let length = request.get(b"cookie").unwrap().len();
        assert_eq!(length, "session=".len() + MAX_TOKENS * (TEXT + 1) - 1);
    }

    #[test]
    fn a_header_field_has_the_token_alone() {
        let name = "x-session".to_owned();
        let session = session("rule", SessionToken::Header { name }, 0);
        let mut response = Headers::new();
        let at = endpoint("10.0.0.1:80");
        session.issue(&Headers::new(), &mut response, "a", at, NOW, true);
        let token = std::str::from_utf8(response.get(b"x-session").unwrap()).unwrap();
        assert_eq!(token.len(), TEXT);
        let request = fields(&[("X-Session", token)]);
        assert_eq!(session.find(&request, NOW).unwrap().endpoint, at);
    }

    #[test]
    fn what_cannot_be_a_session_is_refused() {
        let bad_cookie = |name: &str, path: &str| SessionToken::Cookie {
            name: name.to_owned(),
            path: path.to_owned(),
            permanent: false,
        };
        let header = |name: &str| SessionToken::Header {
            name: name.to_owned(),
        };
        for token in [
            bad_cookie("a b", "/"),
            bad_cookie("", "/"),
            bad_cookie("a", "/; Domain=example.org"),
            header("host"),
            header("a:"),
            cookie(true),
        ] {
            let ir = ir_of("rule", token.clone(), 0);
            assert!(Session::compile(&ir, &backends()).is_err(), "{token:?}");
        }
        let mut ir = ir_of("rule", cookie(false), 0);
        ir.backends = vec![2];
        assert!(Session::compile(&ir, &backends()).is_err());
    }
}
