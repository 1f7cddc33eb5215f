//! Tokens as they are written.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use crate::{Algorithm, Claims, Status};

/// A token that was read, and of which nothing is known yet.
pub struct Token<'t> {
    pub(crate) algorithm: Algorithm,
    pub(crate) key_id: Option<String>,
    /// What the signature is of.
    pub(crate) signed: &'t [u8],
    pub(crate) signature: Vec<u8>,
    claims: Claims,
}

/// Says nothing of what is in it.
impl std::fmt::Debug for Token<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token({:?})", self.algorithm)
    }
}

impl<'t> Token<'t> {
    /// Reads a token in the compact serialization (RFC 7515 7.1).
    ///
    /// # Errors
    /// The first thing that is wrong, in the order in which Envoy looks.
    pub fn parse(text: &'t str) -> Result<Self, Status> {
        let mut parts = text.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Status::Form);
        };
        if [header, payload, signature].contains(&"") {
            return Err(Status::Form);
        }
        let signed = &text.as_bytes()[..header.len() + 1 + payload.len()];
        let header = object(header, Status::HeaderEncoding, Status::HeaderJson)?;
        let Some(Value::String(algorithm)) = header.get("alg") else {
            return Err(Status::NoAlgorithm);
        };
        let algorithm = Algorithm::named(algorithm).ok_or(Status::Algorithm)?;
        // What must be understood, and is not, makes a token invalid (RFC 7515 4.1.11).
        if header.contains_key("crit") {
            return Err(Status::Verification);
        }
        let key_id = match header.get("kid") {
            None => None,
            Some(Value::String(id)) if id.is_empty() => None,
            Some(Value::String(id)) => Some(id.clone()),
            Some(_) => return Err(Status::KeyId),
        };
        let payload = object(payload, Status::PayloadEncoding, Status::PayloadJson)?;
        let claims = Claims::read(payload)?;
        let signature = URL_SAFE_NO_PAD
            .decode(signature)
            .map_err(|_| Status::SignatureEncoding)?;
        Ok(Self {
            algorithm,
            key_id,
            signed,
            signature,
            claims,
        })
    }

    /// How it says that it was signed.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The name of the key that it says has signed it.
    pub fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    /// What it claims, which may be a lie until a key has verified it.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// What it claims.
    pub fn into_claims(self) -> Claims {
        self.claims
    }
}

/// Reads a part that is an object.
fn object(part: &str, encoding: Status, json: Status) -> Result<Map<String, Value>, Status> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| encoding)?;
    serde_json::from_slice(&bytes).map_err(|_| json)
}
