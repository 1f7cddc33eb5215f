//! A parsed document: JSON values that know their places.

use crate::source::{Place, Range, Source};

/// One document of a text.
///
/// Nodes are kept in one vector and refer to each other by index. An alias is a node of its own
/// that refers to its anchor's node, so nothing is copied however often it is used.
#[derive(Debug)]
pub struct Document {
    pub(crate) index: usize,
    pub(crate) root: NodeId,
    pub(crate) nodes: Vec<NodeData>,
}

pub(crate) type NodeId = u32;

#[derive(Debug)]
pub(crate) struct NodeData {
    pub(crate) range: Range,
    pub(crate) content: Content,
}

#[derive(Debug)]
pub(crate) enum Content {
    Scalar(Scalar),
    Sequence { items: Vec<NodeId>, flow: bool },
    Mapping { entries: Vec<Entry>, flow: bool },
    Alias(NodeId),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Scalar {
    Null,
    Bool(bool),
    Int(i64),
    UInt(u64),
    Float(f64),
    String(Box<str>),
}

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: Box<str>,
    pub(crate) key_range: Range,
    pub(crate) value: NodeId,
}

/// One step of a path into a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<'a> {
    /// Into a mapping.
    Key(&'a str),
    /// Into a sequence.
    Index(usize),
}

/// A node of a document.
#[derive(Debug, Clone, Copy)]
pub struct Node<'a> {
    document: &'a Document,
    id: NodeId,
}

/// The value of a node: JSON's six types, with aliases and merge keys resolved.
#[derive(Debug, Clone)]
pub enum Value<'a> {
    /// `null`, or nothing at all.
    Null,
    /// A boolean.
    Bool(bool),
    /// An integer of 64 bits.
    Int(i64),
    /// An integer that only fits without a sign.
    UInt(u64),
    /// A number that is not integral or needs more than 64 bits; always finite.
    Float(f64),
    /// A string.
    String(&'a str),
    /// A sequence.
    Sequence(Vec<Node<'a>>),
    /// A mapping; its keys are unique.
    Mapping(Entries<'a>),
}

/// The entries of a mapping in the order of the text, those merged by `<<` last.
#[derive(Debug, Clone)]
pub struct Entries<'a> {
    document: &'a Document,
    entries: std::slice::Iter<'a, Entry>,
}

// === impl Document ===

impl Document {
    /// Returns the document's index in its text, counting empty and broken documents too.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Returns where the outermost node starts.
    pub(crate) fn start(&self) -> u32 {
        self.node(self.root).range.start
    }

    /// Whether the document is a single value, as prose is.
    pub(crate) fn is_scalar(&self) -> bool {
        matches!(self.node(self.root).content, Content::Scalar(_))
    }

    /// Returns the outermost node.
    pub fn root(&self) -> Node<'_> {
        Node {
            document: self,
            id: self.root,
        }
    }

    /// Returns the place of the node at a path, or `None` if the document has no such node.
    ///
    /// A block mapping or sequence has no brackets to point at. It is shown by the key it stands
    /// under, or without one by its own first key, or by its first `-`; so is a value that is
    /// nothing. With `key` it is always the key, where there is one. What an alias names is at
    /// the alias; what is inside of it is where the anchor is.
    pub fn locate(&self, source: &Source, path: &[Step<'_>], key: bool) -> Option<Place> {
        let mut at = self.root;
        let mut under = None;
        for step in path {
            (at, under) = match (&self.node(self.target(at)).content, step) {
                (Content::Mapping { entries, .. }, Step::Key(name)) => {
                    let entry = entries.iter().find(|entry| *entry.key == **name)?;
                    (entry.value, Some(entry.key_range))
                }
                (Content::Sequence { items, .. }, Step::Index(index)) => {
                    (*items.get(*index)?, None)
                }
                _ => return None,
            };
        }
        let range = match under {
            Some(under) if key => under,
            _ => self.visible(at).or(under).unwrap_or_else(|| self.head(at)),
        };
        Some(source.place(range))
    }

    pub(crate) fn node(&self, id: NodeId) -> &NodeData {
        &self.nodes[id as usize]
    }

    /// Follows an alias to the node it names.
    pub(crate) fn target(&self, id: NodeId) -> NodeId {
        match self.node(id).content {
            Content::Alias(target) => target,
            _ => id,
        }
    }

    /// The range of a node that has a form of its own.
    fn visible(&self, id: NodeId) -> Option<Range> {
        let node = self.node(id);
        let block = match &node.content {
            Content::Sequence { flow, .. } | Content::Mapping { flow, .. } => !flow,
            Content::Scalar(_) | Content::Alias(_) => false,
        };
        (!block && node.range.start < node.range.end).then_some(node.range)
    }

    /// What to show of a node without a form of its own: its first key, its first `-`, or a point.
    fn head(&self, id: NodeId) -> Range {
        let Range { start, end } = self.node(id).range;
        match &self.node(id).content {
            Content::Mapping { entries, .. } => entries
                .first()
                .map(|entry| entry.key_range)
                .filter(|key| (start..end).contains(&key.start))
                .unwrap_or(Range { start, end: start }),
            Content::Sequence { .. } => Range {
                start,
                end: end.min(start.saturating_add(1)),
            },
            _ => Range { start, end: start },
        }
    }
}

// === impl Node ===

impl<'a> Node<'a> {
    /// Returns the node's value.
    pub fn value(self) -> Value<'a> {
        let document = self.document;
        match &document.node(document.target(self.id)).content {
            Content::Scalar(Scalar::Null) | Content::Alias(_) => Value::Null,
            Content::Scalar(Scalar::Bool(value)) => Value::Bool(*value),
            Content::Scalar(Scalar::Int(value)) => Value::Int(*value),
            Content::Scalar(Scalar::UInt(value)) => Value::UInt(*value),
            Content::Scalar(Scalar::Float(value)) => Value::Float(*value),
            Content::Scalar(Scalar::String(value)) => Value::String(value),
            Content::Sequence { items, .. } => {
                Value::Sequence(items.iter().map(|id| Node { document, id: *id }).collect())
            }
            Content::Mapping { entries, .. } => Value::Mapping(Entries {
                document,
                entries: entries.iter(),
            }),
        }
    }
}

// === impl Entries ===

impl<'a> Iterator for Entries<'a> {
    type Item = (&'a str, Node<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.entries.next()?;
        Some((
            &entry.key,
            Node {
                document: self.document,
                id: entry.value,
            },
        ))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.entries.size_hint()
    }
}

impl ExactSizeIterator for Entries<'_> {}
