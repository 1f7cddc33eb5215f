//! Parser events to documents.
//!
//! The event parser is `granit-parser`. This file builds the trees, refuses what JSON cannot
//! hold, bounds what aliases expand to, and after an error goes on at the next document.

use std::collections::HashMap;

use granit_parser::{ErrorKind, Event, Options, Parser, ScalarStyle, Span, StructureStyle, Tag};

use crate::hint::{hint, template};
use crate::mapping::{Key, OpenMapping};
use crate::problem::{Problem, ProblemKind};
use crate::sanitize::{Faults, abridge, sanitize};
use crate::scalar;
use crate::source::{Range, Source, offset};
use crate::tree::{Content, Document, Entry, NodeData, NodeId, Scalar};

/// What a text may cost.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The size of the text in bytes.
    pub bytes: usize,
    /// How deep sequences and mappings may nest, aliases followed.
    pub depth: u32,
    /// How many values the aliases of one document may stand for in total; 16 bytes of a string
    /// count as one more value.
    pub alias_nodes: u64,
}

impl Default for Limits {
    /// 64 MiB (over 100,000 routes), 100 levels, 100,000 values.
    fn default() -> Self {
        Self {
            bytes: 64 << 20,
            depth: 100,
            alias_nodes: 100_000,
        }
    }
}

/// What a text consists of.
#[derive(Debug)]
pub struct Parsed {
    /// The text and its lines.
    pub source: Source,
    /// The documents that are whole; those without content are left out.
    pub documents: Vec<Document>,
    /// Everything that is wrong, in the order of the text.
    pub problems: Vec<Problem>,
}

/// Parses a stream of YAML documents, or JSON.
pub fn parse(bytes: &[u8], limits: &Limits) -> Parsed {
    if bytes.len() > limits.bytes.min(u32::MAX as usize - 1) {
        let source = Source::new(Box::default());
        let kind = ProblemKind::TooLarge {
            bytes: bytes.len(),
            limit: limits.bytes,
        };
        let place = source.place(Range { start: 0, end: 0 });
        let hint = Some("split the file");
        let problems = vec![Problem {
            kind,
            place,
            document: 0,
            hint,
        }];
        return Parsed {
            source,
            documents: Vec::new(),
            problems,
        };
    }
    let (text, faults) = sanitize(bytes);
    let source = Source::new(text);
    let mut loader = Loader::new(&source, limits);
    loader.run();
    loader.blame(faults);
    let Loader {
        documents,
        mut problems,
        ..
    } = loader;
    problems.sort_by_key(|problem| (problem.place.line, problem.place.column));
    Parsed {
        source,
        documents,
        problems,
    }
}

struct Loader<'s> {
    source: &'s Source,
    limits: &'s Limits,
    documents: Vec<Document>,
    problems: Vec<Problem>,
    /// The start of every document, whole or not.
    starts: Vec<u32>,
    tree: Builder,
}

/// The document that is being built.
#[derive(Default)]
struct Builder {
    nodes: Vec<NodeData>,
    sizes: Vec<Size>,
    open: Vec<Open>,
    anchors: HashMap<usize, NodeId>,
    root: Option<NodeId>,
    /// What the aliases so far stand for.
    expanded: u64,
    broken: bool,
    problems: usize,
    warnings: usize,
}

/// What a node comes to when its aliases are followed.
#[derive(Clone, Copy)]
struct Size {
    values: u64,
    height: u32,
}

/// A collection whose end has not been seen.
struct Open {
    node: NodeId,
    anchor: usize,
    size: Size,
    content: OpenContent,
}

enum OpenContent {
    Sequence(Vec<NodeId>),
    Mapping(OpenMapping),
}

/// A tag, and where it stands.
type Tagged<'t> = Option<(&'t Tag, Range)>;

/// The rest of a document is not worth parsing.
struct Abandon;

// === impl Loader ===

impl<'s> Loader<'s> {
    fn new(source: &'s Source, limits: &'s Limits) -> Self {
        Self {
            source,
            limits,
            documents: Vec::new(),
            problems: Vec::new(),
            starts: Vec::new(),
            tree: Builder::default(),
        }
    }

    fn run(&mut self) {
        let mut options = Options::default();
        options.emit_comments = false;
        options.emit_unresolved_aliases = true;
        options.block_nesting_limit = self.limits.depth as usize;
        options.flow_nesting_limit = self.limits.depth as usize;
        // YAML's 1024 characters are too few for a key of JSON, which knows no limit.
        options.simple_key_max_lookahead = 16 << 10;
        let mut parser = Parser::new_from_str_with_options(self.source.text(), options);
        loop {
            let outcome = match parser.next_event() {
                None | Some(Ok((Event::StreamEnd, _))) => return,
                Some(Ok((event, span))) => self.event(event, &span),
                Some(Err(error)) => {
                    let at = error.marker().byte_offset().map_or(u32::MAX, offset);
                    self.syntax_error(error.kind(), at);
                    Err(Abandon)
                }
            };
            if outcome.is_err() || self.tree.problems >= MANY_PROBLEMS {
                self.tree = Builder::default();
                // Only a broken input source makes this fail, and a string is none.
                if !matches!(parser.proceed_next_document(), Ok(true)) {
                    return;
                }
            }
        }
    }

