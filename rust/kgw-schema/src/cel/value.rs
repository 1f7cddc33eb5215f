//! The values of an expression.

use std::net::IpAddr;
use std::ops::Deref;
use std::rc::Rc;

use super::url::Url;
use super::version::Version;
use crate::format::{self, Format};
use crate::node::{ListType, Node, Type};
use crate::quantity::Quantity;
use crate::value::Value;

/// A value of an expression; lists and mappings of an object stay where they are.
#[derive(Debug, Clone)]
pub(crate) enum Cel<'v> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Str(Text<'v>),
    Bytes(Rc<[u8]>),
    /// Nanoseconds.
    Duration(i64),
    /// Nanoseconds since 1970.
    Timestamp(Rc<i128>),
    /// A list or mapping of an object, with its schema.
    Data(&'v Value<'v>, Option<&'v Node>),
    List(Rc<Vec<Self>>),
    Map(Rc<Vec<(Self, Self)>>),
    Optional(Option<Rc<Self>>),
    Ip(Rc<IpAddr>),
    Cidr(Rc<(IpAddr, u8)>),
    Url(Rc<Url>),
    Quantity(Rc<Quantity>),
    Version(Rc<Version>),
    /// A named format of texts, such as `dns1123Label`.
    Format(&'static str),
    Type(&'static str),
}

/// A text of an object or a rule, or a new one.
#[derive(Debug, Clone)]
pub(crate) enum Text<'v> {
    Borrowed(&'v str),
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
    pub(crate) fn of(value: &'v Value<'v>, node: Option<&'v Node>) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            #[allow(clippy::cast_precision_loss)] // it is a number, which is a double
            Value::Int(value) if node.is_some_and(|node| node.kind == Type::Number) => {
                Self::Double(*value as f64)
            }
            Value::Int(value) => Self::Int(*value),
            Value::Float(value) => Self::Double(*value),
            Value::Str(text) => Self::typed(text, node).unwrap_or(Self::Str(Text::Borrowed(text))),
            Value::List(_) | Value::Map(_) => Self::Data(value, node),
        }
    }

    /// The value of a text whose format is a type of its own.
    fn typed(text: &str, node: Option<&Node>) -> Option<Self> {
        let node = node?;
        if node.int_or_string {
            return None;
        }
        Some(match node.format.as_ref()?.1? {
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

    pub(crate) fn made(text: impl Into<Rc<str>>) -> Self {
        Self::Str(Text::Made(text.into()))
    }

    pub(crate) fn list(items: Vec<Self>) -> Self {
        Self::List(Rc::new(items))
    }

    pub(crate) fn some(value: Self) -> Self {
        Self::Optional(Some(Rc::new(value)))
    }

    /// The name of the type, as in `type(x)`.
    pub(crate) fn type_name(&self) -> &'static str {
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
            Self::Data(Value::List(_), _) | Self::List(_) => "list",
            Self::Data(..) | Self::Map(_) => "map",
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
            Self::Data(Value::List(items), _) => items.len(),
            Self::Data(Value::Map(entries), _) => entries.len(),
            Self::List(items) => items.len(),
            Self::Map(entries) => entries.len(),
            _ => return None,
        })
    }

    pub(crate) fn is_list(&self) -> bool {
        matches!(self, Self::Data(Value::List(_), _) | Self::List(_))
    }

    pub(crate) fn is_map(&self) -> bool {
        matches!(self, Self::Data(Value::Map(_), _) | Self::Map(_))
    }

    /// An item of a list, or a key of a mapping, by its place.
    pub(crate) fn member(&self, index: usize) -> Option<Self> {
        match self {
            Self::Data(Value::List(items), node) => items
                .get(index)
                .map(|item| Self::of(item, node.and_then(|node| node.items.as_deref()))),
            Self::Data(Value::Map(entries), _) => entries
                .get(index)
                .map(|(key, _)| Self::Str(Text::Borrowed(key))),
            Self::List(items) => items.get(index).cloned(),
            Self::Map(entries) => entries.get(index).map(|(key, _)| key.clone()),
            _ => None,
        }
    }

    /// The value of an entry of a mapping by its place, or an item of a list.
    pub(crate) fn element(&self, index: usize) -> Option<Self> {
        match self {
            Self::Data(Value::Map(entries), node) => entries
                .get(index)
                .map(|(key, value)| Self::of(value, node.and_then(|node| node.field(key)))),
            Self::Map(entries) => entries.get(index).map(|(_, value)| value.clone()),
            _ => self.member(index),
        }
    }

    /// The value under a key of a mapping.
    pub(crate) fn entry(&self, key: &Self) -> Option<Self> {
        match (self, key) {
            (Self::Data(value, node), Self::Str(key)) => value
                .field(key)
                .map(|value| Self::of(value, node.and_then(|node| node.field(key)))),
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
            Self::Data(_, Some(node)) => node.list_type == ListType::Atomic,
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
            Self::Data(value, _) => weight(value),
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
