//! Writes headers: an owned description of one, and its bytes in either version.

use std::io::Write as _;
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};

use crate::tlv::{self, Seen, TLV_PREFIX, Tlv, kind};
use crate::{Addresses, Command, Error, Header, MeshIdentity, Tlvs, Transport, UnixAddr, v2};

/// A header to be written.
///
/// Whatever it encodes, [`parse`](crate::parse) accepts (given a large enough `max_header`): values
/// are checked when they are added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Builder {
    command: Command,
    transport: Transport,
    endpoints: Endpoints,
    tlvs: Vec<u8>,
    seen: Seen,
    crc32c: bool,
}

/// [`Addresses`], owned.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Endpoints {
    Unspec,
    Inet {
        source: SocketAddrV4,
        destination: SocketAddrV4,
    },
    Inet6 {
        source: SocketAddrV6,
        destination: SocketAddrV6,
    },
    Unix(Box<UnixPair>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct UnixPair {
    source: [u8; UnixAddr::LEN],
    destination: [u8; UnixAddr::LEN],
}

// === impl Builder ===

impl Builder {
    /// A LOCAL header: the connection is the sender's own.
    pub fn local() -> Self {
        Self::with(Command::Local, Transport::Unspec, Endpoints::Unspec)
    }

    /// A TCP connection from `source` to `destination`. When they are of different families the
    /// header has no addresses (`AF_UNSPEC`), as ztunnel's.
    pub fn proxy(source: SocketAddr, destination: SocketAddr) -> Self {
        let endpoints = match (source, destination) {
            (SocketAddr::V4(source), SocketAddr::V4(destination)) => Endpoints::Inet {
                source,
                destination,
            },
            (SocketAddr::V6(source), SocketAddr::V6(destination)) => Endpoints::Inet6 {
                source: on_wire(source),
                destination: on_wire(destination),
            },
            _ => Endpoints::Unspec,
        };
        Self::with(Command::Proxy, Transport::Stream, endpoints)
    }

    /// A proxied connection whose endpoints are not stated; its transport is unspecified.
    pub fn unspec() -> Self {
        Self::with(Command::Proxy, Transport::Unspec, Endpoints::Unspec)
    }

    /// A connection between Unix stream sockets. Names are padded with NUL.
    ///
    /// # Errors
    ///
    /// [`Error::UnixNameTooLong`] for a name of more than 108 bytes.
    pub fn unix(source: &[u8], destination: &[u8]) -> Result<Self, Error> {
        let pair = UnixPair {
            source: padded(source)?,
            destination: padded(destination)?,
        };
        let endpoints = Endpoints::Unix(Box::new(pair));
        Ok(Self::with(Command::Proxy, Transport::Stream, endpoints))
    }

    /// Says that the connection is a byte stream. Does nothing when LOCAL.
    #[must_use]
    pub fn stream(mut self) -> Self {
        if self.command == Command::Proxy {
            self.transport = Transport::Stream;
        }
        self
    }

    /// Says that the endpoints exchange datagrams. Does nothing when LOCAL.
    #[must_use]
    pub fn dgram(mut self) -> Self {
        if self.command == Command::Proxy {
            self.transport = Transport::Dgram;
        }
        self
    }

    /// Appends a TLV.
    ///
    /// # Errors
    ///
    /// What [`parse`](crate::parse) would answer to such a TLV; [`Error::TlvOnLocal`];
    /// [`Error::ChecksumGiven`] for the checksum, see [`Builder::crc32c`]; [`Error::TooLong`].
    pub fn tlv(mut self, kind: u8, value: &[u8]) -> Result<Self, Error> {
        if self.command == Command::Local {
            return Err(Error::TlvOnLocal);
        }
        if kind == kind::CRC32C {
            return Err(Error::ChecksumGiven);
        }
        tlv::check(Tlv { kind, value }, &mut self.seen)?;
        if kind == kind::MESH_IDENTITY && !value.is_empty() {
            MeshIdentity::parse(value)?;
        }
        push(&mut self.tlvs, kind, value)?;
        self.body_len()?;
        Ok(self)
    }

    /// Appends the client's mesh identity, as ztunnel does.
    ///
    /// # Errors
    ///
    /// As [`Builder::tlv`].
    pub fn identity(self, identity: &MeshIdentity<'_>) -> Result<Self, Error> {
        self.tlv(kind::MESH_IDENTITY, identity.uri().as_bytes())
    }

    /// Appends the host name that the client asked for.
    ///
    /// # Errors
    ///
    /// As [`Builder::tlv`].
    pub fn authority(self, name: &str) -> Result<Self, Error> {
        self.tlv(kind::AUTHORITY, name.as_bytes())
    }

    /// Appends the application protocol negotiated by ALPN.
    ///
    /// # Errors
    ///
    /// As [`Builder::tlv`].
    pub fn alpn(self, protocol: &[u8]) -> Result<Self, Error> {
        self.tlv(kind::ALPN, protocol)
    }

    /// Appends an id of the connection, at most 128 bytes.
    ///
    /// # Errors
    ///
    /// As [`Builder::tlv`].
    pub fn unique_id(self, id: &[u8]) -> Result<Self, Error> {
        self.tlv(kind::UNIQUE_ID, id)
    }

    /// Appends the sender's network namespace.
    ///
    /// # Errors
    ///
    /// As [`Builder::tlv`].
    pub fn netns(self, name: &str) -> Result<Self, Error> {
        self.tlv(kind::NETNS, name.as_bytes())
    }

    /// Appends what the client's TLS connection was like: bits and result as in
    /// [`Ssl`](crate::Ssl), then the TLVs inside, as `(kind::SSL_…, value)`.
    ///
    /// # Errors
    ///
    /// As [`Builder::tlv`].
    pub fn ssl<'a>(
        self,
        client: u8,
        verify: u32,
        sub_tlvs: impl IntoIterator<Item = (u8, &'a [u8])>,
    ) -> Result<Self, Error> {
        let mut value = vec![client];
        value.extend_from_slice(&verify.to_be_bytes());
        for (kind, sub_value) in sub_tlvs {
            push(&mut value, kind, sub_value)?;
        }
        self.tlv(kind::SSL, &value)
    }

    /// Says whether version 2 ends with a CRC32C of itself. Does nothing when LOCAL.
    #[must_use]
    pub fn crc32c(mut self, on: bool) -> Self {
        self.crc32c = on && self.command == Command::Proxy;
        self
    }

    /// The command.
    pub fn command(&self) -> Command {
        self.command
    }

    /// The transport.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// The endpoints.
    pub fn addresses(&self) -> Addresses<'_> {
        match &self.endpoints {
            Endpoints::Unspec => Addresses::Unspec,
            &Endpoints::Inet {
                source,
                destination,
            } => Addresses::Inet {
                source,
                destination,
            },
            &Endpoints::Inet6 {
                source,
                destination,
            } => Addresses::Inet6 {
                source,
                destination,
            },
            Endpoints::Unix(pair) => Addresses::Unix {
                source: UnixAddr(&pair.source),
                destination: UnixAddr(&pair.destination),
            },
        }
    }

    /// The TLVs, without the checksum.
    pub fn tlvs(&self) -> Tlvs<'_> {
        Tlvs::validated(&self.tlvs)
    }

    /// Appends the header in version 2 to `out`.
    ///
    /// # Errors
    ///
    /// [`Error::TooLong`], `out` untouched, when it would take more than 16 + 65,535 bytes.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), Error> {
        let body_len = self.body_len()?;
        let start = out.len();
        out.reserve(v2::PREFIX + usize::from(body_len));
        out.extend_from_slice(&v2::SIGNATURE);
        out.push(match self.command {
            Command::Local => 0x20,
            Command::Proxy => 0x21,
        });
        out.push(self.family_and_transport());
        out.extend_from_slice(&body_len.to_be_bytes());
        match &self.endpoints {
            Endpoints::Unspec => {}
            Endpoints::Inet {
                source,
                destination,
            } => {
                out.extend_from_slice(&source.ip().octets());
                out.extend_from_slice(&destination.ip().octets());
                out.extend_from_slice(&source.port().to_be_bytes());
                out.extend_from_slice(&destination.port().to_be_bytes());
            }
            Endpoints::Inet6 {
                source,
                destination,
            } => {
                out.extend_from_slice(&source.ip().octets());
                out.extend_from_slice(&destination.ip().octets());
                out.extend_from_slice(&source.port().to_be_bytes());
                out.extend_from_slice(&destination.port().to_be_bytes());
            }
            Endpoints::Unix(pair) => {
                out.extend_from_slice(&pair.source);
                out.extend_from_slice(&pair.destination);
            }
        }
        out.extend_from_slice(&self.tlvs);
        if self.crc32c {
            push(out, kind::CRC32C, &[0; CRC32C_LEN])?;
            let at = out.len() - start - CRC32C_LEN;
            let header = out.get_mut(start..).unwrap_or_default();
            let crc = v2::checksum(header, at);
            if let Some(value) = header.last_chunk_mut() {
                *value = crc.to_be_bytes();
            }
        }
        Ok(())
    }

    /// Appends the header in version 1 to `out`.
    ///
    /// LOCAL and `AF_UNSPEC` are both written as `UNKNOWN`, which reads back as LOCAL.
    ///
    /// # Errors
    ///
    /// [`Error::NotInV1`], `out` untouched, for datagrams, Unix sockets, TLVs or the checksum.
    pub fn encode_v1(&self, out: &mut Vec<u8>) -> Result<(), Error> {
        if self.transport == Transport::Dgram || !self.tlvs.is_empty() || self.crc32c {
            return Err(Error::NotInV1);
        }
        let (protocol, source, destination): (_, SocketAddr, SocketAddr) = match self.endpoints {
            Endpoints::Unspec => {
                out.extend_from_slice(b"PROXY UNKNOWN\r\n");
                return Ok(());
            }
            Endpoints::Inet {
                source,
                destination,
            } => ("TCP4", source.into(), destination.into()),
            Endpoints::Inet6 {
                source,
                destination,
            } => ("TCP6", source.into(), destination.into()),
            Endpoints::Unix(_) => return Err(Error::NotInV1),
        };
        write!(
            out,
            "PROXY {protocol} {} {} {} {}\r\n",
            source.ip(),
            destination.ip(),
            source.port(),
            destination.port()
        )
        .expect("writing to a Vec does not fail");
        Ok(())
    }

    fn with(command: Command, transport: Transport, endpoints: Endpoints) -> Self {
        Self {
            command,
            transport,
            endpoints,
            tlvs: Vec::new(),
            seen: Seen::default(),
            crc32c: false,
        }
    }

    /// The length of everything after the fixed part, which has to fit its 16 bits: a length field
    /// that disagreed with the bytes would let TLVs spill into the payload.
    fn body_len(&self) -> Result<u16, Error> {
        let addresses = match self.endpoints {
            Endpoints::Unspec => 0,
            Endpoints::Inet { .. } => 12,
            Endpoints::Inet6 { .. } => 36,
            Endpoints::Unix(_) => 2 * UnixAddr::LEN,
        };
        let crc32c = if self.crc32c {
            TLV_PREFIX + CRC32C_LEN
        } else {
            0
        };
        length(addresses + self.tlvs.len() + crc32c)
    }

    fn family_and_transport(&self) -> u8 {
        let family = match self.endpoints {
            Endpoints::Unspec => 0x00,
            Endpoints::Inet { .. } => 0x10,
            Endpoints::Inet6 { .. } => 0x20,
            Endpoints::Unix(_) => 0x30,
        };
        let transport = match self.transport {
            Transport::Unspec => 0x0,
            Transport::Stream => 0x1,
            Transport::Dgram => 0x2,
        };
        family | transport
    }
}

