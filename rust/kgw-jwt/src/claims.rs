//! What tokens claim.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use crate::Status;

/// What a token claims. Those that are looked at have the type that they are to have.
pub struct Claims {
    payload: Map<String, Value>,
    audiences: Vec<String>,
    /// Seconds since 1970 UTC.
    not_before: u64,
    /// Seconds since 1970 UTC.
    expires: Option<u64>,
}

/// Says nothing of what is in it.
impl std::fmt::Debug for Claims {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Claims({})", self.payload.len())
    }
}

impl Claims {
    pub(crate) fn read(payload: Map<String, Value>) -> Result<Self, Status> {
        text(&payload, "iss", Status::Issuer)?;
        text(&payload, "sub", Status::Subject)?;
        number(&payload, "iat", Status::IssuedAt, Status::IssuedAtRange)?;
        let not_before = number(&payload, "nbf", Status::NotBefore, Status::NotBeforeRange)?;
        let expires = number(&payload, "exp", Status::Expiration, Status::ExpirationRange)?;
        text(&payload, "jti", Status::Id)?;
        let audiences = match payload.get("aud") {
            None => Vec::new(),
            Some(Value::String(one)) => vec![one.clone()],
            Some(Value::Array(many)) => {
                let many = many.iter().map(|one| one.as_str().map(str::to_owned));
                many.collect::<Option<_>>().ok_or(Status::Audience)?
            }
            Some(_) => return Err(Status::Audience),
        };
        Ok(Self {
            payload,
            audiences,
            not_before: not_before.unwrap_or(0),
            expires,
        })
    }

    /// All of it.
    pub fn payload(&self) -> &Map<String, Value> {
        &self.payload
    }

    /// Who made the token (`iss`).
    pub fn issuer(&self) -> Option<&str> {
        self.payload.get("iss")?.as_str()
    }

    /// Whom the token is for (`aud`).
    pub fn audiences(&self) -> &[String] {
        &self.audiences
    }

    /// Until when the token is valid (`exp`), if it says so. Seconds since 1970 UTC.
    pub fn expires(&self) -> Option<u64> {
        self.expires
    }

    /// Checks that the token is valid now.
    ///
    /// Args: the time in seconds since 1970 UTC, and by how many of them clocks may differ.
    ///
    /// # Errors
    /// It is too early or too late.
    pub fn check_time(&self, now: u64, skew: u64) -> Result<(), Status> {
        if self.not_before > now.saturating_add(skew) {
            return Err(Status::NotYetValid);
        }
        match self.expires {
            Some(expires) if now > expires.saturating_add(skew) => Err(Status::Expired),
            _ => Ok(()),
        }
    }

    /// Checks that the token is for one of these; for none is for any. As in Envoy the scheme of an
    /// audience that is a URL does not count, nor does a slash at its end.
    ///
    /// # Errors
    /// It is for others.
    pub fn check_audience(&self, allowed: &[impl AsRef<str>]) -> Result<(), Status> {
        let is_allowed = |one: &String| {
            let one = plain(one);
            allowed.iter().any(|allowed| plain(allowed.as_ref()) == one)
        };
        if allowed.is_empty() || self.audiences.iter().any(is_allowed) {
            Ok(())
        } else {
            Err(Status::AudienceNotAllowed)
        }
    }

    /// A claim by its name, or by its path through objects, in which dots separate names. A name with
    /// dots wins.
    pub fn claim(&self, name: &str) -> Option<&Value> {
        if let Some(found) = self.payload.get(name) {
            return Some(found);
        }
        let mut parts = name.split('.');
        let first = self.payload.get(parts.next()?)?;
        parts.try_fold(first, |within, part| within.as_object()?.get(part))
    }

    /// A claim as a header field has it: a text as it is, whole numbers that are not negative in digits,
    /// others with six decimals, and lists and objects as JSON in Base64, all as in Envoy. None of what is
    /// empty, and of texts that no field can have.
    pub fn header_value(&self, name: &str) -> Option<String> {
        let text = match self.claim(name)? {
            Value::Null => return None,
            Value::String(text) => text.clone(),
            Value::Bool(value) => value.to_string(),
            Value::Number(number) => match (number.as_u64(), number.as_f64()) {
                (Some(whole), _) => whole.to_string(),
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // it is whole
                (None, Some(value)) if value >= 0.0 && value.fract() == 0.0 && value < LARGEST => {
                    (value as u64).to_string()
                }
                (None, value) => format!("{:.6}", value?),
            },
            value @ (Value::Array(_) | Value::Object(_)) => STANDARD.encode(value.to_string()),
        };
        (!text.is_empty()).then_some(text)
    }
}

/// 2 to the power of 64.
const LARGEST: f64 = 18_446_744_073_709_551_616.0;

fn text(payload: &Map<String, Value>, name: &str, wrong: Status) -> Result<(), Status> {
    match payload.get(name) {
        None | Some(Value::String(_)) => Ok(()),
        Some(_) => Err(wrong),
    }
}

/// A number as Envoy reads it: a fraction is cut off.
fn number(
    payload: &Map<String, Value>,
    name: &str,
    wrong: Status,
    range: Status,
) -> Result<Option<u64>, Status> {
    let Some(value) = payload.get(name) else {
        return Ok(None);
    };
    let Value::Number(number) = value else {
        return Err(wrong);
    };
    if let Some(whole) = number.as_u64() {
        return Ok(Some(whole));
    }
    match number.as_f64() {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // it is in range
        Some(value) if (0.0..LARGEST).contains(&value) => Ok(Some(value as u64)),
        _ => Err(range),
    }
}

/// An audience without what does not count.
fn plain(audience: &str) -> &str {
    let rest = audience
        .strip_prefix("https://")
        .or_else(|| audience.strip_prefix("http://"))
        .unwrap_or(audience);
    rest.strip_suffix('/').unwrap_or(rest)
}
