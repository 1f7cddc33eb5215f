//! Parser events to documents.
//!
//! The event parser is `granit-parser`. What is here builds the trees, refuses what JSON cannot
//! hold, bounds what aliases expand to, and after an error goes on at the next document.

mod builder;
mod keys;
mod tags;

use std::sync::Arc;

use builder::{Builder, Open, OpenContent, Size};
use granit_parser::{
    ErrorKind, Event, Marker, Options, Parser, ScalarStyle, Span, StructureStyle, Tag,
};

use crate::hint::hint;
use crate::mapping::{Key, OpenMapping};
use crate::problem::{Problem, ProblemKind};
use crate::sanitize::{Faults, abridge, sanitize};
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
    pub source: Arc<Source>,
    /// The documents that are whole; those without content are left out.
    pub documents: Vec<Arc<Document>>,
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
            source: Arc::new(source),
            documents: Vec::new(),
            problems,
        };
    }
    let (text, faults) = sanitize(bytes);
    let source = Source::new(text);
    let (documents, mut problems) = {
        let mut loader = Loader::new(&source, limits);
        loader.run();
        loader.blame(faults);
        (loader.documents, loader.problems)
    };
    problems.sort_by_key(|problem| (problem.place.line, problem.place.column));
    Parsed {
        source: Arc::new(source),
        documents: documents.into_iter().map(Arc::new).collect(),
        problems,
    }
}

/// Parses a clean text; returns also how many documents it has, empty and broken ones counted.
pub(crate) fn load(source: &Source, limits: &Limits) -> (Vec<Document>, Vec<Problem>, usize) {
    let mut loader = Loader::new(source, limits);
    loader.run();
    (loader.documents, loader.problems, loader.starts.len())
}

struct Loader<'s> {
    source: &'s Source,
    limits: &'s Limits,
    documents: Vec<Document>,
    problems: Vec<Problem>,
    /// The start of every document, whole or not.
    starts: Vec<u32>,
    /// Where the text of the event parser begins in the source.
    base: u32,
    /// The first boundary from here on ends the current document.
    reached: u32,
    tree: Builder,
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
            base: 0,
            reached: 0,
            tree: Builder::default(),
        }
    }

    /// Reads all documents; after an error, from the next boundary on.
    ///
    /// The event parser can skip to the next document as well, but it counts a directive that it
    /// does not understand as a part of the document after it. Here, as for `kubectl`, a line
    /// `---` always begins anew.
    fn run(&mut self) {
        let source = self.source;
        while self.documents_until_error(source).is_err() {
            self.tree = Builder::default();
            let Some(next) = source.boundary(self.reached) else {
                return;
            };
            (self.base, self.reached) = (next.resume, next.resume + next.marker);
        }
    }

    fn documents_until_error(&mut self, source: &Source) -> Result<(), Abandon> {
        let mut options = Options::default();
        options.emit_comments = false;
        options.emit_unresolved_aliases = true;
        options.block_nesting_limit = self.limits.depth as usize;
        options.flow_nesting_limit = self.limits.depth as usize;
        // YAML's 1024 characters are too few for a key of JSON, which knows no limit.
        options.simple_key_max_lookahead = 16 << 10;
        let text = source.text().get(self.base as usize..).unwrap_or_default();
        let mut parser = Parser::new_from_str_with_options(text, options);
        loop {
            match parser.next_event() {
                None | Some(Ok((Event::StreamEnd, _))) => return Ok(()),
                Some(Ok((event, span))) => self.event(event, &span)?,
                Some(Err(error)) => {
                    self.syntax_error(error.kind(), self.at(*error.marker()));
                    return Err(Abandon);
                }
            }
            if self.tree.problems >= MANY_PROBLEMS {
                return Err(Abandon);
            }
        }
    }

    fn event(&mut self, event: Event<'_>, span: &Span) -> Result<(), Abandon> {
        let tag_range = span
            .tag_span()
            .map_or_else(|| self.range(span), |tag| self.range(&tag));
        let range = self.range(span);
        // `---` and `...` themselves are done with; what other events stand for may end at one.
        let marker = matches!(event, Event::DocumentStart(..) | Event::DocumentEnd);
        self.reached = self.reached.max(range.start + u32::from(marker));
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

    // --- places ---

    fn at(&self, marker: Marker) -> u32 {
        let at = marker.byte_offset().map_or(u32::MAX, offset);
        self.base.saturating_add(at)
    }

    fn range(&self, span: &Span) -> Range {
        Range {
            start: self.at(span.start),
            end: self.at(span.end),
        }
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
        let prose = self.tree.open.is_empty()
            && self.documents.iter().all(Document::is_scalar)
            && matches!(
                error,
                ErrorKind::CommentInterceptedScalar
                    | ErrorKind::ExpectedDocumentStart
                    | ErrorKind::MappingValueNotAllowed
                    | ErrorKind::UnexpectedCharacter { .. }
            );
        let hint = hint(error, line);
        let kind = match error {
            ErrorKind::RecursionLimitExceeded => ProblemKind::TooDeep { limit },
            other if prose => ProblemKind::NotYaml(other.to_string()),
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

// === free functions ===

fn is_flow(style: StructureStyle) -> bool {
    style == StructureStyle::Flow
}

/// Who has this many problems in one document has seen enough.
const MANY_PROBLEMS: usize = 20;
