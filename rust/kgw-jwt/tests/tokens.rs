//! Tokens: what is read, and what is refused for which reason.

mod common;

use common::{Signer, base64url};
use kgw_jwt::{Algorithm, KeySet, Status, Token};
use proptest::prelude::*;
use serde_json::{Value, json};

fn set(keys: &[Value]) -> KeySet {
    KeySet::parse(&json!({"keys": keys}).to_string()).expect("a set of keys")
}

fn with(mut key: Value, more: &Value) -> Value {
    let fields = more.as_object().expect("an object");
    key.as_object_mut()
        .expect("an object")
        .extend(fields.clone());
    key
}

fn verify(keys: &KeySet, text: &str) -> Result<(), Status> {
    keys.verify(&Token::parse(text)?)
}

fn written(header: &str, payload: &str, signature: &str) -> String {
    format!("{}.{}.{signature}", base64url(header), base64url(payload))
}

#[test]
fn every_algorithm_verifies_what_it_signed_and_nothing_else() {
    let signers = [
        (
            Signer::rsa(),
            vec!["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"],
        ),
        (Signer::p256(), vec!["ES256"]),
        (Signer::p384(), vec!["ES384"]),
        (Signer::ed25519(), vec!["EdDSA"]),
        (
            Signer::Secret(b"a secret of the issuer".to_vec()),
            vec!["HS256", "HS384", "HS512"],
        ),
    ];
    let names: Vec<&str> = signers
        .iter()
        .flat_map(|(_, names)| names.clone())
        .collect();
    for (signer, of_signer) in &signers {
        let keys = set(&[signer.jwk()]);
        for name in of_signer {
            let token = signer.token(&json!({"alg": name}), &json!({"sub": "ann"}));
            assert_eq!(verify(&keys, &token), Ok(()), "{name}");
            let forged = signer.token(&json!({"alg": name}), &json!({"sub": "bob"}));
            let (_, signature) = token.rsplit_once('.').expect("a signature");
            let (message, _) = forged.rsplit_once('.').expect("a message");
            let forged = format!("{message}.{signature}");
            assert_eq!(verify(&keys, &forged), Err(Status::Verification), "{name}");
            for other in names.iter().filter(|other| !of_signer.contains(other)) {
                let header = base64url(json!({"alg": other}).to_string());
                let (_, rest) = token.split_once('.').expect("a payload");
                let status = verify(&keys, &format!("{header}.{rest}"));
                assert_eq!(status, Err(Status::Verification), "{name} as {other}");
            }
        }
    }
}

#[test]
fn a_public_key_is_no_secret_and_none_is_no_algorithm() {
    let signer = Signer::rsa();
    let jwk = signer.jwk();
    let keys = set(std::slice::from_ref(&jwk));
    let modulus = jwk["n"].as_str().expect("a modulus").as_bytes().to_vec();
    let pem = include_bytes!("data/rsa-2048.pem").to_vec();
    for secret in [modulus, pem.clone()] {
        let forged = Signer::Secret(secret).token(&json!({"alg": "HS256"}), &json!({}));
        assert_eq!(verify(&keys, &forged), Err(Status::Verification));
    }
    let of_pem = KeySet::parse(std::str::from_utf8(&pem).expect("a text")).expect("a key");
    let forged = Signer::Secret(pem).token(&json!({"alg": "HS256"}), &json!({}));
    assert_eq!(verify(&of_pem, &forged), Err(Status::NoKey));
    for name in ["none", "None", "NONE", "ES512", "ES256K", "RS1", ""] {
        let text = written(&json!({"alg": name}).to_string(), "{}", "AA");
        assert_eq!(verify(&keys, &text), Err(Status::Algorithm), "{name}");
    }
}

