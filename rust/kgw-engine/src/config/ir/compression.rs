//! Bodies that are compressed on the way.

use serde::{Deserialize, Serialize};

/// A way of compressing (RFC 9110 8.4.1, RFC 7932, RFC 8878).
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Coding {
    /// `gzip`.
    Gzip,
    /// `br`.
    Brotli,
    /// `zstd`.
    Zstd,
}

/// Codings of bodies (Envoy `compressor`, `decompressor`).
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Codings {
    /// The codings, the preferred one first; at least one.
    pub codings: Vec<Coding>,
}
