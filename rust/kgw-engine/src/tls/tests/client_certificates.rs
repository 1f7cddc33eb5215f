//! Clients' certificates in all three modes.

use rcgen::{ExtendedKeyUsagePurpose, KeyPair};

use super::authority::{Authority, Wish, dns, self_signed, uri};
use super::*;
use crate::config::ir::{
    Certificate, ClientCertificateMode, ClientValidation, SubjectAltName, TlsVersion,
};

const MODES: [ClientCertificateMode; 3] = [
    ClientCertificateMode::Require,
    ClientCertificateMode::Optional,
    ClientCertificateMode::InsecureFallback,
];

struct Clients {
    ca: Authority,
    others: Authority,
}

impl Clients {
    fn new() -> Self {
        Self {
            ca: Authority::new("clients"),
            others: Authority::new("others"),
        }
    }

    fn server(&self, mode: ClientCertificateMode, names: &[SubjectAltName]) -> Arc<Server> {
        let mut tls = server_tls(&self.ca, &["a.example"]);
        tls.client_validation = Some(ClientValidation {
            // A bundle of several: each of them counts.
            ca: Authority::new("unused").pem() + &self.ca.pem(),
            mode,
            subject_alt_names: names.to_vec(),
        });
        server(&tls)
    }

    fn client(&self, certificate: Option<Certificate>) -> Arc<Client> {
        let mut tls = client_tls(&self.ca, "a.example");
        tls.certificate = certificate;
        client(&tls)
    }
}

#[test]
fn a_good_certificate_is_taken_and_told_about() {
    run(async {
        let clients = Clients::new();
        let names = || {
            vec![
                uri("spiffe://cluster.local/ns/a/sa/b"),
                dns("client.example"),
            ]
        };
        for mode in MODES {
            let client = clients.client(Some(clients.ca.client(names())));
            let (info, _) = session(&clients.server(mode, &[]), &client).await;
            assert!(info.is_peer_verified(), "{mode:?}");
            assert_eq!(info.peer_subject(), Some("CN=client,O=kgw\\, tests"));
            assert_eq!(info.peer_issuer(), Some("CN=clients"));
            assert_eq!(info.peer_uris(), Some("spiffe://cluster.local/ns/a/sa/b"));
            assert_eq!(info.peer_dns_names(), Some("client.example"));
            assert_eq!(info.peer_emails(), None);
            assert_eq!(
                info.peer_validity().map(|(first, _)| first),
                Some(946_684_800)
            );
            assert_eq!(info.peer_fingerprint_256().map(str::len), Some(64));
            assert_eq!(info.peer_fingerprint_1().map(str::len), Some(40));
            assert_eq!(info.peer_chain_fingerprints_1(), info.peer_fingerprint_1());
            let pem = info.peer_certificate().unwrap();
            assert!(
                pem.starts_with("-----BEGIN%20CERTIFICATE-----%0AMII"),
                "{pem}"
            );
        }
    });
}

#[test]
fn no_certificate_is_refused_only_where_one_is_required() {
    run(async {
        let clients = Clients::new();
        for mode in MODES {
            let server = clients.server(mode, &[]);
            let client = clients.client(None);
            if mode == ClientCertificateMode::Require {
                let (refused, seen) = refusal(&server, &client).await;
                assert!(matches!(refused, TlsError::Handshake(_)), "{refused:?}");
                let reason = seen.map(|error| error.reason());
                assert_eq!(
                    reason.as_deref(),
                    Some("TLS_error:|received_fatal_alert:_CertificateRequired")
                );
            } else {
                let (info, _) = session(&server, &client).await;
                assert!(!info.is_peer_verified());
                assert_eq!(info.peer_subject(), None);
            }
        }
    });
}

#[test]
fn a_bad_certificate_is_as_none_only_in_the_fallback() {
    run(async {
        let clients = Clients::new();
        let expired = clients.ca.issue(Wish {
            common_name: "late",
            names: Vec::new(),
            usage: ExtendedKeyUsagePurpose::ClientAuth,
            key: KeyPair::generate().unwrap(),
            expired: true,
        });
        let of_a_server = clients.ca.server(&["server.example"]);
        let unknown = clients.others.client(Vec::new());
        for bad in [unknown, expired, of_a_server, self_signed("self.example")] {
            for mode in MODES {
                let server = clients.server(mode, &[]);
                let client = clients.client(Some(bad.clone()));
                if mode == ClientCertificateMode::InsecureFallback {
                    let (info, _) = session(&server, &client).await;
                    assert!(!info.is_peer_verified());
                    assert!(info.peer_fingerprint_256().is_some());
                } else {
                    let (refused, _) = refusal(&server, &client).await;
                    let reason = refused.reason();
                    assert!(
                        reason.starts_with("TLS_error:|invalid_peer_certificate"),
                        "{reason}"
                    );
                }
            }
        }
    });
}

#[test]
fn only_a_certificate_with_an_expected_name_is_good() {
    run(async {
        let clients = Clients::new();
        let wanted = [
            SubjectAltName::Uri("spiffe://cluster.local/ns/a/sa/b".to_owned()),
            SubjectAltName::Dns("client.example".to_owned()),
        ];
        let with = |name| clients.client(Some(clients.ca.client(vec![name])));
        for mode in MODES {
            let server = clients.server(mode, &wanted);
            for good in [
                uri("spiffe://cluster.local/ns/a/sa/b"),
                dns("client.example"),
                dns("*.example"),
            ] {
                assert!(session(&server, &with(good)).await.0.is_peer_verified());
            }
            for bad in [
                uri("spiffe://cluster.local/ns/a/sa/bb"),
                uri("client.example"),
                dns("client.example.org"),
            ] {
                if mode == ClientCertificateMode::InsecureFallback {
                    assert!(!session(&server, &with(bad)).await.0.is_peer_verified());
                } else {
                    let (refused, _) = refusal(&server, &with(bad)).await;
                    let reason = refused.reason();
                    assert!(reason.contains("NotValidForName"), "{reason}");
                }
            }
        }
    });
}

#[test]
fn a_certificate_in_the_bundle_is_trusted_itself() {
    run(async {
        let own = self_signed("self.example");
        let ca = Authority::new("ca");
        let mut tls = server_tls(&ca, &["a.example"]);
        tls.client_validation = Some(ClientValidation {
            ca: own.chain.clone(),
            mode: ClientCertificateMode::Require,
            subject_alt_names: vec![SubjectAltName::Dns("self.example".to_owned())],
        });
        let mut with = client_tls(&ca, "a.example");
        with.certificate = Some(own);
        let (info, _) = session(&server(&tls), &client(&with)).await;
        assert!(info.is_peer_verified());
    });
}

#[test]
fn certificates_of_clients_are_checked_anew_on_each_connection() {
    run(async {
        let clients = Clients::new();
        for version in [TlsVersion::V12, TlsVersion::V13] {
            let mut tls = client_tls(&clients.ca, "a.example");
            tls.certificate = Some(clients.ca.client(Vec::new()));
            tls.parameters.min_version = Some(version);
            tls.parameters.max_version = Some(version);
            let client = client(&tls);
            let server = clients.server(ClientCertificateMode::Require, &[]);
            for _ in 0..2 {
                let (info, _) = session(&server, &client).await;
                assert!(!info.is_resumed());
            }
        }
    });
}
