//! What a listener does to requests before they are routed, where it does something.

use std::borrow::Cow;
use std::net::SocketAddr;

use kgw_h1::{Method, Request};

use crate::config::ir::{self, ClientCertificateFieldMode, StripHostPort};
use crate::filter::header_mutation::HeaderMutation;
use crate::tls::TlsInfo;

const FIELD: &[u8] = b"x-forwarded-client-cert";

/// What is done to requests before they are routed.
#[derive(Debug)]
pub(crate) struct Early {
    headers: HeaderMutation,
    health_check_path: Option<Box<[u8]>>,
    certificate: ir::ClientCertificateField,
    strip_host_port: StripHostPort,
    strip_trailing_host_dot: bool,
    pub(crate) proxy_100_continue: bool,
}

impl Early {
    /// Compiles what is done; none if it is nothing.
    pub(crate) fn compile(early: &ir::Early) -> Result<Option<Box<Self>>, String> {
        if *early == ir::Early::default() {
            return Ok(None);
        }
        let path = early.health_check_path.as_deref();
        if let Some(path) = path
            && !path.starts_with('/')
        {
            return Err(format!("{path:?} is not a path"));
        }
        Ok(Some(Box::new(Self {
            headers: HeaderMutation::compile(&early.headers)?,
            health_check_path: path.map(|path| path.as_bytes().into()),
            certificate: early.client_certificate.clone(),
            strip_host_port: early.strip_host_port,
            strip_trailing_host_dot: early.strip_trailing_host_dot,
            proxy_100_continue: early.proxy_100_continue,
        })))
    }

    /// What `x-forwarded-client-cert` is to be, which is to be found out before it is taken off.
    pub(crate) fn certificate_field(
        &self,
        request: &Request,
        tls: Option<&TlsInfo>,
    ) -> Option<Vec<u8>> {
        let mode = self.certificate.mode;
        let tls = tls.filter(|tls| tls.has_peer_certificate());
        let own = || {
            let values: Vec<&[u8]> = request.headers().get_all(FIELD).collect();
            (!values.is_empty()).then(|| values.join(&b","[..]))
        };
        match (mode, tls) {
            (ClientCertificateFieldMode::AlwaysForwardOnly, _)
            | (ClientCertificateFieldMode::ForwardOnly, Some(_)) => own(),
            (ClientCertificateFieldMode::SanitizeSet, Some(tls)) => Some(self.said(tls)),
            (ClientCertificateFieldMode::AppendForward, Some(tls)) => {
                let mut value = own().unwrap_or_default();
                if !value.is_empty() {
                    value.push(b',');
                }
                value.extend_from_slice(&self.said(tls));
                Some(value)
            }
            _ => None,
        }
    }

    /// What a certificate says, as Envoy writes it.
    fn said(&self, tls: &TlsInfo) -> Vec<u8> {
        let wanted = &self.certificate;
        let mut parts = Vec::new();
        if let Some(hash) = tls.peer_fingerprint_256() {
            parts.push(format!("Hash={hash}"));
        }
        if wanted.cert {
            let pem = tls.peer_certificate().unwrap_or_default();
            parts.push(format!("Cert=\"{pem}\""));
        }
        if wanted.chain {
            parts.push(format!("Chain=\"{}\"", tls.peer_chain_certificates()));
        }
        if wanted.subject {
            let subject = tls.peer_subject().unwrap_or_default();
            parts.push(format!("Subject={}", quoted(subject)));
        }
        if wanted.uri {
            let uri = tls.peer_first_uri().unwrap_or_default();
            parts.push(format!("URI={}", quoted_if_needed(uri)));
        }
        if wanted.dns {
            let names = tls.peer_dns_names().unwrap_or_default();
            let names = names.split(',').filter(|name| !name.is_empty());
            parts.extend(names.map(|name| format!("DNS={}", quoted_if_needed(name))));
        }
        parts.join(";").into_bytes()
    }

    /// Brings the host into the form that is matched and passed on.
    pub(crate) fn normalize_host(&self, request: &mut Request, local: SocketAddr) {
        if request.method_kind() == Method::Connect && !request.extended_connect() {
            return;
        }
        let host = request.authority();
        let (name, port) = split_port(host);
        let strips_port = port.is_some_and(|port| match self.strip_host_port {
            StripHostPort::Never => false,
            StripHostPort::Any => true,
            StripHostPort::Matching => port == local.port(),
        });
        let bare = match name.strip_suffix(b".") {
            Some(bare) if self.strip_trailing_host_dot && !bare.is_empty() => bare,
            _ => name,
        };
        if !strips_port && bare.len() == name.len() {
            return;
        }
        let mut changed = bare.to_vec();
        if !strips_port {
            changed.extend_from_slice(&host[name.len()..]);
        }
        request.set_authority(&changed);
    }

