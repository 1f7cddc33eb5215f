//! Sets of keys.

use serde_json::{Map, Value};

use crate::key::Key;
use crate::{Status, Token, pem};

/// The keys of an issuer.
pub struct KeySet {
    keys: Vec<Key>,
}

/// Says nothing of what is in it, which may be secrets.
impl std::fmt::Debug for KeySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeySet({})", self.keys.len())
    }
}

/// Why a text is no set of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// It is neither JSON nor PEM.
    #[error("it is neither a key, nor a set of keys, nor a public key in PEM")]
    Form,
    /// No key of it can verify a signature.
    #[error(
        "it has no key that is valid: RSA of 2048 to 8192 bits, EC on P-256 or P-384, Ed25519, oct"
    )]
    NoKey,
    /// It is longer than sets of keys are.
    #[error("it has more than {0} keys")]
    TooMany(usize),
}

/// The most keys of a set. Issuers have a handful.
const MOST: usize = 256;

impl KeySet {
    /// Reads a set of keys, a single key, or a public key in PEM (PKCS #1, or PKIX with RSA, EC or
    /// Ed25519). Keys of a set that are not known, or not for signatures, are passed over.
    ///
    /// As in kgateway an RSA key in PEM is for RS256 alone. One on an elliptic curve is for the algorithm
    /// of its curve (kgateway: always ES256).
    ///
    /// # Errors
    /// There is no key in it.
    pub fn parse(text: &str) -> Result<Self, KeySetError> {
        if let Some(found) = pem::key(text) {
            let keys = vec![found.ok_or(KeySetError::NoKey)?];
            return Ok(Self { keys });
        }
        let json: Map<String, Value> = serde_json::from_str(text).map_err(|_| KeySetError::Form)?;
        let keys: Vec<Key> = match json.get("keys") {
            Some(Value::Array(keys)) if keys.len() > MOST => {
                return Err(KeySetError::TooMany(MOST));
            }
            Some(Value::Array(keys)) => {
                let keys = keys.iter().filter_map(Value::as_object);
                keys.filter_map(Key::read).collect()
            }
            None if json.contains_key("kty") => Key::read(&json).into_iter().collect(),
            Some(_) | None => return Err(KeySetError::Form),
        };
        if keys.is_empty() {
            return Err(KeySetError::NoKey);
        }
        Ok(Self { keys })
    }

    /// Verifies that one of the keys has signed a token. Keys of another name or for another algorithm
    /// are not tried, where both say so.
    ///
    /// # Errors
    /// None fits, or none has.
    pub fn verify(&self, token: &Token<'_>) -> Result<(), Status> {
        let id = token.key_id.as_deref();
        let mut status = Status::NoKey;
        for key in &self.keys {
            if !key.fits(id, token.algorithm) {
                continue;
            }
            match key.verify(token.algorithm, token.signed, &token.signature) {
                Err(Status::Verification) => status = Status::Verification,
                decided => return decided,
            }
        }
        Err(status)
    }

    /// Whether the set may be older than a token: the token names a key, and none here has the name.
    pub fn lacks_key_of(&self, token: &Token<'_>) -> bool {
        let Some(id) = token.key_id.as_deref() else {
            return false;
        };
        let known = |key: &Key| key.id.as_deref().is_none_or(|one| one == id);
        !self.keys.iter().any(known)
    }
}
