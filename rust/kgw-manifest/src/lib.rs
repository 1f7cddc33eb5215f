//! Kubernetes manifests: YAML and JSON text to values that know their places. Sans-IO.
//!
//! A text is a stream of documents; [`parse`] returns every document that is whole and a
//! [`Problem`] for everything that is not, so one broken document never takes down its
//! neighbours. Each [`Document`] is a tree of JSON values, and [`Document::locate`] answers where a
//! field stands, by its path.
//!
//! **Values are what the API server would see.** `kubectl` reads manifests with `sigs.k8s.io/yaml`,
//! which resolves plain scalars the YAML 1.1 way (`yes`, `on` and `y` are booleans, `0644` is 420)
//! and passes the result through JSON. The module `scalar` follows it. Two things are
//! stricter on purpose, both silent traps there: a key given twice is a problem (there the last
//! one wins), and so is a tag of the application's own (there it is ignored).
//!
//! **Bounded.** Size, nesting and what aliases expand to are limited ([`Limits`]); time and memory
//! are linear in the text within those limits.
//!
//! **Once.** [`Text`] parses of a text that changed only what changed. What it keeps is the text, and a
//! tree for as long as it is in use ([`Reread`]).
//!
//! JSON is read by the same parser: YAML 1.2 contains it.

#![forbid(unsafe_code)]
#![warn(clippy::cast_possible_truncation)]

mod hint;
mod load;
mod mapping;
mod pieces;
mod problem;
mod reread;
mod sanitize;
mod scalar;
mod source;
mod tree;

pub use crate::load::{Limits, Parsed, parse};
pub use crate::pieces::{Member, Piece, Stand, Text};
pub use crate::problem::{Problem, ProblemKind};
pub use crate::reread::Reread;
pub use crate::source::{Place, Source};
pub use crate::tree::{Document, Entries, Node, Step, Value};