    fn event(&mut self, event: Event<'_>, span: &Span) -> Result<(), Abandon> {
        let tag_range = span
            .tag_span()
            .map_or_else(|| range(span), |tag| range(&tag));
        let range = range(span);
        match event {
            Event::DocumentStart(..) => {
                self.tree = Builder::default();
                self.starts.push(range.start);
            }
            Event::DocumentEnd => self.finish(),
            Event::Scalar(text, style, anchor, tag) => {
                return self.scalar(
                    &text,
                    style,
                    anchor,
                    tag.as_deref().map(|tag| (tag, tag_range)),
                    range,
                );
            }
            Event::Alias(anchor) => {
                let Some(target) = self.tree.anchors.get(&anchor).copied() else {
                    self.refuse(ProblemKind::RecursiveAlias, range, None);
                    return Err(Abandon);
                };
                let size = self.tree.sizes[target as usize];
                self.tree.expanded = self.tree.expanded.saturating_add(size.values);
                if self.tree.expanded > self.limits.alias_nodes {
                    let limit = self.limits.alias_nodes;
                    self.refuse(ProblemKind::TooManyAliases { limit }, range, None);
                    return Err(Abandon);
                }
                return self.node(
                    NodeData {
                        range,
                        content: Content::Alias(target),
                    },
                    0,
                    size,
                );
            }
            Event::UnresolvedAlias(name) => {
                let kind = ProblemKind::UnknownAlias {
                    name: abridge(&name),
                };
                self.refuse(kind, range, Some("quote a value that begins with `*`"));
                return self.scalar("", ScalarStyle::Plain, 0, None, range);
            }
            Event::SequenceStart(style, anchor, tag) => {
                self.collection_tag(tag.as_deref().map(|tag| (tag, tag_range)), "seq");
                let content = Content::Sequence {
                    items: Vec::new(),
                    flow: is_flow(style),
                };
                self.open(range, content, OpenContent::Sequence(Vec::new()), anchor);
            }
            Event::MappingStart(style, anchor, tag) => {
                self.collection_tag(tag.as_deref().map(|tag| (tag, tag_range)), "map");
                let content = Content::Mapping {
                    entries: Vec::new(),
                    flow: is_flow(style),
                };
                self.open(
                    range,
                    content,
                    OpenContent::Mapping(OpenMapping::default()),
                    anchor,
                );
            }
            Event::SequenceEnd | Event::MappingEnd => return self.close(range.end),
            _ => {}
        }
        Ok(())
    }

    // --- nodes ---

    fn scalar(
        &mut self,
        text: &str,
        style: ScalarStyle,
        anchor: usize,
        tag: Tagged<'_>,
        range: Range,
    ) -> Result<(), Abandon> {
        // The parser gives `~` for a value that is not there at all.
        let absent = range.start == range.end && style == ScalarStyle::Plain;
        let text = if absent { "" } else { text };
        let plain = style == ScalarStyle::Plain;
        if let Some(Open {
            content: OpenContent::Mapping(mapping),
            ..
        }) = self.tree.open.last()
            && mapping.key.is_none()
        {
            let key = if plain && tag.is_none() && text == "<<" {
                Key::Merge(range)
            } else {
                self.key(text, plain, tag, range)
            };
            if anchor != 0 {
                let content = Content::Scalar(Scalar::String(text.into()));
                let id = self
                    .tree
                    .push(NodeData { range, content }, Size::of_text(text));
                self.tree.anchors.insert(anchor, id);
            }
            self.set_key(key);
            return Ok(());
        }
        let value = self.resolve(text, plain, tag, range);
        let content = Content::Scalar(value);
        self.node(NodeData { range, content }, anchor, Size::of_text(text))
    }

