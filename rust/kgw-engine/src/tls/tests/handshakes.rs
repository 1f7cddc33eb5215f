//! Versions, suites, protocols, and the choice among a server's certificates.

use super::authority::{Authority, rsa_key};
use super::*;
use crate::config::ir::TlsVersion;

fn only(version: TlsVersion) -> TlsParameters {
    TlsParameters {
        min_version: Some(version),
        max_version: Some(version),
        cipher_suites: Vec::new(),
        curves: Vec::new(),
    }
}

#[test]
fn the_certificate_is_chosen_by_server_name() {
    run(async {
        let ca = Authority::new("ca");
        let mut tls = server_tls(&ca, &["first.example"]);
        tls.certificates.push(ca.server(&["*.wild.example"]));
        tls.certificates.push(ca.server(&["a.wild.example"]));
        let server = server(&tls);
        for (name, subject) in [
            ("first.example", "CN=first.example"),
            // Names the certificate itself, which counts more than the earlier wildcard.
            ("a.wild.example", "CN=a.wild.example"),
            ("b.wild.example", "CN=*.wild.example"),
            ("B.Wild.Example", "CN=*.wild.example"),
            // Nobody's name: the first.
            ("a.b.wild.example", "CN=first.example"),
        ] {
            let mut tls = client_tls(&ca, name);
            tls.trust = Trust::Insecure;
            let (at_server, at_client) = session(&server, &client(&tls)).await;
            let shown = at_client.peer_subject().unwrap();
            assert_eq!(shown, format!("{subject},O=kgw\\, tests"), "for {name}");
            assert!(at_server.server_name().unwrap().eq_ignore_ascii_case(name));
            assert!(!at_client.is_peer_verified());
        }
    });
}

#[test]
fn a_pair_of_keys_serves_clients_of_either_kind() {
    run(async {
        let ca = Authority::new("ca");
        let mut tls = server_tls(&ca, &["pair.example"]);
        tls.certificates
            .push(ca.server_with(&["pair.example"], rsa_key()));
        let server = server(&tls);
        for (suite, key) in [
            ("ECDHE-RSA-AES128-GCM-SHA256", "RSA"),
            ("ECDHE-ECDSA-AES256-GCM-SHA384", "ECDSA"),
        ] {
            let mut tls = client_tls(&ca, "pair.example");
            tls.parameters = only(TlsVersion::V12);
            tls.parameters.cipher_suites = vec![suite.to_owned()];
            let (at_server, at_client) = session(&server, &client(&tls)).await;
            assert_eq!(at_server.cipher(), suite, "{key}");
            assert_eq!(at_server.version(), "TLSv1.2");
            assert!(at_client.is_peer_verified());
        }
    });
}

#[test]
fn versions_meet_or_the_handshake_fails() {
    run(async {
        let ca = Authority::new("ca");
        let mut old = server_tls(&ca, &["a.example"]);
        old.parameters = only(TlsVersion::V12);
        let mut new = server_tls(&ca, &["a.example"]);
        new.parameters = only(TlsVersion::V13);
        let any = client(&client_tls(&ca, "a.example"));
        assert_eq!(session(&server(&old), &any).await.0.version(), "TLSv1.2");
        let (at_server, at_client) = session(&server(&new), &any).await;
        assert_eq!(at_server.version(), "TLSv1.3");
        assert_eq!(at_client.cipher(), "TLS_AES_256_GCM_SHA384");
        assert_eq!(at_client.group(), Some("X25519"));
        let mut behind = client_tls(&ca, "a.example");
        behind.parameters = only(TlsVersion::V12);
        let (refused, seen) = refusal(&server(&new), &client(&behind)).await;
        assert!(matches!(refused, TlsError::Handshake(_)), "{refused:?}");
        let reason = seen.unwrap().reason();
        assert!(
            reason.starts_with("TLS_error:|received_fatal_alert"),
            "{reason}"
        );
    });
}

#[test]
fn suites_are_chosen_in_the_order_of_the_servers_list() {
    run(async {
        let ca = Authority::new("ca");
        let mut tls = server_tls(&ca, &["a.example"]);
        tls.parameters = only(TlsVersion::V12);
        tls.parameters.cipher_suites = vec![
            "ECDHE-ECDSA-CHACHA20-POLY1305".to_owned(),
            "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256".to_owned(),
        ];
        let server = server(&tls);
        let any = client(&client_tls(&ca, "a.example"));
        let (info, _) = session(&server, &any).await;
        assert_eq!(info.cipher(), "ECDHE-ECDSA-CHACHA20-POLY1305");
        let mut other = client_tls(&ca, "a.example");
        other.parameters.max_version = Some(TlsVersion::V12);
        other.parameters.cipher_suites = vec!["ECDHE-ECDSA-AES256-GCM-SHA384".to_owned()];
        let (refused, _) = refusal(&server, &client(&other)).await;
        assert!(matches!(refused, TlsError::Handshake(_)), "{refused:?}");
    });
}

