//! Why bytes are not a PROXY protocol header, or a header cannot be written.

/// Why a header was not parsed or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes may become a header. Not a violation: read more and parse again.
    #[error("the PROXY protocol header is incomplete: {need} bytes are needed")]
    Incomplete {
        /// The number of bytes, from the header's first, without which no verdict but another
        /// `Incomplete` or a violation is possible. Never more than the header will have.
        need: usize,
    },
    /// The bytes cannot begin a header of an accepted version.
    #[error("no PROXY protocol header: unexpected byte {byte:#04x} at {at}")]
    NoHeader {
        /// Offset of the first byte that no header has there.
        at: usize,
        /// That byte.
        byte: u8,
    },
    /// The header is longer than accepted, or than can be written.
    #[error("the PROXY protocol header of {len} bytes exceeds the maximum of {max}")]
    TooLong {
        /// The header's length in bytes; for version 1, the length seen so far.
        len: usize,
        /// The longest possible.
        max: usize,
    },
    /// A field of a version 1 line is malformed.
    #[error("malformed {field} in the PROXY protocol version 1 line, at byte {at}")]
    V1 {
        /// The field.
        field: V1Field,
        /// Offset of the byte at fault, or of the field when it is wrong as a whole.
        at: usize,
    },
    /// The signature of version 2 is followed by another version number.
    #[error("PROXY protocol version {version} does not exist")]
    UnknownVersion {
        /// The number.
        version: u8,
    },
    /// A command other than LOCAL and PROXY; §2.2: "Receivers must drop connections".
    #[error("unknown PROXY protocol command {command:#x}")]
    UnknownCommand {
        /// The command's number.
        command: u8,
    },
    /// A combination of address family and transport that does not exist.
    #[error("unknown PROXY protocol address family and transport {byte:#04x}")]
    UnknownFamily {
        /// The 14th byte: family in the upper half, transport in the lower.
        byte: u8,
    },
    /// The header ends before its addresses do.
    #[error("the PROXY protocol header has {len} bytes for addresses that take {need}")]
    AddressesTruncated {
        /// Bytes there are after the fixed part.
        len: usize,
        /// Bytes the addresses of this family take.
        need: usize,
    },
    /// A TLV reaches past the end of what contains it, or bytes are left over that are too few for
    /// a TLV.
    #[error("PROXY protocol TLV overruns its container by {excess} bytes")]
    TlvTruncated {
        /// Bytes that are missing.
        excess: usize,
    },
    /// A TLV that can have one value only is there twice.
    #[error("PROXY protocol TLV {kind:#04x} is there twice")]
    TlvDuplicate {
        /// Its type.
        kind: u8,
    },
    /// A TLV's value has a length its type does not allow.
    #[error("PROXY protocol TLV {kind:#04x} has an invalid length of {len} bytes")]
    TlvLength {
        /// Its type.
        kind: u8,
        /// Its length in bytes.
        len: usize,
    },
    /// A TLV that holds text is not UTF-8, or has control characters.
    #[error("PROXY protocol TLV {kind:#04x} is not printable text")]
    TlvText {
        /// Its type.
        kind: u8,
    },
    /// The CRC32C of the header differs from the one it carries.
    #[error("PROXY protocol checksum mismatch: {carried:#010x} carried, {computed:#010x} computed")]
    Checksum {
        /// The checksum in the header.
        carried: u32,
        /// The header's checksum.
        computed: u32,
    },
    /// An identity is not `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
    #[error("malformed mesh identity: {part}")]
    Identity {
        /// The first part at fault.
        part: IdentityPart,
    },
    /// The header does not describe a TCP connection (`Header::tcp`).
    #[error("the PROXY protocol header does not describe a TCP connection")]
    NotTcp,
    /// A Unix socket name takes more than 108 bytes.
    #[error("a Unix socket name of {len} bytes exceeds 108")]
    UnixNameTooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// A header that version 1 cannot express: datagrams, Unix sockets, TLVs, the checksum.
    #[error("PROXY protocol version 1 cannot express this header")]
    NotInV1,
    /// A TLV on a LOCAL header, whose receiver must discard it.
    #[error("a LOCAL header carries no TLVs")]
    TlvOnLocal,
    /// A checksum given as a TLV: [`crate::Builder::crc32c`] computes it.
    #[error("the checksum TLV is computed, not given")]
    ChecksumGiven,
}

/// A field of the version 1 line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum V1Field {
    /// `TCP4`, `TCP6` or `UNKNOWN`.
    Protocol,
    /// The address that the connection came from.
    Source,
    /// The address that it was made to.
    Destination,
    /// The port that it came from.
    SourcePort,
    /// The port that it was made to.
    DestinationPort,
    /// What follows `UNKNOWN`.
    Unknown,
    /// CR LF.
    LineEnd,
}

/// A part of a mesh identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IdentityPart {
    /// `spiffe://`.
    Scheme,
    /// The trust domain.
    TrustDomain,
    /// `/ns/` and the namespace.
    Namespace,
    /// `/sa/` and the service account.
    ServiceAccount,
    /// The identity as a whole: over 2,048 bytes.
    Length,
}

impl std::fmt::Display for V1Field {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Protocol => "protocol",
            Self::Source => "source address",
            Self::Destination => "destination address",
            Self::SourcePort => "source port",
            Self::DestinationPort => "destination port",
            Self::Unknown => "text after UNKNOWN",
            Self::LineEnd => "line end",
        })
    }
}

impl std::fmt::Display for IdentityPart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Scheme => "no spiffe:// in front",
            Self::TrustDomain => "invalid trust domain",
            Self::Namespace => "invalid namespace",
            Self::ServiceAccount => "invalid service account",
            Self::Length => "longer than 2048 bytes",
        })
    }
}
