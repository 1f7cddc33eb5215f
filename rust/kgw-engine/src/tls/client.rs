//! The client's side: TLS towards endpoints.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use rustls::pki_types::{ServerName, SubjectPublicKeyInfoDer};
use rustls::sign::{CertifiedKey, Signer, SigningKey, SingleCertAndKey};
use rustls::{ClientConfig, SignatureAlgorithm, SignatureScheme};
use tokio_rustls::TlsConnector;

use super::certificates::certified_key;
use super::parameters::{Parameters, signature_schemes};
use super::server::{complete, prefixed};
use super::socket::TlsSocket;
use super::verify::ServerVerifier;
use super::{ConfigError, Interrupt, TlsError, TlsInfo};
use crate::config::ir::{ClientTls, Trust, UpstreamProtocol};
use crate::conn::io::Stream;

/// How TLS towards endpoints begins.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    /// A number that no other has had in this process: connections of different TLS must not be taken
    /// for each other.
    pub(crate) id: u64,
    config: Arc<ClientConfig>,
    server_name: ServerName<'static>,
    /// The server name as the configuration has it.
    sni: Option<Box<str>>,
    /// The server name is that of a host.
    by_host: bool,
    is_verifying: bool,
}

impl Client {
    pub(super) fn compile(
        tls: &ClientTls,
        protocol: UpstreamProtocol,
    ) -> Result<Self, ConfigError> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let server_name = match &tls.sni {
            // Stands for no name: it is neither sent nor compared, but sessions are kept by it.
            None => ServerName::try_from("unnamed.invalid"),
            Some(name) => ServerName::try_from(name.strip_suffix('.').unwrap_or(name)),
        }
        .map_err(|_| ConfigError::new(format!("{:?} is not a server name", tls.sni)))?
        .to_owned();
        let parameters = Parameters::compile(&tls.parameters)?;
        let verifier = Arc::new(ServerVerifier::compile(tls)?);
        let builder = ClientConfig::builder_with_provider(parameters.provider)
            .with_protocol_versions(&parameters.versions)
            .map_err(|error| ConfigError::new(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match &tls.certificate {
            None => builder.with_no_client_auth(),
            Some(certificate) => {
                let mut key = certified_key(certificate)?;
                if !tls.signature_algorithms.is_empty() {
                    let schemes = signature_schemes(&tls.signature_algorithms)?;
                    key = limited(&key, schemes);
                }
                let key = SingleCertAndKey::from(key);
                builder.with_client_cert_resolver(Arc::new(key))
            }
        };
        config.enable_sni = tls.sni.is_some() || tls.by_host;
        config.alpn_protocols = match (&tls.alpn, protocol) {
            (Some(protocols), _) => protocols
                .iter()
                .map(|name| name.clone().into_bytes())
                .collect(),
            // As in Envoy: HTTP/1.1 is what is spoken where nothing was agreed on.
            (None, UpstreamProtocol::Http1) => Vec::new(),
            (None, UpstreamProtocol::Http2) => vec![b"h2".to_vec()],
            (None, UpstreamProtocol::Auto) => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        };
        Ok(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            config: Arc::new(config),
            server_name,
            sni: tls.sni.as_deref().map(Box::from),
            by_host: tls.by_host && tls.sni.is_none(),
            is_verifying: tls.trust != Trust::Insecure,
        })
    }

    /// The same towards a host, whose name it asks for and expects if no other was configured. None is a name
    /// that no certificate can have.
    pub(crate) fn of_host(self: &Arc<Self>, name: &str) -> Option<Arc<Self>> {
        if !self.by_host {
            return Some(Arc::clone(self));
        }
        let server_name = ServerName::try_from(name).ok()?.to_owned();
        Some(Arc::new(Self {
            server_name,
            sni: Some(name.into()),
            ..Self::clone(self)
        }))
    }
}

/// A key that signs with some algorithms only.
#[derive(Debug)]
struct LimitedKey {
    key: Arc<dyn SigningKey>,
    schemes: Vec<SignatureScheme>,
}

impl SigningKey for LimitedKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let both = self.schemes.iter().filter(|one| offered.contains(one));
        let both: Vec<_> = both.copied().collect();
        self.key.choose_scheme(&both)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        self.key.public_key()
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.key.algorithm()
    }
}

fn limited(certified: &CertifiedKey, schemes: Vec<SignatureScheme>) -> Arc<CertifiedKey> {
    let key = Arc::clone(&certified.key);
    let key = Arc::new(LimitedKey { key, schemes });
    Arc::new(CertifiedKey::new(certified.cert.clone(), key))
}

/// Begins TLS on a stream to an endpoint; what is in its output, a PROXY header say, is sent in front
/// of it. What is returned carries what is inside.
///
/// `interrupt` is asked whenever the handshake has to wait. Dropping the future drops the connection.
pub(crate) async fn connect(
    mut stream: Stream,
    client: &Client,
    interrupt: &mut impl FnMut(&mut Context<'_>) -> Poll<Interrupt>,
) -> Result<(Stream, TlsInfo), TlsError> {
    complete(poll_fn(|cx| stream.poll_flush(cx)), interrupt).await?;
    let socket = prefixed(stream)?;
    let connector = TlsConnector::from(Arc::clone(&client.config));
    let handshake = connector.connect(client.server_name.clone(), socket);
    let socket = complete(handshake, interrupt).await?;
    let session = socket.get_ref().1;
    let info = TlsInfo::new(session, client.sni.as_deref(), client.is_verifying);
    Ok((Stream::over_tls(TlsSocket::client(socket)), info))
}
