//! Sets of keys in every form that they are written in.

mod common;

use common::Signer;
use kgw_jwt::{KeySet, KeySetError, Token};
use proptest::prelude::*;
use serde_json::{Value, json};

fn verifies(keys: &KeySet, signer: &Signer, algorithm: &str) -> bool {
    let text = signer.token(&json!({"alg": algorithm}), &json!({}));
    keys.verify(&Token::parse(&text).expect("a token")).is_ok()
}

fn parse(text: &str) -> KeySet {
    KeySet::parse(text).expect("a set of keys")
}

#[test]
fn a_set_a_key_and_pem_are_read() {
    let rsa = Signer::rsa();
    let forms = [
        json!({"keys": [rsa.jwk()]}).to_string(),
        rsa.jwk().to_string(),
        include_str!("data/rsa-2048.pem").to_owned(),
        include_str!("data/rsa-2048-pkcs1.pem").to_owned(),
    ];
    for text in &forms {
        assert!(verifies(&parse(text), &rsa, "RS256"), "{text}");
    }
    // As in kgateway a key in PEM is for RS256 alone.
    assert!(verifies(&parse(&forms[0]), &rsa, "PS512"));
    assert!(!verifies(&parse(&forms[2]), &rsa, "PS512"));
}

#[test]
fn keys_on_curves_are_read_from_pem() {
    use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
    use ring::rand::SystemRandom;
    use ring::signature::{self, EcdsaKeyPair, Ed25519KeyPair};

    let random = SystemRandom::new();
    let make = |algorithm| rcgen::KeyPair::generate_for(algorithm).expect("a key");
    let ecdsa = |algorithm, key: &rcgen::KeyPair| {
        EcdsaKeyPair::from_pkcs8(algorithm, key.serialized_der(), &random).expect("a key")
    };
    let p256 = make(&PKCS_ECDSA_P256_SHA256);
    let signer = Signer::P256(ecdsa(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, &p256));
    assert!(verifies(&parse(&p256.public_key_pem()), &signer, "ES256"));
    let p384 = make(&PKCS_ECDSA_P384_SHA384);
    let signer = Signer::P384(ecdsa(&signature::ECDSA_P384_SHA384_FIXED_SIGNING, &p384));
    assert!(verifies(&parse(&p384.public_key_pem()), &signer, "ES384"));
    let ed25519 = make(&PKCS_ED25519);
    let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(ed25519.serialized_der());
    let signer = Signer::Ed25519(pair.expect("a key"));
    assert!(verifies(
        &parse(&ed25519.public_key_pem()),
        &signer,
        "EdDSA"
    ));
}

#[test]
fn keys_that_are_of_no_use_are_passed_over() {
    let rsa = Signer::rsa();
    let of_no_use = [
        json!({}),
        json!({"kty": "XYZ"}),
        json!({"kty": "RSA"}),
        json!({"kty": "RSA", "n": "AQAB", "e": "AQAB"}),
        json!({"kty": "RSA", "n": "?", "e": "AQAB"}),
        json!({"kty": "EC", "crv": "P-521", "x": "AA", "y": "AA"}),
        json!({"kty": "EC", "crv": "P-256", "x": "B".repeat(48), "y": "AA"}),
        json!({"kty": "OKP", "crv": "X25519", "x": "AA"}),
        json!({"kty": "OKP", "crv": "Ed25519", "x": "AA"}),
        json!({"kty": "oct", "k": ""}),
        json!({"kty": "oct", "k": "AAAA", "use": "enc"}),
        json!({"kty": "oct", "k": "AAAA", "kid": 7}),
        json!("text"),
    ];
    for key in &of_no_use {
        let keys = json!({"keys": [key, rsa.jwk()]}).to_string();
        assert!(verifies(&parse(&keys), &rsa, "RS256"), "{key}");
        let keys = json!({"keys": [key]}).to_string();
        assert_eq!(
            KeySet::parse(&keys).map(|_| ()),
            Err(KeySetError::NoKey),
            "{key}"
        );
    }
    for pem in [
        include_str!("data/rsa-1024.pem"),
        include_str!("data/p521.pem"),
    ] {
        assert_eq!(
            KeySet::parse(pem).map(|_| ()),
            Err(KeySetError::NoKey),
            "{pem}"
        );
    }
}

#[test]
fn what_is_no_set_of_keys_is_refused() {
    let many: Vec<Value> = (0..257).map(|_| json!({})).collect();
    let table = [
        (String::new(), KeySetError::Form),
        ("{}".to_owned(), KeySetError::Form),
        ("[]".to_owned(), KeySetError::Form),
        (r#"{"keys":{}}"#.to_owned(), KeySetError::Form),
        (r#"{"keys":[]}"#.to_owned(), KeySetError::NoKey),
        (json!({"keys": many}).to_string(), KeySetError::TooMany(256)),
        (common::pem("PUBLIC KEY", b"nothing"), KeySetError::NoKey),
        (common::pem("CERTIFICATE", b"nothing"), KeySetError::NoKey),
        ("-----BEGIN PUBLIC KEY-----".to_owned(), KeySetError::Form),
    ];
    for (text, error) in table {
        assert_eq!(KeySet::parse(&text).map(|_| ()), Err(error), "{text}");
    }
}

proptest! {
    /// Any text is a set of keys or none.
    #[test]
    fn any_text_is_done_with(text in r#"(-----(BEGIN|END) PUBLIC KEY-----|[A-Za-z0-9+/=\n{}\[\]":,]){0,40}"#) {
        let _ = KeySet::parse(&text);
    }

    /// Any coordinates and moduli are a key or none, and verify nothing.
    #[test]
    fn any_key_is_done_with(
        kty in "RSA|EC|OKP", crv in "P-256|P-384|Ed25519",
        one in prop::collection::vec(any::<u8>(), 0..400), two in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let (one, two) = (common::base64url(one), common::base64url(two));
        let key = json!({"kty": kty, "crv": crv, "n": one, "e": two, "x": two, "y": two});
        if let Ok(keys) = KeySet::parse(&key.to_string()) {
            for algorithm in ["RS256", "PS512", "ES256", "ES384", "EdDSA"] {
                prop_assert!(!verifies(&keys, &Signer::Secret(b"x".to_vec()), algorithm));
            }
        }
    }
}