#[test]
fn what_is_malformed_is_told_apart() {
    let ok = r#"{"alg":"RS256"}"#;
    let payload = |json: &str| written(ok, json, "AA");
    let table = [
        (String::new(), Status::Form),
        ("a".to_owned(), Status::Form),
        ("a.b".to_owned(), Status::Form),
        ("a.b.c.d".to_owned(), Status::Form),
        ("..".to_owned(), Status::Form),
        ("e30..AA".to_owned(), Status::Form),
        (written(ok, "{}", ""), Status::Form),
        ("a+b.c.d".to_owned(), Status::HeaderEncoding),
        (format!("{}=.e30.AA", base64url(ok)), Status::HeaderEncoding),
        (written("[]", "{}", "AA"), Status::HeaderJson),
        (written("{", "{}", "AA"), Status::HeaderJson),
        (written("{}", "{}", "AA"), Status::NoAlgorithm),
        (written(r#"{"alg":1}"#, "{}", "AA"), Status::NoAlgorithm),
        (written(r#"{"alg":"X"}"#, "{}", "AA"), Status::Algorithm),
        (
            written(r#"{"alg":"RS256","kid":1}"#, "{}", "AA"),
            Status::KeyId,
        ),
        (
            written(r#"{"alg":"RS256","crit":["x"]}"#, "{}", "AA"),
            Status::Verification,
        ),
        (format!("{}.!.AA", base64url(ok)), Status::PayloadEncoding),
        (payload("nothing"), Status::PayloadJson),
        (payload(r#"{"iss":1}"#), Status::Issuer),
        (payload(r#"{"sub":[]}"#), Status::Subject),
        (payload(r#"{"iat":"1"}"#), Status::IssuedAt),
        (payload(r#"{"iat":-1}"#), Status::IssuedAtRange),
        (payload(r#"{"nbf":"1"}"#), Status::NotBefore),
        (payload(r#"{"nbf":-1.5}"#), Status::NotBeforeRange),
        (payload(r#"{"exp":"1"}"#), Status::Expiration),
        (payload(r#"{"exp":1e99}"#), Status::ExpirationRange),
        (payload(r#"{"jti":7}"#), Status::Id),
        (payload(r#"{"aud":7}"#), Status::Audience),
        (payload(r#"{"aud":["a",7]}"#), Status::Audience),
        (written(ok, "{}", "A"), Status::SignatureEncoding),
        (written(ok, "{}", "A=="), Status::SignatureEncoding),
    ];
    for (text, status) in table {
        assert_eq!(Token::parse(&text).map(|_| ()), Err(status), "{text}");
        assert_eq!(status.code(), 401);
    }
}

#[test]
fn times_are_checked_with_a_skew() {
    let claims = |payload: Value| {
        let text = written(r#"{"alg":"RS256"}"#, &payload.to_string(), "AA");
        Token::parse(&text).expect("a token").into_claims()
    };
    let times = claims(json!({"nbf": 1000, "exp": 2000.9}));
    let table = [
        (939, Err(Status::NotYetValid)),
        (940, Ok(())),
        (1500, Ok(())),
        (2060, Ok(())),
        (2061, Err(Status::Expired)),
        (u64::MAX, Err(Status::Expired)),
    ];
    for (now, checked) in table {
        assert_eq!(times.check_time(now, 60), checked, "{now}");
    }
    assert_eq!(claims(json!({})).check_time(u64::MAX, 60), Ok(()));
    assert_eq!(
        claims(json!({"exp": 0})).check_time(61, 60),
        Err(Status::Expired)
    );
    assert_eq!(
        claims(json!({"nbf": u64::MAX})).check_time(u64::MAX - 61, 60),
        Err(Status::NotYetValid)
    );
}

#[test]
fn audiences_are_compared_without_scheme_and_slash() {
    let table = [
        (json!("a"), &["a"][..], true),
        (json!(["x", "https://a.example/"]), &["a.example"], true),
        (json!("a.example"), &["b", "http://a.example/"], true),
        (json!("A"), &["a"], false),
        (json!([]), &["a"], false),
        (json!("a"), &[], true),
    ];
    for (audience, allowed, is_allowed) in table {
        let payload = json!({"aud": audience}).to_string();
        let text = written(r#"{"alg":"RS256"}"#, &payload, "AA");
        let token = Token::parse(&text).expect("a token");
        let checked = token.claims().check_audience(allowed);
        assert_eq!(checked.is_ok(), is_allowed, "{audience} {allowed:?}");
    }
    assert_eq!(Status::AudienceNotAllowed.code(), 403);
}

#[test]
fn claims_become_header_values() {
    let payload = json!({
        "s": "text", "e": "", "t": true, "i": 7, "w": 7.0, "n": -7, "f": 1.5, "z": null,
        "l": ["a", 1], "o": {"a": {"b": "deep"}}, "o.a": "dotted", "big": 18_446_744_073_709_551_615_u64,
    });
    let text = written(r#"{"alg":"RS256"}"#, &payload.to_string(), "AA");
    let token = Token::parse(&text).expect("a token");
    let table = [
        ("s", Some("text")),
        ("e", None),
        ("t", Some("true")),
        ("i", Some("7")),
        ("w", Some("7")),
        ("n", Some("-7.000000")),
        ("f", Some("1.500000")),
        ("z", None),
        ("big", Some("18446744073709551615")),
        ("l", Some("WyJhIiwxXQ==")),
        ("o", Some("eyJhIjp7ImIiOiJkZWVwIn19")),
        ("o.a.b", Some("deep")),
        ("o.a", Some("dotted")),
        ("o.x", None),
        ("s.x", None),
        ("missing", None),
        ("", None),
    ];
    for (name, value) in table {
        assert_eq!(
            token.claims().header_value(name).as_deref(),
            value,
            "{name}"
        );
    }
}

#[test]
fn keys_are_chosen_by_name_and_algorithm() {
    let (one, two) = (Signer::p256(), Signer::p256());
    let keys = set(&[
        with(one.jwk(), &json!({"kid": "one"})),
        with(two.jwk(), &json!({"kid": "two", "alg": "ES256"})),
    ]);
    let token = |signer: &Signer, header: Value| signer.token(&header, &json!({}));
    let check = |text: &str| verify(&keys, text);
    assert_eq!(
        check(&token(&two, json!({"alg": "ES256", "kid": "two"}))),
        Ok(())
    );
    assert_eq!(check(&token(&two, json!({"alg": "ES256"}))), Ok(()));
    assert_eq!(
        check(&token(&two, json!({"alg": "ES256", "kid": ""}))),
        Ok(())
    );
    let misnamed = token(&two, json!({"alg": "ES256", "kid": "one"}));
    assert_eq!(check(&misnamed), Err(Status::Verification));
    let unknown = token(&two, json!({"alg": "ES256", "kid": "three"}));
    assert_eq!(check(&unknown), Err(Status::NoKey));
    assert!(keys.lacks_key_of(&Token::parse(&unknown).expect("a token")));
    assert!(!keys.lacks_key_of(&Token::parse(&misnamed).expect("a token")));
    let for_others = set(&[with(one.jwk(), &json!({"alg": "ES384"}))]);
    let status = verify(&for_others, &token(&one, json!({"alg": "ES256"})));
    assert_eq!(status, Err(Status::NoKey));
    let short = Signer::ed25519();
    let text = token(&short, json!({"alg": "EdDSA"}));
    let (message, _) = text.rsplit_once('.').expect("a message");
    let status = verify(&set(&[short.jwk()]), &format!("{message}.AAAA"));
    assert_eq!(status, Err(Status::SignatureLength));
}

#[test]
fn nothing_of_a_token_is_in_debug_texts() {
    let signer = Signer::Secret(b"hidden secret".to_vec());
    let text = signer.token(
        &json!({"alg": "HS256", "kid": "hidden"}),
        &json!({"sub": "hidden"}),
    );
    let token = Token::parse(&text).expect("a token");
    let shown = format!("{token:?} {:?} {:?}", token.claims(), set(&[signer.jwk()]));
    assert!(!shown.contains("hidden"), "{shown}");
    assert_eq!(token.algorithm(), Algorithm::Hs256);
    assert_eq!(token.key_id(), Some("hidden"));
}

proptest! {
    /// Any text is a token or none.
    #[test]
    fn any_text_is_done_with(text in ".{0,80}") {
        let _ = Token::parse(&text);
    }

    /// What has three parts of Base64url is read without harm, whatever is in them.
    #[test]
    fn any_parts_are_done_with(
        header in r#"\{("(alg|kid|crit|x)":("RS256"|1|null|\[\])?,?){0,3}\}"#,
        payload in prop::collection::vec(any::<u8>(), 0..60),
        signature in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        let keys = set(&[Signer::Secret(b"k".to_vec()).jwk()]);
        let text = format!("{}.{}.{}", base64url(header), base64url(payload), base64url(signature));
        prop_assert!(verify(&keys, &text).is_err());
    }

    /// A token of which one character is changed is not accepted, unless it is still the same bytes.
    #[test]
    fn a_changed_token_is_refused(place in 0_usize..200, to in "[A-Za-z0-9_.-]") {
        let signer = Signer::Secret(b"a secret of the issuer".to_vec());
        let keys = set(&[signer.jwk()]);
        let text = signer.token(&json!({"alg": "HS256"}), &json!({"sub": "ann", "aud": ["a", "b"]}));
        let place = place % text.len();
        let mut changed = text.clone();
        changed.replace_range(place..=place, &to);
        prop_assume!(changed != text);
        prop_assert!(verify(&keys, &changed).is_err());
    }
}
