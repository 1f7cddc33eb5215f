//! Public keys in PEM.

use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::{PublicKey, RSAPublicKey};
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::key::{Key, Material};

/// Reads the first block of a text. None if there is none; a block that is no public key is none in the
/// other sense.
#[allow(clippy::option_option)] // no block, and a block that is no key
pub(crate) fn key(text: &str) -> Option<Option<Key>> {
    if !text.contains("-----BEGIN") {
        return None;
    }
    let (pem, _) = Pem::read(std::io::Cursor::new(text)).ok()?;
    Some(pkcs1(&pem.contents).or_else(|| pkix(&pem.contents)))
}

fn pkcs1(der: &[u8]) -> Option<Key> {
    let (rest, key) = RSAPublicKey::from_der(der).ok()?;
    if !rest.is_empty() {
        return None;
    }
    Some(Key::new(Material::rsa(key.modulus, key.exponent)?, "RS256"))
}

fn pkix(der: &[u8]) -> Option<Key> {
    let (rest, info) = SubjectPublicKeyInfo::from_der(der).ok()?;
    if !rest.is_empty() {
        return None;
    }
    if info.algorithm.algorithm.to_id_string() == ED25519 {
        let key = info.subject_public_key.data.to_vec();
        return Some(Key::new(Material::ed25519(key)?, "EdDSA"));
    }
    match info.parsed().ok()? {
        PublicKey::RSA(key) => Some(Key::new(Material::rsa(key.modulus, key.exponent)?, "RS256")),
        PublicKey::EC(point) => {
            let point = point.data().to_vec();
            let curve = info.algorithm.parameters.as_ref()?.as_oid().ok()?;
            match (curve.to_id_string().as_str(), point.first(), point.len()) {
                (P256, Some(4), 65) => Some(Key::new(Material::P256(point), "ES256")),
                (P384, Some(4), 97) => Some(Key::new(Material::P384(point), "ES384")),
                _ => None,
            }
        }
        _ => None,
    }
}

const ED25519: &str = "1.3.101.112";
const P256: &str = "1.2.840.10045.3.1.7";
const P384: &str = "1.3.132.0.34";
