//! What rules have in common, kept once: regular expressions, and sets of predicates.

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashTable};

use crate::error::{Field, Problem};
use crate::pattern::{Automaton, Pattern, Patterns};
use crate::predicate::{Conditions, Named};
pub(crate) use crate::regex_group::Automata;
use crate::rule::{Rule, StringMatch, ValueMatch};

/// Compiled parts of rules, for tables that are made one of another: what is compiled once is shared by
/// all of them. Keeping one is never needed, but saves time and memory.
#[derive(Debug, Default)]
pub struct Parts {
    patterns: Patterns,
    /// Those of values, by their spelling.
    values: HashMap<String, (Arc<Pattern>, Arc<Automaton>)>,
    pub(crate) automata: Automata,
    /// Rules with the same method, headers and query share them, which keeps the common ones in the
    /// nearest cache.
    conditions: HashTable<Arc<Conditions>>,
    hasher: RandomState,
    /// How many there were when unused ones were looked for last.
    kept: usize,
}

/// What is wrong with a rule, and where.
pub(crate) type Fault = (Field, Problem);

impl Parts {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets what no table uses, once there is twice as much as last time.
    pub(crate) fn forget_unused(&mut self) {
        let count = |parts: &Self| {
            parts.patterns.len()
                + parts.values.len()
                + parts.automata.len()
                + parts.conditions.len()
        };
        if count(self) <= 2 * self.kept + 64 {
            return;
        }
        // Conditions use automata, and sets of patterns have no count of their own.
        self.conditions
            .retain(|conditions| Arc::strong_count(conditions) > 1);
        self.values
            .retain(|_, (_, automaton)| Arc::strong_count(automaton) > 1);
        self.automata
            .retain(|_, automaton| Arc::strong_count(automaton) > 1);
        self.patterns.forget_unused();
        self.kept = count(self);
    }

    /// A pattern of a path, as its literal segments and the pattern of what follows them.
    pub(crate) fn path_pattern(
        &mut self,
        pattern: &str,
    ) -> Result<(Vec<u8>, Arc<Pattern>), Problem> {
        self.patterns.of_path(pattern)
    }

    /// Drops predicates of a rule that do not count and compiles the rest.
    pub(crate) fn conditions(&mut self, rule: &mut Rule) -> Result<Option<Arc<Conditions>>, Fault> {
        if rule.method.is_none() && rule.headers.is_empty() && rule.query.is_empty() {
            return Ok(None);
        }
        // Most rules have no predicate that does not count.
        if let Some(known) = self.known(rule).1 {
            return Ok(Some(known));
        }
        let headers = self.named(&mut rule.headers, Field::Header, |name| {
            is_header_name(name).then(|| name.to_ascii_lowercase())
        })?;
        let query = self.named(&mut rule.query, Field::Query, |name| {
            (!name.is_empty()).then(|| name.to_owned())
        })?;
        let (hash, known) = self.known(rule);
        if known.is_some() {
            return Ok(known);
        }
        let conditions = Arc::new(Conditions {
            hash,
            method: rule.method.as_deref().map(Into::into),
            headers,
            query,
        });
        self.conditions
            .insert_unique(hash, Arc::clone(&conditions), |known| known.hash);
        Ok(Some(conditions))
    }

    /// The hash of a rule's conditions, and the conditions if there are such ones.
    fn known(&self, rule: &Rule) -> (u64, Option<Arc<Conditions>>) {
        let parts = (&rule.method, &rule.headers, &rule.query);
        let hash = self.hasher.hash_one(parts);
        let known = self.conditions.find(hash, |known| known.are_of(rule));
        (hash, known.map(Arc::clone))
    }

    /// Compiles predicates and drops those that do not count.
    fn named(
        &mut self,
        predicates: &mut Vec<ValueMatch>,
        field: fn(usize) -> Field,
        normalise: impl Fn(&str) -> Option<String>,
    ) -> Result<Box<[Named]>, Fault> {
        let mut compiled: Vec<Named> = Vec::with_capacity(predicates.len());
        for (at, predicate) in predicates.iter().enumerate() {
            let name = normalise(&predicate.name).ok_or_else(|| {
                let name = predicate.name.clone();
                (field(at), Problem::Name { name })
            })?;
            let regex = match &predicate.value {
                StringMatch::Exact(_) | StringMatch::Present => None,
                StringMatch::Regex(pattern) => {
                    let automaton = self.value_pattern(pattern);
                    Some(automaton.map_err(|problem| (field(at), problem))?)
                }
            };
            // Gateway API: entries after the first with an equivalent name MUST be ignored.
            if compiled
                .iter()
                .all(|earlier| earlier.name() != name.as_bytes())
            {
                compiled.push(Named::new(predicate.clone(), &name, regex));
            }
        }
        if compiled.len() < predicates.len() {
            *predicates = compiled.iter().map(Named::given).cloned().collect();
        }
        Ok(compiled.into())
    }

    fn value_pattern(&mut self, pattern: &str) -> Result<Arc<Automaton>, Problem> {
        if let Some((_, known)) = self.values.get(pattern) {
            return Ok(Arc::clone(known));
        }
        let parsed = self.patterns.of_value(pattern)?;
        let automaton = Arc::new(Automaton::new([&*parsed])?);
        let known = (parsed, Arc::clone(&automaton));
        self.values.insert(pattern.to_owned(), known);
        Ok(automaton)
    }
}

/// A token (RFC 9110 §5.6.2), or a pseudo-header's name.
fn is_header_name(name: &str) -> bool {
    let token = name.strip_prefix(':').unwrap_or(name);
    !token.is_empty()
        && token
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}
