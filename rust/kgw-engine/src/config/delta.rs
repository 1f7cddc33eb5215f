//! Changes to a configuration: what a controller or a watcher sends in place of the whole.
//!
//! Everything is keyed by the ids of [`ir`](super::ir), so that one changed route costs one route. The
//! result is the same, in every way that can be observed, as that of the whole new configuration.
//! `docs/ir.md` describes the form for people.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;

use super::ir::{Cluster, Listener, Route, Rule, entries};

/// Changes to the configuration of one generation.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delta<'a> {
    /// Must be [`VERSION`](super::ir::VERSION).
    pub version: u32,
    /// The generation that the changes are to. If it is not the newest one, they are refused.
    pub base: u64,
    /// All listeners, if any of them changes.
    #[serde(default)]
    pub listeners: Option<Vec<Listener>>,
    /// Changed route tables by id; null removes one.
    #[serde(default)]
    pub route_tables: BTreeMap<String, Option<RouteTableDelta>>,
    /// Changed routes by id; null removes one.
    #[serde(borrow, default, deserialize_with = "entries")]
    pub routes: Vec<(Cow<'a, str>, Option<Route<'a>>)>,
    /// Changed clusters by id; null removes one.
    #[serde(default)]
    pub clusters: BTreeMap<String, Option<Cluster>>,
}

/// Changes to a route table; a table that is not there yet is made.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteTableDelta {
    /// The changed hosts.
    pub hosts: Vec<HostDelta>,
}

/// Changes to a virtual host; one that is not there yet is made.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostDelta {
    /// `foo.example`, `*.example`, or `*` for any.
    pub hostname: String,
    /// The host goes with all the rules that it has; with `rules` beside it, it has these instead.
    #[serde(default)]
    pub removed: bool,
    /// The rules of every route that they name, in place of those that the host has of it.
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// Ids of routes of which the host has no rules any longer, unless `rules` has some.
    #[serde(default)]
    pub removed_rules: Vec<String>,
}
