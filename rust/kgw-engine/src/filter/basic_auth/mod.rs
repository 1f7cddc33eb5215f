//! Users and passwords (Envoy `basic_auth`, RFC 7617).
//!
//! Passwords of `{SHA}` are compared at once. Those of bcrypt take milliseconds on purpose, so threads
//! of their own do that ([`checks`]); a user's password that was right is remembered, as a digest under a
//! key of this process, so that only the first of a user's requests waits.

pub(crate) mod checks;

use std::fmt;
use std::sync::Arc;

use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use base64::engine::{DecodePaddingMode, Engine};
use bytes::Bytes;
use kgw_h1::{Headers, Request};
use parking_lot::Mutex;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use ring::hmac;
use subtle::ConstantTimeEq;

use self::checks::PasswordChecks;
use crate::bridge::Answer;
use crate::config::ir;
use crate::config::snapshot::FastMap;
use crate::pipeline::reply::Reply;

/// Base64 with padding or without, as Envoy takes it.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The highest cost of bcrypt: about a second of a processor. A higher one is for who wants to be kept
/// from answering.
pub(crate) const MAX_COST: u32 = 14;

/// Of a password bcrypt takes so many bytes.
const BCRYPT_BYTES: usize = 72;

/// Requests have to name a user and the password.
#[derive(Debug)]
pub(crate) struct BasicAuth {
    users: FastMap<Box<[u8]>, Arc<User>>,
    /// What is checked for a name that nobody has: who has one cannot be told from the time then. None
    /// where no check takes time.
    nobody: Option<Arc<User>>,
    pub(crate) checks: Arc<PasswordChecks>,
}

/// A user.
pub(crate) struct User {
    secret: Secret,
    /// The digest of the password that was right last, under the key of this process.
    remembered: Mutex<Option<[u8; 32]>>,
}

enum Secret {
    Sha([u8; 20]),
    Bcrypt { hash: Box<str>, cost: u32 },
}

/// What becomes of a request.
#[derive(Debug)]
pub(crate) enum Verdict {
    Passed,
    /// There is no way to pass.
    Refused(Reply),
    /// The password has to be checked.
    Wait(Arc<User>, Password),
}

/// As much of a password as is looked at.
#[derive(Clone, Eq, PartialEq)]
pub(crate) struct Password(Box<[u8]>);

// === impl BasicAuth ===

impl BasicAuth {
    /// Compiles the filter, or names the user whose password's hash cannot be used.
    pub(crate) fn compile(
        auth: &ir::BasicAuth,
        checks: &Arc<PasswordChecks>,
    ) -> Result<Self, String> {
        let mut users = FastMap::default();
        let mut costliest: Option<(u32, &str)> = None;
        for ir::BasicAuthUser { name, hash } in &auth.users {
            let secret = Secret::compile(hash)
                .ok_or_else(|| format!("the hash of the password of {name} cannot be used"))?;
            if let Secret::Bcrypt { cost, .. } = secret
                && costliest.is_none_or(|(most, _)| most < cost)
            {
                costliest = Some((cost, hash));
            }
            let user = Arc::new(User::new(secret));
            if users.insert(Box::from(name.as_bytes()), user).is_some() {
                return Err(format!("there are two users {name}"));
            }
        }
        let nobody = costliest.and_then(|(_, hash)| Secret::compile(hash));
        Ok(Self {
            users,
            nobody: nobody.map(User::new).map(Arc::new),
            checks: Arc::clone(checks),
        })
    }

    /// Looks at what a request says about its user.
    pub(crate) fn verdict(&self, request: &Request) -> Verdict {
        match self.judge(request) {
            Ok(None) => Verdict::Passed,
            Ok(Some((user, password))) => Verdict::Wait(user, password),
            Err((body, details)) => Verdict::Refused(refusal(request, body, details)),
        }
    }

    /// What becomes of a request whose password was checked.
    pub(crate) fn checked(
        &self,
        request: &Request,
        user: &Arc<User>,
        is_right: bool,
    ) -> Result<(), Reply> {
        let is_nobody = self.nobody.as_ref();
        let is_nobody = is_nobody.is_some_and(|nobody| Arc::ptr_eq(nobody, user));
        if is_right && !is_nobody {
            Ok(())
        } else {
            Err(refusal(request, WRONG.0, WRONG.1))
        }
    }

