//! Evaluates the rules of a schema on an object that was admitted.

use kgw_cel::{Cel, Cost, Failure, Value};

use crate::fault::{Fault, Step, Violation};
use crate::node::{ListType, Node, Rule};

/// Evaluates all rules but those of parts that have a fault that keeps an API server from it.
pub(crate) fn evaluate<'v>(
    value: &'v Value<'v>,
    before: Option<&'v Value<'v>>,
    node: &'v Node,
    violations: &mut Vec<Violation>,
) {
    let blocked = violations.iter().filter(|one| one.fault.blocks());
    let mut walk = Walk {
        blocked: blocked.map(|one| one.path.clone()).collect(),
        path: Vec::new(),
        stack: Vec::new(),
        cost: Cost::new(RULE, OBJECT),
        violations,
    };
    // Nothing is left to spend, so nothing more is evaluated.
    let _ = walk.node(value, before, node);
}

/// What one rule may cost.
const RULE: u64 = 1_000_000;

/// What all rules of an object may cost together.
const OBJECT: u64 = 10_000_000;

/// What rules are about, in the order of their places on the stack.
pub(crate) const VARIABLES: [&str; 2] = ["self", "oldSelf"];

/// The place of the object as it was before.
const OLD: usize = 1;

/// The budget of all rules is spent.
struct Spent;

struct Walk<'v, 'w> {
    blocked: Vec<Vec<Step>>,
    path: Vec<Place<'v>>,
    /// The variables of the rule that is evaluated, `self` and `oldSelf` first.
    stack: Vec<Cel<'v>>,
    cost: Cost,
    violations: &'w mut Vec<Violation>,
}

/// A step of a path that borrows its name.
#[derive(Clone, Copy)]
enum Place<'v> {
    Key(&'v str),
    Index(usize),
}

impl<'v> Walk<'v, '_> {
    fn node(
        &mut self,
        value: &'v Value<'v>,
        before: Option<&'v Value<'v>>,
        node: &'v Node,
    ) -> Result<(), Spent> {
        if !node.rules.is_empty() && !self.is_blocked() {
            for rule in &node.rules {
                self.rule(value, before, node, rule)?;
            }
        }
        match value {
            Value::Map(entries) => {
                for (key, value) in entries {
                    if let Some(child) = node.field(key)
                        && child.has_rules
                        && !matches!(value, Value::Null)
                    {
                        let before = before.and_then(|before| before.field(key));
                        self.path.push(Place::Key(key));
                        self.node(value, before, child)?;
                        self.path.pop();
                    }
                }
            }
            Value::List(items) => {
                if let Some(child) = node.items.as_deref()
                    && child.has_rules
                {
                    for (place, item) in items.iter().enumerate() {
                        let before = before.and_then(|before| same_item(before, item, node));
                        self.path.push(Place::Index(place));
                        self.node(item, before, child)?;
                        self.path.pop();
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn rule(
        &mut self,
        value: &'v Value<'v>,
        before: Option<&'v Value<'v>>,
        node: &'v Node,
        rule: &'v Rule,
    ) -> Result<(), Spent> {
        let old = match (before, rule.optional_old_self) {
            (Some(before), true) => Cel::some(Cel::of(before, Some(&node.shape))),
            (None, true) => Cel::Optional(None),
            (Some(before), false) => Cel::of(before, Some(&node.shape)),
            // What is about a change says nothing about what is new.
            (None, false) if rule.program.names_variable(OLD) => return Ok(()),
            (None, false) => Cel::Null,
        };
        self.cost.next();
        self.stack.clear();
        self.stack.extend([Cel::of(value, Some(&node.shape)), old]);
        let result = rule.program.evaluate(&mut self.stack, &mut self.cost);
        let error = match result {
            Ok(Cel::Bool(true)) => return Ok(()),
            Ok(Cel::Bool(false)) => {
                let message = self.message(rule);
                let fault = Fault::Rule {
                    message,
                    rule: rule.text.clone(),
                    reason: rule.reason.clone(),
                };
                self.report(fault, &rule.field);
                return Ok(());
            }
            Ok(_) => "the result is no boolean".to_owned(),
            Err(Failure::Error(error)) => error.into_owned(),
            Err(Failure::Budget { total: true }) => {
                self.report(Fault::Budget, &[]);
                return Err(Spent);
            }
            Err(Failure::Budget { total: false }) => {
                "call cost exceeds limit: the rule takes too long".to_owned()
            }
        };
        let fault = Fault::Evaluation {
            error,
            message: rule.message.clone(),
            rule: rule.text.clone(),
        };
        self.report(fault, &[]);
        Ok(())
    }

    /// The message of a rule that does not hold, as an API server makes it.
    fn message(&mut self, rule: &'v Rule) -> String {
        let written = rule.message_program.as_ref().and_then(|program| {
            self.cost.next();
            match program.evaluate(&mut self.stack, &mut self.cost) {
                Ok(Cel::Str(text)) if is_message(&text) => Some(text.trim().to_owned()),
                _ => None,
            }
        });
        written
            .or_else(|| rule.message.clone())
            .unwrap_or_else(|| format!("failed rule: {}", rule.text))
    }

    fn report(&mut self, fault: Fault, below: &[String]) {
        let path = self.path.iter().map(|place| match place {
            Place::Key(key) => Step::Key((*key).to_owned()),
            Place::Index(index) => Step::Index(*index),
        });
        let below = below.iter().cloned().map(Step::Key);
        self.violations.push(Violation {
            path: path.chain(below).collect(),
            fault,
        });
    }

    /// Whether something at this place or within it keeps rules from being evaluated.
    fn is_blocked(&self) -> bool {
        self.blocked.iter().any(|blocked| {
            blocked.len() >= self.path.len()
                && self
                    .path
                    .iter()
                    .zip(blocked)
                    .all(|(place, step)| match (place, step) {
                        (Place::Key(key), Step::Key(step)) => key == step,
                        (Place::Index(index), Step::Index(step)) => index == step,
                        _ => false,
                    })
        })
    }
}

/// Whether a message can be shown: an API server takes none that is empty, long or of several lines.
fn is_message(text: &str) -> bool {
    const LONGEST: usize = 5 * 1024;
    !text.trim().is_empty() && text.len() <= LONGEST && !text.trim().contains('\n')
}

/// The item of a list as it was, if it can be told which one that is: by its keys.
fn same_item<'v>(before: &'v Value<'v>, item: &Value<'_>, node: &Node) -> Option<&'v Value<'v>> {
    let (Value::List(items), ListType::Map(keys)) = (before, &node.list_type) else {
        return None;
    };
    items.iter().find(|one| {
        keys.iter()
            .all(|key| match (one.field(key), item.field(key)) {
                (Some(one), Some(two)) => one.same(two),
                (None, None) => true,
                _ => false,
            })
    })
}
