//! Which rule serves a request: host index, path index, predicates and Gateway API precedence.
//!
//! A [`Builder`] takes rules in any order and compiles them into an immutable [`RouteTable`], whose
//! [`find`](RouteTable::find) returns the one rule that wins. The flow of a lookup, and the file of
//! each step:
//!
//! 1. `hostname.rs`, `host_index.rs`: the request's host, normalised, selects the most specific
//!    matching hostname: exact, then the longest `*.suffix`, then `*`.
//! 2. `path_index.rs`, `shard.rs`: every leading run of whole path segments is one probe of a hash
//!    table.
//! 3. `pattern.rs`, `regex_group.rs`: regular expressions, those of one literal prefix in one pass.
//! 4. `predicate.rs`, `query.rs`: method, header and query predicates of the candidates, in the order
//!    of `precedence.rs`; the first candidate whose predicates hold wins. Of many candidates
//!    `condition_index.rs` finds those that ask for the values that the request has.
//!
//! `named_groups.rs` tells what the named groups of the path's expression are, once a rule is found;
//! `edit.rs` makes a table of another one at the cost of what changes.
//!
//! The crate does no I/O and reads a request through the [`Request`] trait. A table is `Send + Sync`;
//! a lookup takes no lock, and allocates nothing unless regular expressions are involved.
//!
//! ```
//! use kgw_route::{Builder, PathMatch, Rank, Request, Rule};
//!
//! struct Get<'a>(&'a str, &'a str);
//! impl Request for Get<'_> {
//!     fn host(&self) -> &[u8] { self.0.as_bytes() }
//!     fn path(&self) -> &[u8] { self.1.as_bytes() }
//!     fn query(&self) -> Option<&[u8]> { None }
//!     fn method(&self) -> &[u8] { b"GET" }
//!     fn any_header(&self, _: &[u8], _: impl FnMut(&[u8]) -> bool) -> bool { false }
//! }
//!
//! let mut builder = Builder::new();
//! builder.add("*.example", Rule::new(PathMatch::Prefix("/".into())), "site")?;
//! builder.add("*.example", Rule::new(PathMatch::Prefix("/api/".into())), "api")?;
//! let table = builder.build()?;
//!
//! let found = table.find(&Get("www.example:8080", "/api/users")).expect("a rule matches");
//! assert_eq!((*found.value, found.prefix_len), ("api", Some(4)));
//! assert_eq!(table.find(&Get("www.example", "/apis")).map(|m| *m.value), Some("site"));
//! assert!(table.find(&Get("example", "/api")).is_none());
//! # Ok::<(), kgw_route::BuildError>(())
//! ```
#![forbid(unsafe_code)]

mod builder;
mod condition_index;
mod draft;
mod edit;
mod error;
mod explain;
mod host_index;
mod hostname;
mod named_groups;
mod parts;
mod path_index;
mod pattern;
mod precedence;
mod predicate;
mod query;
mod regex_group;
mod request;
mod rule;
mod shard;
mod substitution;
mod table;
mod value_regex;

pub use builder::Builder;
pub use edit::{Edit, HostId, Revision};
pub use error::{BuildError, Field, Problem, RegexError};
pub use explain::{Considered, Explanation, Outcome};
pub use named_groups::NamedGroups;
pub use parts::Parts;
pub use pattern::check_regex;
pub use precedence::{Criterion, Precedence};
pub use request::Request;
pub use rule::{PathMatch, Rank, Rule, StringMatch, ValueMatch};
pub use substitution::{Substitution, SubstitutionError};
pub use table::{Match, RouteTable};
pub use value_regex::ValueRegex;
