//! JSON values that borrow their text from wherever they were read.

use std::borrow::Cow;

/// A value of an object: JSON, with integers apart from other numbers.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// `null`.
    Null,
    /// A boolean.
    Bool(bool),
    /// A number without a fraction that fits into 64 bits.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// A text.
    Str(Cow<'a, str>),
    /// A list.
    List(Vec<Self>),
    /// A mapping, in the order that it was written; no key is there twice.
    Map(Vec<(Cow<'a, str>, Self)>),
}

impl<'a> Value<'a> {
    /// Returns the value as one that borrows from this.
    #[must_use]
    pub fn borrowed(&'a self) -> Self {
        match self {
            Self::Null => Self::Null,
            Self::Bool(value) => Self::Bool(*value),
            Self::Int(value) => Self::Int(*value),
            Self::Float(value) => Self::Float(*value),
            Self::Str(text) => Self::Str(Cow::Borrowed(text)),
            Self::List(items) => Self::List(items.iter().map(Self::borrowed).collect()),
            Self::Map(entries) => Self::Map(
                entries
                    .iter()
                    .map(|(key, value)| (Cow::Borrowed(&**key), value.borrowed()))
                    .collect(),
            ),
        }
    }

    /// Returns the value under a key, if this is a mapping that has it.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Map(entries) => entries
                .iter()
                .find(|(key, _)| key == name)
                .map(|(_, value)| value),
            _ => None,
        }
    }

    /// Returns the text, if this is one.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Str(text) => Some(text),
            _ => None,
        }
    }

    /// Whether two values are the same JSON: 1 and 1.0 are, and mappings in any order of keys.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        match (self, other) {
            #[allow(clippy::cast_precision_loss, clippy::float_cmp)] // as JSON has it
            (Self::Int(one), Self::Float(two)) | (Self::Float(two), Self::Int(one)) => {
                *one as f64 == *two
            }
            (Self::List(one), Self::List(two)) => {
                one.len() == two.len() && one.iter().zip(two).all(|(one, two)| one.same(two))
            }
            (Self::Map(one), Self::Map(two)) => {
                one.len() == two.len()
                    && one
                        .iter()
                        .all(|(key, value)| other.field(key).is_some_and(|two| value.same(two)))
            }
            _ => self == other,
        }
    }

    /// Returns the name of the type in schemas.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "boolean",
            Self::Int(_) => "integer",
            Self::Float(_) => "number",
            Self::Str(_) => "string",
            Self::List(_) => "array",
            Self::Map(_) => "object",
        }
    }

    /// Returns the value as JSON text.
    #[must_use]
    pub fn json(&self) -> String {
        self.to_json().to_string()
    }

    fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match self {
            Self::Null => Json::Null,
            Self::Bool(value) => Json::Bool(*value),
            Self::Int(value) => Json::from(*value),
            Self::Float(value) => Json::from(*value),
            Self::Str(text) => Json::from(text.as_ref()),
            Self::List(items) => items.iter().map(Self::to_json).collect(),
            Self::Map(entries) => entries
                .iter()
                .map(|(key, value)| (key.to_string(), value.to_json()))
                .collect(),
        }
    }
}

impl From<&serde_json::Value> for Value<'static> {
    fn from(json: &serde_json::Value) -> Self {
        use serde_json::Value as Json;
        match json {
            Json::Null => Self::Null,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(number) => match number.as_i64() {
                Some(value) => Self::Int(value),
                None => Self::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => Self::Str(Cow::Owned(text.clone())),
            Json::Array(items) => Self::List(items.iter().map(Self::from).collect()),
            Json::Object(entries) => Self::Map(
                entries
                    .iter()
                    .map(|(key, value)| (Cow::Owned(key.clone()), Self::from(value)))
                    .collect(),
            ),
        }
    }
}
