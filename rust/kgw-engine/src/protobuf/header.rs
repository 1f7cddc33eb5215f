//! `envoy.config.core.v3.HeaderValue` and `HeaderValueOption`.

use super::Malformed;
use super::wire::{Field, read};

/// A header field: name and value.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct HeaderValue<'a> {
    pub(crate) name: &'a [u8],
    /// `value`, or `raw_value` where that is used instead.
    pub(crate) value: &'a [u8],
}

/// A header field, and what becomes of those of its name.
#[derive(Debug, Default)]
pub(crate) struct HeaderValueOption<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) value: &'a [u8],
    /// It is said whether it is appended, and that it is.
    pub(crate) append: Option<bool>,
    /// `HeaderAppendAction`
    pub(crate) action: i64,
}

/// `HeaderAppendAction`; 0 is to append, or to add where there is none.
pub(crate) const ADD_IF_ABSENT: i64 = 1;
/// `HeaderAppendAction`
pub(crate) const OVERWRITE_IF_EXISTS_OR_ADD: i64 = 2;
/// `HeaderAppendAction`
pub(crate) const OVERWRITE_IF_EXISTS: i64 = 3;

impl<'a> HeaderValue<'a> {
    /// Reads one.
    ///
    /// # Errors
    /// It is no message.
    pub(crate) fn decode(message: &'a [u8]) -> Result<Self, Malformed> {
        let mut found = Self::default();
        read(message, |Field { number, value }| {
            match number {
                1 => found.name = value.bytes(),
                2 | 3 if !value.bytes().is_empty() => found.value = value.bytes(),
                _ => {}
            }
            Ok(())
        })?;
        Ok(found)
    }
}

impl<'a> HeaderValueOption<'a> {
    /// Reads one.
    ///
    /// # Errors
    /// It is no message.
    pub(crate) fn decode(message: &'a [u8]) -> Result<Self, Malformed> {
        let mut found = Self::default();
        read(message, |Field { number, value }| {
            match number {
                1 => {
                    let header = HeaderValue::decode(value.bytes())?;
                    (found.name, found.value) = (header.name, header.value);
                }
                2 => found.append = Some(truth(value.bytes())?),
                3 => found.action = value.int(),
                _ => {}
            }
            Ok(())
        })?;
        Ok(found)
    }
}

/// A `google.protobuf.BoolValue`.
///
/// # Errors
/// It is no message.
pub(crate) fn truth(message: &[u8]) -> Result<bool, Malformed> {
    let mut found = false;
    read(message, |Field { number, value }| {
        if number == 1 {
            found = value.int() != 0;
        }
        Ok(())
    })?;
    Ok(found)
}
