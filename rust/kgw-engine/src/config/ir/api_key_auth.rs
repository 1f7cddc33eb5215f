//! API keys.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Requests have to have a key of a client (Envoy `api_key_auth`).
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKeyAuth {
    /// The keys, each of one client.
    pub keys: Vec<ApiKey>,
    /// Where a request may have one; the first that there is counts. Not empty.
    pub sources: Vec<ApiKeySource>,
    /// Name of the header field that tells the upstream the client.
    #[serde(default)]
    pub client_header: Option<String>,
    /// The upstream gets the key as well.
    #[serde(default)]
    pub forward: bool,
}

/// A key, which itself is not in the configuration.
#[derive(Clone, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKey {
    /// Whose it is.
    pub client: String,
    /// Its SHA-256 in lower-case hexadecimal.
    pub sha256: String,
}

/// Where a request may have a key.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ApiKeySource {
    /// In a header field of this name, with or without `Bearer ` in front.
    Header(String),
    /// In a query parameter of this name.
    Query(String),
    /// In a cookie of this name.
    Cookie(String),
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKey")
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}
