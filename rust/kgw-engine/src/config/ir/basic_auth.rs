//! Users and passwords.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Requests have to name a user and the password (Envoy `basic_auth`, RFC 7617).
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct BasicAuth {
    /// The users, each once.
    pub users: Vec<BasicAuthUser>,
}

/// A user, whose password's hash is in no debug output.
#[derive(Clone, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct BasicAuthUser {
    /// The name.
    pub name: String,
    /// Of the password, as `htpasswd` writes it: `{SHA}` and base64, or bcrypt (`$2y$`, `$2b$`, `$2a$`)
    /// of a cost of at most 14.
    pub hash: String,
}

impl fmt::Debug for BasicAuthUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BasicAuthUser")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
