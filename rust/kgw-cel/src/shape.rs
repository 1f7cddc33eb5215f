//! What a schema says about the values of an expression.

use std::sync::Arc;

use crate::format::Format;

/// The schema of a value, as far as it decides what the value is in an expression.
///
/// It is a structure and no trait: a reference to it takes one word, so that a value takes three.
#[derive(Debug, Default)]
pub struct Shape {
    /// Whether a whole number is a double all the same.
    pub is_number: bool,
    /// The format of a text that is a type of its own in expressions, such as a time.
    pub text: Option<Format>,
    /// Whether the order of a list's items means nothing.
    pub is_set: bool,
    /// Whether a text of one of the fields has a format.
    pub has_typed_fields: bool,
    /// The fields of a mapping, by name.
    pub fields: Vec<(Box<str>, Arc<Self>)>,
    /// Any other entry of a mapping.
    pub additional: Option<Arc<Self>>,
    /// The items of a list.
    pub items: Option<Arc<Self>>,
}

impl Shape {
    /// The schema of a field of a mapping, or of any entry.
    pub fn field(&self, name: &str) -> Option<&Self> {
        match self.named(name) {
            Some(place) => Some(&self.fields[place].1),
            None => self.additional.as_deref(),
        }
    }

    /// Whether the schema names a field, or does not say which there are.
    pub fn admits_field(&self, name: &str) -> bool {
        self.additional.is_none() || self.named(name).is_some()
    }

    fn named(&self, name: &str) -> Option<usize> {
        self.fields
            .binary_search_by(|(one, _)| (**one).cmp(name))
            .ok()
    }
}
