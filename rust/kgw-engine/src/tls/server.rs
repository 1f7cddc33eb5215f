//! The server's side: ending the TLS of clients.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::ServerConfig;
use rustls::pki_types::UnixTime;
use rustls::server::{NoServerSessionStorage, ServerConnection};
use serde::Serialize;
use tokio_rustls::TlsAcceptor;

use super::certificates::Certificates;
use super::parameters::Parameters;
use super::socket::{Prefixed, TlsSocket};
use super::verify::ClientVerifier;
use super::{ConfigError, Interrupt, TlsError, TlsInfo};
use crate::config::ir::{Codec, ServerTls};
use crate::conn::io::Stream;

/// What a TLS connection carries.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub(crate) enum Inside {
    /// Messages that say themselves where they end, of some versions of HTTP.
    Http(Codec),
    /// Who knows: the end of the connection may be the end of a message.
    Bytes,
}

/// How the TLS of clients ends.
#[derive(Debug)]
pub(crate) struct Server {
    config: Arc<ServerConfig>,
    /// None asks for no certificate.
    verifier: Option<Arc<ClientVerifier>>,
    inside: Inside,
}

impl Server {
    pub(super) fn compile(tls: &ServerTls, inside: Inside) -> Result<Self, ConfigError> {
        let parameters = Parameters::compile(&tls.parameters)?;
        let verifier = match &tls.client_validation {
            Some(validation) => Some(Arc::new(ClientVerifier::compile(validation)?)),
            None => None,
        };
        let certificates = Arc::new(Certificates::compile(&tls.certificates)?);
        let builder = ServerConfig::builder_with_provider(parameters.provider)
            .with_protocol_versions(&parameters.versions)
            .map_err(|error| ConfigError::new(error.to_string()))?;
        let builder = match &verifier {
            None => builder.with_no_client_auth(),
            Some(verifier) => builder.with_client_cert_verifier(Arc::clone(verifier) as Arc<_>),
        };
        let mut config = builder.with_cert_resolver(certificates);
        config.alpn_protocols = match (&tls.alpn, inside) {
            (Some(protocols), _) => protocols
                .iter()
                .map(|name| name.clone().into_bytes())
                .collect(),
            (None, Inside::Http(Codec::Auto)) => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            (None, Inside::Http(Codec::Http2)) => vec![b"h2".to_vec()],
            (None, Inside::Http(Codec::Http1)) => vec![b"http/1.1".to_vec()],
            (None, Inside::Bytes) => Vec::new(),
        };
        // A list of suites is in the order of preference, as BoringSSL's is.
        config.ignore_client_order = !tls.parameters.cipher_suites.is_empty();
        // Sessions are kept by the clients, in tickets under this configuration's own keys: all
        // workers know them, and a changed configuration knows none. A session that continues would
        // keep a client's certificate past its end, so where there are certificates none does.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        if verifier.is_none() {
            config.ticketer = rustls::crypto::ring::Ticketer::new()
                .map_err(|error| ConfigError::new(error.to_string()))?;
        } else {
            config.send_tls13_tickets = 0;
        }
        Ok(Self {
            config: Arc::new(config),
            verifier,
            inside,
        })
    }

    /// Whether the client showed a certificate that is good.
    fn has_verified(&self, session: &ServerConnection) -> bool {
        let chain = session.peer_certificates().and_then(<[_]>::split_first);
        match (&self.verifier, chain) {
            (Some(verifier), Some((leaf, intermediates))) => verifier
                .verify(leaf, intermediates, UnixTime::now())
                .is_ok(),
            _ => false,
        }
    }
}

/// Ends the TLS on a client's stream, whose hello may have been read or not. What is returned carries
/// what is inside. A client that is refused is told so by an alert.
///
/// `interrupt` is asked whenever the handshake has to wait. Dropping the future drops the connection.
pub(crate) async fn accept(
    stream: Stream,
    server: &Server,
    interrupt: &mut impl FnMut(&mut Context<'_>) -> Poll<Interrupt>,
) -> Result<(Stream, TlsInfo), TlsError> {
    let socket = prefixed(stream)?;
    let handshake = TlsAcceptor::from(Arc::clone(&server.config)).accept(socket);
    let socket = complete(handshake, interrupt).await?;
    let session = socket.get_ref().1;
    let info = TlsInfo::new(session, session.server_name(), server.has_verified(session));
    let socket = TlsSocket::server(socket, server.inside != Inside::Bytes);
    Ok((Stream::over_tls(socket), info))
}

/// The socket of a stream, and what was received already.
pub(super) fn prefixed(stream: Stream) -> Result<Prefixed, TlsError> {
    let (socket, received) = stream
        .into_tcp()
        .ok_or_else(|| TlsError::Closed(io::Error::other("TLS inside of TLS")))?;
    Ok(Prefixed::new(socket, received))
}

/// Completes a handshake unless something interrupts it.
pub(super) async fn complete<T>(
    handshake: impl Future<Output = io::Result<T>>,
    interrupt: &mut impl FnMut(&mut Context<'_>) -> Poll<Interrupt>,
) -> Result<T, TlsError> {
    let mut handshake = pin!(handshake);
    poll_fn(|cx| match handshake.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(done.map_err(TlsError::of)),
        Poll::Pending => interrupt(cx).map(|why| Err(TlsError::Interrupted(why))),
    })
    .await
}