    /// None is a request that passes.
    fn judge(&self, request: &Request) -> Result<Option<(Arc<User>, Password)>, Denial> {
        let field = request.headers().get(b"authorization");
        let field = field.ok_or((
            "User authentication failed. Missing username and password.",
            "no_credential_for_basic_auth",
        ))?;
        let token = field.split_at_checked(6).filter(|(scheme, _)| {
            // The name of a scheme knows no case (RFC 9110 11.1); Envoy wants `Basic`.
            scheme.eq_ignore_ascii_case(b"basic ")
        });
        let (_, token) = token.ok_or((
            "User authentication failed. Expected 'Basic' authentication scheme.",
            "invalid_scheme_for_basic_auth",
        ))?;
        let named = LENIENT.decode(token.trim_ascii()).unwrap_or_default();
        let colon = memchr::memchr(b':', &named).ok_or((
            "User authentication failed. Invalid basic credential format.",
            "invalid_format_for_basic_auth",
        ))?;
        let (name, password) = (&named[..colon], &named[colon + 1..]);
        let Some(user) = self.users.get(name) else {
            let nobody = self.nobody.as_ref().ok_or(WRONG)?;
            return Ok(Some((Arc::clone(nobody), Password::new(password))));
        };
        match &user.secret {
            Secret::Sha(hash) if is_sha_of(hash, password) => Ok(None),
            Secret::Sha(_) => Err(WRONG),
            Secret::Bcrypt { .. } => {
                let password = Password::new(password);
                if user.remembers(&password, self.checks.key()) {
                    return Ok(None);
                }
                Ok(Some((Arc::clone(user), password)))
            }
        }
    }
}

/// A text for the client, and details for logs.
type Denial = (&'static str, &'static str);

const WRONG: Denial = (
    "User authentication failed. Invalid username/password combination.",
    "invalid_credential_for_basic_auth",
);

// === impl User ===

impl User {
    fn new(secret: Secret) -> Self {
        Self {
            secret,
            remembered: Mutex::new(None),
        }
    }

    /// Whether the password is one that was right before.
    fn remembers(&self, password: &Password, key: &hmac::Key) -> bool {
        let remembered = *self.remembered.lock();
        remembered.is_some_and(|known| bool::from(known.ct_eq(&password.digest(key))))
    }

    /// Whether a password is the user's, which takes as long as its hash says.
    fn check(&self, password: &Password, key: &hmac::Key) -> bool {
        match &self.secret {
            Secret::Sha(hash) => is_sha_of(hash, &password.0),
            Secret::Bcrypt { hash, .. } => {
                let is_right = self.remembers(password, key)
                    || bcrypt::verify(&*password.0, hash).unwrap_or(false);
                if is_right {
                    *self.remembered.lock() = Some(password.digest(key));
                }
                is_right
            }
        }
    }
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User").finish_non_exhaustive()
    }
}

impl Secret {
    fn compile(hash: &str) -> Option<Self> {
        if let Some(base64) = hash.strip_prefix("{SHA}") {
            let bytes = STANDARD.decode(base64).ok()?;
            return Some(Self::Sha(bytes.try_into().ok()?));
        }
        if !["$2y$", "$2b$", "$2a$"]
            .iter()
            .any(|kind| hash.starts_with(kind))
        {
            return None;
        }
        let parts: bcrypt::HashParts = hash.parse().ok()?;
        let cost = parts.get_cost();
        (4..=MAX_COST).contains(&cost).then(|| Self::Bcrypt {
            hash: hash.into(),
            cost,
        })
    }
}

// === impl Password ===

impl Password {
    fn new(password: &[u8]) -> Self {
        Self(password[..password.len().min(BCRYPT_BYTES)].into())
    }

    fn digest(&self, key: &hmac::Key) -> [u8; 32] {
        let tag = hmac::sign(key, &self.0);
        tag.as_ref().try_into().unwrap_or_default()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password")
    }
}

