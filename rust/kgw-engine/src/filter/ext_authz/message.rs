//! The messages of `envoy.service.auth.v3.Authorization`, as far as they are used here.
//!
//! Numbers are those of Envoy's public API, version 3; what is not named here is skipped in what is
//! received, as protobuf wants it. Text that is received is taken as bytes: what is done with it does not
//! need it to be UTF-8.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::{Map, Value as Json};

use crate::protobuf::Malformed;
use crate::protobuf::header::HeaderValueOption;
use crate::protobuf::json::fields;
use crate::protobuf::wire::{Field, Writer, pair, read};

/// `CheckRequest`: what is known of a request.
#[derive(Debug)]
pub(super) struct CheckRequest<'a> {
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    /// The source's identity.
    pub(super) principal: &'a str,
    /// Nanoseconds since 1970.
    pub(super) time: u64,
    pub(super) http: HttpRequest<'a>,
    pub(super) context_extensions: &'a BTreeMap<String, String>,
    /// The server name of the client's TLS session.
    pub(super) server_name: Option<&'a str>,
}

/// `AttributeContext.HttpRequest`
#[derive(Debug)]
pub(super) struct HttpRequest<'a> {
    pub(super) id: String,
    pub(super) method: String,
    pub(super) headers: BTreeMap<String, String>,
    /// With the query.
    pub(super) path: String,
    pub(super) host: String,
    pub(super) scheme: &'a str,
    /// -1 if it is not known.
    pub(super) size: i64,
    pub(super) protocol: &'a str,
    pub(super) body: &'a str,
    pub(super) raw_body: &'a [u8],
}

impl CheckRequest<'_> {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut message = Writer::default();
        message.message(1, |attributes| {
            attributes.message(1, |source| {
                write_address(source, self.source);
                source.bytes(4, self.principal.as_bytes());
            });
            attributes.message(2, |destination| {
                write_address(destination, self.destination);
            });
            attributes.message(4, |request| {
                request.message(1, |time| {
                    time.int(1, (self.time / 1_000_000_000).cast_signed());
                    time.int(2, (self.time % 1_000_000_000).cast_signed());
                });
                request.message(2, |http| self.http.write(http));
            });
            for (key, value) in self.context_extensions {
                attributes.entry(10, key, value);
            }
            if let Some(name) = self.server_name {
                attributes.message(12, |session| session.bytes(1, name.as_bytes()));
            }
        });
        message.into_bytes()
    }
}

impl HttpRequest<'_> {
    fn write(&self, message: &mut Writer) {
        message.bytes(1, self.id.as_bytes());
        message.bytes(2, self.method.as_bytes());
        for (name, value) in &self.headers {
            message.entry(3, name, value);
        }
        message.bytes(4, self.path.as_bytes());
        message.bytes(5, self.host.as_bytes());
        message.bytes(6, self.scheme.as_bytes());
        message.int(9, self.size);
        message.bytes(10, self.protocol.as_bytes());
        message.bytes(11, self.body.as_bytes());
        message.bytes(12, self.raw_body);
    }
}

/// `Peer.address`
fn write_address(peer: &mut Writer, address: SocketAddr) {
    peer.message(1, |of| {
        of.message(1, |socket| {
            let ip = address.ip().to_canonical().to_string();
            socket.bytes(2, ip.as_bytes());
            // One of a choice, so 0 is said too.
            socket.present_int(3, address.port().into());
        });
    });
}

/// `CheckResponse`: the answer.
#[derive(Debug, Default)]
pub(super) struct CheckResponse<'a> {
    /// 0, as of no status, lets the request pass.
    pub(super) code: i64,
    /// Of `denied_response` and `ok_response` the last counts.
    pub(super) http: Option<HttpResponse<'a>>,
    pub(super) metadata: Map<String, Json>,
}

/// What there is to say beside yes or no.
#[derive(Debug)]
pub(super) enum HttpResponse<'a> {
    Denied(DeniedHttpResponse<'a>),
    Ok(OkHttpResponse<'a>),
}

/// What the client gets.
#[derive(Debug, Default)]
pub(super) struct DeniedHttpResponse<'a> {
    /// 0 is none.
    pub(super) status: i64,
    pub(super) headers: Vec<HeaderValueOption<'a>>,
    pub(super) body: &'a [u8],
}

/// What is changed of the request, and of its answer.
#[derive(Debug, Default)]
pub(super) struct OkHttpResponse<'a> {
    pub(super) headers: Vec<HeaderValueOption<'a>>,
    pub(super) headers_to_remove: Vec<&'a [u8]>,
    pub(super) response_headers_to_add: Vec<HeaderValueOption<'a>>,
    /// Names and values.
    pub(super) query_parameters_to_set: Vec<(&'a [u8], &'a [u8])>,
    pub(super) query_parameters_to_remove: Vec<&'a [u8]>,
}

impl<'a> CheckResponse<'a> {
    pub(super) fn decode(message: &'a [u8]) -> Result<Self, Malformed> {
        let mut found = Self::default();
        read(message, |Field { number, value }| {
            match number {
                1 => found.code = status_code(value.bytes())?,
                2 => {
                    let denied = DeniedHttpResponse::decode(value.bytes())?;
                    found.http = Some(HttpResponse::Denied(denied));
                }
                3 => {
                    let (ok, metadata) = OkHttpResponse::decode(value.bytes())?;
                    found.metadata.extend(metadata);
                    found.http = Some(HttpResponse::Ok(ok));
                }
                4 => found.metadata.extend(fields(value.bytes())?),
                _ => {}
            }
            Ok(())
        })?;
        Ok(found)
    }
}

/// The code of a `google.rpc.Status`, or of an `HttpStatus`.
fn status_code(message: &[u8]) -> Result<i64, Malformed> {
    let mut code = 0;
    read(message, |Field { number, value }| {
        if number == 1 {
            code = value.int();
        }
        Ok(())
    })?;
    Ok(code)
}

impl<'a> DeniedHttpResponse<'a> {
    fn decode(message: &'a [u8]) -> Result<Self, Malformed> {
        let mut found = Self::default();
        read(message, |Field { number, value }| {
            match number {
                1 => found.status = status_code(value.bytes())?,
                2 => found
                    .headers
                    .push(HeaderValueOption::decode(value.bytes())?),
                3 => found.body = value.bytes(),
                _ => {}
            }
            Ok(())
        })?;
        Ok(found)
    }
}

impl<'a> OkHttpResponse<'a> {
    /// With the metadata, which once stood here.
    fn decode(message: &'a [u8]) -> Result<(Self, Map<String, Json>), Malformed> {
        let mut found = Self::default();
        let mut metadata = Map::new();
        read(message, |Field { number, value }| {
            let part = value.bytes();
            match number {
                2 => found.headers.push(HeaderValueOption::decode(part)?),
                3 => metadata = fields(part)?,
                5 => found.headers_to_remove.push(part),
                6 => {
                    let field = HeaderValueOption::decode(part)?;
                    found.response_headers_to_add.push(field);
                }
                7 => found.query_parameters_to_set.push(pair(part)?),
                8 => found.query_parameters_to_remove.push(part),
                _ => {}
            }
            Ok(())
        })?;
        Ok((found, metadata))
    }
}
