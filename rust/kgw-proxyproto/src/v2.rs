//! Version 2: sixteen fixed bytes, the addresses, then TLVs (§2.2).
//!
//! ```text
//!  0  12  signature
//! 12   1  version (upper half), command (lower half)
//! 13   1  address family (upper half), transport (lower half)
//! 14   2  length of what follows, big-endian
//! 16      source address, destination address, source port, destination port
//!         TLVs
//! ```

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};

use crate::tlv::{self, Tlvs};
use crate::{Addresses, Command, Error, Header, Transport, UnixAddr, Version};

/// The first byte of the signature.
pub(crate) const FIRST_BYTE: u8 = b'\r';

/// The length of the fixed part, in bytes.
pub(crate) const PREFIX: usize = 16;

/// The signature, which no text protocol begins with.
pub(crate) const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Parses `buf`, which is not empty.
#[inline]
pub(crate) fn parse(buf: &[u8], max_header: usize) -> Result<Header<'_>, Error> {
    let (command, family) = fixed_part(buf)?;
    let Some(&[.., high, low]) = buf.first_chunk::<PREFIX>() else {
        return Err(Error::Incomplete { need: PREFIX });
    };
    let body_len = usize::from(u16::from_be_bytes([high, low]));
    let len = PREFIX + body_len;
    if len > max_header {
        let max = max_header;
        return Err(Error::TooLong { len, max });
    }
    if body_len < family.addresses_len {
        let need = family.addresses_len;
        return Err(Error::AddressesTruncated {
            len: body_len,
            need,
        });
    }
    let Some(header) = buf.get(..len) else {
        return Err(Error::Incomplete { need: len });
    };
    if command == Command::Local {
        return Ok(Header {
            version: Version::V2,
            command,
            transport: Transport::Unspec,
            addresses: Addresses::Unspec,
            tlvs: Tlvs::default(),
            identity: None,
            len,
        });
    }
    // The length was checked: neither default is ever taken.
    let body = header.get(PREFIX..).unwrap_or_default();
    let (addresses, tlvs) = body
        .split_at_checked(family.addresses_len)
        .unwrap_or_default();
    let found = tlv::validate(tlvs)?;
    if let Some((carried, at)) = found.crc32c {
        verify_checksum(header, PREFIX + family.addresses_len + at, carried)?;
    }
    Ok(Header {
        version: Version::V2,
        command,
        transport: family.transport,
        addresses: family.kind.addresses(addresses),
        tlvs: Tlvs::validated(tlvs),
        identity: found.identity,
        len,
    })
}

/// Judges as many of the first fourteen bytes as there are.
#[inline]
fn fixed_part(buf: &[u8]) -> Result<(Command, Layout), Error> {
    if buf.first_chunk() != Some(&SIGNATURE) {
        return Err(no_signature(buf));
    }
    let Some(&version_command) = buf.get(12) else {
        return Err(Error::Incomplete { need: PREFIX });
    };
    if version_command >> 4 != 2 {
        let version = version_command >> 4;
        return Err(Error::UnknownVersion { version });
    }
    let command = match version_command & 0xf {
        0 => Command::Local,
        1 => Command::Proxy,
        command => return Err(Error::UnknownCommand { command }),
    };
    let Some(&family) = buf.get(13) else {
        return Err(Error::Incomplete { need: PREFIX });
    };
    let layout = match command {
        // §2.2: the receiver discards "the protocol block including the family which is ignored".
        Command::Local => Layout::UNSPEC,
        Command::Proxy => Layout::of(family)?,
    };
    Ok((command, layout))
}

#[cold]
fn no_signature(buf: &[u8]) -> Error {
    let differs = buf.iter().zip(&SIGNATURE).position(|(a, b)| a != b);
    match differs.and_then(|at| buf.get(at).map(|&byte| (at, byte))) {
        Some((at, byte)) => Error::NoHeader { at, byte },
        None => Error::Incomplete { need: PREFIX },
    }
}

/// What the 14th byte says of the addresses.
#[derive(Clone, Copy)]
struct Layout {
    kind: Kind,
    transport: Transport,
    addresses_len: usize,
}

#[derive(Clone, Copy)]
enum Kind {
    Unspec,
    Inet,
    Inet6,
    Unix,
}

impl Layout {
    const UNSPEC: Self = Self {
        kind: Kind::Unspec,
        transport: Transport::Unspec,
        addresses_len: 0,
    };

    #[inline]
    fn of(byte: u8) -> Result<Self, Error> {
        let (kind, addresses_len) = match byte >> 4 {
            0 => (Kind::Unspec, 0),
            1 => (Kind::Inet, 12),
            2 => (Kind::Inet6, 36),
            3 => (Kind::Unix, 2 * UnixAddr::LEN),
            _ => return Err(Error::UnknownFamily { byte }),
        };
        let transport = match byte & 0xf {
            0 if byte == 0 => Transport::Unspec,
            1 => Transport::Stream,
            2 => Transport::Dgram,
            _ => return Err(Error::UnknownFamily { byte }),
        };
        Ok(Self {
            kind,
            transport,
            addresses_len,
        })
    }
}

impl Kind {
    /// Reads the address block, whose length is that of the kind.
    #[inline]
    fn addresses(self, block: &[u8]) -> Addresses<'_> {
        match self {
            Self::Unspec => None,
            Self::Inet => inet(block),
            Self::Inet6 => inet6(block),
            Self::Unix => unix(block),
        }
        .unwrap_or(Addresses::Unspec)
    }
}

#[inline]
fn inet(block: &[u8]) -> Option<Addresses<'_>> {
    let (source, rest) = block.split_first_chunk::<4>()?;
    let (destination, rest) = rest.split_first_chunk::<4>()?;
    let (source_port, destination_port) = ports(rest)?;
    Some(Addresses::Inet {
        source: SocketAddrV4::new(Ipv4Addr::from(*source), source_port),
        destination: SocketAddrV4::new(Ipv4Addr::from(*destination), destination_port),
    })
}

#[inline]
fn inet6(block: &[u8]) -> Option<Addresses<'_>> {
    let (source, rest) = block.split_first_chunk::<16>()?;
    let (destination, rest) = rest.split_first_chunk::<16>()?;
    let (source_port, destination_port) = ports(rest)?;
    Some(Addresses::Inet6 {
        source: SocketAddrV6::new(Ipv6Addr::from(*source), source_port, 0, 0),
        destination: SocketAddrV6::new(Ipv6Addr::from(*destination), destination_port, 0, 0),
    })
}

#[inline]
fn unix(block: &[u8]) -> Option<Addresses<'_>> {
    let (source, rest) = block.split_first_chunk()?;
    Some(Addresses::Unix {
        source: UnixAddr(source),
        destination: UnixAddr(rest.first_chunk()?),
    })
}

#[inline]
fn ports(rest: &[u8]) -> Option<(u16, u16)> {
    let &[a, b, c, d] = rest.first_chunk()?;
    Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
}

/// The CRC32C of `header` with the four bytes at `at` taken as zero (§2.2.3).
pub(crate) fn checksum(header: &[u8], at: usize) -> u32 {
    let (head, tail) = header.split_at_checked(at).unwrap_or((header, &[]));
    let crc = crc32c::crc32c_append(crc32c::crc32c(head), &[0; 4]);
    crc32c::crc32c_append(crc, tail.get(4..).unwrap_or_default())
}

fn verify_checksum(header: &[u8], at: usize, carried: u32) -> Result<(), Error> {
    let computed = checksum(header, at);
    if carried != computed {
        return Err(Error::Checksum { carried, computed });
    }
    Ok(())
}
