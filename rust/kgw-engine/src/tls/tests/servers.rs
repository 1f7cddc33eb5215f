//! Servers' certificates, as a client checks them.

use rcgen::{ExtendedKeyUsagePurpose, KeyPair, SanType};

use super::authority::{Authority, Wish, dns, self_signed, uri};
use super::*;
use crate::config::ir::{Certificate, SubjectAltName};

fn serving(certificate: Certificate) -> Arc<Server> {
    server(&ServerTls {
        certificates: vec![certificate],
        parameters: TlsParameters::default(),
        alpn: None,
        client_validation: None,
    })
}

fn certificate(ca: &Authority, names: Vec<SanType>) -> Certificate {
    ca.issue(Wish {
        common_name: "server",
        names,
        usage: ExtendedKeyUsagePurpose::ServerAuth,
        key: KeyPair::generate().unwrap(),
        expired: false,
    })
}

/// What the client says about a server that it must not trust.
async fn distrust(server: &Server, client: &Client) -> String {
    let (accepted, connected) = handshake(server, client).await;
    assert!(accepted.is_err());
    connected.map(|_| ()).unwrap_err().reason()
}

#[test]
fn the_server_name_must_be_the_certificates() {
    run(async {
        let ca = Authority::new("ca");
        let server = serving(certificate(
            &ca,
            vec![
                dns("a.example"),
                dns("*.wild.example"),
                SanType::IpAddress("127.0.0.9".parse().unwrap()),
            ],
        ));
        for name in ["a.example", "A.Example.", "b.wild.example", "127.0.0.9"] {
            let (at_server, at_client) = session(&server, &client(&client_tls(&ca, name))).await;
            assert!(at_client.is_peer_verified());
            assert_eq!(at_server.server_name().is_some(), name != "127.0.0.9");
        }
        for name in ["b.example", "wild.example", "a.b.wild.example", "127.0.0.8"] {
            let reason = distrust(&server, &client(&client_tls(&ca, name))).await;
            assert!(
                reason.starts_with(
                    "TLS_error:|invalid_peer_certificate:_certificate_not_valid_for_name"
                ),
                "{reason}"
            );
            assert!(!reason.contains(char::is_whitespace));
        }
    });
}

#[test]
fn expected_names_replace_the_server_name() {
    run(async {
        let ca = Authority::new("ca");
        let names = vec![dns("*.other.example"), uri("spiffe://a/b")];
        let server = serving(certificate(&ca, names));
        let expecting = |sni: Option<&str>, names: &[SubjectAltName]| {
            let mut tls = client_tls(&ca, "a.example");
            tls.sni = sni.map(str::to_owned);
            tls.subject_alt_names = names.to_vec();
            client(&tls)
        };
        let other = SubjectAltName::Dns("x.other.example".to_owned());
        let id = SubjectAltName::Uri("spiffe://a/b".to_owned());
        let wrong = SubjectAltName::Uri("spiffe://a/c".to_owned());
        for good in [vec![other], vec![id.clone()], vec![wrong.clone(), id]] {
            let (info, _) = session(&server, &expecting(Some("a.example"), &good)).await;
            assert_eq!(info.server_name(), Some("a.example"));
            let (info, _) = session(&server, &expecting(None, &good)).await;
            assert_eq!(info.server_name(), None);
        }
        for sni in ["a.example", "x.other.example"] {
            let reason =
                distrust(&server, &expecting(Some(sni), std::slice::from_ref(&wrong))).await;
            assert!(reason.contains("NotValidForName"), "{reason}");
        }
        let mut nothing = client_tls(&ca, "a.example");
        nothing.sni = None;
        let refused = Interned::default().client(&nothing, UpstreamProtocol::Http1);
        assert!(
            refused
                .unwrap_err()
                .to_string()
                .contains("neither a server name")
        );
    });
}

#[test]
fn only_a_server_of_the_authority_is_trusted() {
    run(async {
        let (ca, other) = (Authority::new("ca"), Authority::new("other"));
        let good = serving(certificate(&other, vec![dns("a.example")]));
        let reason = distrust(&good, &client(&client_tls(&ca, "a.example"))).await;
        assert_eq!(reason, "TLS_error:|invalid_peer_certificate:_UnknownIssuer");
        let mut both = client_tls(&ca, "a.example");
        both.trust = Trust::Ca(ca.pem() + &other.pem());
        session(&good, &client(&both)).await;
        let expired = serving(ca.issue(Wish {
            common_name: "late",
            names: vec![dns("a.example")],
            usage: ExtendedKeyUsagePurpose::ServerAuth,
            key: KeyPair::generate().unwrap(),
            expired: true,
        }));
        let reason = distrust(&expired, &client(&client_tls(&ca, "a.example"))).await;
        assert!(reason.contains("certificate_expired"), "{reason}");
        for bad in [&good, &expired] {
            let mut careless = client_tls(&ca, "elsewhere.example");
            careless.trust = Trust::Insecure;
            let (_, info) = session(bad, &client(&careless)).await;
            assert!(!info.is_peer_verified());
        }
    });
}

#[test]
fn a_self_signed_server_in_the_bundle_is_trusted() {
    run(async {
        let own = self_signed("self.example");
        let mut tls = client_tls(&Authority::new("ca"), "self.example");
        let untrusting = client(&tls);
        tls.trust = Trust::Ca(own.chain.clone());
        let trusting = client(&tls);
        tls.sni = Some("else.example".to_owned());
        let elsewhere = client(&tls);
        let server = serving(own);
        session(&server, &trusting).await;
        let reason = distrust(&server, &untrusting).await;
        assert!(reason.contains("invalid_peer_certificate"), "{reason}");
        let reason = distrust(&server, &elsewhere).await;
        assert!(reason.contains("not_valid_for_name"), "{reason}");
    });
}

#[test]
fn a_bundle_without_a_certificate_is_refused() {
    let ca = Authority::new("ca");
    for bundle in [
        "",
        "not PEM",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        let mut tls = client_tls(&ca, "a.example");
        tls.trust = Trust::Ca(bundle.to_owned());
        let refused = Interned::default().client(&tls, UpstreamProtocol::Http1);
        assert!(refused.is_err(), "{bundle:?}");
    }
}
