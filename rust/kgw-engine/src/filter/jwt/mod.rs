//! Who calls, by signed tokens (Envoy `jwt_authn`).
//!
//! Providers are alternatives: the first of which a request has valid tokens decides. What they claim is
//! noted under [`NAMESPACE`], and copied to header fields that the request cannot bring itself. A token is
//! taken out of the request unless the provider says that it goes on.
//!
//! Keys that are here, or were fetched, decide at once. For keys that have to be fetched the request waits
//! (`conn::verifying`), once for each provider.

mod place;
pub(crate) mod remote;
mod verified;

use std::sync::Arc;

use bytes::Bytes;
use kgw_h1::{Headers, Request};
use kgw_jwt::{Claims, KeySet, Status, Token};
use serde_json::Value;

use super::RequestView;
use crate::bridge::Answer;
use crate::config::ir;
use crate::config::snapshot::Cluster;
use crate::pipeline::reply::{Extra, Reply};
use place::Place;
use remote::{Ready, RemoteKeys};
use verified::Verified;

/// The namespace of claims, as Envoy's.
const NAMESPACE: &str = "envoy.filters.http.jwt_authn";

/// The key under which all claims are noted, as in kgateway.
const PAYLOAD: &str = "payload";

/// By how many seconds clocks may differ, as in Envoy.
const SKEW: u64 = 60;

/// The longest part of a path that an answer repeats. Bytes. As in Envoy.
const REALM: usize = 256;

/// The most providers.
const PROVIDERS: usize = 32;

/// Tokens that requests have.
#[derive(Debug)]
pub(crate) struct Jwt {
    providers: Box<[Provider]>,
    allow_missing: bool,
    /// It is tried out only, and not counted.
    is_in_shadow: bool,
}

/// An issuer of tokens.
#[derive(Debug)]
struct Provider {
    issuer: Option<Box<str>>,
    audiences: Box<[String]>,
    places: Box<[Place]>,
    forward: bool,
    claims: Box<[ClaimField]>,
    keys: Keys,
    verified: Verified,
}

/// A claim that the backend gets.
#[derive(Debug)]
struct ClaimField {
    /// Its name, or the path to it.
    claim: Box<str>,
    /// The name of the header field, in lower case.
    field: Box<[u8]>,
}

/// Where the keys of a provider are.
#[derive(Debug)]
enum Keys {
    Local(Arc<KeySet>),
    Remote(Remote),
}

/// Keys of a server, and the server.
#[derive(Clone, Debug)]
pub(crate) struct Remote {
    pub(crate) keys: Arc<RemoteKeys>,
    pub(crate) cluster: Option<Arc<Cluster>>,
}

/// What is decided about a request.
#[derive(Debug)]
pub(crate) enum Decision<'j> {
    Passed,
    Refused(Reply),
    /// Keys have to be fetched first: those of the provider of this number.
    Waits(usize, &'j Remote),
}

/// Of which providers a request has waited for keys, as bits.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Waited(u32);

impl Waited {
    pub(crate) fn add(&mut self, provider: usize) {
        self.0 |= 1 << provider;
    }

    fn has(self, provider: usize) -> bool {
        self.0 & (1 << provider) != 0
    }
}

