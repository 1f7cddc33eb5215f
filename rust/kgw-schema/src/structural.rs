//! Pruning, defaults and the structural checks, in one walk.

use std::borrow::Cow;
use std::collections::HashSet;

use kgw_cel::Value;

use crate::fault::{Fault, Measured, Step, Violation};
use crate::node::{ListType, Node, Type};

/// How deeply an object may be nested.
const DEPTH: usize = 128;

/// The most violations that are reported; an object that has more has enough of them.
const MOST: usize = 200;

/// Prunes and completes an object and notes what is wrong with it.
///
/// *wider* is the schema of another channel, whose fields and values are known there.
pub(crate) fn admit<'a>(
    value: &mut Value<'a>,
    node: &'a Node,
    wider: Option<&'a Node>,
    violations: &mut Vec<Violation>,
) {
    let path = None;
    Walk { path, violations }.admit(value, node, wider, true);
}

/// A step of a path, and the ones before it: a path costs nothing unless something is wrong there.
#[derive(Clone, Copy)]
struct Place<'p> {
    before: Option<&'p Self>,
    step: Name<'p>,
    depth: usize,
}

/// A step that borrows its name.
#[derive(Clone, Copy)]
enum Name<'p> {
    Key(&'p str),
    Index(usize),
}

struct Walk<'p, 'w> {
    path: Option<&'p Place<'p>>,
    violations: &'w mut Vec<Violation>,
}

impl Walk<'_, '_> {
    fn report(&mut self, fault: Fault) {
        if self.violations.len() < MOST {
            let places = std::iter::successors(self.path, |place| place.before);
            let steps = places.map(|place| match place.step {
                Name::Key(key) => Step::Key(key.to_owned()),
                Name::Index(index) => Step::Index(index),
            });
            let mut path: Vec<_> = steps.collect();
            path.reverse();
            self.violations.push(Violation { path, fault });
        }
    }

    fn depth(&self) -> usize {
        self.path.map_or(0, |place| place.depth)
    }

    fn within(&mut self, step: Name<'_>, work: impl FnOnce(&mut Walk<'_, '_>)) {
        let place = Place {
            before: self.path,
            step,
            depth: self.depth() + 1,
        };
        work(&mut Walk {
            path: Some(&place),
            violations: self.violations,
        });
    }

