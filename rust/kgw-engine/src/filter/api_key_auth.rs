//! API keys (Envoy `api_key_auth`).
//!
//! Keys are known by their digests alone. A request's key is looked up by its digest, of which nobody can
//! choose the beginning, so the time that takes says nothing about keys.

use bytes::Bytes;
use hashbrown::HashMap;
use kgw_h1::{Headers, Request};
use ring::digest::{SHA256, digest};

use crate::bridge::Answer;
use crate::config::ir::{self, ApiKeySource};
use crate::config::snapshot::FastMap;
use crate::filter::ext_authz::query::{QueryEdits, decoded};
use crate::filter::header_mutation::is_reserved;
use crate::filter::{Decide, RequestView, Step};
use crate::pipeline::reply::Reply;

/// SHA-256.
type Digest = [u8; 32];

/// Requests have to have a key of a client.
#[derive(Debug)]
pub(crate) struct ApiKeyAuth {
    /// The clients by their keys.
    clients: FastMap<Digest, Box<[u8]>>,
    sources: Box<[Source]>,
    client_header: Option<Box<[u8]>>,
    forward: bool,
}

/// Where a request may have a key.
#[derive(Debug)]
enum Source {
    Header(Box<[u8]>),
    Query(Box<[u8]>),
    Cookie(Box<[u8]>),
}

impl ApiKeyAuth {
    /// Compiles the filter, or says what cannot be used of it.
    pub(crate) fn compile(auth: &ir::ApiKeyAuth) -> Result<Self, String> {
        let mut clients = HashMap::with_capacity_and_hasher(auth.keys.len(), <_>::default());
        for key in &auth.keys {
            let client = &key.client;
            let digest = from_hex(&key.sha256)
                .ok_or_else(|| format!("what stands for a key of {client} is no digest"))?;
            if !kgw_h1::is_valid_value(client.as_bytes()) {
                return Err(format!("{client:?} cannot be told in a header field"));
            }
            let other = clients.insert(digest, Box::from(client.as_bytes()));
            if other.is_some_and(|other| *other != *client.as_bytes()) {
                return Err(format!("a key of {client} is another client's, too"));
            }
        }
        if auth.sources.is_empty() {
            return Err("there is no place for a key".to_owned());
        }
        let sources = auth.sources.iter().map(Source::compile);
        if let Some(name) = &auth.client_header {
            check_name(name)?;
        }
        Ok(Self {
            clients,
            sources: sources.collect::<Result<_, _>>()?,
            client_header: auth
                .client_header
                .as_ref()
                .map(|name| name.as_bytes().into()),
            forward: auth.forward,
        })
    }

    /// Lets a request pass, and tells the upstream whose it is.
    fn check(&self, request: &mut Request) -> Result<(), Reply> {
        let keys = self.sources.iter().map(|source| source.key(request));
        let key = keys.flatten().find(|key| !key.is_empty());
        let Some(key) = key else {
            return Err(refusal("missing_api_key"));
        };
        let client = digest(&SHA256, &key).as_ref().try_into().ok();
        let client = client.and_then(|digest: Digest| self.clients.get(&digest));
        let Some(client) = client else {
            return Err(refusal("unknown_api_key"));
        };
        if !self.forward {
            for source in &self.sources {
                source.take_off(request);
            }
        }
        if let Some(name) = &self.client_header {
            request.headers_mut().set(name, client);
        }
        Ok(())
    }
}

impl Decide for ApiKeyAuth {
    fn on_request(&self, view: &mut RequestView<'_, '_>) -> Result<Step, Reply> {
        let stats = view.worker.stats();
        match self.check(view.request) {
            Ok(()) => {
                stats.api_key_auth_allowed.increment();
                Ok(Step::Pass)
            }
            Err(reply) => {
                if reply.details == "missing_api_key" {
                    stats.api_key_auth_unauthorized.increment();
                } else {
                    stats.api_key_auth_forbidden.increment();
                }
                Err(reply)
            }
        }
    }
}

impl Source {
    fn compile(source: &ApiKeySource) -> Result<Self, String> {
        let name = match source {
            ApiKeySource::Header(name) => {
                check_name(name)?;
                return Ok(Self::Header(name.as_bytes().into()));
            }
            ApiKeySource::Query(name) | ApiKeySource::Cookie(name) => name,
        };
        if name.is_empty() {
            return Err("a place for a key has no name".to_owned());
        }
        let name = name.as_bytes().into();
        Ok(match source {
            ApiKeySource::Query(_) => Self::Query(name),
            _ => Self::Cookie(name),
        })
    }

