//! What an expression about a request is about: attributes that are asked for one by one.

use std::fmt;

use crate::value::Cel;

/// A name that an expression may begin with, such as `request`.
#[derive(Debug, Clone, Copy)]
pub struct Root {
    /// The name.
    pub name: &'static str,
    /// What may follow it.
    pub fields: Fields,
}

/// What may follow the name of a [`Root`].
#[derive(Debug, Clone, Copy)]
pub enum Fields {
    /// The root is an attribute itself, by this number.
    Whole(u16),
    /// These fields are attributes, by their numbers; the root alone is nothing.
    Named(&'static [(&'static str, u16)]),
}

/// The attributes of a request (or of whatever else expressions are evaluated on).
///
/// An evaluation asks for those that it comes to, so nothing is built that is not used. The numbers are
/// those of the [`Root`]s that the expression was compiled with.
pub trait Attributes {
    /// Returns the value of an attribute; `None` if there is none, which is an error in the expression
    /// unless it asks for it with `has()` or `.?`.
    fn attribute(&self, number: u16) -> Option<Cel<'_>>;
}

/// A list or mapping that stays where it is, and whose entries are looked up there.
pub trait Data {
    /// Whether this is a list; else it is a mapping with texts as keys.
    fn is_list(&self) -> bool;

    /// The number of items or entries.
    fn len(&self) -> usize;

    /// Whether there are no items or entries.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value of an entry of a mapping.
    fn entry(&self, key: &str) -> Option<Cel<'_>>;

    /// The key of an entry of a mapping by its place.
    fn key(&self, place: usize) -> Option<Cel<'_>>;

    /// An item of a list, or the value of an entry of a mapping, by its place.
    fn item(&self, place: usize) -> Option<Cel<'_>>;
}

/// Says nothing of what is in it, which may be a secret.
impl fmt::Debug for dyn Data + '_ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_list() { "List" } else { "Map" };
        write!(f, "{kind}({})", self.len())
    }
}

/// JSON as a protobuf `Struct` has it: every number is a double.
impl Data for serde_json::Value {
    fn is_list(&self) -> bool {
        self.is_array()
    }

    fn len(&self) -> usize {
        match self {
            Self::Array(items) => items.len(),
            Self::Object(entries) => entries.len(),
            _ => 0,
        }
    }

    fn entry(&self, key: &str) -> Option<Cel<'_>> {
        self.get(key).map(Cel::of_json)
    }

    fn key(&self, place: usize) -> Option<Cel<'_>> {
        let (key, _) = self.as_object()?.iter().nth(place)?;
        Some(Cel::borrowed(key))
    }

    fn item(&self, place: usize) -> Option<Cel<'_>> {
        match self {
            Self::Array(items) => items.get(place),
            Self::Object(entries) => entries.values().nth(place),
            _ => None,
        }
        .map(Cel::of_json)
    }
}

/// As a JSON object.
impl Data for serde_json::Map<String, serde_json::Value> {
    fn is_list(&self) -> bool {
        false
    }

    fn len(&self) -> usize {
        Self::len(self)
    }

    fn entry(&self, key: &str) -> Option<Cel<'_>> {
        self.get(key).map(Cel::of_json)
    }

    fn key(&self, place: usize) -> Option<Cel<'_>> {
        self.keys().nth(place).map(|key| Cel::borrowed(key))
    }

    fn item(&self, place: usize) -> Option<Cel<'_>> {
        self.values().nth(place).map(Cel::of_json)
    }
}

/// Texts by texts, of which the last of a name counts.
impl Data for Vec<(String, String)> {
    fn is_list(&self) -> bool {
        false
    }

    fn len(&self) -> usize {
        Self::len(self)
    }

    fn entry(&self, key: &str) -> Option<Cel<'_>> {
        let found = self.iter().rfind(|(one, _)| one == key);
        found.map(|(_, value)| Cel::borrowed(value))
    }

    fn key(&self, place: usize) -> Option<Cel<'_>> {
        self.get(place).map(|(key, _)| Cel::borrowed(key))
    }

    fn item(&self, place: usize) -> Option<Cel<'_>> {
        self.get(place).map(|(_, value)| Cel::borrowed(value))
    }
}
