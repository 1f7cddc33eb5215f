//! What an API server checks before it stores an object: the schemas of `CustomResourceDefinitions`, the
//! CEL rules in them, and the metadata that every object has. Sans-IO.
//!
//! A [`Crd`] is looked up by group and kind ([`crd`]); those of the Gateway API are a part of this crate.
//! Its [`Schema`] of one version and [`Channel`] validates a [`Value`] and returns every [`Fault`] with
//! the path to it. An object is taken the way an API server takes it ([`Schema::validate`]):
//!
//! 1. Fields that the schema does not know are pruned ([`Fault::Unknown`]), and `null` is as good as
//!    nothing where the schema does not want it.
//! 2. Defaults are filled in.
//! 3. Types, patterns, bounds, formats and the keys of lists are checked.
//! 4. The CEL rules are evaluated, but for those of a part in which something has the wrong type, is
//!    missing, or is too much. An API server evaluates none in that case and says so; here the rules of
//!    the other parts are, so that there is less to find the next time.
//!
//! **Bounded.** A schema is compiled once, when it is first asked for. What an object takes is linear in
//! its size but for the rules, which have the budget that an API server gives them
//! ([`kgw_cel::Cost`]), and nesting is limited.

#![forbid(unsafe_code)]

mod crd;
mod fault;
mod meta;
mod node;
mod rules;
mod schema;
mod structural;

pub use crate::crd::{Channel, Crd, crd, crds};
pub use crate::fault::{Fault, Step, Violation, path_text};
pub use crate::meta::{NameForm, metadata};
pub use crate::schema::{Schema, SchemaError, Write};
pub use kgw_cel::{SyntaxError, Value};
