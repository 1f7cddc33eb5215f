//! From rules in any order to a table.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::draft::{Draft, Kind, Spelling};
use crate::error::{BuildError, Field, Problem};
use crate::host_index::HostIndex;
use crate::hostname::Pattern as HostPattern;
use crate::parts::{Fault, Parts};
use crate::path_index::PathIndex;
use crate::rule::{PathMatch, Rank, Rule, prefix_node};
use crate::table::RouteTable;

/// The most rules of a table.
pub(crate) const MAX_RULES: usize = 1 << 22;
/// The most text of a table, which keeps its places within 32 bits. Bytes.
pub(crate) const MAX_TEXT: usize = 1 << 30;

/// Compiles rules into a [`RouteTable`].
#[derive(Debug)]
pub struct Builder<T> {
    fall_through: bool,
    tie: fn(&T, &T) -> Ordering,
    hosts: HostIndex,
    paths: PathIndex<T>,
    drafts: Vec<Draft<'static, T>>,
    text_len: usize,
    parts: Parts,
}

// === impl Builder ===

impl<T> Default for Builder<T> {
    fn default() -> Self {
        Self {
            fall_through: false,
            tie: |_, _| Ordering::Equal,
            hosts: HostIndex::new(),
            paths: PathIndex::for_rules(0),
            drafts: Vec::new(),
            text_len: 0,
            parts: Parts::default(),
        }
    }
}

impl<T> Builder<T> {
    /// A builder without rules.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether a request that no rule of the most specific hostname matches is tried on the next less
    /// specific one, as the Gateway API's precedence across routes of one listener can be read.
    ///
    /// Off by default: Envoy, and so kgateway, picks one virtual host and answers 404.
    #[must_use]
    pub fn fall_through(mut self, fall_through: bool) -> Self {
        self.fall_through = fall_through;
        self
    }

    /// What decides between rules of equal [`Precedence`](crate::Precedence), by their values, before
    /// their groups do; the lesser one wins.
    #[must_use]
    pub fn tie(mut self, tie: fn(&T, &T) -> Ordering) -> Self {
        self.tie = tie;
        self
    }

    /// Uses parts that other tables were made with.
    #[must_use]
    pub fn parts(mut self, parts: Parts) -> Self {
        self.parts = parts;
        self
    }

    /// Adds a hostname, `foo.example`, `*.example` or `*`, even if it has no rules: it is the most
    /// specific one for its requests still.
    ///
    /// # Errors
    /// [`BuildError`] if it is malformed.
    pub fn add_host(&mut self, hostname: &str) -> Result<(), BuildError> {
        let pattern = host_pattern(hostname)?;
        self.hosts.get_or_insert(&pattern);
        Ok(())
    }

    /// Adds a rule for `foo.example`, `*.example` or `*`. The value is what a lookup that selects the
    /// rule finds. Rules of one hostname may be added at different times; of rules with equal
    /// [`Precedence`](crate::Precedence) the one added first wins.
    ///
    /// # Errors
    /// [`BuildError`] if a part of the rule is malformed or the table would get too large; the rule
    /// is not added, and the builder can be used further.
    pub fn add(&mut self, hostname: &str, rule: Rule, value: T) -> Result<(), BuildError> {
        let group = self.drafts.len() as u32;
        self.add_to_group(group, hostname, rule, value)
    }

    /// Adds a rule as [`add`](Self::add) does, as one of a group: that is what an
    /// [`Edit`](crate::Edit) finds rules by. Of rules with equal precedence that of the lesser group
    /// wins; which one of a group does is left open.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn add_to_group(
        &mut self,
        group: u32,
        hostname: &str,
        rule: Rule,
        value: T,
    ) -> Result<(), BuildError> {
        let room = Room {
            rules: MAX_RULES.saturating_sub(self.drafts.len()),
            text: MAX_TEXT.saturating_sub(self.text_len),
        };
        let (pattern, mut draft) = compile(&mut self.parts, room, group, hostname, rule, value)?;
        let entry = self.hosts.get_or_insert(&pattern);
        entry.depths.add(&draft.node);
        entry.has_regex |= draft.kind == Kind::Regex;
        draft.host = entry.number;
        draft.hash = self.paths.hash(draft.host, &draft.node);
        self.text_len += draft.text_len();
        self.drafts.push(draft);
        Ok(())
    }

    /// Compiles the rules added so far.
    ///
    /// # Errors
    /// [`BuildError`] if regular expressions that compile alone do not compile together.
    pub fn build(self) -> Result<RouteTable<T>, BuildError> {
        self.build_with_parts().map(|(table, _)| table)
    }

    /// Compiles the rules added so far, and gives the parts that they are made of back.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn build_with_parts(mut self) -> Result<(RouteTable<T>, Parts), BuildError> {
        let len = self.drafts.len();
        let reads_headers = self.drafts.iter().any(reads_headers);
        self.paths.clear_for(len);
        self.paths
            .fill(self.drafts, self.tie, &mut self.parts)
            .map_err(|fault| fault.on(&self.hosts))?;
        self.parts.forget_unused();
        let table = RouteTable {
            fall_through: self.fall_through,
            reads_headers,
            tie: self.tie,
            len,
            hosts: Arc::new(self.hosts),
            paths: self.paths,
        };
        Ok((table, self.parts))
    }
}

