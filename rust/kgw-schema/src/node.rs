//! Schemas, compiled: the part of `OpenAPI` that structural schemas of Kubernetes are.

use std::sync::Arc;

use kgw_cel::format::Format;
use kgw_cel::pattern::Pattern;
use kgw_cel::{Names, Program, Shape, Value};
use serde_json::{Map, Value as Json};

use crate::rules::VARIABLES;
use crate::schema::SchemaError;

/// The type of a value; `Any` where the schema names none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    Any,
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

/// What a list is: `x-kubernetes-list-type`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ListType {
    Atomic,
    Set,
    /// The keys that identify an item.
    Map(Vec<String>),
}

/// A CEL rule.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) text: String,
    pub(crate) program: Program,
    pub(crate) message: Option<String>,
    pub(crate) message_program: Option<Program>,
    pub(crate) reason: String,
    /// The field that is at fault, from the rule's own value.
    pub(crate) field: Vec<String>,
    pub(crate) optional_old_self: bool,
}

/// What a value has to be.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools)] // as many as schemas have
pub(crate) struct Node {
    pub(crate) kind: Type,
    pub(crate) int_or_string: bool,
    pub(crate) nullable: bool,
    pub(crate) preserve_unknown: bool,
    pub(crate) embedded: bool,
    /// By name.
    pub(crate) properties: Vec<(String, Arc<Self>)>,
    /// The places in `properties` of those that have a default.
    pub(crate) defaulted: Vec<usize>,
    pub(crate) required: Vec<String>,
    pub(crate) additional: Option<Arc<Self>>,
    /// Whether `additionalProperties` is just `true`.
    pub(crate) open: bool,
    pub(crate) items: Option<Arc<Self>>,
    pub(crate) list_type: ListType,
    pub(crate) default: Option<Value<'static>>,
    pub(crate) legal: Vec<Value<'static>>,
    pub(crate) pattern: Option<Pattern>,
    /// The name, and what it means if that decides anything.
    pub(crate) format: Option<(String, Option<Format>)>,
    pub(crate) minimum: Option<(f64, bool)>,
    pub(crate) maximum: Option<(f64, bool)>,
    pub(crate) multiple_of: Option<f64>,
    /// At least and at most so many characters, items or entries.
    pub(crate) length: (usize, usize),
    pub(crate) count: (usize, usize),
    pub(crate) entries: (usize, usize),
    pub(crate) unique: bool,
    pub(crate) all_of: Vec<Arc<Self>>,
    pub(crate) any_of: Vec<Arc<Self>>,
    pub(crate) one_of: Vec<Arc<Self>>,
    pub(crate) not: Option<Arc<Self>>,
    pub(crate) rules: Vec<Rule>,
    /// Whether there is a rule here or below.
    pub(crate) has_rules: bool,
    /// What it is in rules.
    pub(crate) shape: Arc<Shape>,
}

impl Node {
    /// The schema of a property, or of any entry.
    pub(crate) fn field(&self, name: &str) -> Option<&Self> {
        match self.property(name) {
            Some(place) => Some(&self.properties[place].1),
            None => self.additional.as_deref(),
        }
    }

    /// The place of a property.
    pub(crate) fn property(&self, name: &str) -> Option<usize> {
        self.properties
            .binary_search_by(|(one, _)| one.as_str().cmp(name))
            .ok()
    }
}

/// Schemas that others refer to, by number.
pub(crate) struct Pool<'j> {
    schemas: &'j [Json],
    built: Vec<Option<Arc<Node>>>,
}

/// How deeply schemas may be nested.
const DEPTH: usize = 64;

impl<'j> Pool<'j> {
    pub(crate) fn new(schemas: &'j [Json]) -> Self {
        Self {
            schemas,
            built: schemas.iter().map(|_| None).collect(),
        }
    }

