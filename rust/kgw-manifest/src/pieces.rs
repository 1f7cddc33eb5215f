//! A stream of documents in pieces, each of which is parsed once while its bytes stay.
//!
//! A piece is what stands between two lines `---`: no scalar of any style may contain such a line
//! (YAML 1.2.2 §9.1.2, `c-forbidden`), and without directives a document owes nothing to the ones
//! before it. So a text is taken apart without being understood, and what stands in pieces that a
//! text had before is known. A changed document costs a document, and a comparison of bytes.
//!
//! Not every text can be taken apart: directives, `...`, byte order marks and bytes that are no text
//! are for [`parse`](crate::parse) alone, which also has the last word on whatever is wrong.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use crate::load::{Limits, Parsed, load, parse};
use crate::reread::Reread;
use crate::sanitize::sanitize;
use crate::source::{Source, offset};
use crate::tree::Document;

/// A text, whole or in pieces.
#[derive(Debug)]
pub struct Text<T> {
    /// The pieces, unless the text cannot be taken apart.
    pieces: Vec<Arc<Piece<T>>>,
    /// Those of the last text that could be, if this one cannot.
    spare: Vec<Arc<Piece<T>>>,
    /// The text as a whole, if something is wrong with it or it cannot be taken apart.
    whole: Option<Parsed>,
    digest: [u64; 2],
}

/// A part of a text that has one document, or none.
#[derive(Debug)]
pub struct Piece<T> {
    /// The piece and its lines, with the `---` that ends it, if there is one.
    pub source: Arc<Source>,
    /// The document, unless there is none or something is wrong with it. Its index does not count.
    document: Option<Arc<Reread>>,
    /// Whatever the user of a text keeps with its document.
    pub kept: T,
    /// How many documents it counts as: empty and broken ones count.
    documents: usize,
    /// Its length without the `---` after it.
    length: usize,
    /// Whether nothing comes after it.
    last: bool,
    /// Whether nothing is wrong with it.
    clean: bool,
    digest: [u64; 2],
}

/// Where a piece stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stand {
    /// The index of its document.
    pub index: usize,
    /// How many lines of the text are before it.
    pub line: u32,
}

/// A document of a text.
#[derive(Debug)]
pub enum Member<'t, T> {
    /// One that is known by its bytes.
    Piece {
        /// What it stands in.
        piece: &'t Arc<Piece<T>>,
        /// The document itself. Its index does not count.
        document: &'t Arc<Reread>,
        /// Where the piece stands.
        stand: Stand,
    },
    /// One that was only found by parsing the whole text.
    Whole {
        /// The text.
        source: &'t Arc<Source>,
        /// The document itself.
        document: &'t Arc<Document>,
    },
}

// === impl Text ===

impl<T: Default> Text<T> {
    /// Reads a text, of which parts may have been in the text before.
    pub fn read(bytes: &[u8], before: Option<&Self>, limits: &Limits) -> Self {
        let known = before.map_or(&[][..], |text| {
            if text.pieces.is_empty() {
                &text.spare
            } else {
                &text.pieces
            }
        });
        let pieces = (bytes.len() <= limits.bytes)
            .then(|| take_apart(bytes, known, limits))
            .flatten();
        let digest = pieces.as_ref().map_or_else(
            || digest(&bytes),
            |pieces| {
                let digests: Vec<_> = pieces.iter().map(|piece| piece.digest).collect();
                digest(&digests)
            },
        );
        let sound = pieces
            .as_ref()
            .is_some_and(|pieces| pieces.iter().all(|piece| piece.clean));
        let whole = (!sound).then(|| parse(bytes, limits));
        let (pieces, spare) = match pieces {
            Some(pieces) => (pieces, Vec::new()),
            None => (Vec::new(), known.to_vec()),
        };
        Self {
            pieces,
            spare,
            whole,
            digest,
        }
    }

    /// Returns what is equal for equal texts, in one process.
    pub fn digest(&self) -> [u64; 2] {
        self.digest
    }

    /// Takes the whole parse away, if there was a need of one.
    pub fn take_whole(&mut self) -> Option<Parsed> {
        self.whole.take()
    }

    /// Returns the documents in order. What [`Self::take_whole`] returned must be given.
    pub fn members<'t>(&'t self, whole: Option<&'t Parsed>) -> Vec<Member<'t, T>> {
        let mut stand = Stand { index: 0, line: 0 };
        let mut known = Vec::with_capacity(self.pieces.len());
        let mut at = 0;
        for piece in &self.pieces {
            let start = at;
            at += offset(piece.length);
            if let Some(document) = &piece.document {
                let member = Member::Piece {
                    piece,
                    document,
                    stand,
                };
                known.push((start..=at, stand.index, member));
            }
            stand.index += piece.documents;
            stand.line += offset(piece.source.lines() - 1);
        }
        let Some(Parsed {
            source, documents, ..
        }) = whole
        else {
            return known.into_iter().map(|(.., member)| member).collect();
        };
        let mut known = known.into_iter().peekable();
        let mut members = Vec::with_capacity(documents.len());
        for document in documents {
            while known
                .next_if(|(_, index, _)| *index < document.index)
                .is_some()
            {}
            let same = known.next_if(|(range, index, _)| {
                *index == document.index && range.contains(&document.start())
            });
            members.push(match same {
                Some((.., member)) => member,
                None => Member::Whole { source, document },
            });
        }
        members
    }
}

