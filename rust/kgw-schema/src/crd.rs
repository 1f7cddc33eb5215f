//! The `CustomResourceDefinitions` that are a part of this crate, each read when it is asked for.
//!
//! `crds/` has a file for each project, with a line for each kind, as `crds/pack.py` makes them. Another
//! project's are one more file there and one more line in [`BUNDLES`].

use std::sync::{LazyLock, OnceLock};

use serde_json::Value as Json;

use crate::schema::Schema;

/// The files, as text.
const BUNDLES: [&str; 1] = [include_str!("../crds/gateway-api.jsonl")];

/// Which of two sets of definitions is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// What is stable.
    Standard,
    /// That, and what may still change.
    Experimental,
}

/// A kind and its schemas.
#[derive(Debug)]
pub struct Crd {
    /// The API group.
    pub group: &'static str,
    /// The kind.
    pub kind: &'static str,
    line: &'static str,
    packed: OnceLock<Packed>,
}

#[derive(Debug)]
struct Packed {
    namespaced: bool,
    release: String,
    standard: Vec<Version>,
    experimental: Vec<Version>,
    schemas: Vec<Json>,
}

#[derive(Debug)]
struct Version {
    name: String,
    status: bool,
    schema: Json,
    compiled: OnceLock<Schema>,
}

/// Returns the definition of a kind, if there is one here.
#[must_use]
pub fn crd(group: &str, kind: &str) -> Option<&'static Crd> {
    crds()
        .iter()
        .find(|one| one.kind == kind && one.group == group)
}

/// Returns all definitions, by group and kind.
#[must_use]
pub fn crds() -> &'static [Crd] {
    static CRDS: LazyLock<Vec<Crd>> = LazyLock::new(|| {
        let lines = BUNDLES.iter().flat_map(|bundle| bundle.lines());
        lines.filter_map(Crd::read).collect()
    });
    &CRDS
}

impl Crd {
    /// Reads what the definition is about, which its line begins with, and nothing else.
    fn read(line: &'static str) -> Option<Self> {
        let rest = line.strip_prefix("{\"group\":\"")?;
        let (group, rest) = rest.split_once("\",\"kind\":\"")?;
        let (kind, _) = rest.split_once('"')?;
        Some(Self {
            group,
            kind,
            line,
            packed: OnceLock::new(),
        })
    }

    fn packed(&self) -> &Packed {
        self.packed.get_or_init(|| Packed::read(self.line))
    }

    /// Whether objects of the kind are in namespaces.
    #[must_use]
    pub fn namespaced(&self) -> bool {
        self.packed().namespaced
    }

    /// The release of the project that the definition is of, as in `v1.6.1`; empty if it says none.
    #[must_use]
    pub fn release(&self) -> &str {
        &self.packed().release
    }

    /// The versions that an API server serves, none if the channel does not have the kind.
    #[must_use]
    pub fn versions(&self, channel: Channel) -> Vec<&str> {
        let versions = self.packed().channel(channel).iter();
        versions.map(|version| version.name.as_str()).collect()
    }

    /// The schema of a version, compiled when it is first asked for.
    ///
    /// # Panics
    /// If a definition that this crate ships cannot be compiled, which its tests exclude.
    #[must_use]
    pub fn schema(&self, version: &str, channel: Channel) -> Option<&Schema> {
        let packed = self.packed();
        let found = packed
            .channel(channel)
            .iter()
            .find(|one| one.name == version)?;
        let compile = || {
            let wider = packed.experimental.iter().find(|one| one.name == version);
            let wider = wider.map(|wider| &wider.schema);
            let wider = wider.filter(|_| channel == Channel::Standard);
            Schema::packed(&found.schema, wider, &packed.schemas, found.status)
                .expect("a test compiles every schema")
        };
        Some(found.compiled.get_or_init(compile))
    }
}

impl Packed {
    fn read(line: &str) -> Self {
        let mut json: Json = serde_json::from_str(line).expect("a test reads every line");
        let versions = |channel: &Json| {
            let versions = channel.as_array().into_iter().flatten();
            versions.map(Version::read).collect::<Vec<_>>()
        };
        let channels = &json["channels"];
        let standard = versions(&channels["standard"]);
        // Who has no channels has one, and everything is in it.
        let experimental = match &channels["experimental"] {
            Json::Null => versions(&channels["standard"]),
            channel => versions(channel),
        };
        let schemas = json["schemas"].as_array_mut().map(std::mem::take);
        Self {
            namespaced: json["namespaced"].as_bool().unwrap_or(true),
            release: json["release"].as_str().unwrap_or_default().to_owned(),
            standard,
            experimental,
            schemas: schemas.unwrap_or_default(),
        }
    }

    fn channel(&self, channel: Channel) -> &[Version] {
        match channel {
            Channel::Standard => &self.standard,
            Channel::Experimental => &self.experimental,
        }
    }
}

impl Version {
    fn read(json: &Json) -> Self {
        Self {
            name: json["name"].as_str().unwrap_or_default().to_owned(),
            status: json["status"].as_bool().unwrap_or(false),
            schema: json["schema"].clone(),
            compiled: OnceLock::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_definition_is_read_and_compiled() {
        let lines: usize = BUNDLES.iter().map(|bundle| bundle.lines().count()).sum();
        assert_eq!(crds().len(), lines);
        for one in crds() {
            assert!(
                !one.versions(Channel::Experimental).is_empty(),
                "{}",
                one.kind
            );
            for channel in [Channel::Standard, Channel::Experimental] {
                for version in one.versions(channel) {
                    assert!(
                        one.schema(version, channel).is_some(),
                        "{} {version}",
                        one.kind
                    );
                }
            }
        }
    }

    #[test]
    fn kinds_are_found_by_group() {
        let route = crd("gateway.networking.k8s.io", "HTTPRoute").expect("HTTPRoute");
        assert_eq!(route.versions(Channel::Standard), ["v1", "v1beta1"]);
        assert_eq!(route.release(), "v1.6.1");
        assert!(route.namespaced());
        assert!(crd("gateway.networking.x-k8s.io", "HTTPRoute").is_none());
        let mesh = crd("gateway.networking.x-k8s.io", "XMesh").expect("XMesh");
        assert!(mesh.versions(Channel::Standard).is_empty());
        assert!(!mesh.namespaced());
        assert!(mesh.schema("v1alpha1", Channel::Standard).is_none());
        assert!(mesh.schema("v1", Channel::Experimental).is_none());
    }
}
