//! The values of an expression.

use std::net::IpAddr;
use std::ops::Deref;
use std::rc::Rc;

use crate::attributes::Data;
use crate::format::{self, Format};
use crate::json::Value;
use crate::quantity::Quantity;
use crate::shape::Shape;
use crate::url::Url;
use crate::version::Version;

/// A value of an expression; lists and mappings of an object stay where they are.
#[derive(Debug, Clone)]
pub enum Cel<'v> {
    /// Nothing.
    Null,
    /// A boolean.
    Bool(bool),
    /// A number without a fraction.
    Int(i64),
    /// A number without a fraction or a sign.
    Uint(u64),
    /// A number.
    Double(f64),
    /// A text.
    Str(Text<'v>),
    /// Bytes.
    Bytes(Rc<[u8]>),
    /// Nanoseconds.
    Duration(i64),
    /// Nanoseconds since 1970.
    Timestamp(Rc<i128>),
    /// A list or mapping of an object, with its schema.
    Object(&'v Value<'v>, Option<&'v Shape>),
    /// A list or mapping that is looked up where it is.
    Data(&'v dyn Data),
    /// A list that was made.
    List(Rc<Vec<Self>>),
    /// A mapping that was made, in the order of its entries.
    Map(Rc<Vec<(Self, Self)>>),
    /// A value that may be missing.
    Optional(Option<Rc<Self>>),
    /// An address.
    Ip(Rc<IpAddr>),
    /// A network.
    Cidr(Rc<(IpAddr, u8)>),
    /// A URL.
    Url(Rc<Url>),
    /// A quantity.
    Quantity(Rc<Quantity>),
    /// A semantic version.
    Version(Rc<Version>),
    /// A named format of texts, such as `dns1123Label`.
    Format(&'static str),
    /// A type.
    Type(&'static str),
}

/// A text of an object or a rule, or a new one.
#[derive(Debug, Clone)]
pub enum Text<'v> {
    /// One that stays where it is.
    Borrowed(&'v str),
    /// One that was made.
    Made(Rc<str>),
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Made(text) => text,
        }
    }
}

impl<'v> Cel<'v> {
    /// The value of a part of an object that has a schema.
    pub fn of(value: &'v Value<'v>, node: Option<&'v Shape>) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            #[allow(clippy::cast_precision_loss)] // it is a number, which is a double
            Value::Int(value) if node.is_some_and(|node| node.is_number) => {
                Self::Double(*value as f64)
            }
            Value::Int(value) => Self::Int(*value),
            Value::Float(value) => Self::Double(*value),
            Value::Str(text) => Self::typed(text, node).unwrap_or(Self::Str(Text::Borrowed(text))),
            Value::List(_) | Value::Map(_) => Self::Object(value, node),
        }
    }

    /// The value of a text whose format is a type of its own.
    fn typed(text: &str, node: Option<&Shape>) -> Option<Self> {
        Some(match node?.text? {
            Format::Byte => Self::Bytes(format::decode_base64(text)?.into()),
            Format::Duration => Self::Duration(format::duration(text)?),
            Format::DateTime => Self::Timestamp(Rc::new(format::timestamp(text)?)),
            Format::Date => {
                let day = i128::from(format::date(text)?);
                Self::Timestamp(Rc::new(day * 86_400 * format::SECOND))
            }
            _ => return None,
        })
    }

    /// A value of JSON as a protobuf `Struct` has it: every number is a double.
    pub fn of_json(value: &'v serde_json::Value) -> Self {
        use serde_json::Value as Json;
        match value {
            Json::Null => Self::Null,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(number) => Self::Double(number.as_f64().unwrap_or(f64::NAN)),
            Json::String(text) => Self::Str(Text::Borrowed(text)),
            Json::Array(_) | Json::Object(_) => Self::Data(value),
        }
    }

    /// A text that stays where it is.
    pub fn borrowed(text: &'v str) -> Self {
        Self::Str(Text::Borrowed(text))
    }

    /// A text that is made.
    pub fn made(text: impl Into<Rc<str>>) -> Self {
        Self::Str(Text::Made(text.into()))
    }

    /// A list of these items.
    pub fn list(items: Vec<Self>) -> Self {
        Self::List(Rc::new(items))
    }

    /// A value that may be missing and is not.
    pub fn some(value: Self) -> Self {
        Self::Optional(Some(Rc::new(value)))
    }

    /// The name of the type, as in `type(x)`.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::Str(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::Duration(_) => "google.protobuf.Duration",
            Self::Timestamp(_) => "google.protobuf.Timestamp",
            _ if self.is_list() => "list",
            Self::Object(..) | Self::Data(_) | Self::List(_) | Self::Map(_) => "map",
            Self::Optional(_) => "optional_type",
            Self::Ip(_) => "net.IP",
            Self::Cidr(_) => "net.CIDR",
            Self::Url(_) => "kubernetes.URL",
            Self::Quantity(_) => "kubernetes.Quantity",
            Self::Version(_) => "kubernetes.Semver",
            Self::Format(_) => "kubernetes.NamedFormat",
            Self::Type(_) => "type",
        }
    }

    /// How many items or entries there are; `None` if this is neither a list nor a mapping.
    pub(crate) fn len(&self) -> Option<usize> {
        Some(match self {
            Self::Object(Value::List(items), _) => items.len(),
            Self::Object(Value::Map(entries), _) => entries.len(),
            Self::Data(data) => data.len(),
            Self::List(items) => items.len(),
            Self::Map(entries) => entries.len(),
            _ => return None,
        })
    }

    /// Whether this is a list.
    pub fn is_list(&self) -> bool {
        match self {
            Self::Object(Value::List(_), _) | Self::List(_) => true,
            Self::Data(data) => data.is_list(),
            _ => false,
        }
    }

    /// Whether this is a mapping.
    pub fn is_map(&self) -> bool {
        match self {
            Self::Object(Value::Map(_), _) | Self::Map(_) => true,
            Self::Data(data) => !data.is_list(),
            _ => false,
        }
    }

    /// An item of a list, or a key of a mapping, by its place.
    pub(crate) fn member(&self, index: usize) -> Option<Self> {
        match self {
            Self::Object(Value::List(items), node) => items
                .get(index)
                .map(|item| Self::of(item, node.and_then(|node| node.items.as_deref()))),
            Self::Object(Value::Map(entries), _) => entries
                .get(index)
                .map(|(key, _)| Self::Str(Text::Borrowed(key))),
            Self::Data(data) if data.is_list() => data.item(index),
            Self::Data(data) => data.key(index),
            Self::List(items) => items.get(index).cloned(),
            Self::Map(entries) => entries.get(index).map(|(key, _)| key.clone()),
            _ => None,
        }
    }

    /// The value of an entry of a mapping by its place, or an item of a list.
    pub(crate) fn element(&self, index: usize) -> Option<Self> {
        match self {
            Self::Object(Value::Map(entries), node) => entries
                .get(index)
                .map(|(key, value)| Self::of(value, node.and_then(|node| node.field(key)))),
            Self::Data(data) => data.item(index),
            Self::Map(entries) => entries.get(index).map(|(_, value)| value.clone()),
            _ => self.member(index),
        }
    }

    /// The value under a key of a mapping.
    pub fn entry(&self, key: &Self) -> Option<Self> {
        match (self, key) {
            (Self::Object(value, node), Self::Str(key)) => value
                .field(key)
                .map(|value| Self::of(value, node.and_then(|node| node.field(key)))),
            (Self::Data(data), Self::Str(key)) if !data.is_list() => data.entry(key),
            (Self::Map(entries), key) => entries
                .iter()
                .find(|(one, _)| one.equals(key))
                .map(|(_, value)| value.clone()),
            _ => None,
        }
    }

    /// Whether two values are equal; values of different types are not.
    pub(crate) fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(one), Self::Bool(two)) => one == two,
            (Self::Str(one), Self::Str(two)) => **one == **two,
            (Self::Bytes(one), Self::Bytes(two)) => one == two,
            (Self::Duration(one), Self::Duration(two)) => one == two,
            (Self::Timestamp(one), Self::Timestamp(two)) => one == two,
            (Self::Ip(one), Self::Ip(two)) => one == two,
            (Self::Cidr(one), Self::Cidr(two)) => one == two,
            (Self::Url(one), Self::Url(two)) => one == two,
            (Self::Quantity(one), Self::Quantity(two)) => one == two,
            (Self::Version(one), Self::Version(two)) => one == two,
            (Self::Format(one), Self::Format(two)) | (Self::Type(one), Self::Type(two)) => {
                one == two
            }
            (Self::Optional(one), Self::Optional(two)) => match (one, two) {
                (None, None) => true,
                (Some(one), Some(two)) => one.equals(two),
                _ => false,
            },
            (Self::Int(_) | Self::Uint(_) | Self::Double(_), _) => {
                self.number(other) == Some(std::cmp::Ordering::Equal)
            }
            _ if self.is_list() && other.is_list() => self.equal_lists(other),
            _ if self.is_map() && other.is_map() => {
                self.len() == other.len()
                    && (0..self.len().unwrap_or(0)).all(|index| {
                        let (key, value) = (self.member(index), self.element(index));
                        key.and_then(|key| other.entry(&key))
                            .zip(value)
                            .is_some_and(|(one, two)| one.equals(&two))
                    })
            }
            _ => false,
        }
    }

    fn equal_lists(&self, other: &Self) -> bool {
        if self.len() != other.len() {
            return false;
        }
        let pairs = 0..self.len().unwrap_or(0);
        let same = |one: Option<Self>, two: Option<Self>| {
            one.zip(two).is_some_and(|(one, two)| one.equals(&two))
        };
        if self.is_ordered() && other.is_ordered() {
            return pairs
                .into_iter()
                .all(|index| same(self.member(index), other.member(index)));
        }
        pairs.clone().all(|one| {
            pairs
                .clone()
                .any(|two| same(self.member(one), other.member(two)))
        })
    }

    /// Whether the order of a list's items means anything.
    fn is_ordered(&self) -> bool {
        match self {
            Self::Object(_, Some(node)) => !node.is_set,
            _ => true,
        }
    }

    /// Compares two numbers of any types.
    #[allow(clippy::cast_precision_loss)] // as the specification compares them
    pub(crate) fn number(&self, other: &Self) -> Option<std::cmp::Ordering> {
        use Cel::{Double, Int, Uint};
        match (self, other) {
            (Int(one), Int(two)) => Some(one.cmp(two)),
            (Uint(one), Uint(two)) => Some(one.cmp(two)),
            (Double(one), Double(two)) => one.partial_cmp(two),
            (Int(one), Uint(two)) => Some(i128::from(*one).cmp(&i128::from(*two))),
            (Uint(one), Int(two)) => Some(i128::from(*one).cmp(&i128::from(*two))),
            (Int(one), Double(two)) => (*one as f64).partial_cmp(two),
            (Double(one), Int(two)) => one.partial_cmp(&(*two as f64)),
            (Uint(one), Double(two)) => (*one as f64).partial_cmp(two),
            (Double(one), Uint(two)) => one.partial_cmp(&(*two as f64)),
            _ => None,
        }
    }

    /// Compares two values that have an order.
    pub(crate) fn order(&self, other: &Self) -> Option<std::cmp::Ordering> {
        match (self, other) {
            (Self::Str(one), Self::Str(two)) => Some((**one).cmp(&**two)),
            (Self::Bytes(one), Self::Bytes(two)) => Some(one.cmp(two)),
            (Self::Bool(one), Self::Bool(two)) => Some(one.cmp(two)),
            (Self::Duration(one), Self::Duration(two)) => Some(one.cmp(two)),
            (Self::Timestamp(one), Self::Timestamp(two)) => Some(one.cmp(two)),
            (Self::Quantity(one), Self::Quantity(two)) => Some(one.cmp(two)),
            (Self::Version(one), Self::Version(two)) => Some(one.cmp(two)),
            _ => self.number(other),
        }
    }

    /// What a value takes to be compared or walked: the number of all values in it.
    pub(crate) fn weight(&self) -> u64 {
        match self {
            Self::Object(value, _) => weight(value),
            Self::Data(data) => {
                let items = (0..data.len()).filter_map(|place| data.item(place));
                1 + items.map(|item| 1 + item.weight()).sum::<u64>()
            }
            Self::List(items) => 1 + items.iter().map(Self::weight).sum::<u64>(),
            Self::Map(entries) => {
                1 + entries
                    .iter()
                    .map(|(_, value)| 1 + value.weight())
                    .sum::<u64>()
            }
            Self::Str(text) => 1 + text.len() as u64 / 10,
            Self::Bytes(bytes) => 1 + bytes.len() as u64 / 10,
            _ => 1,
        }
    }
}

fn weight(value: &Value<'_>) -> u64 {
    match value {
        Value::List(items) => 1 + items.iter().map(weight).sum::<u64>(),
        Value::Map(entries) => {
            1 + entries
                .iter()
                .map(|(_, value)| 1 + weight(value))
                .sum::<u64>()
        }
        Value::Str(text) => 1 + text.len() as u64 / 10,
        _ => 1,
    }
}