    /// Resolves a scalar by its tag, or by its text if it is plain.
    fn resolve(&mut self, text: &str, plain: bool, tag: Tagged<'_>, range: Range) -> Scalar {
        let string = || Scalar::String(text.into());
        let Some((tag, tag_range)) = tag else {
            if !plain {
                return string();
            }
            return scalar::resolve(text).unwrap_or_else(|| {
                let kind = ProblemKind::NotJson {
                    text: abridge(text),
                };
                self.refuse(kind, range, Some("quote it if it is meant as text"));
                Scalar::Null
            });
        };
        // `!` alone says: not resolved, a string (YAML 1.2.2 §6.9.1).
        if tag.original() == "!" {
            return string();
        }
        let (wanted, value) = match tag.core_suffix() {
            Some("str") => return string(),
            Some("null") => ("null", scalar::resolve(text).filter(|v| *v == Scalar::Null)),
            Some("bool") => {
                let value = scalar::resolve(text);
                (
                    "a boolean",
                    value.filter(|value| matches!(value, Scalar::Bool(_))),
                )
            }
            Some("int") => {
                let value = scalar::number(text);
                let is_int = |v: &Scalar| matches!(v, Scalar::Int(_) | Scalar::UInt(_));
                ("an integer", value.filter(is_int))
            }
            Some("float") => {
                let value = scalar::number(text);
                let is_finite = |v: &Scalar| !matches!(v, Scalar::Float(v) if !v.is_finite());
                ("a finite number", value.filter(is_finite))
            }
            _ => {
                self.unknown_tag(tag, tag_range);
                return string();
            }
        };
        value.unwrap_or_else(|| {
            let kind = ProblemKind::TagMismatch {
                text: abridge(text),
                wanted,
            };
            self.refuse(kind, range, None);
            Scalar::Null
        })
    }

    fn collection_tag(&mut self, tag: Tagged<'_>, expected: &str) {
        if let Some((tag, range)) = tag
            && tag.core_suffix() != Some(expected)
            && tag.original() != "!"
        {
            self.unknown_tag(tag, range);
        }
    }

    fn unknown_tag(&mut self, tag: &Tag, range: Range) {
        let hint = match tag.suffix_in_namespace("tag:yaml.org,2002:").as_deref() {
            Some("binary") => "write the base64 text without the tag",
            _ => "quote a value that begins with `!`",
        };
        let kind = ProblemKind::UnknownTag {
            tag: abridge(&tag.original()),
        };
        self.refuse(kind, range, Some(hint));
    }

    /// Attaches a finished node where it belongs.
    fn node(&mut self, node: NodeData, anchor: usize, size: Size) -> Result<(), Abandon> {
        let id = self.tree.push(node, size);
        if anchor != 0 {
            self.tree.anchors.insert(anchor, id);
        }
        self.attach(id)
    }

    fn attach(&mut self, id: NodeId) -> Result<(), Abandon> {
        let size = self.tree.sizes[id as usize];
        let range = self.tree.nodes[id as usize].range;
        let levels = offset(self.tree.open.len());
        if levels.saturating_add(size.height) > self.limits.depth {
            self.refuse(
                ProblemKind::TooDeep {
                    limit: self.limits.depth,
                },
                range,
                None,
            );
            return Err(Abandon);
        }
        let Some(parent) = self.tree.open.last_mut() else {
            self.tree.root = Some(id);
            return Ok(());
        };
        parent.size.values = parent.size.values.saturating_add(size.values);
        parent.size.height = parent.size.height.max(size.height + 1);
        match &mut parent.content {
            OpenContent::Sequence(items) => items.push(id),
            OpenContent::Mapping(mapping) => match mapping.key.take() {
                None => {
                    let key = self.node_as_key(id, range);
                    self.set_key(key);
                }
                Some(Key::Name(key, key_range)) => {
                    let entry = Entry {
                        key,
                        key_range,
                        value: id,
                    };
                    mapping.add(entry);
                }
                Some(Key::Merge(at)) => mapping.merge = Some((at, Some(id))),
                Some(Key::Refused) => {}
            },
        }
        Ok(())
    }

    fn open(&mut self, range: Range, content: Content, open: OpenContent, anchor: usize) {
        let size = Size {
            values: 1,
            height: 1,
        };
        let node = self.tree.push(NodeData { range, content }, size);
        self.tree.open.push(Open {
            node,
            anchor,
            size,
            content: open,
        });
    }

    fn close(&mut self, end: u32) -> Result<(), Abandon> {
        let Some(Open {
            node: id,
            anchor,
            size,
            content,
        }) = self.tree.open.pop()
        else {
            return Ok(());
        };
        match content {
            OpenContent::Sequence(all) => {
                if let Content::Sequence { items, .. } = &mut self.tree.nodes[id as usize].content {
                    *items = all;
                }
            }
            OpenContent::Mapping(mut mapping) => {
                if let Some((_, Some(merged))) = mapping.merge {
                    self.merge(&mut mapping, merged);
                }
                let node = &mut self.tree.nodes[id as usize];
                if let Content::Mapping { entries, .. } = &mut node.content {
                    *entries = mapping.entries;
                }
            }
        }
        let node = &mut self.tree.nodes[id as usize];
        node.range.end = end.max(node.range.end);
        self.tree.sizes[id as usize] = size;
        if anchor != 0 {
            self.tree.anchors.insert(anchor, id);
        }
        self.attach(id)
    }

