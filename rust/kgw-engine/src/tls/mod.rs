//! TLS on both sides of the proxy.
//!
//! A client's connection: [`hello`] reads what it asks for, [`chain`] says who serves that, [`server`]
//! ends the TLS. Towards endpoints: [`client`]. What comes out of either is a
//! [`Stream`](crate::conn::io::Stream) like that of a plain socket ([`socket`]) and what is known about
//! the session ([`info`]).
//!
//! [`certificates`], [`names`], [`parameters`] and [`verify`] turn the configuration into what rustls
//! takes; [`intern`] keeps the results across configurations.

mod certificates;
pub(crate) mod chain;
pub mod check;
mod client;
mod hello;
mod info;
pub(crate) mod intern;
mod names;
mod parameters;
mod server;
mod socket;
#[cfg(test)]
mod tests;
mod verify;
mod x509;

use std::borrow::Cow;
use std::io;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};

use rustls::crypto::CryptoProvider;

pub(crate) use self::client::{Client, connect};
pub(crate) use self::hello::read_client_hello;
pub use self::info::TlsInfo;
pub(crate) use self::server::{Inside, Server, accept};
pub(crate) use self::socket::TlsSocket;
use crate::clock::{Nanos, Timer};
use crate::runtime::{Phase, Registration, Worker};
use crate::stats::Stats;

/// Why there is no TLS session.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// Something else than the peer ended the handshake.
    #[error("interrupted: {0:?}")]
    Interrupted(Interrupt),
    /// The connection broke or was closed in the middle of the handshake.
    #[error("connection closed in the handshake: {0}")]
    Closed(io::Error),
    /// Peer and proxy do not agree, or one does not trust the other.
    #[error("{0}")]
    Handshake(rustls::Error),
    /// No chain is for the server name.
    #[error("no chain for the server name")]
    NoChain,
    /// The configuration has no usable certificate or trust.
    #[error("broken TLS configuration")]
    Broken,
}

/// What ends a handshake beside its peer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Interrupt {
    /// It took too long.
    TimedOut,
    /// The worker is closing.
    Closing,
    /// Nobody waits for the connection any longer.
    ClientGone,
}

impl TlsError {
    /// From what a handshake ended with.
    fn of(error: io::Error) -> Self {
        match error.downcast::<rustls::Error>() {
            Ok(error) => Self::Handshake(error),
            Err(error) => Self::Closed(error),
        }
    }

    /// Counts the end of a client's handshake.
    pub(crate) fn count_downstream(&self, stats: &Stats) {
        match self {
            Self::Interrupted(Interrupt::TimedOut) => stats.downstream_tls_timeout.increment(),
            Self::Interrupted(_) => {}
            Self::NoChain => stats.downstream_tls_no_chain.increment(),
            Self::Closed(_) | Self::Handshake(_) | Self::Broken => {
                stats.downstream_tls_fail.increment();
            }
        }
    }

    /// Counts the end of a handshake with an endpoint.
    pub(crate) fn count_upstream(&self, stats: &Stats) {
        match self {
            Self::Interrupted(Interrupt::TimedOut) => stats.upstream_tls_timeout.increment(),
            Self::Interrupted(_) => {}
            Self::NoChain | Self::Closed(_) | Self::Handshake(_) | Self::Broken => {
                stats.upstream_tls_fail.increment();
            }
        }
    }

    /// What `%UPSTREAM_TRANSPORT_FAILURE_REASON%` and its like say. Envoy's prefix, rustls' words:
    /// Envoy's own are `BoringSSL`'s error codes.
    pub(crate) fn reason(&self) -> String {
        match self {
            Self::Closed(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                "TLS_error:|connection_closed_in_the_handshake".to_owned()
            }
            error => {
                let text = error.to_string();
                let mut reason = String::with_capacity(text.len() + 11);
                reason.push_str("TLS_error:|");
                reason.extend(text.chars().map(|character| {
                    if character.is_whitespace() || character.is_control() {
                        '_'
                    } else {
                        character
                    }
                }));
                reason
            }
        }
    }
}

/// Why a part of the TLS configuration cannot be used. Never says anything about a key.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ConfigError(Cow<'static, str>);

impl ConfigError {
    fn new(text: impl Into<Cow<'static, str>>) -> Self {
        Self(text.into())
    }
}

/// What ends a handshake on a worker: its time, or the worker's.
pub(crate) fn interrupts<'a>(
    worker: &'a Worker,
    registration: &'a Registration,
    timer: &'a mut Timer,
    deadline: Nanos,
) -> impl FnMut(&mut Context<'_>) -> Poll<Interrupt> + use<'a> {
    move |cx| {
        registration.update(cx);
        if worker.phase() == Phase::Closing {
            return Poll::Ready(Interrupt::Closing);
        }
        timer.poll(cx, deadline).map(|()| Interrupt::TimedOut)
    }
}

/// The cryptography used: *ring*'s.
fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::ring::default_provider()));
    &PROVIDER
}