/// Why a provider does not say yes.
enum Refusal {
    Status(Status),
    Waits,
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl Jwt {
    /// Compiles a configuration; `remote` finds the keys of a server, and the server.
    pub(crate) fn compile(
        jwt: &ir::JwtAuth,
        is_in_shadow: bool,
        mut remote: impl FnMut(&ir::RemoteKeys) -> Result<Remote, String>,
    ) -> Result<Self, String> {
        if jwt.providers.is_empty() || jwt.providers.len() > PROVIDERS {
            return Err(format!("there are 1 to {PROVIDERS} providers of tokens"));
        }
        let mut providers = Vec::with_capacity(jwt.providers.len());
        for provider in &jwt.providers {
            let keys = match &provider.keys {
                ir::JwtKeys::Local(text) => {
                    let keys = KeySet::parse(text).map_err(|error| error.to_string())?;
                    Keys::Local(Arc::new(keys))
                }
                ir::JwtKeys::Remote(settings) => {
                    if settings.timeout_ms == 0 || settings.cache_ms == 0 {
                        return Err("keys take time to fetch, and are good for a while".to_owned());
                    }
                    Keys::Remote(remote(settings)?)
                }
            };
            let claims = provider.claims_to_headers.iter().map(|(claim, field)| {
                if !kgw_h1::is_valid_name(field.as_bytes()) {
                    return Err(format!("`{field}` is no name of a header field"));
                }
                Ok(ClaimField {
                    claim: claim.as_str().into(),
                    field: field.to_ascii_lowercase().into_bytes().into(),
                })
            });
            providers.push(Provider {
                issuer: provider.issuer.as_deref().map(Box::from),
                audiences: provider.audiences.clone().into(),
                places: Place::of(provider.token.as_ref()),
                forward: provider.forward,
                claims: claims.collect::<Result<_, String>>()?,
                keys,
                verified: Verified::new(),
            });
        }
        Ok(Self {
            providers: providers.into(),
            allow_missing: jwt.allow_missing,
            is_in_shadow,
        })
    }

    /// The clusters of the servers that have keys.
    pub(crate) fn clusters(&self) -> impl Iterator<Item = &Cluster> {
        self.providers
            .iter()
            .filter_map(|provider| match &provider.keys {
                Keys::Remote(remote) => remote.cluster.as_deref(),
                Keys::Local(_) => None,
            })
    }

    /// Decides about a request that has waited for keys of these providers.
    pub(crate) fn decide(&self, view: &mut RequestView<'_, '_>, waited: Waited) -> Decision<'_> {
        let mut status = Status::Missing;
        let mut passed = None;
        for (number, provider) in self.providers.iter().enumerate() {
            match provider.check(view, waited.has(number)) {
                Ok(found) => {
                    passed = Some((provider, found));
                    break;
                }
                Err(Refusal::Waits) => {
                    if let Keys::Remote(remote) = &provider.keys {
                        return Decision::Waits(number, remote);
                    }
                }
                // As in Envoy: what is wrong with a token says more than that it is of somebody else, and
                // that more than that there is none.
                Err(Refusal::Status(found)) => {
                    if rank(found) >= rank(status) {
                        status = found;
                    }
                }
            }
        }
        let stats = view.worker.stats();
        let may_pass = passed.is_some() || self.allow_missing && status == Status::Missing;
        if !self.is_in_shadow {
            let counter = if may_pass {
                &stats.jwt_allowed
            } else {
                &stats.jwt_denied
            };
            counter.increment();
        }
        if !may_pass {
            return Decision::Refused(refusal(status, view.request));
        }
        // No client says itself what a token is to say.
        for one in self.providers.iter().flat_map(|provider| &provider.claims) {
            view.request.headers_mut().remove(&one.field);
        }
        if let Some((provider, found)) = passed {
            provider.apply(view, &found);
        }
        Decision::Passed
    }
}

/// What was found in a request: the places of tokens, and what they claim.
type Found = Vec<(usize, Arc<Claims>)>;

impl Provider {
    /// Checks the tokens of a request. There is at least one, and each is valid: a backend may look at
    /// another one than this proxy.
    fn check(&self, view: &RequestView<'_, '_>, has_waited: bool) -> Result<Found, Refusal> {
        let mut found = Vec::new();
        for (number, place) in self.places.iter().enumerate().rev() {
            if let Some(text) = place.find(view.request) {
                found.push((number, self.claims(view, &text, has_waited)?));
            }
        }
        if found.is_empty() {
            return Err(Status::Missing.into());
        }
        Ok(found)
    }

    /// What a token claims, if it is valid.
    fn claims(
        &self,
        view: &RequestView<'_, '_>,
        text: &str,
        has_waited: bool,
    ) -> Result<Arc<Claims>, Refusal> {
        let (worker, stats) = (view.worker.index(), view.worker.stats());
        let now = view.worker.clock().wall_nanos(view.now) / 1_000_000_000;
        let known = match &self.keys {
            Keys::Local(keys) => Some(Arc::clone(keys)),
            Keys::Remote(remote) => match remote.keys.ready(view.now, has_waited) {
                Ready::Keys { keys, refresh } => {
                    if refresh {
                        crate::conn::verifying::refresh(view.worker, remote);
                    }
                    Some(keys)
                }
                Ready::Wait | Ready::Failed => None,
            },
        };
        let digest = Verified::digest(text);
        if let Some(keys) = &known
            && let Some(claims) = self.verified.find(worker, &digest, keys)
        {
            stats.jwt_cache_hit.increment();
            self.check_claims(&claims, now)?;
            return Ok(claims);
        }
        stats.jwt_cache_miss.increment();
        let token = Token::parse(text)?;
        self.check_claims(token.claims(), now)?;
        let keys = match (known, &self.keys) {
            (Some(keys), Keys::Remote(remote)) if keys.lacks_key_of(&token) => {
                if !has_waited && remote.keys.wants_unknown(view.now) {
                    return Err(Refusal::Waits);
                }
                keys
            }
            (Some(keys), _) => keys,
            (None, Keys::Remote(remote)) => match remote.keys.ready(view.now, has_waited) {
                Ready::Keys { keys, .. } => keys,
                Ready::Wait => return Err(Refusal::Waits),
                Ready::Failed => return Err(Status::Fetch.into()),
            },
            (None, Keys::Local(keys)) => Arc::clone(keys),
        };
        keys.verify(&token)?;
        let claims = Arc::new(token.into_claims());
        self.verified.add(worker, digest, &claims, &keys, now);
        Ok(claims)
    }