fn is_sha_of(hash: &[u8; 20], password: &[u8]) -> bool {
    let found = digest(&SHA1_FOR_LEGACY_USE_ONLY, password);
    bool::from(found.as_ref().ct_eq(hash))
}

/// The answer that asks for a name and a password, in the realm of what was asked for.
fn refusal(request: &Request, body: &'static str, details: &'static str) -> Reply {
    let scheme = request.headers().get(b"x-forwarded-proto");
    let scheme = scheme.filter(|scheme| matches!(*scheme, b"http" | b"https"));
    let mut challenge = b"Basic realm=\"".to_vec();
    let uri = [
        scheme.unwrap_or(b"http"),
        b"://",
        request.authority(),
        request.path(),
    ];
    for &byte in uri.into_iter().flatten() {
        // RFC 9110 5.6.4; in a URI neither is allowed, but clients send them.
        if b"\"\\".contains(&byte) {
            challenge.push(b'\\');
        }
        challenge.push(byte);
    }
    challenge.push(b'"');
    let mut headers = Headers::new();
    headers.append(b"www-authenticate", &challenge);
    let answer = Answer {
        status: 401,
        headers,
        body: Bytes::from_static(body.as_bytes()),
    };
    Reply::unauthenticated(body, details, answer)
}

#[cfg(test)]
mod tests {
    use kgw_h1::Limits;

    use super::*;
    use crate::pipeline::reply::Extra;

    /// Of `right`, with the lowest cost.
    fn bcrypt_hash() -> String {
        let parts = bcrypt::hash_with_salt("right", 4, [7; 16]).unwrap();
        parts.format_for_version(bcrypt::Version::TwoY)
    }

    fn auth(users: &[(&str, &str)]) -> Result<BasicAuth, String> {
        let users = users.iter().map(|(name, hash)| ir::BasicAuthUser {
            name: (*name).to_owned(),
            hash: (*hash).to_owned(),
        });
        let auth = ir::BasicAuth {
            users: users.collect(),
        };
        BasicAuth::compile(&auth, &Arc::new(PasswordChecks::new()))
    }

    fn request(fields: &str) -> Request {
        let limits = Limits {
            max_head_bytes: 4096,
            max_fields: 100,
        };
        let mut request = Request::new();
        let bytes = format!("GET /a?b=\"c HTTP/1.1\r\nhost: a.example\r\n{fields}\r\n");
        request.parse(bytes.as_bytes(), &limits).unwrap();
        request
    }

    fn authorization(named: &str) -> String {
        format!("authorization: Basic {}\r\n", STANDARD.encode(named))
    }

    /// `{SHA}` of `right`.
    const SHA: &str = "{SHA}0nofEXcSAJSXFLGvmfBIpBb11vQ=";

    #[test]
    fn the_hash_of_the_test_is_one() {
        let of = digest(&SHA1_FOR_LEGACY_USE_ONLY, b"right");
        assert_eq!(SHA, format!("{{SHA}}{}", STANDARD.encode(of)));
    }

    #[test]
    fn passwords_of_sha_are_judged_at_once() {
        let auth = auth(&[("alice", SHA), ("bob", SHA)]).unwrap();
        for (fields, expected) in [
            (authorization("alice:right"), "passed"),
            (
                authorization("bob:right").replace("Basic", "bASIC"),
                "passed",
            ),
            (authorization("alice:right").replace('=', ""), "passed"),
            (
                authorization("alice:wrong"),
                "invalid_credential_for_basic_auth",
            ),
            (
                authorization("alice:right "),
                "invalid_credential_for_basic_auth",
            ),
            (authorization("alice:"), "invalid_credential_for_basic_auth"),
            (
                authorization("eve:right"),
                "invalid_credential_for_basic_auth",
            ),
            (authorization(":right"), "invalid_credential_for_basic_auth"),
            (authorization("alice"), "invalid_format_for_basic_auth"),
            (
                "authorization: Basic ???\r\n".to_owned(),
                "invalid_format_for_basic_auth",
            ),
            (
                "authorization: Bearer x\r\n".to_owned(),
                "invalid_scheme_for_basic_auth",
            ),
            (
                "authorization: B\r\n".to_owned(),
                "invalid_scheme_for_basic_auth",
            ),
            (String::new(), "no_credential_for_basic_auth"),
        ] {
            let found = match auth.verdict(&request(&fields)) {
                Verdict::Passed => "passed".to_owned(),
                Verdict::Refused(reply) => {
                    assert_eq!(reply.status, 401);
                    reply.details.into_owned()
                }
                Verdict::Wait(..) => "waits".to_owned(),
            };
            assert_eq!(found, expected, "{fields}");
        }
    }