    /// The key that a request has there.
    fn key(&self, request: &Request) -> Option<Vec<u8>> {
        match self {
            Self::Header(name) => {
                let value = request.headers().get(name)?;
                Some(value.strip_prefix(b"Bearer ").unwrap_or(value).to_vec())
            }
            Self::Query(name) => {
                let pieces = request.query()?.split(|&byte| byte == b'&');
                let mut pairs = pieces.map(|piece| {
                    let at = memchr::memchr(b'=', piece).unwrap_or(piece.len());
                    (&piece[..at], piece.get(at + 1..).unwrap_or_default())
                });
                // `+` is a character like any other here, as in Envoy: keys may be base64.
                let (_, value) = pairs.find(|(of, _)| decoded(of, false) == **name)?;
                Some(decoded(value, false))
            }
            Self::Cookie(name) => {
                let lines = request.headers().get_all(b"cookie");
                let mut pairs = lines.flat_map(|line| line.split(|&byte| byte == b';'));
                let value = pairs.find_map(|pair| cookie_value(pair, name))?;
                let quoted = value.strip_prefix(b"\"");
                let quoted = quoted.and_then(|value| value.strip_suffix(b"\""));
                Some(quoted.unwrap_or(value).to_vec())
            }
        }
    }

    /// Takes a key off a request. The rest of it stays as it is written.
    fn take_off(&self, request: &mut Request) {
        match self {
            Self::Header(name) => {
                request.headers_mut().remove(name);
            }
            Self::Query(name) => {
                let edits = QueryEdits {
                    remove: vec![name.to_vec()],
                    ..QueryEdits::default()
                };
                if self.key(request).is_some() {
                    edits.apply(request);
                }
            }
            Self::Cookie(name) => {
                if self.key(request).is_some() {
                    remove_cookie(request.headers_mut(), name);
                }
            }
        }
    }
}

/// The value of a cookie, if the pair is of its name.
fn cookie_value<'p>(pair: &'p [u8], name: &[u8]) -> Option<&'p [u8]> {
    let value = pair.trim_ascii().strip_prefix(name)?.strip_prefix(b"=")?;
    Some(value.trim_ascii())
}

/// Takes the cookies of a name off; a field that has no others goes.
fn remove_cookie(headers: &mut Headers, name: &[u8]) {
    let mut kept = Vec::new();
    for line in headers.get_all(b"cookie") {
        let pairs = line.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
        let others = pairs.filter(|pair| !pair.is_empty() && cookie_value(pair, name).is_none());
        let line = others.collect::<Vec<_>>().join(&b"; "[..]);
        if !line.is_empty() {
            kept.push(line);
        }
    }
    headers.remove(b"cookie");
    for line in kept {
        headers.append(b"cookie", &line);
    }
}

fn refusal(details: &'static str) -> Reply {
    let body = "Client authentication failed.";
    let answer = Answer {
        status: 401,
        headers: Headers::new(),
        body: Bytes::from_static(body.as_bytes()),
    };
    Reply::unauthenticated(body, details, answer)
}

fn check_name(name: &str) -> Result<(), String> {
    if kgw_h1::is_valid_name(name.as_bytes()) && !is_reserved(name.as_bytes()) {
        Ok(())
    } else {
        Err(format!("{name:?} is not a header field for this"))
    }
}

