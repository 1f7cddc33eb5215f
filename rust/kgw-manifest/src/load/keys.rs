//! Keys: strings in JSON, anything in YAML; given once, or merged from elsewhere.

use super::builder::{Open, OpenContent};
use super::{Loader, MANY_PROBLEMS, Tagged};
use crate::hint::template;
use crate::mapping::{Key, OpenMapping};
use crate::problem::ProblemKind;
use crate::sanitize::abridge;
use crate::source::Range;
use crate::tree::{Content, NodeId, Scalar};

impl Loader<'_> {
    pub(super) fn key(&mut self, text: &str, plain: bool, tag: Tagged<'_>, range: Range) -> Key {
        let value = self.resolve(text, plain, tag, range);
        self.value_as_key(&value, text, range)
    }

    /// Makes a key of a value as `sigs.k8s.io/yaml` does, and warns where it is not its text.
    pub(super) fn value_as_key(&mut self, value: &Scalar, written: &str, range: Range) -> Key {
        let (read, becomes) = match value {
            Scalar::String(text) => ("a string", text.clone()),
            Scalar::Bool(value) => ("a boolean", value.to_string().into()),
            Scalar::Int(value) => ("an integer", value.to_string().into()),
            Scalar::UInt(value) => ("an integer", value.to_string().into()),
            Scalar::Float(_) => return self.refuse_key("a floating point number", range),
            Scalar::Null => return self.refuse_key("null", range),
        };
        if !matches!(value, Scalar::String(_)) && *becomes != *written {
            let kind = ProblemKind::KeyRewritten {
                written: abridge(written),
                read,
                becomes: abridge(&becomes),
            };
            self.tree.warnings += 1;
            if self.tree.warnings <= MANY_PROBLEMS {
                self.report(kind, range, Some("quote the key"));
            }
        }
        Key::Name(becomes, range)
    }

    /// Makes a key of an alias; a collection is none.
    pub(super) fn node_as_key(&mut self, id: NodeId, range: Range) -> Key {
        let alias = match self.tree.nodes[id as usize].content {
            Content::Alias(target) => target,
            _ => id,
        };
        match &self.tree.nodes[alias as usize].content {
            Content::Scalar(value) => {
                let value = value.clone();
                let text = self
                    .source
                    .text()
                    .get(range.start as usize..range.end as usize);
                self.value_as_key(&value, text.unwrap_or_default(), range)
            }
            Content::Sequence { .. } => self.refuse_key("a sequence", range),
            Content::Mapping { .. } => self.refuse_key("a mapping", range),
            Content::Alias(_) => Key::Refused,
        }
    }

    pub(super) fn refuse_key(&mut self, found: &'static str, range: Range) -> Key {
        let line = self.source.line(self.source.line_of(range.start) as usize);
        let hint = match found {
            "null" | "a floating point number" => Some("quote the key"),
            _ => template(line.unwrap_or_default()),
        };
        self.refuse(ProblemKind::KeyNotString { found }, range, hint);
        Key::Refused
    }

    /// Puts a key down to wait for its value.
    pub(super) fn set_key(&mut self, key: Key) {
        // Files that were put together without a line `---` between them.
        let at_root = self.tree.open.len() == 1;
        let Some(Open {
            content: OpenContent::Mapping(mapping),
            ..
        }) = self.tree.open.last_mut()
        else {
            return;
        };
        let (name, range, first, hint) = match &key {
            Key::Name(name, range) => {
                let member =
                    at_root && matches!(&**name, "apiVersion" | "kind" | "metadata" | "spec");
                let hint = member.then_some("is a `---` missing before this line?");
                (&**name, *range, mapping.find(name), hint)
            }
            Key::Merge(range) => {
                let hint = Some("merge several mappings with `<<: [*one, *two]`");
                ("<<", *range, mapping.merge.map(|(first, _)| first), hint)
            }
            Key::Refused => ("", Range { start: 0, end: 0 }, None, None),
        };
        if let Some(first) = first {
            let first_line = self.source.line_of(first.start);
            let kind = ProblemKind::DuplicateKey {
                key: abridge(name),
                first_line,
            };
            mapping.key = Some(Key::Refused);
            self.refuse(kind, range, hint);
        } else {
            mapping.key = Some(key);
        }
    }

    /// Adds what `<<` merges: keys that are there stay, of several mappings the first wins.
    pub(super) fn merge(&mut self, mapping: &mut OpenMapping, merged: NodeId) {
        let target = self.tree.target(merged);
        let sources = match &self.tree.nodes[target as usize].content {
            Content::Sequence { items, .. } => items.clone(),
            _ => vec![merged],
        };
        for source in sources {
            let target = self.tree.target(source);
            let entries = match &self.tree.nodes[target as usize].content {
                Content::Mapping { entries, .. } => entries.clone(),
                content => {
                    let found = match content {
                        Content::Sequence { .. } => "a sequence",
                        Content::Scalar(Scalar::Null) => "null",
                        _ => "a scalar",
                    };
                    let range = self.tree.nodes[source as usize].range;
                    self.refuse(ProblemKind::MergeNotMapping { found }, range, None);
                    return;
                }
            };
            for entry in entries {
                if mapping.find(&entry.key).is_none() {
                    mapping.add(entry);
                }
            }
        }
    }
}
