//! A connection that carries TLS: which chain serves it, and the handshake if it ends here.

use std::rc::Rc;
use std::task::{Context, Poll};

use kgw_h1::Version;

use super::io::Stream;
use super::{Accepted, Peers};
use crate::tls::chain::{Action, Chains, refuse_broken, refuse_unknown};
use crate::tls::{Interrupt, TlsError, TlsInfo, accept, interrupts, read_client_hello};

/// Gets a connection as far as what its chain does with it: behind the handshake, or in front of the
/// hello if TLS is passed on. None if it is over.
///
/// Dropping the future closes the connection.
pub(super) async fn begin(
    accepted: Accepted,
    timeout_ms: u64,
    chains: &Chains,
) -> Option<Accepted> {
    let Accepted {
        worker,
        stream,
        mut timer,
        registration,
        mut peers,
    } = accepted;
    let deadline = worker.now().after_ms(timeout_ms);
    let begun = {
        let mut interrupt = interrupts(&worker, &registration, &mut timer, deadline);
        handshake(stream, chains, &mut peers, &mut interrupt).await
    };
    match begun {
        Ok(stream) => {
            if peers.tls.is_some() {
                worker.stats().downstream_tls_handshake.increment();
            }
            Some(Accepted {
                worker,
                stream,
                timer,
                registration,
                peers,
            })
        }
        Err(error) => {
            error.count_downstream(worker.stats());
            None
        }
    }
}

async fn handshake(
    mut stream: Stream,
    chains: &Chains,
    peers: &mut Peers,
    interrupt: &mut impl FnMut(&mut Context<'_>) -> Poll<Interrupt>,
) -> Result<Stream, TlsError> {
    peers.server_name = read_client_hello(&mut stream, interrupt).await?.server_name;
    let Some(chain) = chains.select(peers.server_name.as_deref()) else {
        refuse_unknown(&mut stream).await;
        return Err(TlsError::NoChain);
    };
    let server = match &chain.action {
        Action::Passthrough(_) => return Ok(stream),
        Action::Http { tls, .. } | Action::Tcp { tls, .. } => tls,
    };
    let Some(server) = server else {
        refuse_broken(&mut stream).await;
        return Err(TlsError::Broken);
    };
    let (stream, info) = accept(stream, server, interrupt).await?;
    peers.is_secure = true;
    peers.tls = Some(Rc::new(info));
    Ok(stream)
}

/// The version of HTTP that was agreed on, if one was.
pub(super) fn version(tls: &TlsInfo) -> Option<Version> {
    match tls.alpn()? {
        b"h2" => Some(Version::Http2),
        b"http/1.1" | b"http/1.0" => Some(Version::Http11),
        _ => None,
    }
}