    /// Checks what a token claims, in Envoy's order.
    fn check_claims(&self, claims: &Claims, now: u64) -> Result<(), Status> {
        let issuer = self.issuer.as_deref();
        if issuer.is_some_and(|issuer| claims.issuer() != Some(issuer)) {
            return Err(Status::UnknownIssuer);
        }
        claims.check_time(now, SKEW)?;
        claims.check_audience(&self.audiences)
    }

    /// Notes what tokens claim, and changes the request.
    fn apply(&self, view: &mut RequestView<'_, '_>, found: &Found) {
        for (place, claims) in found {
            for ClaimField { claim, field } in &self.claims {
                let value = claims.header_value(claim);
                if let Some(value) = value.filter(|value| is_field_value(value)) {
                    view.request.headers_mut().append(field, value.as_bytes());
                }
            }
            if !self.forward {
                self.places[*place].remove(view.request);
            }
            let payload = Value::Object(claims.payload().clone());
            view.exchange.note(NAMESPACE, PAYLOAD, payload);
        }
        if !self.claims.is_empty() {
            view.exchange.is_route_cleared = true;
        }
    }
}

/// Whether a text can be the value of a header field as it is.
fn is_field_value(text: &str) -> bool {
    kgw_h1::is_valid_value(text.as_bytes())
}

/// How much a status says about a token.
fn rank(status: Status) -> u8 {
    match status {
        Status::Missing => 0,
        Status::UnknownIssuer => 1,
        _ => 2,
    }
}

/// The answer to a request without a valid token.
fn refusal(status: Status, request: &Request) -> Reply {
    let text = status.to_string();
    let scheme = request.headers().get(b"x-forwarded-proto");
    let scheme = scheme.filter(|scheme| matches!(*scheme, b"http" | b"https"));
    let path = request.path();
    let mut challenge = b"Bearer realm=\"".to_vec();
    let uri = [
        scheme.unwrap_or(b"http"),
        b"://",
        request.authority(),
        &path[..path.len().min(REALM)],
    ];
    for &byte in uri.into_iter().flatten() {
        // RFC 9110 5.6.4; in a URI neither is allowed, but clients send them.
        if b"\"\\".contains(&byte) {
            challenge.push(b'\\');
        }
        challenge.push(byte);
    }
    challenge.push(b'"');
    if status != Status::Missing {
        challenge.extend_from_slice(b", error=\"invalid_token\"");
    }
    let mut headers = Headers::new();
    headers.append(b"www-authenticate", &challenge);
    let details = format!("jwt_authn_access_denied{{{}}}", text.replace(' ', "_"));
    let answer = Answer {
        status: status.code(),
        headers,
        body: Bytes::from(text.clone()),
    };
    Reply {
        extra: Extra::Answer(Box::new(answer)),
        ..Reply::new(status.code(), text, details, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provider(keys: &str) -> ir::JwtProvider {
        ir::JwtProvider {
            issuer: None,
            audiences: Vec::new(),
            token: None,
            forward: false,
            claims_to_headers: Vec::new(),
            keys: ir::JwtKeys::Local(keys.to_owned()),
        }
    }

    fn compile(providers: Vec<ir::JwtProvider>) -> Result<Jwt, String> {
        let jwt = ir::JwtAuth {
            providers,
            allow_missing: false,
        };
        Jwt::compile(&jwt, false, |_| Err("no server".to_owned()))
    }

    #[test]
    fn what_cannot_verify_is_refused() {
        let keys = r#"{"kty":"oct","k":"AAAA"}"#;
        assert!(compile(vec![provider(keys)]).is_ok());
        assert!(compile(Vec::new()).is_err());
        assert!(compile((0..33).map(|_| provider(keys)).collect()).is_err());
        assert!(compile(vec![provider("{}")]).is_err());
        let mut other = provider(keys);
        other.claims_to_headers = vec![("sub".to_owned(), "x y".to_owned())];
        assert!(compile(vec![other]).is_err());
    }
}
