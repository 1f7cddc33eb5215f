//! The parsed header, borrowed from the connection's buffer.

use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};

use crate::identity::IdentityUri;
use crate::{Error, MeshIdentity, Tlvs};

/// A PROXY protocol header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Header<'a> {
    /// The version it was written in.
    pub version: Version,
    /// Whether it describes a proxied connection. A version 1 `UNKNOWN` line is LOCAL here: its
    /// receiver too must use the connection's real endpoints (§2.1).
    pub command: Command,
    /// The transport of the proxied connection; [`Transport::Unspec`] when LOCAL.
    pub transport: Transport,
    /// The endpoints of the proxied connection; [`Addresses::Unspec`] when LOCAL.
    pub addresses: Addresses<'a>,
    /// The extensions; none when LOCAL or in version 1.
    pub tlvs: Tlvs<'a>,
    pub(crate) identity: Option<IdentityUri<'a>>,
    pub(crate) len: usize,
}

/// The version of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// The line of text.
    V1,
    /// The binary header.
    V2,
}

/// What a header says about its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// The sender made the connection on its own behalf, as for a health check: use the connection's
    /// real endpoints.
    Local,
    /// The sender relays another connection, whose endpoints the header states.
    Proxy,
}

/// The transport of the proxied connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Unspecified.
    Unspec,
    /// TCP, or a Unix stream socket.
    Stream,
    /// UDP, or a Unix datagram socket.
    Dgram,
}

/// The address family of the proxied connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Unspecified: there are no addresses.
    Unspec,
    /// IPv4.
    Inet,
    /// IPv6.
    Inet6,
    /// Unix sockets.
    Unix,
}

/// The endpoints of the proxied connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addresses<'a> {
    /// None are stated. ztunnel sends this, with an identity, when source and destination are of
    /// different families.
    Unspec,
    /// IPv4.
    Inet {
        /// Where the connection came from.
        source: SocketAddrV4,
        /// Where it was made to.
        destination: SocketAddrV4,
    },
    /// IPv6.
    Inet6 {
        /// Where the connection came from.
        source: SocketAddrV6,
        /// Where it was made to.
        destination: SocketAddrV6,
    },
    /// Unix sockets.
    Unix {
        /// Where the connection came from.
        source: UnixAddr<'a>,
        /// Where it was made to.
        destination: UnixAddr<'a>,
    },
}

/// A Unix socket's name as it is in `sun_path`: 108 bytes, padded with NUL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnixAddr<'a>(pub(crate) &'a [u8; UNIX_LEN]);

// === impl Header ===

impl<'a> Header<'a> {
    /// The number of bytes the header takes. What follows them is the connection's payload.
    #[allow(clippy::len_without_is_empty)] // a header is never empty
    pub fn len(&self) -> usize {
        self.len
    }

    /// The address family.
    pub fn family(&self) -> Family {
        self.addresses.family()
    }

    /// Where the proxied connection came from, when that is an IP address.
    ///
    /// An IPv4-mapped IPv6 address is returned as IPv4, so that it compares equal to the IPv4
    /// addresses of a configuration. ([`Header::addresses`] has it as written.)
    pub fn source(&self) -> Option<SocketAddr> {
        self.addresses.source()
    }

    /// Where the proxied connection was made to, when that is an IP address. IPv4-mapped addresses
    /// are treated as in [`Header::source`].
    pub fn destination(&self) -> Option<SocketAddr> {
        self.addresses.destination()
    }

    /// The workload that the connection came from, as ztunnel authenticated it. Absent when the TLV
    /// is, or is empty: no identity, which is not an identity of any kind.
    pub fn identity(&self) -> Option<MeshIdentity<'a>> {
        self.identity.map(IdentityUri::identity)
    }

    /// What a TCP listener does with the header: source and destination to take over, or `None` to
    /// keep the connection's own (LOCAL, `AF_UNSPEC`).
    ///
    /// # Errors
    ///
    /// [`Error::NotTcp`] when the header describes datagrams or Unix sockets, which cannot arrive
    /// through a TCP listener unless the sender is confused or lies.
    pub fn tcp(&self) -> Result<Option<(SocketAddr, SocketAddr)>, Error> {
        if self.transport == Transport::Dgram || self.family() == Family::Unix {
            return Err(Error::NotTcp);
        }
        Ok(self.source().zip(self.destination()))
    }
}

// === impl Addresses ===

impl Addresses<'_> {
    /// The address family.
    pub fn family(&self) -> Family {
        match self {
            Self::Unspec => Family::Unspec,
            Self::Inet { .. } => Family::Inet,
            Self::Inet6 { .. } => Family::Inet6,
            Self::Unix { .. } => Family::Unix,
        }
    }

    /// See [`Header::source`].
    pub fn source(&self) -> Option<SocketAddr> {
        match self {
            Self::Inet { source, .. } => Some(SocketAddr::V4(*source)),
            Self::Inet6 { source, .. } => Some(canonical(*source)),
            Self::Unspec | Self::Unix { .. } => None,
        }
    }

    /// See [`Header::destination`].
    pub fn destination(&self) -> Option<SocketAddr> {
        match self {
            Self::Inet { destination, .. } => Some(SocketAddr::V4(*destination)),
            Self::Inet6 { destination, .. } => Some(canonical(*destination)),
            Self::Unspec | Self::Unix { .. } => None,
        }
    }
}

fn canonical(address: SocketAddrV6) -> SocketAddr {
    match address.ip().to_ipv4_mapped() {
        Some(ip) => SocketAddr::new(IpAddr::V4(ip), address.port()),
        None => SocketAddr::V6(address),
    }
}

// === impl UnixAddr ===

impl<'a> UnixAddr<'a> {
    /// The length of `sun_path`, in bytes.
    pub const LEN: usize = UNIX_LEN;

    /// All 108 bytes.
    pub fn as_bytes(&self) -> &'a [u8; UNIX_LEN] {
        self.0
    }

    /// The name without padding: a path ends before its first NUL; an abstract name, which begins
    /// with NUL, ends before its trailing NULs. Empty when the socket is unnamed.
    pub fn name(&self) -> &'a [u8] {
        let end = match self.0.first() {
            Some(0) => self.0.iter().rposition(|&b| b != 0).map_or(0, |at| at + 1),
            _ => self.0.iter().position(|&b| b == 0).unwrap_or(Self::LEN),
        };
        self.0.get(..end).unwrap_or_default()
    }
}

const UNIX_LEN: usize = 108;
