//! Certificates made for a test.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType, date_time_ymd,
};

use crate::config::ir::Certificate;

/// A key that *ring* cannot make itself. It protects nothing.
const RSA_KEY: &str = include_str!("rsa.pem");

/// A certificate authority.
pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// What to put into a certificate.
pub(super) struct Wish<'a> {
    pub(super) common_name: &'a str,
    pub(super) names: Vec<SanType>,
    pub(super) usage: ExtendedKeyUsagePurpose,
    pub(super) key: KeyPair,
    pub(super) expired: bool,
}

impl Authority {
    pub(super) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    pub(super) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(super) fn issue(&self, wish: Wish<'_>) -> Certificate {
        let mut params = CertificateParams::default();
        let name = &mut params.distinguished_name;
        *name = DistinguishedName::new();
        name.push(DnType::OrganizationName, "kgw, tests");
        name.push(DnType::CommonName, wish.common_name);
        params.subject_alt_names = wish.names;
        params.extended_key_usages = vec![wish.usage];
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(if wish.expired { 2001 } else { 4000 }, 1, 1);
        let certificate = params.signed_by(&wish.key, &self.0).unwrap();
        Certificate {
            chain: certificate.pem(),
            key: wish.key.serialize_pem(),
        }
    }

    /// A server's certificate.
    pub(super) fn server(&self, names: &[&str]) -> Certificate {
        self.server_with(names, KeyPair::generate().unwrap())
    }

    pub(super) fn server_with(&self, names: &[&str], key: KeyPair) -> Certificate {
        self.issue(Wish {
            common_name: names.first().unwrap_or(&"unnamed"),
            names: names.iter().map(|name| dns(name)).collect(),
            usage: ExtendedKeyUsagePurpose::ServerAuth,
            key,
            expired: false,
        })
    }

    /// A client's certificate.
    pub(super) fn client(&self, names: Vec<SanType>) -> Certificate {
        self.issue(Wish {
            common_name: "client",
            names,
            usage: ExtendedKeyUsagePurpose::ClientAuth,
            key: KeyPair::generate().unwrap(),
            expired: false,
        })
    }
}

pub(super) fn rsa_key() -> KeyPair {
    KeyPair::from_pem(RSA_KEY).unwrap()
}

/// A certificate signed with its own key, which calls itself an authority as `openssl req -x509`
/// makes them.
pub(super) fn self_signed(name: &str) -> Certificate {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![dns(name)];
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    Certificate {
        chain: params.self_signed(&key).unwrap().pem(),
        key: key.serialize_pem(),
    }
}

pub(super) fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

pub(super) fn uri(uri: &str) -> SanType {
    SanType::URI(uri.try_into().unwrap())
}