/// What a table has room for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    pub(crate) rules: usize,
    /// Bytes.
    pub(crate) text: usize,
}

/// Compiles a rule. Its number of the host and its hash are still to be given.
pub(crate) fn compile<T>(
    parts: &mut Parts,
    room: Room,
    group: u32,
    hostname: &str,
    mut rule: Rule,
    value: T,
) -> Result<(HostPattern, Draft<'static, T>), BuildError> {
    let fault = |rank: &Rank, (field, problem): Fault| BuildError {
        hostname: hostname.to_owned(),
        rank: rank.clone(),
        field,
        problem,
    };
    let Some(host) = HostPattern::parse(hostname) else {
        return Err(fault(&rule.rank, (Field::Hostname, Problem::Hostname)));
    };
    check_room(room, &rule).map_err(|problem| fault(&rule.rank, problem))?;
    let path = std::mem::replace(&mut rule.path, PathMatch::Exact(String::new()));
    let (kind, node, spelling, pattern) =
        place(parts, path).map_err(|problem| fault(&rule.rank, (Field::Path, problem)))?;
    let conditions = parts
        .conditions(&mut rule)
        .map_err(|problem| fault(&rule.rank, problem))?;
    let draft = Draft {
        hash: 0,
        host: 0,
        node: node.into(),
        kind,
        spelling,
        created: rule.rank.created,
        name: rule.rank.name.into_bytes().into(),
        rule: rule.rank.rule,
        r#match: rule.rank.r#match,
        group,
        conditions,
        pattern,
        value,
    };
    Ok((host, draft))
}

fn check_room(room: Room, rule: &Rule) -> Result<(), Fault> {
    let too_large = |field, what, limit| Err((field, Problem::TooLarge { what, limit }));
    if room.rules == 0 {
        return too_large(Field::Rule, "rules", MAX_RULES);
    }
    // A pattern is kept as it is given, and its literal segments beside it.
    let text = 2 * rule.path.as_str().len() + rule.rank.name.len();
    if text > room.text {
        return too_large(Field::Path, "bytes of paths", MAX_TEXT);
    }
    Ok(())
}

type Place = (
    Kind,
    Vec<u8>,
    Spelling<'static>,
    Option<Arc<crate::pattern::Pattern>>,
);

/// Where the rules of a path are found.
fn place(parts: &mut Parts, path: PathMatch) -> Result<Place, Problem> {
    match path {
        PathMatch::Regex(pattern) => {
            let (node, rest) = parts.path_pattern(&pattern)?;
            let spelling = Spelling::Pattern(pattern.into_bytes().into());
            Ok((Kind::Regex, node, spelling, Some(rest)))
        }
        PathMatch::Exact(path) | PathMatch::Prefix(path) if !path.starts_with('/') => {
            Err(Problem::RelativePath { path })
        }
        PathMatch::Exact(path) => Ok((Kind::Exact, path.into_bytes(), Spelling::Slashes(0), None)),
        PathMatch::Prefix(mut path) => {
            let node = prefix_node(&path).len();
            let slashes = (path.len() - node) as u32;
            path.truncate(node);
            Ok((
                Kind::Prefix,
                path.into_bytes(),
                Spelling::Slashes(slashes),
                None,
            ))
        }
    }
}

/// The hostname of rules.
pub(crate) fn host_pattern(hostname: &str) -> Result<HostPattern, BuildError> {
    HostPattern::parse(hostname).ok_or_else(|| BuildError {
        hostname: hostname.to_owned(),
        rank: Rank::default(),
        field: Field::Hostname,
        problem: Problem::Hostname,
    })
}

pub(crate) fn reads_headers<T>(draft: &Draft<'_, T>) -> bool {
    let conditions = draft.conditions.as_ref();
    conditions.is_some_and(|all| !all.headers.is_empty())
}
