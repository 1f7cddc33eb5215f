//! The PROXY protocol, versions 1 and 2: parse and write, without I/O.
//!
//! A proxy in front of us (ztunnel, HAProxy, a cloud load balancer) prefixes a connection with one
//! header that says whom it accepted the connection from, and for whom. [`parse`] looks at the
//! bytes received so far and borrows everything from them; it neither allocates nor copies.
//! [`Builder`] writes headers.
//!
//! Rules that hold throughout (clauses are those of HAProxy's `proxy-protocol.txt`):
//!
//! * **One verdict.** Feeding a header byte by byte ends in the same result as feeding it whole:
//!   [`Error::Incomplete`] until the deciding byte is there, then the same header or error.
//! * **No waiting for what cannot become a header.** Each byte of the fixed part is judged when it
//!   arrives; nothing is auto-detected (§5), a missing header is an error.
//! * **No over-reading.** [`Error::Incomplete`] never asks for more than the header's own bytes, and
//!   [`Header::len`] says where the payload begins.
//! * **Validated once.** All TLVs are checked in [`parse`]: lengths, duplicates, the checksum, text
//!   that must be UTF-8, the mesh identity. Iterating them afterwards cannot fail.
//!
//! ```
//! use kgw_proxyproto::{Builder, Error, MeshIdentity, Options, parse};
//!
//! let client = MeshIdentity::new("cluster.local", "default", "curl")?;
//! let mut wire = Vec::new();
//! Builder::proxy("10.244.0.24:46238".parse().unwrap(), "10.96.0.1:80".parse().unwrap())
//!     .identity(&client)?
//!     .encode(&mut wire)?;
//! wire.extend_from_slice(b"GET / HTTP/1.1\r\n");
//!
//! let options = Options::default();
//! assert_eq!(parse(&wire[..20], &options), Err(Error::Incomplete { need: 72 }));
//! let header = parse(&wire, &options)?;
//! assert_eq!(header.destination(), Some("10.96.0.1:80".parse().unwrap()));
//! assert_eq!(header.identity(), Some(client));
//! assert_eq!(&wire[header.len()..], b"GET / HTTP/1.1\r\n");
//! # Ok::<(), Error>(())
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::as_conversions))]

mod error;
mod header;
mod identity;
mod ssl;
mod tlv;
mod v1;
mod v2;
mod write;

pub use error::{Error, IdentityPart, V1Field};
pub use header::{Addresses, Command, Family, Header, Transport, UnixAddr, Version};
pub use identity::MeshIdentity;
pub use ssl::Ssl;
pub use tlv::{Iter, Tlv, Tlvs, kind};
pub use write::Builder;

/// What [`parse`] accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// The longest header accepted, in bytes, its fixed part included. A longer one is refused as
    /// soon as its length is known. The protocol's own bound is 16 + 65,535.
    pub max_header: usize,
    /// Whether version 1, the line of text, is accepted.
    pub v1: bool,
    /// Whether version 2, the binary header, is accepted.
    pub v2: bool,
}

impl Options {
    /// What a waypoint accepts: ztunnel never sends version 1.
    pub const WAYPOINT: Self = Self {
        max_header: DEFAULT_MAX_HEADER,
        v1: false,
        v2: true,
    };
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_header: DEFAULT_MAX_HEADER,
            v1: true,
            v2: true,
        }
    }
}

/// The default of [`Options::max_header`], in bytes. ztunnel's header takes about 100.
pub const DEFAULT_MAX_HEADER: usize = 4096;

/// Parses the header that `buf`, all bytes received so far on a connection, begins with.
///
/// Bytes after the header are not looked at: they belong to the payload.
///
/// # Errors
///
/// [`Error::Incomplete`] when `buf` may become a header with more bytes; any other error is final,
/// and the connection must be closed.
pub fn parse<'a>(buf: &'a [u8], options: &Options) -> Result<Header<'a>, Error> {
    match buf.first() {
        Some(&v2::FIRST_BYTE) if options.v2 => v2::parse(buf, options.max_header),
        Some(&v1::FIRST_BYTE) if options.v1 => v1::parse(buf, options.max_header),
        Some(&byte) => Err(Error::NoHeader { at: 0, byte }),
        None => Err(Error::Incomplete {
            need: match (options.v1, options.v2) {
                (true, _) => v1::SHORTEST,
                (false, true) => v2::PREFIX,
                (false, false) => 1,
            },
        }),
    }
}
