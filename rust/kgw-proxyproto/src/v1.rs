//! Version 1: one line of text (§2.1).
//!
//! ```text
//! PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n
//! PROXY UNKNOWN\r\n
//! ```
//!
//! The line is read from left to right exactly once; each byte is judged when it is there, so that
//! garbage is refused without waiting for a line end that may never come.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
use std::str::FromStr;

use crate::{Addresses, Command, Error, Header, Tlvs, Transport, V1Field, Version};

/// The first byte of the line.
pub(crate) const FIRST_BYTE: u8 = b'P';

/// The length of the shortest line, in bytes.
pub(crate) const SHORTEST: usize = b"PROXY UNKNOWN\r\n".len();

/// The length of the longest line, in bytes (§2.1).
pub(crate) const LONGEST: usize = 107;

/// Parses `buf`, which is not empty.
pub(crate) fn parse(buf: &[u8], max_header: usize) -> Result<Header<'_>, Error> {
    let mut line = Line {
        buf,
        at: 0,
        max: max_header.min(LONGEST),
    };
    line.signature()?;
    let addresses = match line.protocol()? {
        Protocol::Tcp4 => line.tcp4()?,
        Protocol::Tcp6 => line.tcp6()?,
        Protocol::Unknown => line.unknown()?,
    };
    let (command, transport) = match addresses {
        Addresses::Unspec => (Command::Local, Transport::Unspec),
        _ => (Command::Proxy, Transport::Stream),
    };
    Ok(Header {
        version: Version::V1,
        command,
        transport,
        addresses,
        tlvs: Tlvs::default(),
        identity: None,
        len: line.at,
    })
}

enum Protocol {
    Tcp4,
    Tcp6,
    Unknown,
}

/// The line as far as it was read.
struct Line<'a> {
    buf: &'a [u8],
    at: usize,
    max: usize,
}

/// What a field looks like.
struct Field {
    name: V1Field,
    legal: fn(u8) -> bool,
    end: u8,
    /// The fewest and the most bytes it can have.
    min: usize,
    max: usize,
    /// The fewest bytes that can follow it in a complete line.
    after: usize,
}

impl<'a> Line<'a> {
    /// The next byte; `min_left` is the fewest bytes that a complete line has from here on.
    fn next(&mut self, min_left: usize) -> Result<u8, Error> {
        if self.at >= self.max {
            return Err(Error::TooLong {
                len: self.at + 1,
                max: self.max,
            });
        }
        let Some(&byte) = self.buf.get(self.at) else {
            let need = (self.at + min_left).min(self.max);
            return Err(Error::Incomplete { need });
        };
        self.at += 1;
        Ok(byte)
    }

    fn signature(&mut self) -> Result<(), Error> {
        for expected in *b"PROXY " {
            let at = self.at;
            let byte = self.next(SHORTEST - at)?;
            if byte != expected {
                return Err(Error::NoHeader { at, byte });
            }
        }
        Ok(())
    }

    /// `TCP4 `, `TCP6 ` or `UNKNOWN`.
    fn protocol(&mut self) -> Result<Protocol, Error> {
        let field = V1Field::Protocol;
        match self.next(SHORTEST - self.at)? {
            b'T' => {
                self.expect(field, b"CP", 2 + b"6 ".len() + TCP6_REST)?;
                let protocol = match self.next(b"6 ".len() + TCP6_REST)? {
                    b'4' => Protocol::Tcp4,
                    b'6' => Protocol::Tcp6,
                    _ => return Err(self.malformed(field)),
                };
                let rest = match protocol {
                    Protocol::Tcp4 => TCP4_REST,
                    _ => TCP6_REST,
                };
                self.expect(field, b" ", 1 + rest)?;
                Ok(protocol)
            }
            b'U' => {
                self.expect(field, b"NKNOWN", SHORTEST - self.at)?;
                Ok(Protocol::Unknown)
            }
            _ => Err(self.malformed(field)),
        }
    }

