//! An HTTP/2 stream as an endpoint's side of an exchange.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use h2::client::ResponseFuture;
use h2::ext::Protocol;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Uri};
use kgw_h1::{Framing, Request, RequestContext, Response, TargetForm};

use super::data::{Data, lost};
use super::fields;
use super::stream::Stream;
use crate::conn::message::{Lost, Upstream};
use crate::upstream::http2::Http2Connection;

/// A stream to an endpoint.
#[derive(Debug)]
pub(crate) struct ServerStream {
    connection: Rc<Http2Connection>,
    answer: Option<ResponseFuture>,
    /// Why no request could be sent.
    failed: Option<Lost>,
    /// The request asked for another protocol.
    switching: bool,
    data: Data,
}

impl ServerStream {
    pub(crate) fn new(connection: Rc<Http2Connection>) -> Self {
        connection.active.set(connection.active.get() + 1);
        Self {
            connection,
            answer: None,
            failed: None,
            switching: false,
            data: Data::default(),
        }
    }
}

impl Drop for ServerStream {
    fn drop(&mut self) {
        let active = &self.connection.active;
        active.set(active.get() - 1);
        self.connection.free_stream();
    }
}

impl Stream for ServerStream {
    fn data(&self) -> &Data {
        &self.data
    }

    fn data_mut(&mut self) -> &mut Data {
        &mut self.data
    }

    fn poll_lost(&mut self, _cx: &mut Context<'_>) -> Poll<Lost> {
        // The end of its data says so too, and what came before is not to be lost.
        Poll::Pending
    }
}

impl Upstream for ServerStream {
    type Pipe = Data;

    const PROTOCOL: &'static str = "HTTP/2";

    fn send_head(&mut self, request: &Request, framing: Framing) -> u64 {
        self.switching = request.upgrade().is_some() && request.headers().contains(b"upgrade");
        let is_whole = framing.is_empty() && !self.switching;
        let Some((head, bytes)) = self.head_of(request, framing) else {
            self.failed = Some(Lost::Malformed);
            return 0;
        };
        match self.connection.send(head, is_whole) {
            Ok((answer, send)) => {
                self.answer = Some(answer);
                self.data.begin_sending(send);
                if is_whole {
                    self.data.sent_whole();
                }
                self.data.count_head_sent(bytes);
                bytes as u64
            }
            Err(error) => {
                // Nothing was sent. A connection that has just been told to go away says so here.
                self.failed = Some(match lost(&error) {
                    Lost::Closed => Lost::Unprocessed,
                    other => other,
                });
                0
            }
        }
    }

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        response: &mut Response,
        context: RequestContext,
    ) -> Poll<Result<(), Lost>> {
        if let Some(lost) = self.failed {
            return Poll::Ready(Err(lost));
        }
        let Some(answer) = &mut self.answer else {
            return Poll::Pending;
        };
        // Interim answers are dropped by the library once the final one is here.
        let (head, receive) = match Pin::new(answer).poll(cx) {
            Poll::Ready(Ok(answer)) => answer.into_parts(),
            Poll::Ready(Err(error)) => return Poll::Ready(Err(lost(&error))),
            Poll::Pending => return Poll::Pending,
        };
        self.answer = None;
        let context = RequestContext {
            connect: self.switching,
            ..context
        };
        let taken = response.assemble(
            head.status.as_u16(),
            fields::iter(&head.headers),
            &self.connection.options.heads,
            context,
            receive.is_end_stream(),
        );
        if taken.is_err() {
            self.data.reset(h2::Reason::PROTOCOL_ERROR);
            return Poll::Ready(Err(Lost::Malformed));
        }
        self.data.count_head_received(response.head_bytes());
        self.data.begin_receiving(receive);
        Poll::Ready(Ok(()))
    }

    fn is_switch(&self, status: u16) -> bool {
        self.switching && matches!(status, 200..300)
    }

    fn is_reusable(&self) -> bool {
        // The connection is shared; nothing has to be given back.
        false
    }

    fn pipe(&mut self) -> &mut Data {
        &mut self.data
    }
}

impl ServerStream {
    /// The request's head in HTTP/2 terms, and how many bytes its fields would have in HTTP/1. None if it
    /// cannot be said in them.
    fn head_of(&self, request: &Request, framing: Framing) -> Option<(http::Request<()>, usize)> {
        let mut head = http::Request::new(());
        *head.version_mut() = http::Version::HTTP_2;
        let mut uri = http::uri::Parts::default();
        if request.target_form() != TargetForm::Authority {
            uri.scheme = Some(if self.connection.tls.is_some() {
                Scheme::HTTPS
            } else {
                Scheme::HTTP
            });
            uri.path_and_query = Some(path_of(request.path())?);
        }
        uri.authority = Some(Authority::try_from(request.authority()).ok()?);
        *head.uri_mut() = Uri::from_parts(uri).ok()?;
        let mut map = HeaderMap::with_capacity(request.headers().len());
        let without: &[&[u8]] = if self.switching {
            &[b"host", b"content-length", b"sec-websocket-key"]
        } else {
            &[b"host", b"content-length"]
        };
        let mut bytes = fields::append_to(&mut map, request.headers(), without);
        if self.switching {
            if !self.connection.takes_extended_connect() {
                return None;
            }
            *head.method_mut() = http::Method::CONNECT;
            let protocol = std::str::from_utf8(request.upgrade()?).ok()?;
            head.extensions_mut().insert(Protocol::from(protocol));
        } else {
            *head.method_mut() = http::Method::from_bytes(request.method()).ok()?;
        }
        if let Framing::Length(length) = framing
            && !self.switching
        {
            bytes += fields::append_length(&mut map, length);
        }
        *head.headers_mut() = map;
        Some((head, bytes))
    }
}

/// A path as the library takes it: what RFC 3986 has no place for, and some clients send nevertheless,
/// is escaped. None if it is no path even so.
fn path_of(path: &[u8]) -> Option<PathAndQuery> {
    if let Ok(path) = PathAndQuery::try_from(path) {
        return Some(path);
    }
    let mut escaped = Vec::with_capacity(path.len() + 16);
    for &byte in path {
        if byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte) {
            escaped.push(byte);
        } else {
            const HEX: &[u8; 16] = b"0123456789ABCDEF";
            escaped.push(b'%');
            escaped.extend([byte >> 4, byte & 15].map(|digit| HEX[usize::from(digit)]));
        }
    }
    PathAndQuery::try_from(escaped).ok()
}
