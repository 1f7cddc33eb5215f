//! Session persistence.

use serde::{Deserialize, Serialize};

/// Requests of one client go to one endpoint (GEP-1619), which a token names that the client sends.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    /// Whose sessions they are: tokens of other scopes say nothing. Equal on all replicas.
    pub scope: String,
    /// The places, among the action's backends, of those that it is for.
    pub backends: Vec<usize>,
    /// Where the token is.
    pub token: SessionToken,
    /// Time from its beginning to the end of a session. Milliseconds; 0 is none.
    #[serde(default)]
    pub absolute_timeout_ms: u64,
}

/// Where the token of a session is.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case", tag = "type")]
pub enum SessionToken {
    /// In a cookie.
    Cookie {
        /// Its name.
        name: String,
        /// Its `Path`.
        #[serde(default = "default_path")]
        path: String,
        /// It has a `Max-Age`, the absolute time-out, rather than end with the client's own session.
        #[serde(default)]
        permanent: bool,
    },
    /// In a header field of answers, which the client sends back in one of the same name.
    Header {
        /// Its name.
        name: String,
    },
}

fn default_path() -> String {
    "/".to_owned()
}
