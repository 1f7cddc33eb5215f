//! Who may do what, by conditions.

use serde::{Deserialize, Serialize};

/// Requests that are allowed or refused by conditions (Envoy `rbac` with a CEL matcher).
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Rbac {
    /// What becomes of a request of which one of the conditions holds. Others meet the opposite.
    pub action: RbacAction,
    /// Expressions in the Common Expression Language, about Envoy's attributes; at least one.
    pub conditions: Vec<String>,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RbacAction {
    /// It goes on.
    Allow,
    /// It is answered 403.
    Deny,
}
