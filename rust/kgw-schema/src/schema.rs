//! The schema of one version of a kind, and what it is to validate an object against it.

use std::sync::Arc;

use kgw_cel::{SyntaxError, Value};
use serde_json::Value as Json;

use crate::fault::Violation;
use crate::node::{Node, Pool};
use crate::{rules, structural};

/// A schema that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SchemaError {
    /// There is something else where a schema has to be.
    #[error("there is no schema where there has to be one")]
    NoSchema,
    /// It is nested too deeply.
    #[error("the schema is nested too deeply")]
    Depth,
    /// A pattern is none, or too large.
    #[error("`{0}` is no pattern")]
    Pattern(String),
    /// A rule is none.
    #[error("the rule `{rule}`: {error}")]
    Rule {
        /// The rule.
        rule: String,
        /// What is wrong with it.
        error: SyntaxError,
    },
}

/// How an object is written, which decides what of it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    /// The object itself: an API server leaves out what it says as its status.
    Object,
    /// Its status.
    Status,
}

/// What the objects of one version of a kind have to be.
#[derive(Debug)]
pub struct Schema {
    root: Arc<Node>,
    /// The same of the experimental channel, to know what only that has.
    wider: Option<Arc<Node>>,
    /// Whether the status is written apart from the rest.
    status: bool,
}

impl Schema {
    /// Compiles a schema (`openAPIV3Schema` of a version) whose status is written apart.
    ///
    /// # Errors
    /// A pattern or rule in it is none, or it is nested too deeply.
    pub fn compile(schema: &Json) -> Result<Self, SchemaError> {
        Self::packed(schema, None, &[], true)
    }

    /// Compiles a schema that refers to others.
    pub(crate) fn packed(
        schema: &Json,
        wider: Option<&Json>,
        schemas: &[Json],
        status: bool,
    ) -> Result<Self, SchemaError> {
        let mut pool = Pool::new(schemas);
        Ok(Self {
            root: pool.node(schema, 0)?,
            wider: wider.map(|wider| pool.node(wider, 0)).transpose()?,
            status,
        })
    }

    /// Validates an object, as it is before and after a change if there is one before.
    ///
    /// Of the metadata nothing is looked at; see [`metadata`](crate::metadata). Rules about changes are
    /// left out where there is nothing before, as when an object is created.
    ///
    /// Returns what is wrong in the order of the schema's steps; what is only worth a warning
    /// ([`Fault::is_warning`](crate::Fault::is_warning)) too.
    #[must_use]
    pub fn validate<'a>(
        &'a self,
        mut object: Value<'a>,
        mut before: Option<Value<'a>>,
        write: Write,
    ) -> Vec<Violation> {
        let mut violations = Vec::new();
        let root = &*self.root;
        let drops_status = self.status && write == Write::Object;
        for one in [Some(&mut object), before.as_mut()].into_iter().flatten() {
            if let Value::Map(entries) = one {
                entries.retain(|(key, _)| !(drops_status && key == "status"));
            }
        }
        structural::admit(&mut object, root, self.wider.as_deref(), &mut violations);
        if let Some(before) = &mut before {
            // What is stored was admitted when it was; here it only gets its defaults.
            structural::admit(before, root, None, &mut Vec::new());
        }
        if root.has_rules {
            rules::evaluate(&object, before.as_ref(), root, &mut violations);
        }
        violations
    }

    /// Returns all rules, each with the path of the field that it is about and its message: items of
    /// lists are `[]`, entries of mappings `{}`.
    #[must_use]
    pub fn rules(&self) -> Vec<(String, &str, Option<&str>)> {
        let mut found = Vec::new();
        collect(&self.root, &mut String::new(), &mut found);
        found
    }
}

fn collect<'n>(
    node: &'n Node,
    path: &mut String,
    found: &mut Vec<(String, &'n str, Option<&'n str>)>,
) {
    for rule in &node.rules {
        found.push((path.clone(), &rule.text, rule.message.as_deref()));
    }
    let named = node
        .properties
        .iter()
        .map(|(name, node)| (format!(".{name}"), node));
    let additional = node.additional.iter().map(|node| ("{}".to_owned(), node));
    let items = node.items.iter().map(|node| ("[]".to_owned(), node));
    for (step, child) in named.chain(additional).chain(items) {
        if child.has_rules {
            let length = path.len();
            path.push_str(&step);
            collect(child, path, found);
            path.truncate(length);
        }
    }
}