    /// Compiles a schema, or a reference to one.
    pub(crate) fn node(&mut self, json: &Json, depth: usize) -> Result<Arc<Node>, SchemaError> {
        let json = json.as_object().ok_or(SchemaError::NoSchema)?;
        if depth > DEPTH {
            return Err(SchemaError::Depth);
        }
        let Some(reference) = json.get("$") else {
            return self.compile(json, depth).map(Arc::new);
        };
        let place = reference
            .as_u64()
            .and_then(|place| usize::try_from(place).ok());
        let place = place.ok_or(SchemaError::NoSchema)?;
        if let Some(Some(built)) = self.built.get(place) {
            return Ok(Arc::clone(built));
        }
        let schema = self.schemas.get(place).ok_or(SchemaError::NoSchema)?;
        let node = self.node(schema, depth + 1)?;
        self.built[place] = Some(Arc::clone(&node));
        Ok(node)
    }

    fn compile(&mut self, json: &Map<String, Json>, depth: usize) -> Result<Node, SchemaError> {
        let text = |name: &str| json.get(name).and_then(Json::as_str);
        let flag = |name: &str| json.get(name).and_then(Json::as_bool).unwrap_or(false);
        let number = |name: &str| json.get(name).and_then(Json::as_f64);
        let count = |name: &str, otherwise: usize| {
            json.get(name)
                .and_then(Json::as_u64)
                .and_then(|count| usize::try_from(count).ok())
                .unwrap_or(otherwise)
        };
        let mut properties = Vec::new();
        if let Some(named) = json.get("properties").and_then(Json::as_object) {
            for (name, schema) in named {
                properties.push((name.clone(), self.node(schema, depth + 1)?));
            }
        }
        properties.sort_by(|one, two| one.0.cmp(&two.0));
        let defaulted = (0..properties.len())
            .filter(|place| properties[*place].1.default.is_some())
            .collect();
        let (additional, open) = match json.get("additionalProperties") {
            Some(Json::Bool(open)) => (None, *open),
            Some(schema) => (Some(self.node(schema, depth + 1)?), false),
            None => (None, false),
        };
        let items = json.get("items").map(|items| self.node(items, depth + 1));
        let items = items.transpose()?;
        let not = json
            .get("not")
            .map(|not| self.node(not, depth + 1))
            .transpose()?;
        let all_of = self.several(json, "allOf", depth)?;
        let any_of = self.several(json, "anyOf", depth)?;
        let one_of = self.several(json, "oneOf", depth)?;
        let strings = |name: &str| -> Vec<String> {
            let strings = json
                .get(name)
                .and_then(Json::as_array)
                .into_iter()
                .flatten();
            strings
                .filter_map(Json::as_str)
                .map(str::to_owned)
                .collect()
        };
        let list_type = match text("x-kubernetes-list-type") {
            Some("set") => ListType::Set,
            Some("map") => ListType::Map(strings("x-kubernetes-list-map-keys")),
            _ => ListType::Atomic,
        };
        let pattern = match text("pattern") {
            Some(written) => {
                let pattern = Pattern::new(written);
                Some(pattern.ok_or_else(|| SchemaError::Pattern(written.to_owned()))?)
            }
            None => None,
        };
        let mut rules = Vec::new();
        let written = json
            .get("x-kubernetes-validations")
            .and_then(Json::as_array);
        for rule in written.into_iter().flatten() {
            rules.push(compile_rule(rule)?);
        }
        let below = properties.iter().map(|(_, node)| node);
        let has_rules = !rules.is_empty()
            || below
                .chain(&additional)
                .chain(&items)
                .any(|node| node.has_rules);
        let format = text("format").map(|name| (name.to_owned(), Format::named(name)));
        let int_or_string = flag("x-kubernetes-int-or-string");
        let below = properties.iter().map(|(_, node)| node);
        let typed = |node: &Arc<Node>| matches!(node.format, Some((_, Some(_))));
        let has_typed_fields = below.chain(&additional).any(typed);
        let shape = Shape {
            is_number: text("type") == Some("number"),
            text: format
                .as_ref()
                .and_then(|(_, format)| *format)
                .filter(|_| !int_or_string),
            is_set: list_type != ListType::Atomic,
            has_typed_fields,
            fields: properties
                .iter()
                .map(|(name, node)| (name.as_str().into(), Arc::clone(&node.shape)))
                .collect(),
            additional: additional.as_ref().map(|node| Arc::clone(&node.shape)),
            items: items.as_ref().map(|node| Arc::clone(&node.shape)),
        };
        Ok(Node {
            kind: match text("type") {
                Some("object") => Type::Object,
                Some("array") => Type::Array,
                Some("string") => Type::String,
                Some("integer") => Type::Integer,
                Some("number") => Type::Number,
                Some("boolean") => Type::Boolean,
                _ => Type::Any,
            },
            int_or_string,
            nullable: flag("nullable"),
            preserve_unknown: flag("x-kubernetes-preserve-unknown-fields"),
            embedded: flag("x-kubernetes-embedded-resource"),
            properties,
            defaulted,
            required: strings("required"),
            additional,
            open,
            items,
            list_type,
            default: json.get("default").map(Value::from),
            legal: json
                .get("enum")
                .and_then(Json::as_array)
                .into_iter()
                .flatten()
                .map(Value::from)
                .collect(),
            pattern,
            format,
            minimum: number("minimum").map(|bound| (bound, flag("exclusiveMinimum"))),
            maximum: number("maximum").map(|bound| (bound, flag("exclusiveMaximum"))),
            multiple_of: number("multipleOf").filter(|multiple| *multiple > 0.0),
            length: (count("minLength", 0), count("maxLength", usize::MAX)),
            count: (count("minItems", 0), count("maxItems", usize::MAX)),
            entries: (
                count("minProperties", 0),
                count("maxProperties", usize::MAX),
            ),
            unique: flag("uniqueItems"),
            all_of,
            any_of,
            one_of,
            not,
            rules,
            has_rules,
            shape: Arc::new(shape),
        })
    }