#[test]
fn protocols_are_agreed_on_in_the_servers_order() {
    run(async {
        let ca = Authority::new("ca");
        let tls = server_tls(&ca, &["a.example"]);
        let http = server(&tls);
        let offering = |protocols: &[&str]| {
            let mut tls = client_tls(&ca, "a.example");
            tls.alpn = Some(protocols.iter().map(|&name| name.to_owned()).collect());
            client(&tls)
        };
        let (at_server, at_client) = session(&http, &offering(&["http/1.1", "h2"])).await;
        assert_eq!(at_server.alpn(), Some(&b"h2"[..]));
        assert_eq!(at_client.alpn(), Some(&b"h2"[..]));
        let (info, _) = session(&http, &offering(&["http/1.1"])).await;
        assert_eq!(info.alpn(), Some(&b"http/1.1"[..]));
        assert_eq!(session(&http, &offering(&[])).await.0.alpn(), None);
        let (refused, _) = refusal(&http, &offering(&["acme-tls/1"])).await;
        assert!(matches!(refused, TlsError::Handshake(_)), "{refused:?}");
        let bytes = Interned::default().server(&tls, Inside::Bytes).unwrap();
        assert_eq!(
            session(&bytes, &offering(&["acme-tls/1"])).await.0.alpn(),
            None
        );
        let by_protocol = |protocol| {
            let tls = client_tls(&ca, "a.example");
            Interned::default().client(&tls, protocol).unwrap()
        };
        for (protocol, agreed) in [
            (UpstreamProtocol::Http1, None),
            (UpstreamProtocol::Http2, Some(&b"h2"[..])),
            (UpstreamProtocol::Auto, Some(&b"h2"[..])),
        ] {
            assert_eq!(
                session(&http, &by_protocol(protocol)).await.0.alpn(),
                agreed
            );
        }
    });
}

#[test]
fn a_session_continues_until_the_configuration_changes() {
    run(async {
        let ca = Authority::new("ca");
        let tls = server_tls(&ca, &["a.example"]);
        let mut interned = Interned::default();
        let first = interned.server(&tls, HTTP).unwrap();
        let client = client(&client_tls(&ca, "a.example"));
        assert!(!session(&first, &client).await.0.is_resumed());
        let again = interned.server(&tls, HTTP).unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        assert!(session(&again, &client).await.0.is_resumed());
        let mut changed = tls.clone();
        changed.alpn = Some(vec!["http/1.1".to_owned()]);
        let changed = interned.server(&changed, HTTP).unwrap();
        assert!(!session(&changed, &client).await.0.is_resumed());
    });
}

#[test]
fn what_is_out_of_use_is_forgotten() {
    let ca = Authority::new("ca");
    let tls = client_tls(&ca, "a.example");
    let mut interned = Interned::default();
    let first = interned.client(&tls, UpstreamProtocol::Http1).unwrap();
    let other = interned.client(&tls, UpstreamProtocol::Http2).unwrap();
    assert_ne!(first.id, other.id);
    interned.forget_unused();
    let again = interned.client(&tls, UpstreamProtocol::Http1).unwrap();
    assert_eq!(first.id, again.id);
    let id = first.id;
    drop((first, again));
    interned.forget_unused();
    let later = interned.client(&tls, UpstreamProtocol::Http1).unwrap();
    assert_ne!(later.id, id);
}

#[test]
fn what_cannot_be_used_is_refused_without_a_word_about_keys() {
    let ca = Authority::new("ca");
    let good = ca.server(&["a.example"]);
    let other = ca.server(&["b.example"]);
    let refused = |certificate: crate::config::ir::Certificate| {
        let mut tls = server_tls(&ca, &["a.example"]);
        let key = certificate.key.clone();
        tls.certificates = vec![certificate];
        assert!(!format!("{tls:?}").contains("PRIVATE"));
        let error = Interned::default().server(&tls, HTTP).unwrap_err();
        let text = format!("{error} {error:?}");
        for line in key.lines().filter(|line| !line.is_empty()) {
            assert!(!text.contains(line), "{text}");
        }
        error.to_string()
    };
    let with = |chain: &str, key: &str| crate::config::ir::Certificate {
        chain: chain.to_owned(),
        key: key.to_owned(),
    };
    assert!(refused(with(&good.chain, &other.key)).contains("not that of the certificate"));
    assert!(refused(with(&good.chain, "c2VjcmV0IGtleQ")).contains("not in PEM"));
    let torn = good.key.replace("\nMIG", "\nAAA");
    assert!(refused(with(&good.chain, &torn)).contains("key"));
    assert!(refused(with("", &good.key)).contains("no certificate"));
    assert!(refused(with("-----BEGIN CERTIFICATE-----\n", &good.key)).contains("PEM"));
    let mut none = server_tls(&ca, &["a.example"]);
    none.certificates.clear();
    assert!(Interned::default().server(&none, HTTP).is_err());
    let compiled = server(&server_tls(&ca, &["a.example"]));
    let text = format!("{compiled:?}");
    assert!(
        !text.contains("PRIVATE") && !text.contains(&good.key),
        "{text}"
    );
}

#[test]
fn curves_and_algorithms_of_signatures_are_those_that_are_named() {
    run(async {
        let ca = Authority::new("ca");
        let server = server(&server_tls(&ca, &["a.example"]));
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let mut tls = client_tls(&ca, "a.example");
        tls.parameters.curves = owned(&["P-384", "X25519"]);
        tls.signature_algorithms = owned(&["ed25519", "ecdsa_secp256r1_sha256"]);
        let (_, at_client) = session(&server, &client(&tls)).await;
        assert_eq!(at_client.group(), Some("P-384"));
        // The server's key is of the curve P-256, so it has nothing else to sign with.
        tls.signature_algorithms = owned(&["rsa_pss_rsae_sha256"]);
        let (refused, _) = refusal(&server, &client(&tls)).await;
        assert!(matches!(refused, TlsError::Handshake(_)), "{refused:?}");
    });
}

#[test]
fn what_is_no_curve_and_no_algorithm_is_an_error() {
    let ca = Authority::new("ca");
    let mut interned = Interned::default();
    let mut tls = client_tls(&ca, "a.example");
    tls.parameters.curves = vec!["P-521".to_owned()];
    assert!(interned.client(&tls, UpstreamProtocol::Http1).is_err());
    tls.parameters.curves = Vec::new();
    tls.signature_algorithms = vec!["md5".to_owned()];
    assert!(interned.client(&tls, UpstreamProtocol::Http1).is_err());
}