    /// Changes header fields.
    pub(crate) fn change(&self, request: &mut Request, certificate: Option<&[u8]>) {
        if let Some(value) = certificate {
            request.headers_mut().set(FIELD, value);
        }
        self.headers.apply(request.headers_mut());
    }

    /// Whether a request asks for the proxy's own health.
    pub(crate) fn is_health_check(&self, request: &Request) -> bool {
        let path = self.health_check_path.as_deref();
        path.is_some_and(|path| path == request.path())
    }
}

/// A host's name, and its port if it has one.
fn split_port(host: &[u8]) -> (&[u8], Option<u16>) {
    let Some(at) = memchr::memrchr(b':', host) else {
        return (host, None);
    };
    let port = std::str::from_utf8(&host[at + 1..]).ok();
    match port.and_then(|port| port.parse().ok()) {
        Some(port) => (&host[..at], Some(port)),
        // The last colon of an address in brackets.
        None => (host, None),
    }
}

/// A value of x-forwarded-client-cert in quotes, which are escaped in it.
fn quoted(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

/// A value in quotes if it has what separates values and elements: a client whose certificate names
/// `a;Subject="b"` has no other subject by it.
fn quoted_if_needed(value: &str) -> Cow<'_, str> {
    if value.contains([',', ';', '=', '"', '\\']) {
        Cow::Owned(quoted(value))
    } else {
        Cow::Borrowed(value)
    }
}

#[cfg(test)]
mod tests {
    use kgw_h1::Limits;

    use super::*;

    fn request(host: &str) -> Request {
        let mut request = Request::new();
        let bytes = format!("GET /health HTTP/1.1\r\nhost: {host}\r\n\r\n");
        let limits = Limits {
            max_head_bytes: 4096,
            max_fields: 100,
        };
        request.parse(bytes.as_bytes(), &limits).unwrap();
        request
    }

    fn normalized(host: &str, strip_host_port: StripHostPort, dot: bool) -> String {
        let early = ir::Early {
            strip_host_port,
            strip_trailing_host_dot: dot,
            health_check_path: Some("/health".to_owned()),
            ..ir::Early::default()
        };
        let early = Early::compile(&early).unwrap().unwrap();
        let mut request = request(host);
        early.normalize_host(&mut request, "127.0.0.1:8080".parse().unwrap());
        assert!(early.is_health_check(&request));
        String::from_utf8(request.authority().to_vec()).unwrap()
    }

    #[test]
    fn values_of_a_certificate_cannot_be_taken_for_others() {
        assert_eq!(
            quoted_if_needed("spiffe://a/ns/b/sa/c"),
            "spiffe://a/ns/b/sa/c"
        );
        assert_eq!(quoted_if_needed("a.example"), "a.example");
        assert_eq!(quoted_if_needed("spiffe://a/b,c"), r#""spiffe://a/b,c""#);
        assert_eq!(quoted_if_needed("a;Hash=0"), r#""a;Hash=0""#);
        assert_eq!(
            quoted_if_needed(r#"a";Subject="b\"#),
            r#""a\";Subject=\"b\\""#
        );
        assert_eq!(quoted("CN=b"), r#""CN=b""#);
    }

    #[test]
    fn ports_and_dots_are_taken_off() {
        for (host, mode, dot, expected) in [
            (
                "a.example:8080",
                StripHostPort::Matching,
                false,
                "a.example",
            ),
            (
                "a.example:80",
                StripHostPort::Matching,
                false,
                "a.example:80",
            ),
            ("a.example:80", StripHostPort::Any, false, "a.example"),
            ("a.example", StripHostPort::Any, true, "a.example"),
            ("a.example.", StripHostPort::Never, true, "a.example"),
            ("a.example.:80", StripHostPort::Never, true, "a.example:80"),
            ("a.example.:80", StripHostPort::Any, true, "a.example"),
            ("a.example.:80", StripHostPort::Any, false, "a.example."),
            ("[::1]:8080", StripHostPort::Matching, true, "[::1]"),
            ("[::1]", StripHostPort::Any, true, "[::1]"),
        ] {
            assert_eq!(normalized(host, mode, dot), expected, "{host} {mode:?}");
        }
    }

    #[test]
    fn nothing_to_do_is_nothing() {
        assert!(Early::compile(&ir::Early::default()).unwrap().is_none());
        let bad = ir::Early {
            health_check_path: Some("health".to_owned()),
            ..ir::Early::default()
        };
        assert!(Early::compile(&bad).is_err());
    }
}