fn from_hex(text: &str) -> Option<Digest> {
    let mut found = Digest::default();
    if text.len() != 2 * found.len() || !text.is_ascii() {
        return None;
    }
    for (place, at) in found.iter_mut().zip((0..).step_by(2)) {
        *place = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use kgw_h1::Limits;

    use super::*;

    fn hex(key: &str) -> String {
        let digest = digest(&SHA256, key.as_bytes());
        let digits = digest
            .as_ref()
            .iter()
            .flat_map(|byte| [byte >> 4, byte & 15]);
        let digits = digits.filter_map(|digit| char::from_digit(digit.into(), 16));
        digits.collect()
    }

    fn filter(members: &str) -> ApiKeyAuth {
        let json = format!(
            r#"{{"keys": [{{"client": "alice", "sha256": "{}"}}, {{"client": "bob", "sha256": "{}"}}],
                {members}}}"#,
            hex("k-1"),
            hex("k+2=")
        );
        ApiKeyAuth::compile(&serde_json::from_str(&json).unwrap()).unwrap()
    }

    fn request(path: &str, fields: &str) -> Request {
        let limits = Limits {
            max_head_bytes: 4096,
            max_fields: 100,
        };
        let mut request = Request::new();
        let bytes = format!("GET {path} HTTP/1.1\r\nhost: a\r\n{fields}\r\n");
        request.parse(bytes.as_bytes(), &limits).unwrap();
        request
    }

    /// What the upstream gets, or the details of the refusal.
    fn checked(filter: &ApiKeyAuth, path: &str, fields: &str) -> Result<String, String> {
        let mut request = request(path, fields);
        filter
            .check(&mut request)
            .map_err(|reply| reply.details.into_owned())?;
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        let mut lines = vec![text(request.path())];
        let fields = request.headers().iter().skip(1);
        lines.extend(fields.map(|(name, value)| format!("{}: {}", text(name), text(value))));
        Ok(lines.join("|"))
    }

    #[test]
    fn the_first_place_with_a_key_counts() {
        let filter = filter(
            r#""sources": [{"header": "api-key"}, {"query": "key"}, {"cookie": "key"}],
               "client_header": "x-client""#,
        );
        for (path, fields, expected) in [
            ("/", "api-key: k-1\r\n", Ok("/|x-client: alice")),
            ("/", "Api-Key: Bearer k-1\r\n", Ok("/|x-client: alice")),
            ("/?a=1&key=k-1", "", Ok("/?a=1|x-client: alice")),
            ("/?key=k+2%3D", "", Ok("/|x-client: bob")),
            (
                "/",
                "cookie: a=b; key=k-1; c=d\r\n",
                Ok("/|x-client: alice|cookie: a=b; c=d"),
            ),
            ("/", "cookie: key=\"k-1\"\r\n", Ok("/|x-client: alice")),
            ("/?key=x", "api-key: k-1\r\n", Ok("/|x-client: alice")),
            ("/?key=k-1", "api-key: x\r\n", Err("unknown_api_key")),
            ("/?key=k-1", "api-key:\r\n", Ok("/|x-client: alice")),
            ("/?key=k-2&key=k-1", "", Err("unknown_api_key")),
            ("/", "", Err("missing_api_key")),
            ("/?key", "cookie: key\r\n", Err("missing_api_key")),
            ("/", "cookie: xkey=k-1\r\n", Err("missing_api_key")),
            ("/", "api-key: K-1\r\n", Err("unknown_api_key")),
        ] {
            let found = checked(&filter, path, fields);
            let found = found.map(|lines| sorted(&lines));
            let expected = expected.map(sorted).map_err(str::to_owned);
            assert_eq!(found, expected, "{path} {fields}");
        }
    }

    fn sorted(lines: &str) -> Vec<String> {
        let mut lines: Vec<_> = lines.split('|').map(str::to_owned).collect();
        lines.sort();
        lines
    }

    #[test]
    fn a_key_is_passed_on_if_wanted_and_a_stated_client_is_not_believed() {
        let passed_on = filter(r#""sources": [{"header": "api-key"}], "forward": true"#);
        let lines = checked(&passed_on, "/", "api-key: k-1\r\n").unwrap();
        assert_eq!(lines, "/|api-key: k-1");
        let told = filter(r#""sources": [{"header": "api-key"}], "client_header": "x-client""#);
        let lines = checked(
            &told,
            "/",
            "x-client: root\r\napi-key: k-1\r\nX-Client: root\r\n",
        );
        assert_eq!(lines.unwrap(), "/|x-client: alice");
    }

    #[test]
    fn what_cannot_be_used_is_refused() {
        let (one, source) = (hex("1"), r#""sources": [{"header": "a"}]"#);
        let key = |client: &str, of: &str| format!(r#"{{"client": "{client}", "sha256": "{of}"}}"#);
        for (json, problem) in [
            (
                format!(r#""keys": [{}], {source}"#, key("a", "00")),
                "no digest",
            ),
            (
                format!(r#""keys": [{}], {source}"#, key("a", &"é".repeat(32))),
                "no digest",
            ),
            (
                format!(r#""keys": [{}], {source}"#, key(r"a\n", &one)),
                "cannot be told",
            ),
            (
                format!(
                    r#""keys": [{}, {}], {source}"#,
                    key("a", &one),
                    key("b", &one)
                ),
                "another client's",
            ),
            (r#""keys": [], "sources": []"#.to_owned(), "no place"),
            (
                r#""keys": [], "sources": [{"query": ""}]"#.to_owned(),
                "no name",
            ),
            (
                r#""keys": [], "sources": [{"header": "host"}]"#.to_owned(),
                "host",
            ),
        ] {
            let parsed = serde_json::from_str(&format!("{{{json}}}")).unwrap();
            let error = ApiKeyAuth::compile(&parsed).unwrap_err();
            assert!(error.contains(problem), "{error}");
        }
    }
}
