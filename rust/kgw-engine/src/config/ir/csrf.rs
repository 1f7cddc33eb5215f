//! Requests that pages of other origins make.

use serde::{Deserialize, Serialize};

use super::StringMatcher;

/// Requests that change something have to come from a page of the host that they are for (Envoy
/// `csrf`).
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Csrf {
    /// The share of such requests that are refused otherwise. Percent.
    pub percent_enabled: u8,
    /// The share of such requests that are counted otherwise, where they are not refused. Percent.
    pub percent_shadowed: u8,
    /// Other hosts, with their ports if they have any, whose pages may make them.
    pub additional_origins: Vec<StringMatcher>,
}
