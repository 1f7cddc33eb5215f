//! Who calls, by signed tokens.

use serde::{Deserialize, Serialize};

/// Requests have a token of one of the providers (Envoy `jwt_authn`).
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct JwtAuth {
    /// Who issues tokens, in the order in which they are tried. At most 32.
    pub providers: Vec<JwtProvider>,
    /// A request without any token passes.
    #[serde(default)]
    pub allow_missing: bool,
}

/// An issuer of tokens.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct JwtProvider {
    /// What claim `iss` has to be; any, if left out.
    #[serde(default)]
    pub issuer: Option<String>,
    /// What claim `aud` has to have one of; anything, if empty.
    #[serde(default)]
    pub audiences: Vec<String>,
    /// Where the token is. If left out, in `authorization` behind `Bearer `, or in query parameter
    /// `access_token`.
    #[serde(default)]
    pub token: Option<TokenPlace>,
    /// The token goes on to the backend.
    #[serde(default)]
    pub forward: bool,
    /// Claims, or paths to them with dots, and the header fields that they are copied to.
    #[serde(default)]
    pub claims_to_headers: Vec<(String, String)>,
    /// The keys that tokens are signed with.
    pub keys: JwtKeys,
}

/// Where a token is.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum TokenPlace {
    /// In a header field.
    Header {
        /// Its name.
        name: String,
        /// What is in front of the token.
        #[serde(default)]
        prefix: String,
    },
    /// In a query parameter of this name.
    Query(String),
}

/// Where keys come from.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum JwtKeys {
    /// They are here: a set of keys or a key as JSON, or a public key in PEM.
    Local(String),
    /// A server has them.
    Remote(Box<RemoteKeys>),
}

/// A server that has keys.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RemoteKeys {
    /// Id of its cluster; none has no keys.
    pub cluster: Option<String>,
    /// The host that is asked for.
    pub authority: String,
    /// The path, with a query if there is one.
    pub path: String,
    /// Time for one attempt. Milliseconds, at least 1.
    pub timeout_ms: u64,
    /// How long an answer is good. Milliseconds, at least 1.
    pub cache_ms: u64,
    /// The keys are fetched when they are configured and again before they are too old, and not only
    /// when a request waits for them.
    #[serde(default)]
    pub in_background: bool,
    /// The pause after a failure. Milliseconds.
    pub failed_refetch_ms: u64,
    /// How often an attempt that fails is repeated.
    #[serde(default)]
    pub retries: u32,
    /// The first pause between attempts; each is up to twice as long as the one before. Milliseconds.
    #[serde(default)]
    pub retry_base_ms: u64,
    /// The longest pause between attempts. Milliseconds.
    #[serde(default)]
    pub retry_max_ms: u64,
}