    fn tcp4(&mut self) -> Result<Addresses<'a>, Error> {
        let address = |name, after| Field {
            name,
            legal: |b| b.is_ascii_digit() || b == b'.',
            end: b' ',
            min: "0.0.0.0".len(),
            max: "255.255.255.255".len(),
            after,
        };
        let source: Ipv4Addr = self.field(&address(V1Field::Source, "0.0.0.0 0 0\r\n".len()))?;
        let destination: Ipv4Addr = self.field(&address(V1Field::Destination, "0 0\r\n".len()))?;
        let (source_port, destination_port) = self.ports()?;
        Ok(Addresses::Inet {
            source: SocketAddrV4::new(source, source_port),
            destination: SocketAddrV4::new(destination, destination_port),
        })
    }

    fn tcp6(&mut self) -> Result<Addresses<'a>, Error> {
        let address = |name, after| Field {
            name,
            legal: |b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.'),
            end: b' ',
            min: "::".len(),
            max: "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".len(),
            after,
        };
        let source: Ipv6Addr = self.field(&address(V1Field::Source, ":: 0 0\r\n".len()))?;
        let destination: Ipv6Addr = self.field(&address(V1Field::Destination, "0 0\r\n".len()))?;
        let (source_port, destination_port) = self.ports()?;
        Ok(Addresses::Inet6 {
            source: SocketAddrV6::new(source, source_port, 0, 0),
            destination: SocketAddrV6::new(destination, destination_port, 0, 0),
        })
    }

    fn ports(&mut self) -> Result<(u16, u16), Error> {
        let port = |name, end, after| Field {
            name,
            legal: |b| b.is_ascii_digit(),
            end,
            min: 1,
            max: 5,
            after,
        };
        let Port(source) = self.field(&port(V1Field::SourcePort, b' ', "0\r\n".len()))?;
        let Port(destination) = self.field(&port(V1Field::DestinationPort, b'\r', 1))?;
        self.expect(V1Field::LineEnd, b"\n", 1)?;
        Ok((source, destination))
    }

    /// Skips what may follow `UNKNOWN`. It must be printable: a line end within would be one to some
    /// parsers.
    fn unknown(&mut self) -> Result<Addresses<'a>, Error> {
        match self.next(2)? {
            b'\r' => {}
            b' ' => loop {
                match self.next(2)? {
                    b'\r' => break,
                    b' '..=b'~' => {}
                    _ => return Err(self.malformed(V1Field::Unknown)),
                }
            },
            _ => return Err(self.malformed(V1Field::Protocol)),
        }
        self.expect(V1Field::LineEnd, b"\n", 1)?;
        Ok(Addresses::Unspec)
    }

    /// Reads a field and the byte that ends it.
    fn field<T: FromStr>(&mut self, field: &Field) -> Result<T, Error> {
        let start = self.at;
        loop {
            let len = self.at - start;
            let byte = self.next(field.min.saturating_sub(len) + 1 + field.after)?;
            if byte == field.end {
                break;
            }
            if len == field.max || !(field.legal)(byte) {
                return Err(self.malformed(field.name));
            }
        }
        self.buf
            .get(start..self.at - 1)
            .and_then(|text| std::str::from_utf8(text).ok())
            .and_then(|text| text.parse().ok())
            .ok_or(Error::V1 {
                field: field.name,
                at: start,
            })
    }

    /// Reads `text`; a complete line has at least `min_left` bytes from its start on.
    fn expect(&mut self, field: V1Field, text: &[u8], min_left: usize) -> Result<(), Error> {
        for (done, &expected) in text.iter().enumerate() {
            if self.next(min_left - done)? != expected {
                return Err(self.malformed(field));
            }
        }
        Ok(())
    }

    /// The byte just read is wrong.
    fn malformed(&self, field: V1Field) -> Error {
        let at = self.at - 1;
        Error::V1 { field, at }
    }
}

/// A decimal port without leading zeroes, which §2.1 excludes.
struct Port(u16);

impl FromStr for Port {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.as_bytes() {
            [b'0', _, ..] => Err(()),
            _ => text.parse().map(Self).map_err(|_| ()),
        }
    }
}

/// The fewest bytes that follow `TCP4 ` and `TCP6 `.
const TCP4_REST: usize = b"0.0.0.0 0.0.0.0 0 0\r\n".len();
const TCP6_REST: usize = b":: :: 0 0\r\n".len();
