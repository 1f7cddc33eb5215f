//! Reading what a client asks for before anything is answered.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};

use rustls::server::Acceptor;
use rustls::{Error, InvalidMessage};

use super::names::normalized;
use super::{Interrupt, TlsError};
use crate::conn::io::Stream;

/// Most bytes on the wire that a hello may have. Bytes.
const MAX_HELLO: usize = 64 * 1024;

/// What a client asks for.
#[derive(Debug)]
pub(crate) struct Hello {
    /// The server name, in lower case.
    pub(crate) server_name: Option<Box<str>>,
}

/// Reads a client's hello and leaves its bytes where they are: they are for whoever answers it. One
/// that is malformed is answered with an alert. A hello that only versions before 1.2 understand is
/// refused as well, even for a backend that would.
///
/// Cancel safe: what was read stays in the stream.
pub(crate) async fn read_client_hello(
    stream: &mut Stream,
    interrupt: &mut impl FnMut(&mut Context<'_>) -> Poll<Interrupt>,
) -> Result<Hello, TlsError> {
    let mut acceptor = Acceptor::default();
    let mut seen = 0;
    let read = poll_fn(|cx| {
        loop {
            while seen < stream.input().len() {
                let mut rest = &stream.input()[seen..];
                match acceptor.read_tls(&mut rest) {
                    Ok(count) => seen += count,
                    // Its buffer is full, which has a bound of its own.
                    Err(_) => return Poll::Ready(Err(too_large())),
                }
                match acceptor.accept() {
                    Ok(None) => {}
                    Ok(Some(accepted)) => {
                        let hello = accepted.client_hello();
                        let server_name = hello.server_name().map(normalized);
                        return Poll::Ready(Ok(Hello {
                            server_name: server_name.map(String::into_boxed_str),
                        }));
                    }
                    Err((error, mut alert)) => {
                        let mut bytes = Vec::new();
                        // Writing to a `Vec` cannot fail.
                        let _ = alert.write_all(&mut bytes);
                        if bytes.is_empty() {
                            bytes.extend_from_slice(&DECODE_ERROR);
                        }
                        return Poll::Ready(Err((TlsError::Handshake(error), bytes)));
                    }
                }
            }
            if seen >= MAX_HELLO {
                return Poll::Ready(Err(too_large()));
            }
            match stream.poll_fill(cx, MAX_HELLO) {
                Poll::Ready(Ok(0)) => {
                    let error = TlsError::Closed(io::ErrorKind::UnexpectedEof.into());
                    return Poll::Ready(Err((error, Vec::new())));
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => {
                    return Poll::Ready(Err((TlsError::Closed(error), Vec::new())));
                }
                Poll::Pending => {
                    return interrupt(cx).map(|why| Err((TlsError::Interrupted(why), Vec::new())));
                }
            }
        }
    })
    .await;
    match read {
        Ok(hello) => Ok(hello),
        Err((error, alert)) => {
            if !alert.is_empty() {
                refuse(stream, &alert).await;
            }
            Err(error)
        }
    }
}

/// A fatal alert in a record of its own.
pub(super) const fn alert(description: u8) -> [u8; 7] {
    [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, description]
}

fn too_large() -> (TlsError, Vec<u8>) {
    let error = Error::InvalidMessage(InvalidMessage::HandshakePayloadTooLarge);
    (TlsError::Handshake(error), DECODE_ERROR.to_vec())
}

/// RFC 8446 6.2.
const DECODE_ERROR: [u8; 7] = alert(50);

/// Says why there is no session, as far as the socket takes it at once, and ends the connection.
pub(super) async fn refuse(stream: &mut Stream, alert: &[u8]) {
    stream.output().extend_from_slice(alert);
    poll_fn(|cx| {
        // The peer may be gone, and need not read it either.
        if let Poll::Ready(Ok(())) = stream.poll_flush(cx) {
            let _ = stream.poll_shutdown(cx);
        }
        Poll::Ready(())
    })
    .await;
}
