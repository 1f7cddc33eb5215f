//! How values are written.
//!
//! As kgateway's templates do (`MiniJinja` up to 2.12): `true` and `false`, `none`, and lists and maps much
//! as JSON. Later versions of the library write `True`, `None` and `{'a': 1}`, as Python does, which would
//! spoil JSON bodies. Other than in kgateway, lists and maps are JSON in full: `null` in them, and strings
//! with JSON's own escapes.

use std::fmt::Write as _;

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind, Output, State, escape_formatter};

/// How deeply lists and maps are written. JSON bodies are no deeper; templates can build what is.
const DEPTH: usize = 128;

/// Units of fuel in a byte, as the library counts what it writes as JSON: a quarter for each.
const BYTES_PER_UNIT: usize = 4;

pub(crate) fn print(
    out: &mut Output<'_>,
    state: &mut State<'_, '_>,
    value: &Value,
) -> Result<(), Error> {
    match value.kind() {
        ValueKind::Bool => out.write_str(if value.is_true() { "true" } else { "false" })?,
        ValueKind::None => out.write_str("none")?,
        ValueKind::Seq | ValueKind::Map | ValueKind::Iterable => {
            let mut json = Json {
                text: String::new(),
                state,
                paid: 0,
            };
            json.write(value, DEPTH)?;
            out.write_str(&json.text)?;
        }
        _ => return escape_formatter(out, state, value),
    }
    Ok(())
}

/// JSON that is being written.
struct Json<'a, 'template, 'env> {
    text: String,
    state: &'a State<'template, 'env>,
    /// The bytes that fuel was taken for.
    paid: usize,
}

// === impl Json ===

impl Json<'_, '_, '_> {
    fn write(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        let Some(depth) = depth.checked_sub(1) else {
            return Err(Error::from(ErrorKind::BadSerialization));
        };
        match value.kind() {
            ValueKind::Map => {
                self.text.push('{');
                for (at, key) in value.try_iter()?.enumerate() {
                    self.separate(at)?;
                    match key.as_str() {
                        Some(key) => self.string(key)?,
                        None => self.string(&key.to_string())?,
                    }
                    self.text.push_str(": ");
                    self.write(&value.get_item(&key)?, depth)?;
                }
                self.text.push('}');
            }
            ValueKind::Seq | ValueKind::Iterable => {
                self.text.push('[');
                for (at, item) in value.try_iter()?.enumerate() {
                    self.separate(at)?;
                    self.write(&item, depth)?;
                }
                self.text.push(']');
            }
            ValueKind::Bool => self
                .text
                .push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::None | ValueKind::Undefined => self.text.push_str("null"),
            ValueKind::Number => write!(self.text, "{value}")?,
            ValueKind::Invalid => return Err(Error::from(ErrorKind::BadSerialization)),
            _ => match value.as_str() {
                Some(text) => self.string(text)?,
                None => self.string(&value.to_string())?,
            },
        }
        self.pay()
    }

    fn separate(&mut self, at: usize) -> Result<(), Error> {
        if at > 0 {
            self.text.push_str(", ");
        }
        self.pay()
    }

    fn string(&mut self, text: &str) -> Result<(), Error> {
        // A string is at least as long when it is written.
        self.state
            .consume_fuel((text.len() / BYTES_PER_UNIT) as u64)?;
        let written =
            serde_json::to_string(text).map_err(|_| Error::from(ErrorKind::BadSerialization))?;
        self.text.push_str(&written);
        self.paid += text.len();
        Ok(())
    }

    fn pay(&mut self) -> Result<(), Error> {
        let units = self.text.len().saturating_sub(self.paid) / BYTES_PER_UNIT;
        self.paid += units * BYTES_PER_UNIT;
        self.state.consume_fuel(units as u64)
    }
}