    fn admit<'a>(
        &mut self,
        value: &mut Value<'a>,
        node: &'a Node,
        wider: Option<&'a Node>,
        root: bool,
    ) {
        if self.depth() > DEPTH {
            *value = Value::Null;
            return self.report(Fault::Depth);
        }
        if matches!(value, Value::Null) && node.nullable {
            return;
        }
        if !self.has_type(value, node) {
            return;
        }
        match value {
            Value::Map(entries) => self.mapping(entries, node, wider, root),
            Value::List(items) => self.list(items, node, wider),
            Value::Str(text) => self.text(text, node),
            #[allow(clippy::cast_precision_loss)]
            // bounds are floating point numbers in schemas, too
            Value::Int(number) => self.number(*number as f64, value, node),
            Value::Float(number) => self.number(*number, value, node),
            Value::Null | Value::Bool(_) => {}
        }
        if !node.legal.is_empty() && !node.legal.iter().any(|legal| legal.same(value)) {
            let shown = |one: &Value<'_>| one.text().map_or_else(|| one.json(), str::to_owned);
            self.report(Fault::Enum {
                value: value.json(),
                legal: node.legal.iter().map(shown).collect(),
            });
        }
        self.alternatives(value, node);
    }

    fn has_type(&mut self, value: &Value<'_>, node: &Node) -> bool {
        let (fits, expected) = match node.kind {
            _ if node.int_or_string => (
                matches!(value, Value::Int(_) | Value::Str(_)),
                "integer or string",
            ),
            Type::Any => return true,
            Type::Object => (matches!(value, Value::Map(_)), "object"),
            Type::Array => (matches!(value, Value::List(_)), "array"),
            Type::String => (matches!(value, Value::Str(_)), "string"),
            Type::Integer => (
                match value {
                    Value::Int(_) => true,
                    Value::Float(number) => number.fract() == 0.0,
                    _ => false,
                },
                "integer",
            ),
            Type::Number => (matches!(value, Value::Int(_) | Value::Float(_)), "number"),
            Type::Boolean => (matches!(value, Value::Bool(_)), "boolean"),
        };
        if !fits {
            self.report(Fault::Type {
                expected,
                found: value.kind(),
                value: value.json(),
            });
        }
        fits
    }

    fn mapping<'a>(
        &mut self,
        entries: &mut Vec<(Cow<'a, str>, Value<'a>)>,
        node: &'a Node,
        wider: Option<&'a Node>,
        root: bool,
    ) {
        // Nothing is said about what is in there; an embedded object has a head like the root's.
        let head = root || node.embedded;
        let is_head = |key: &str| head && matches!(key, "apiVersion" | "kind" | "metadata");
        entries.retain(|(key, value)| {
            if node.field(key).is_some() || node.open || node.preserve_unknown || is_head(key) {
                return true;
            }
            if !matches!(value, Value::Null) {
                let experimental = wider.is_some_and(|wider| wider.field(key).is_some());
                let known = node.properties.iter().map(|(name, _)| name.clone());
                let known = known.collect();
                self.within(Name::Key(key), |walk| {
                    walk.report(Fault::Unknown {
                        known,
                        experimental,
                    });
                });
            }
            false
        });
        // What is null and may not be is as good as absent, and gets its default.
        entries.retain(|(key, value)| {
            !matches!(value, Value::Null) || node.field(key).is_none_or(|node| node.nullable)
        });
        for place in &node.defaulted {
            let (name, property) = &node.properties[*place];
            if let Some(default) = &property.default
                && !entries.iter().any(|(key, _)| key == name)
            {
                entries.push((Cow::Borrowed(name), default.borrowed()));
            }
        }
        for name in &node.required {
            // That of an object is looked at elsewhere.
            let elsewhere = root && name == "metadata";
            if !elsewhere && !entries.iter().any(|(key, _)| key == name) {
                self.report(Fault::Required {
                    field: name.clone(),
                    every: node.required.clone(),
                });
            }
        }
        self.bound(Measured::Entries, entries.len(), node.entries, || None);
        for (key, value) in entries {
            if root && key == "metadata" {
                continue;
            }
            let wider = wider.and_then(|wider| wider.field(key));
            if let Some(child) = node.field(key) {
                let step = Name::Key(key);
                self.within(step, |walk| walk.admit(value, child, wider, false));
            }
        }
    }

    fn list<'a>(&mut self, items: &mut [Value<'a>], node: &'a Node, wider: Option<&'a Node>) {
        self.bound(Measured::Items, items.len(), node.count, || None);
        if let Some(child) = &node.items {
            let wider = wider.and_then(|wider| wider.items.as_deref());
            for (place, item) in items.iter_mut().enumerate() {
                if matches!(item, Value::Null)
                    && !child.nullable
                    && let Some(default) = &child.default
                {
                    *item = default.borrowed();
                }
                let step = Name::Index(place);
                self.within(step, |walk| walk.admit(item, child, wider, false));
            }
        }
        if items.len() < 2 || items.len() > node.count.1 {
            return;
        }
        let mut seen = HashSet::with_capacity(items.len());
        for (place, item) in items.iter().enumerate() {
            let identity = match &node.list_type {
                ListType::Set => item.json(),
                ListType::Atomic if node.unique => item.json(),
                ListType::Map(keys) => identity(item, keys),
                ListType::Atomic => return,
            };
            if !seen.insert(identity.clone()) {
                let fault = Fault::Duplicate { value: identity };
                self.within(Name::Index(place), |walk| walk.report(fault));
            }
        }
    }

    fn text(&mut self, text: &str, node: &Node) {
        if node.length != (0, usize::MAX) {
            self.bound(Measured::Length, text.chars().count(), node.length, || {
                Some(text.to_owned())
            });
        }
        if let Some(pattern) = &node.pattern
            && !pattern.is_match(text)
        {
            self.report(Fault::Pattern {
                value: text.to_owned(),
                pattern: pattern.text.clone(),
            });
        }
        if let Some((name, Some(format))) = &node.format
            && !format.admits(text)
        {
            self.report(Fault::Format {
                value: text.to_owned(),
                format: name.clone(),
            });
        }
    }

    fn number(&mut self, number: f64, value: &Value<'_>, node: &Node) {
        let sides = [
            (
                node.minimum,
                false,
                node.minimum.is_some_and(|(bound, _)| number < bound),
            ),
            (
                node.maximum,
                true,
                node.maximum.is_some_and(|(bound, _)| number > bound),
            ),
        ];
        for (bound, over, outside) in sides {
            #[allow(clippy::float_cmp)] // the bound itself
            if let Some((bound, exclusive)) = bound
                && (outside || (exclusive && number == bound))
            {
                self.report(Fault::Bound {
                    what: Measured::Number,
                    found: value.json(),
                    over,
                    bound: bound.to_string(),
                    exclusive,
                });
            }
        }
        // Of the formats of numbers this one decides.
        let int32 = f64::from(i32::MIN)..=f64::from(i32::MAX);
        if let Some((name, None)) = &node.format
            && name == "int32"
            && !int32.contains(&number)
        {
            self.report(Fault::Format {
                value: value.json(),
                format: name.clone(),
            });
        }
        if let Some(multiple) = node.multiple_of
            && (number / multiple).fract() != 0.0
        {
            self.report(Fault::Bound {
                what: Measured::Multiple,
                found: value.json(),
                over: false,
                bound: multiple.to_string(),
                exclusive: false,
            });
        }
    }

    fn bound(
        &mut self,
        what: Measured,
        count: usize,
        (least, most): (usize, usize),
        found: impl FnOnce() -> Option<String>,
    ) {
        let bound = if count < least {
            least
        } else if count > most {
            most
        } else {
            return;
        };
        self.report(Fault::Bound {
            what,
            found: found().unwrap_or_else(|| count.to_string()),
            over: count > most,
            bound: bound.to_string(),
            exclusive: false,
        });
    }

    fn alternatives<'a>(&mut self, value: &Value<'a>, node: &'a Node) {
        for branch in &node.all_of {
            let found = self.tried(value, branch);
            self.extend(found);
        }
        let branches = [("anyOf", &node.any_of), ("oneOf", &node.one_of)];
        for (keyword, branches) in branches {
            if branches.is_empty() {
                continue;
            }
            let tried = branches.iter().map(|branch| self.tried(value, branch));
            let tried: Vec<_> = tried.collect();
            match tried.iter().filter(|found| found.is_empty()).count() {
                1 => {}
                // Of what fits none, the alternative that fits best says what is wrong.
                0 => {
                    let nearest = tried.into_iter().min_by_key(|found| nearness(found));
                    self.extend(nearest.unwrap_or_default());
                }
                _ if keyword == "anyOf" => {}
                _ => self.report(Fault::Alternatives { keyword }),
            }
        }
        if let Some(not) = &node.not
            && self.tried(value, not).is_empty()
        {
            self.report(Fault::Alternatives { keyword: "not" });
        }
    }

    /// What would be wrong if the value had to match a schema that says nothing else.
    fn tried<'a>(&self, value: &Value<'a>, node: &'a Node) -> Vec<Violation> {
        let mut found = Vec::new();
        let mut walk = Walk {
            path: self.path,
            violations: &mut found,
        };
        walk.check(value, node);
        found
    }

    fn extend(&mut self, found: Vec<Violation>) {
        for violation in found {
            if self.violations.len() < MOST && !self.violations.contains(&violation) {
                self.violations.push(violation);
            }
        }
    }

    /// The checks of `admit` for a schema within `allOf` and the like, which changes nothing and does
    /// not say which fields there are.
    fn check<'a>(&mut self, value: &Value<'a>, node: &'a Node) {
        if !self.has_type(value, node) {
            return;
        }
        match value {
            Value::Map(entries) => {
                for name in &node.required {
                    if value.field(name).is_none() {
                        self.report(Fault::Required {
                            field: name.clone(),
                            every: node.required.clone(),
                        });
                    }
                }
                self.bound(Measured::Entries, entries.len(), node.entries, || None);
                for (key, value) in entries {
                    if let Some(child) = node.field(key) {
                        let step = Name::Key(key);
                        self.within(step, |walk| walk.check(value, child));
                    }
                }
            }
            Value::List(items) => {
                self.bound(Measured::Items, items.len(), node.count, || None);
                if let Some(child) = &node.items {
                    for (place, item) in items.iter().enumerate() {
                        self.within(Name::Index(place), |walk| walk.check(item, child));
                    }
                }
            }
            Value::Str(text) => self.text(text, node),
            #[allow(clippy::cast_precision_loss)] // as above
            Value::Int(number) => self.number(*number as f64, value, node),
            Value::Float(number) => self.number(*number, value, node),
            Value::Null | Value::Bool(_) => {}
        }
        if !node.legal.is_empty() && !node.legal.iter().any(|legal| legal.same(value)) {
            let shown = |one: &Value<'_>| one.text().map_or_else(|| one.json(), str::to_owned);
            self.report(Fault::Enum {
                value: value.json(),
                legal: node.legal.iter().map(shown).collect(),
            });
        }
        self.alternatives(value, node);
    }
}

/// The order of alternatives: what has another value where the alternative begins fits least.
fn nearness(found: &[Violation]) -> (bool, usize) {
    let other =
        |one: &Violation| matches!(one.fault, Fault::Enum { .. } | Fault::Alternatives { .. });
    (found.iter().any(other), found.len())
}

/// What identifies an item of a list that is a map, as JSON.
fn identity(item: &Value<'_>, keys: &[String]) -> String {
    let present = keys.iter().filter_map(|key| {
        item.field(key)
            .map(|value| format!("{key:?}:{}", value.json()))
    });
    format!("{{{}}}", present.collect::<Vec<_>>().join(","))
}