/// The same header again; in version 2, even if it came in version 1.
impl From<&Header<'_>> for Builder {
    fn from(header: &Header<'_>) -> Self {
        let endpoints = match header.addresses {
            Addresses::Unspec => Endpoints::Unspec,
            Addresses::Inet {
                source,
                destination,
            } => Endpoints::Inet {
                source,
                destination,
            },
            Addresses::Inet6 {
                source,
                destination,
            } => Endpoints::Inet6 {
                source,
                destination,
            },
            Addresses::Unix {
                source,
                destination,
            } => Endpoints::Unix(Box::new(UnixPair {
                source: *source.as_bytes(),
                destination: *destination.as_bytes(),
            })),
        };
        let mut builder = Self::with(header.command, header.transport, endpoints);
        builder.tlvs.reserve(header.tlvs.as_bytes().len());
        for tlv in header.tlvs {
            if tlv.kind == kind::CRC32C {
                builder.crc32c = true;
                continue;
            }
            tlv::check(tlv, &mut builder.seen)
                .and_then(|()| push(&mut builder.tlvs, tlv.kind, tlv.value))
                .expect("parsing accepted it");
        }
        builder
    }
}

fn push(out: &mut Vec<u8>, kind: u8, value: &[u8]) -> Result<(), Error> {
    let len = length(value.len())?;
    out.push(kind);
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(value);
    Ok(())
}

fn length(len: usize) -> Result<u16, Error> {
    u16::try_from(len).map_err(|_| Error::TooLong {
        len: v2::PREFIX + len,
        max: v2::PREFIX + usize::from(u16::MAX),
    })
}

/// The header has no room for the flow label and the scope.
fn on_wire(address: SocketAddrV6) -> SocketAddrV6 {
    SocketAddrV6::new(*address.ip(), address.port(), 0, 0)
}

fn padded(name: &[u8]) -> Result<[u8; UnixAddr::LEN], Error> {
    let mut padded = [0; UnixAddr::LEN];
    padded
        .get_mut(..name.len())
        .ok_or(Error::UnixNameTooLong { len: name.len() })?
        .copy_from_slice(name);
    Ok(padded)
}

const CRC32C_LEN: usize = 4;
