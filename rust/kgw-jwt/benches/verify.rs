//! What it takes to read a token and to verify it, and the digest of it that a cache needs instead.

#[path = "../tests/common/mod.rs"]
mod common;

use common::Signer;
use divan::{Bencher, black_box};
use kgw_jwt::{KeySet, Token};
use serde_json::json;

fn main() {
    divan::main();
}

fn signed(algorithm: &str) -> (KeySet, String) {
    let signer = match algorithm {
        "RS256" | "PS256" => Signer::rsa(),
        "ES256" => Signer::p256(),
        "ES384" => Signer::p384(),
        "EdDSA" => Signer::ed25519(),
        _ => Signer::Secret(b"a secret of the issuer".to_vec()),
    };
    let payload = json!({
        "iss": "https://issuer.example", "sub": "ann", "aud": ["api.example"], "iat": 1_700_000_000,
        "exp": 1_800_000_000, "email": "ann@example.com", "groups": ["users", "admins"],
    });
    let token = signer.token(&json!({"alg": algorithm, "kid": "one"}), &payload);
    let keys = KeySet::parse(&signer.jwk().to_string()).expect("a key");
    (keys, token)
}

#[divan::bench(args = ["RS256", "PS256", "ES256", "ES384", "EdDSA", "HS256"])]
fn verify(bencher: Bencher<'_, '_>, algorithm: &str) {
    let (keys, text) = signed(algorithm);
    bencher.bench_local(|| keys.verify(&Token::parse(black_box(&text)).expect("a token")));
}

#[divan::bench]
fn parse(bencher: Bencher<'_, '_>) {
    let (_, text) = signed("RS256");
    bencher.bench_local(|| Token::parse(black_box(&text)).map(Token::into_claims));
}

#[divan::bench]
fn digest(bencher: Bencher<'_, '_>) {
    let (_, text) = signed("RS256");
    bencher.bench_local(|| ring::digest::digest(&ring::digest::SHA256, black_box(text.as_bytes())));
}
