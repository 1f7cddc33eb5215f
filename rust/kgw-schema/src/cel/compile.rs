//! From what is written to what is evaluated: names become places, patterns automata.

use super::RuleError;
use super::functions::{self, Function};
use super::macros;
use super::parse::Ast;
use crate::pattern::Pattern;

/// An expression whose names are resolved.
#[derive(Debug)]
pub(super) enum Expr {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Str(String),
    Bytes(Vec<u8>),
    Type(&'static str),
    /// A variable, by its place on the stack.
    Variable(usize),
    Select(Box<Self>, Name, bool),
    Has(Box<Self>, Name),
    Index(Box<Self>, Box<Self>, bool),
    List(Vec<(Self, bool)>),
    Map(Vec<(Self, Self, bool)>),
    Not(Box<Self>),
    Negate(Box<Self>),
    Binary(Operator, Box<Self>, Box<Self>),
    /// A chain of `&&` (true) or `||`.
    Chain(bool, Vec<Self>),
    Condition(Box<Self>, Box<Self>, Box<Self>),
    Call(Function, Vec<Self>),
    /// `matches` with a pattern that is known.
    Matches(Box<Self>, Box<Pattern>),
    Loop(Box<Loop>),
    /// `optMap` (false) and `optFlatMap` (true).
    OptMap(Box<Self>, Box<Self>, bool),
}

/// The name of a field.
#[derive(Debug)]
pub(super) struct Name {
    /// As a key of a mapping has it.
    pub(super) written: String,
    /// As a schema has it: `__namespace__` is `namespace`.
    pub(super) meant: String,
    /// Whether these are not the same.
    pub(super) is_escaped: bool,
}

/// A binary operator that evaluates both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

/// A macro that goes through a list or mapping.
#[derive(Debug)]
pub(super) struct Loop {
    pub(super) kind: LoopKind,
    pub(super) range: Expr,
    /// Whether there are two variables: index and item, or key and value.
    pub(super) pairs: bool,
    /// What decides, if that is apart from the result.
    pub(super) filter: Option<Expr>,
    pub(super) body: Expr,
    /// The key of the entry, of `transformMapEntry`.
    pub(super) key: Option<Expr>,
}

/// What a macro makes of the items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LoopKind {
    All,
    Exists,
    ExistsOne,
    Filter,
    List,
    Map,
    Entries,
    SortBy,
}

/// How deeply an expression may be nested, chains of operators included.
const DEPTH: usize = 250;

/// Resolves an expression; returns it with whether it is about `oldSelf`.
pub(super) fn compile(ast: &Ast) -> Result<(Expr, bool), RuleError> {
    let mut scope = Scope {
        names: vec!["self".to_owned(), "oldSelf".to_owned()],
        depth: 0,
        is_transition: false,
    };
    let expression = scope.resolve(ast)?;
    Ok((expression, scope.is_transition))
}

/// The variables at a place.
pub(super) struct Scope {
    names: Vec<String>,
    depth: usize,
    is_transition: bool,
}

impl Scope {
    pub(super) fn boxed(&mut self, ast: &Ast) -> Result<Box<Expr>, RuleError> {
        self.resolve(ast).map(Box::new)
    }

    fn every(&mut self, asts: &[Ast]) -> Result<Vec<Expr>, RuleError> {
        asts.iter().map(|ast| self.resolve(ast)).collect()
    }

    /// Resolves an expression that has more variables.
    pub(super) fn within(&mut self, names: &[&str], ast: &Ast) -> Result<Expr, RuleError> {
        let before = self.names.len();
        self.names.extend(names.iter().map(|&name| name.to_owned()));
        let resolved = self.resolve(ast);
        self.names.truncate(before);
        resolved
    }

