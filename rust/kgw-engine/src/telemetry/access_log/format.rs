//! Compiles a format into a [`LogProgram`] and runs it.
//!
//! Everything that does not depend on the request (keys, punctuation, literals, sorting) is rendered
//! at compile time; a line is then a few copies with values between them.

use serde_json::{Map, Value};

use super::error::FormatError;
use super::field::{Limited, Written};
use super::json;
use super::operators;
use super::record::Record;
use super::token::{Token, tokens};

/// A compiled access log format.
#[derive(Clone, Debug)]
pub struct LogProgram {
    ops: Box<[Op]>,
    /// What stands for a missing value inside text.
    placeholder: &'static [u8],
}

/// How missing values are shown.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct FormatOptions {
    /// Leaves out keys without a value, and shows nothing instead of `-` inside text.
    pub omit_empty_values: bool,
}

#[derive(Clone, Debug)]
enum Op {
    /// Copied as it is.
    Static(Box<[u8]>),
    /// A JSON value of its own type, `null` when missing.
    Leaf(Limited),
    /// A member of an object: `"key":value`, or nothing when missing.
    Member { key: Box<[u8]>, value: Limited },
    /// A comma, unless an object was just opened.
    Comma,
    /// A part of a JSON string.
    Escaped(Limited),
    /// A part of a text.
    Raw(Limited),
}

impl LogProgram {
    /// Compiles a JSON format: an object whose string leaves may hold operators.
    ///
    /// A line is the object, compact, its keys sorted bytewise at every level, and a line feed. A leaf
    /// that is exactly one operator keeps its type and is `null` when missing; other text becomes a
    /// string in which a missing value is `-`.
    pub fn json(format: &Value, options: FormatOptions) -> Result<Self, FormatError> {
        let Value::Object(fields) = format else {
            return Err(FormatError::NotAnObject);
        };
        let mut ops = Ops {
            ops: Vec::new(),
            omit: options.omit_empty_values,
        };
        ops.object(fields, 1)?;
        ops.literal(b"\n");
        Ok(ops.finish())
    }

    /// Compiles a text format, written as it is: a line feed has to be in it.
    pub fn text(format: &str, options: FormatOptions) -> Result<Self, FormatError> {
        let mut ops = Ops {
            ops: Vec::new(),
            omit: options.omit_empty_values,
        };
        for token in tokens(format)? {
            match token {
                Token::Literal(text) => ops.literal(text.as_bytes()),
                Token::Operator(call) => ops.ops.push(Op::Raw(operators::compile(&call)?)),
            }
        }
        Ok(ops.finish())
    }

    /// Appends the line of `record` to `out`, without allocation but for the growth of `out`.
    pub fn render(&self, record: &Record<'_>, out: &mut Vec<u8>) {
        for op in &self.ops {
            match op {
                Op::Static(bytes) => out.extend_from_slice(bytes),
                Op::Leaf(value) => {
                    if leaf(out, value, record) == Written::Missing {
                        out.extend_from_slice(b"null");
                    }
                }
                Op::Member { key, value } => {
                    let start = out.len();
                    comma(out);
                    out.extend_from_slice(key);
                    if leaf(out, value, record) == Written::Missing {
                        out.truncate(start);
                    }
                }
                Op::Comma => comma(out),
                Op::Escaped(value) => {
                    let start = out.len();
                    if value.write(out, record) == Written::Missing {
                        out.extend_from_slice(self.placeholder);
                    } else {
                        json::escape_tail(out, start);
                    }
                }
                Op::Raw(value) => {
                    if value.write(out, record) == Written::Missing {
                        out.extend_from_slice(self.placeholder);
                    }
                }
            }
        }
    }
}