    fn several(
        &mut self,
        json: &Map<String, Json>,
        name: &str,
        depth: usize,
    ) -> Result<Vec<Arc<Node>>, SchemaError> {
        let schemas = json
            .get(name)
            .and_then(Json::as_array)
            .into_iter()
            .flatten();
        schemas.map(|schema| self.node(schema, depth + 1)).collect()
    }
}

fn compile_rule(json: &Json) -> Result<Rule, SchemaError> {
    let text = |name: &str| json.get(name).and_then(Json::as_str);
    let written = text("rule").ok_or(SchemaError::NoSchema)?.trim();
    let compiled = |text: &str| {
        Program::compile(text, Names::Variables(&VARIABLES)).map_err(|error| SchemaError::Rule {
            rule: text.to_owned(),
            error,
        })
    };
    Ok(Rule {
        text: written.to_owned(),
        program: compiled(written)?,
        message: text("message")
            .map(str::to_owned)
            .filter(|message| !message.is_empty()),
        message_program: text("messageExpression").map(compiled).transpose()?,
        reason: text("reason").unwrap_or("FieldValueInvalid").to_owned(),
        field: text("fieldPath").map(field_path).unwrap_or_default(),
        optional_old_self: json
            .get("optionalOldSelf")
            .and_then(Json::as_bool)
            .unwrap_or(false),
    })
}

/// Reads the `JSONPath` of a rule: `.a.b`, `['a.b']` or `.a['b']`.
fn field_path(text: &str) -> Vec<String> {
    let mut steps = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        if let Some(quoted) = rest.strip_prefix("['") {
            let (name, after) = quoted.split_once("']").unwrap_or((quoted, ""));
            steps.push(name.replace("\\'", "'"));
            rest = after;
        } else {
            let name = rest.strip_prefix('.').unwrap_or(rest);
            let end = name.find(['.', '[']).unwrap_or(name.len());
            if end > 0 {
                steps.push(name[..end].to_owned());
            }
            let after = &name[end..];
            // What begins with neither is no path; its rest is left out.
            rest = if after.len() < rest.len() { after } else { "" };
        }
    }
    steps
}