    pub(super) fn resolve(&mut self, ast: &Ast) -> Result<Expr, RuleError> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(RuleError::syntax(
                "the expression is nested too deeply".to_owned(),
            ));
        }
        let resolved = self.resolve_within(ast)?;
        self.depth -= 1;
        Ok(resolved)
    }

    fn resolve_within(&mut self, ast: &Ast) -> Result<Expr, RuleError> {
        Ok(match ast {
            Ast::Null => Expr::Null,
            Ast::Bool(value) => Expr::Bool(*value),
            Ast::Int(value) => Expr::Int(*value),
            Ast::Uint(value) => Expr::Uint(*value),
            Ast::Double(value) => Expr::Double(*value),
            Ast::Str(text) => Expr::Str(text.clone()),
            Ast::Bytes(bytes) => Expr::Bytes(bytes.clone()),
            Ast::Ident(name) => self.name(name)?,
            Ast::Select(operand, field, optional) => {
                Expr::Select(self.boxed(operand)?, Name::new(field), *optional)
            }
            Ast::Index(operand, index, optional) => {
                Expr::Index(self.boxed(operand)?, self.boxed(index)?, *optional)
            }
            Ast::List(members) => {
                let members = members.iter();
                let resolved = members.map(|(one, optional)| Ok((self.resolve(one)?, *optional)));
                Expr::List(resolved.collect::<Result<_, RuleError>>()?)
            }
            Ast::Map(entries) => {
                let entries = entries.iter().map(|(key, value, optional)| {
                    Ok((self.resolve(key)?, self.resolve(value)?, *optional))
                });
                Expr::Map(entries.collect::<Result<_, RuleError>>()?)
            }
            Ast::Unary("!", operand) => Expr::Not(self.boxed(operand)?),
            Ast::Unary(_, operand) => Expr::Negate(self.boxed(operand)?),
            Ast::Binary(operator, left, right) => Expr::Binary(
                Operator::of(operator),
                self.boxed(left)?,
                self.boxed(right)?,
            ),
            Ast::Chain(and, members) => Expr::Chain(*and, self.every(members)?),
            Ast::Condition(condition, then, otherwise) => Expr::Condition(
                self.boxed(condition)?,
                self.boxed(then)?,
                self.boxed(otherwise)?,
            ),
            Ast::Call(receiver, name, arguments) => {
                return self.call(receiver.as_deref(), name, arguments);
            }
        })
    }

    fn name(&mut self, name: &str) -> Result<Expr, RuleError> {
        if let Some(place) = self.names.iter().rposition(|one| one == name) {
            self.is_transition |= place == 1;
            return Ok(Expr::Variable(place));
        }
        functions::type_named(name)
            .map(Expr::Type)
            .ok_or_else(|| RuleError::syntax(format!("undeclared reference to '{name}'")))
    }

    fn call(
        &mut self,
        receiver: Option<&Ast>,
        name: &str,
        arguments: &[Ast],
    ) -> Result<Expr, RuleError> {
        if let Some(expanded) = macros::expand(self, receiver, name, arguments)? {
            return Ok(expanded);
        }
        // `format.dns1123Label()` is a function of that name, unless there is a variable `format`.
        if let Some(Ast::Ident(space)) = receiver
            && !self.names.contains(space)
            && let Some(function) = functions::global(&format!("{space}.{name}"), arguments.len())
        {
            return Ok(Expr::Call(function, self.every(arguments)?));
        }
        if name == "matches" {
            let ((Some(text), [pattern]) | (None, [text, pattern])) = (receiver, arguments) else {
                return Err(unknown(name));
            };
            if let Ast::Str(written) = pattern {
                let pattern = Pattern::new(written)
                    .ok_or_else(|| RuleError::syntax(format!("`{written}` is no pattern")))?;
                return Ok(Expr::Matches(self.boxed(text)?, Box::new(pattern)));
            }
        }
        let function = match receiver {
            Some(_) => functions::method(name, arguments.len()),
            None => functions::global(name, arguments.len()),
        };
        let mut resolved = Vec::with_capacity(arguments.len() + 1);
        if let Some(receiver) = receiver {
            resolved.push(self.resolve(receiver)?);
        }
        resolved.extend(self.every(arguments)?);
        Ok(Expr::Call(function.ok_or_else(|| unknown(name))?, resolved))
    }
}

fn unknown(name: &str) -> RuleError {
    RuleError::syntax(format!(
        "undeclared reference to '{name}', or other arguments"
    ))
}

impl Operator {
    fn of(mark: &str) -> Self {
        match mark {
            "==" => Self::Equal,
            "!=" => Self::Unequal,
            "<" => Self::Less,
            "<=" => Self::LessOrEqual,
            ">" => Self::Greater,
            ">=" => Self::GreaterOrEqual,
            "in" => Self::In,
            "+" => Self::Add,
            "-" => Self::Subtract,
            "*" => Self::Multiply,
            "/" => Self::Divide,
            _ => Self::Modulo,
        }
    }
}

impl Name {
    pub(super) fn new(written: &str) -> Self {
        let meant = unescaped(written).unwrap_or_else(|| written.to_owned());
        Self {
            is_escaped: meant != written,
            written: written.to_owned(),
            meant,
        }
    }
}

/// The words that a rule cannot use as the names of fields; it has them in underscores.
const RESERVED: [&str; 19] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
];

/// The name that an escaped one stands for: `__if__` is `if`, `a__dash__b` is `a-b`.
fn unescaped(name: &str) -> Option<String> {
    let inner = name
        .strip_prefix("__")
        .and_then(|one| one.strip_suffix("__"));
    if let Some(word) = inner
        && (RESERVED.contains(&word) || matches!(word, "void" | "while"))
    {
        return Some(word.to_owned());
    }
    if !name.contains("__") {
        return None;
    }
    let mut meant = String::new();
    let mut rest = name;
    while let Some(at) = rest.find("__") {
        meant.push_str(&rest[..at]);
        let escape = &rest[at..];
        let (sequence, character) = [
            ("__underscores__", "__"),
            ("__dot__", "."),
            ("__dash__", "-"),
            ("__slash__", "/"),
        ]
        .into_iter()
        .find(|(sequence, _)| escape.starts_with(sequence))?;
        meant.push_str(character);
        rest = &escape[sequence.len()..];
    }
    meant.push_str(rest);
    Some(meant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_fields_are_escaped() {
        let table = [
            ("__namespace__", "namespace"),
            ("a__dash__b", "a-b"),
            ("a__dot__b__slash__c", "a.b/c"),
            ("a__underscores__b", "a__b"),
            ("__odd__", "__odd__"),
            ("plain_name", "plain_name"),
        ];
        for (written, meant) in table {
            assert_eq!(Name::new(written).meant, meant);
        }
    }
}
