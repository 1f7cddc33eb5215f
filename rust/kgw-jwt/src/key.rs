//! Keys (RFC 7517, 7518 6, 8037).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use ring::signature::{self, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey};
use serde_json::{Map, Value};

use crate::{Algorithm, Status};

/// A key, with what it says about itself.
pub(crate) struct Key {
    pub(crate) id: Option<String>,
    /// The only algorithm that it is for, if it says so; the name may be of one that is not known.
    pub(crate) algorithm: Option<String>,
    material: Material,
}

/// What a key consists of.
pub(crate) enum Material {
    /// Modulus and exponent, big-endian without leading zeros.
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// A point on P-256, uncompressed.
    P256(Vec<u8>),
    /// A point on P-384, uncompressed.
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
    Secret(Vec<u8>),
}

/// Length of an Ed25519 signature. Bytes.
const ED25519_SIGNATURE: usize = 64;

impl Key {
    pub(crate) fn new(material: Material, algorithm: &str) -> Self {
        Self {
            id: None,
            algorithm: Some(algorithm.to_owned()),
            material,
        }
    }

    /// Reads a key; none if it is of a kind that is not known, or malformed, or not for signatures.
    pub(crate) fn read(json: &Map<String, Value>) -> Option<Self> {
        let text = |name: &str| json.get(name).and_then(Value::as_str);
        let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
        if text("use").is_some_and(|purpose| purpose != "sig") {
            return None;
        }
        let material = match (text("kty")?, text("crv")) {
            ("RSA", _) => Material::rsa(&bytes("n")?, &bytes("e")?)?,
            ("EC", Some("P-256")) => Material::P256(point(&bytes("x")?, &bytes("y")?, 32)?),
            ("EC", Some("P-384")) => Material::P384(point(&bytes("x")?, &bytes("y")?, 48)?),
            ("OKP", Some("Ed25519")) => Material::ed25519(bytes("x")?)?,
            ("oct", _) => Material::Secret(bytes("k").filter(|secret| !secret.is_empty())?),
            _ => return None,
        };
        let optional = |name: &str| match json.get(name) {
            None | Some(Value::Null) => Some(None),
            Some(Value::String(text)) => Some(Some(text.clone()).filter(|text| !text.is_empty())),
            Some(_) => None,
        };
        Some(Self {
            id: optional("kid")?,
            algorithm: optional("alg")?,
            material,
        })
    }

    /// Whether the key is one that a token may have been signed with.
    pub(crate) fn fits(&self, key_id: Option<&str>, algorithm: Algorithm) -> bool {
        let is_named = match (key_id, &self.id) {
            (Some(wanted), Some(id)) => wanted == id,
            _ => true,
        };
        let for_algorithm = self.algorithm.as_deref();
        is_named && for_algorithm.is_none_or(|name| Algorithm::named(name) == Some(algorithm))
    }

    /// Verifies a signature. What a key is decides which algorithms it is good for.
    pub(crate) fn verify(
        &self,
        algorithm: Algorithm,
        signed: &[u8],
        signed_as: &[u8],
    ) -> Result<(), Status> {
        use Algorithm as A;
        let of_key = |algorithm: &'static dyn signature::VerificationAlgorithm, key: &[u8]| {
            UnparsedPublicKey::new(algorithm, key).verify(signed, signed_as)
        };
        let of_secret = |algorithm: hmac::Algorithm, key: &[u8]| {
            hmac::verify(&hmac::Key::new(algorithm, key), signed, signed_as)
        };
        let verified = match (&self.material, algorithm) {
            (Material::Rsa { n, e }, _) => {
                let parameters = rsa_parameters(algorithm).ok_or(Status::Verification)?;
                let key = RsaPublicKeyComponents { n, e };
                key.verify(parameters, signed, signed_as)
            }
            (Material::P256(point), A::Es256) => of_key(&signature::ECDSA_P256_SHA256_FIXED, point),
            (Material::P384(point), A::Es384) => of_key(&signature::ECDSA_P384_SHA384_FIXED, point),
            (Material::Ed25519(_), A::EdDsa) if signed_as.len() != ED25519_SIGNATURE => {
                return Err(Status::SignatureLength);
            }
            (Material::Ed25519(key), A::EdDsa) => of_key(&signature::ED25519, key),
            (Material::Secret(key), A::Hs256) => of_secret(hmac::HMAC_SHA256, key),
            (Material::Secret(key), A::Hs384) => of_secret(hmac::HMAC_SHA384, key),
            (Material::Secret(key), A::Hs512) => of_secret(hmac::HMAC_SHA512, key),
            _ => return Err(Status::Verification),
        };
        verified.map_err(|_| Status::Verification)
    }
}

impl Material {
    /// An RSA key, if it has a length that is verified with.
    pub(crate) fn rsa(n: &[u8], e: &[u8]) -> Option<Self> {
        let (n, e) = (number(n), number(e));
        let bits = 8 * n.len() - n.first()?.leading_zeros() as usize;
        (RSA_BITS.contains(&bits) && !e.is_empty()).then(|| Self::Rsa {
            n: n.to_vec(),
            e: e.to_vec(),
        })
    }

    pub(crate) fn ed25519(key: Vec<u8>) -> Option<Self> {
        (key.len() == 32).then_some(Self::Ed25519(key))
    }
}

/// The lengths of RSA keys that signatures are verified with.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// A big-endian number without leading zeros.
fn number(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    &bytes[zeros..]
}

/// A point, uncompressed, from coordinates of so many bytes; shorter ones are filled up.
fn point(x: &[u8], y: &[u8], length: usize) -> Option<Vec<u8>> {
    let mut point = vec![4];
    for coordinate in [number(x), number(y)] {
        let zeros = length.checked_sub(coordinate.len())?;
        point.resize(point.len() + zeros, 0);
        point.extend_from_slice(coordinate);
    }
    Some(point)
}

fn rsa_parameters(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        Algorithm::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        Algorithm::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        Algorithm::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
        Algorithm::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
        Algorithm::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
        Algorithm::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}