/// Takes a text apart; `None` if it cannot be. Pieces of `known` are used again.
fn take_apart<T: Default>(
    bytes: &[u8],
    known: &[Arc<Piece<T>>],
    limits: &Limits,
) -> Option<Vec<Arc<Piece<T>>>> {
    let (first, start) = common_start(bytes, known);
    let (last, end) = common_end(bytes, start, &known[first..]);
    let (text, faults) = sanitize(bytes.get(start..end)?);
    if text.len() != end - start || !faults.is_empty() {
        return None;
    }
    let rest = &known[first..known.len() - last];
    let mut by_text: HashMap<_, Vec<_>> = HashMap::with_capacity(rest.len());
    for piece in rest.iter().rev() {
        let same = by_text.entry((piece.text(), piece.last)).or_default();
        same.push(piece);
    }
    let mut pieces = known[..first].to_vec();
    let source = Source::new(text);
    let mut from = 0;
    for to in boundaries(&source)? {
        let part = source.text().get(from..to)?;
        from = to;
        if part.is_empty() {
            continue;
        }
        let ends = start + to == bytes.len();
        // Each is used once: two documents are two, even if they say the same.
        pieces.push(match by_text.get_mut(&(part, ends)).and_then(Vec::pop) {
            Some(piece) => Arc::clone(piece),
            None => Arc::new(Piece::parse(part, ends, limits)),
        });
    }
    pieces.extend_from_slice(&known[known.len() - last..]);
    Some(pieces)
}

/// Returns how many pieces a text begins with, and where they end.
fn common_start<T>(bytes: &[u8], known: &[Arc<Piece<T>>]) -> (usize, usize) {
    let mut at = 0;
    for (number, piece) in known.iter().enumerate() {
        let text = piece.text().as_bytes();
        let Some(rest) = bytes[at..].strip_prefix(text) else {
            return (number, at);
        };
        let ends = if piece.last {
            rest.is_empty()
        } else {
            begins_document(rest)
        };
        if !ends {
            return (number, at);
        }
        at += text.len();
    }
    (known.len(), at)
}

/// Returns how many pieces a text ends with, and where they start, which is not before `from`.
fn common_end<T>(bytes: &[u8], from: usize, known: &[Arc<Piece<T>>]) -> (usize, usize) {
    let mut at = bytes.len();
    for (number, piece) in known.iter().rev().enumerate() {
        let text = piece.text().as_bytes();
        let Some(rest) = bytes[from..at].strip_suffix(text) else {
            return (number, at);
        };
        let inside = !rest.is_empty() && !ends_line(rest);
        if inside || !begins_document(text) {
            return (number, at);
        }
        at -= text.len();
    }
    (known.len(), at)
}

/// Returns where pieces end, in order; `None` if the text says something that is about several.
fn boundaries(source: &Source) -> Option<Vec<usize>> {
    let text = source.text();
    if text.contains('\u{feff}') {
        return None;
    }
    let mut found = Vec::new();
    for start in source.starts() {
        let line = &text.as_bytes()[start as usize..];
        match line.first() {
            Some(b'%') => return None,
            Some(b'.') if line.starts_with(b"...") => return None,
            Some(b'-') if begins_document(line) => found.push(start as usize),
            _ => {}
        }
    }
    found.push(text.len());
    Some(found)
}

fn begins_document(bytes: &[u8]) -> bool {
    let marked = bytes.strip_prefix(b"---");
    marked.is_some_and(|rest| matches!(rest.first(), None | Some(b' ' | b'\t' | b'\r' | b'\n')))
}

fn ends_line(bytes: &[u8]) -> bool {
    matches!(bytes.last(), Some(b'\n' | b'\r'))
}

// === impl Piece ===

impl<T> Piece<T> {
    fn text(&self) -> &str {
        self.source.text().get(..self.length).unwrap_or_default()
    }
}

impl<T: Default> Piece<T> {
    /// Parses a piece as the whole text would be: what ends a document is a part of some places.
    fn parse(text: &str, last: bool, limits: &Limits) -> Self {
        let mut marked = String::with_capacity(text.len() + MARKER.len());
        marked.push_str(text);
        if !last {
            marked.push_str(MARKER);
        }
        let source = Source::new(marked.into());
        let (mut documents, problems, starts) = load(&source, limits);
        let own = if last {
            starts
        } else {
            starts.saturating_sub(1)
        };
        let clean = problems.is_empty() && own <= 1;
        let source = Arc::new(source);
        let document = documents.pop().filter(|_| clean);
        Self {
            document: document
                .map(|document| Arc::new(Reread::new(Arc::clone(&source), document, limits))),
            source,
            kept: T::default(),
            documents: own,
            length: text.len(),
            last,
            clean,
            digest: digest(&text),
        }
    }
}

/// Twice 64 bits, of two functions.
fn digest(of: &impl Hash) -> [u64; 2] {
    [0_u8, 1].map(|salt| {
        let mut hasher = DefaultHasher::new();
        (salt, of).hash(&mut hasher);
        hasher.finish()
    })
}

const MARKER: &str = "---";
