//! JSON Web Tokens (RFC 7519, 7515, 7517): reading them, the keys that verify them, and what they
//! claim. Sans-IO.
//!
//! A [`Token`] is read from text that anybody may have written; nothing of it is to be believed before
//! [`KeySet::verify`] has found the key that signed it, and [`Claims`] have been checked. What is wrong is
//! a [`Status`], in the words that Envoy has for it.
//!
//! **Algorithms.** RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, `EdDSA` (Ed25519), and
//! HS256, HS384 and HS512 with keys that are secrets (`kty` `oct`) alone. A key says what it is for: a public key
//! is never a secret, and `none` is no algorithm. RSA keys have 2048 to 8192 bits.

#![forbid(unsafe_code)]

mod algorithm;
mod claims;
mod key;
mod key_set;
mod pem;
mod status;
mod token;

pub use crate::algorithm::Algorithm;
pub use crate::claims::Claims;
pub use crate::key_set::{KeySet, KeySetError};
pub use crate::status::Status;
pub use crate::token::Token;