/// Writes a JSON value of its own type; writes nothing when it is missing.
fn leaf(out: &mut Vec<u8>, value: &Limited, record: &Record<'_>) -> Written {
    if value.field.is_number() {
        return value.write(out, record);
    }
    // Most are text: the opening quote is taken back for the few that turn out not to be.
    let start = out.len();
    out.push(b'"');
    let written = value.write(out, record);
    match written {
        Written::Missing => out.truncate(start),
        Written::Text => {
            json::escape_tail(out, start + 1);
            out.push(b'"');
        }
        Written::Json => {
            out.remove(start);
        }
    }
    written
}

/// Separates members; a value never ends with `{`, so behind one no member was written yet.
fn comma(out: &mut Vec<u8>) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
}

struct Ops {
    ops: Vec<Op>,
    omit: bool,
}

impl Ops {
    fn literal(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if let Some(Op::Static(last)) = self.ops.last_mut() {
            *last = [last, bytes].concat().into_boxed_slice();
        } else {
            self.ops.push(Op::Static(bytes.into()));
        }
    }

    fn object(&mut self, fields: &Map<String, Value>, depth: usize) -> Result<(), FormatError> {
        if depth > MAX_DEPTH {
            return Err(FormatError::TooDeep { max: MAX_DEPTH });
        }
        let mut fields: Vec<_> = fields.iter().collect();
        fields.sort_unstable_by_key(|(key, _)| key.as_bytes());
        self.literal(b"{");
        for (index, (key, value)) in fields.into_iter().enumerate() {
            let mut name = Vec::with_capacity(key.len() + 3);
            json::write_string(&mut name, key.as_bytes());
            name.push(b':');
            if self.omit {
                match (value, single(value)?) {
                    (Value::Null, _) => continue,
                    (_, Some(value)) => {
                        self.ops.push(Op::Member {
                            key: name.into(),
                            value,
                        });
                        continue;
                    }
                    (_, None) => self.ops.push(Op::Comma),
                }
            } else if index > 0 {
                self.literal(b",");
            }
            self.literal(&name);
            self.value(value, depth)?;
        }
        self.literal(b"}");
        Ok(())
    }

    fn value(&mut self, value: &Value, depth: usize) -> Result<(), FormatError> {
        match value {
            Value::Object(fields) => self.object(fields, depth + 1),
            Value::Array(items) => {
                if depth >= MAX_DEPTH {
                    return Err(FormatError::TooDeep { max: MAX_DEPTH });
                }
                self.literal(b"[");
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        self.literal(b",");
                    }
                    self.value(item, depth + 1)?;
                }
                self.literal(b"]");
                Ok(())
            }
            Value::String(format) => self.string(format),
            Value::Null | Value::Bool(_) | Value::Number(_) => {
                let mut literal = Vec::new();
                json::write_value(&mut literal, value);
                self.literal(&literal);
                Ok(())
            }
        }
    }

    fn string(&mut self, format: &str) -> Result<(), FormatError> {
        let tokens = tokens(format)?;
        if let [Token::Operator(call)] = tokens[..] {
            self.ops.push(Op::Leaf(operators::compile(&call)?));
            return Ok(());
        }
        self.literal(b"\"");
        for token in tokens {
            match token {
                Token::Literal(text) => {
                    let mut literal = text.as_bytes().to_vec();
                    json::escape_tail(&mut literal, 0);
                    self.literal(&literal);
                }
                Token::Operator(call) => self.ops.push(Op::Escaped(operators::compile(&call)?)),
            }
        }
        self.literal(b"\"");
        Ok(())
    }

    fn finish(self) -> LogProgram {
        LogProgram {
            ops: self.ops.into_boxed_slice(),
            placeholder: if self.omit { b"" } else { b"-" },
        }
    }
}

/// Compiles a leaf that is exactly one operator.
fn single(value: &Value) -> Result<Option<Limited>, FormatError> {
    let Value::String(format) = value else {
        return Ok(None);
    };
    match tokens(format)?[..] {
        [Token::Operator(call)] => operators::compile(&call).map(Some),
        _ => Ok(None),
    }
}

const MAX_DEPTH: usize = 64;
