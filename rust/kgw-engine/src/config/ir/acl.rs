//! Access by the client's address.

use serde::{Deserialize, Serialize};

/// Which clients may use a route (kgateway `acl`).
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Acl {
    /// What becomes of clients of no network.
    pub default_action: AclAction,
    /// The rules. Of the networks that a client is in the longest prefix counts, and of the rules with
    /// this network the last one.
    #[serde(default)]
    pub rules: Vec<AclRule>,
    /// Status of the answer to a client that is denied. 200 to 599.
    #[serde(default = "default_status")]
    pub status: u16,
    /// Header fields of this answer.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// Name of the header field in which this answer says why.
    #[serde(default)]
    pub blocked_by_header: Option<String>,
}

/// What becomes of clients of some networks.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AclRule {
    /// What is said of the clients that it denies; `rule` without one.
    #[serde(default)]
    pub name: Option<String>,
    /// Networks (`10.0.0.0/8`) and addresses.
    pub networks: Vec<String>,
    /// What becomes of the clients.
    pub action: AclAction,
}

/// What becomes of a client.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AclAction {
    /// Its requests pass.
    Allow,
    /// Its requests are refused.
    Deny,
}

fn default_status() -> u16 {
    403
}