    // --- keys ---

    fn key(&mut self, text: &str, plain: bool, tag: Tagged<'_>, range: Range) -> Key {
        let value = self.resolve(text, plain, tag, range);
        self.value_as_key(&value, text, range)
    }

    /// Makes a key of a value as `sigs.k8s.io/yaml` does, and warns where it is not its text.
    fn value_as_key(&mut self, value: &Scalar, written: &str, range: Range) -> Key {
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
    fn node_as_key(&mut self, id: NodeId, range: Range) -> Key {
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

    fn refuse_key(&mut self, found: &'static str, range: Range) -> Key {
        let line = self.source.line(self.source.line_of(range.start) as usize);
        let hint = match found {
            "null" | "a floating point number" => Some("quote the key"),
            _ => template(line.unwrap_or_default()),
        };
        self.refuse(ProblemKind::KeyNotString { found }, range, hint);
        Key::Refused
    }

    /// Puts a key down to wait for its value.
    fn set_key(&mut self, key: Key) {
        let Some(Open {
            content: OpenContent::Mapping(mapping),
            ..
        }) = self.tree.open.last_mut()
        else {
            return;
        };
        let (name, range, first, hint) = match &key {
            Key::Name(name, range) => (&**name, *range, mapping.find(name), None),
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
    fn merge(&mut self, mapping: &mut OpenMapping, merged: NodeId) {
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

    // --- documents and problems ---

    fn finish(&mut self) {
        let tree = std::mem::take(&mut self.tree);
        let Some(root) = tree.root else { return };
        let empty = matches!(
            tree.nodes[root as usize],
            NodeData { range: Range { start, end }, content: Content::Scalar(Scalar::Null) }
                if start == end
        );
        if !tree.broken && !empty {
            let index = self.starts.len().saturating_sub(1);
            self.documents.push(Document {
                index,
                root,
                nodes: tree.nodes,
            });
        }
    }

    /// Reports a problem with the current document.
    fn report(&mut self, kind: ProblemKind, range: Range, hint: Option<&'static str>) {
        let place = self.source.place(range);
        let document = self.starts.len().saturating_sub(1);
        self.problems.push(Problem {
            kind,
            place,
            document,
            hint,
        });
    }

    /// Reports a problem that makes the current document unusable.
    fn refuse(&mut self, kind: ProblemKind, range: Range, hint: Option<&'static str>) {
        self.tree.broken = true;
        self.tree.problems += 1;
        self.report(kind, range, hint);
    }

    fn syntax_error(&mut self, error: &ErrorKind, at: u32) {
        let limit = self.limits.depth;
        let end = at.saturating_add(1);
        let line = self
            .source
            .line(self.source.line_of(at) as usize)
            .unwrap_or_default();
        let hint = hint(error, line);
        let kind = match error {
            ErrorKind::RecursionLimitExceeded => ProblemKind::TooDeep { limit },
            other => ProblemKind::Syntax(other.to_string()),
        };
        self.report(kind, Range { start: at, end }, hint);
    }

    /// Holds bytes that had to be replaced against the documents that contain them.
    fn blame(&mut self, faults: Faults) {
        for (at, kind) in faults {
            let document = self
                .starts
                .partition_point(|start| *start <= at)
                .saturating_sub(1);
            self.documents.retain(|whole| whole.index != document);
            let hint = match kind {
                ProblemKind::NotUtf8 { .. } | ProblemKind::Utf16 => Some("save the file as UTF-8"),
                _ => Some("write it as an escape in double quotes, as in \"\\x1b\""),
            };
            let place = self.source.place(Range {
                start: at,
                end: at.saturating_add(1),
            });
            self.problems.push(Problem {
                kind,
                place,
                document,
                hint,
            });
        }
    }
}

// === impl Builder ===

impl Builder {
    fn push(&mut self, node: NodeData, size: Size) -> NodeId {
        let id = offset(self.nodes.len());
        self.nodes.push(node);
        self.sizes.push(size);
        id
    }

    fn target(&self, id: NodeId) -> NodeId {
        match self.nodes[id as usize].content {
            Content::Alias(target) => target,
            _ => id,
        }
    }
}

// === impl Size ===

impl Size {
    fn of_text(text: &str) -> Self {
        Self {
            values: 1 + (text.len() / 16) as u64,
            height: 0,
        }
    }
}

// === free functions ===

fn range(span: &Span) -> Range {
    let at = |marker: granit_parser::Marker| marker.byte_offset().map_or(0, offset);
    Range {
        start: at(span.start),
        end: at(span.end),
    }
}

fn is_flow(style: StructureStyle) -> bool {
    style == StructureStyle::Flow
}

/// Who has this many problems in one document has seen enough.
const MANY_PROBLEMS: usize = 20;