    #[test]
    fn a_refusal_asks_for_a_password() {
        let auth = auth(&[("alice", SHA)]).unwrap();
        let Verdict::Refused(reply) = auth.verdict(&request("x-forwarded-proto: https\r\n")) else {
            panic!("not refused");
        };
        let Extra::Answer(answer) = reply.extra else {
            panic!("no answer");
        };
        let challenge = answer.headers.get(b"www-authenticate").unwrap();
        let expected = r#"Basic realm="https://a.example/a?b=\"c""#;
        assert_eq!(String::from_utf8_lossy(challenge), expected);
    }

    #[test]
    fn a_password_of_bcrypt_is_checked_once_and_remembered() {
        let auth = auth(&[("alice", &bcrypt_hash())]).unwrap();
        let key = auth.checks.key();
        for right in [true, false, true] {
            let password = if right { "right" } else { "wrong" };
            let request = request(&authorization(&format!("alice:{password}")));
            match auth.verdict(&request) {
                Verdict::Wait(user, password) => {
                    let is_right = user.check(&password, key);
                    assert_eq!(is_right, right);
                    let checked = auth.checked(&request, &user, is_right);
                    assert_eq!(checked.is_ok(), right);
                }
                Verdict::Passed => assert!(right),
                Verdict::Refused(reply) => panic!("{reply:?}"),
            }
        }
        let right = request(&authorization("alice:right"));
        assert!(matches!(auth.verdict(&right), Verdict::Passed));
    }

    #[test]
    fn a_name_that_nobody_has_takes_as_long_and_never_passes() {
        let auth = auth(&[("alice", &bcrypt_hash()), ("bob", SHA)]).unwrap();
        let request = request(&authorization("eve:right"));
        let Verdict::Wait(user, password) = auth.verdict(&request) else {
            panic!("decided at once");
        };
        assert!(user.check(&password, auth.checks.key()));
        assert!(auth.checked(&request, &user, true).is_err());
        assert!(matches!(auth.verdict(&request), Verdict::Wait(..)));
    }

    #[test]
    fn bcrypt_looks_at_72_bytes() {
        let long = "x".repeat(72);
        let hash = bcrypt::hash_with_salt(&long, 4, [1; 16])
            .unwrap()
            .to_string();
        let auth = auth(&[("alice", &hash)]).unwrap();
        let request = request(&authorization(&format!("alice:{long}y")));
        let Verdict::Wait(user, password) = auth.verdict(&request) else {
            panic!("decided at once");
        };
        assert!(user.check(&password, auth.checks.key()));
    }

    #[test]
    fn what_cannot_be_used_is_refused_without_being_shown() {
        let costly = bcrypt_hash().replacen("$04$", "$15$", 1);
        for hash in [
            "",
            "plain",
            "{SHA}",
            "{SHA}AAAA",
            "$apr1$a$b",
            "$2y$04$short",
            &costly,
        ] {
            let error = auth(&[("alice", hash)]).unwrap_err();
            assert!(error.contains("alice"), "{error}");
            assert!(hash.is_empty() || !error.contains(hash), "{error}");
        }
        let twice = auth(&[("alice", SHA), ("alice", SHA)]);
        assert!(twice.unwrap_err().contains("two users alice"));
        let shown = format!("{:?}", auth(&[("alice", &bcrypt_hash())]).unwrap());
        assert!(!shown.contains("$2y$"), "{shown}");
    }
}
