//! From what is written to what is evaluated: names become places, patterns automata.

use crate::SyntaxError;
use crate::functions::{self, Function};
use crate::macros;
use crate::parse::Ast;
use crate::pattern::Pattern;
use crate::{Fields, Names, Program, Root};

/// An expression whose names are resolved.
#[derive(Debug)]
pub(crate) enum Expr {
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
    /// An attribute, and whether it is asked for optionally.
    Attribute(Attribute, bool),
    HasAttribute(u16),
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

/// An attribute of a request.
#[derive(Debug)]
pub(crate) struct Attribute {
    pub(crate) number: u16,
    /// The last part of its name, as errors have it.
    pub(crate) name: String,
}

/// The name of a field.
#[derive(Debug)]
pub(crate) struct Name {
    /// As a key of a mapping has it.
    pub(crate) written: String,
    /// As a schema has it: `__namespace__` is `namespace`.
    pub(crate) meant: String,
    /// Whether these are not the same.
    pub(crate) is_escaped: bool,
}

/// A binary operator that evaluates both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operator {
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
pub(crate) struct Loop {
    pub(crate) kind: LoopKind,
    pub(crate) range: Expr,
    /// Whether there are two variables: index and item, or key and value.
    pub(crate) pairs: bool,
    /// What decides, if that is apart from the result.
    pub(crate) filter: Option<Expr>,
    pub(crate) body: Expr,
    /// The key of the entry, of `transformMapEntry`.
    pub(crate) key: Option<Expr>,
}

/// What a macro makes of the items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LoopKind {
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

/// Resolves the names of an expression.
pub(crate) fn compile(ast: &Ast, names: Names<'_>) -> Result<Program, SyntaxError> {
    let (names, roots) = match names {
        Names::Variables(names) => (names.iter().map(|&name| name.to_owned()).collect(), None),
        Names::Attributes(roots) => (Vec::new(), Some(roots)),
    };
    let mut scope = Scope {
        names,
        roots,
        depth: 0,
        variables: 0,
        attributes: Vec::new(),
    };
    let expression = scope.resolve(ast)?;
    Ok(Program {
        expression,
        variables: scope.variables,
        attributes: scope.attributes,
    })
}

/// The names at a place.
pub(crate) struct Scope<'n> {
    names: Vec<String>,
    /// What attributes there are; `None` where an expression is about variables.
    roots: Option<&'n [Root]>,
    depth: usize,
    variables: u64,
    attributes: Vec<u16>,
}

impl Scope<'_> {
    pub(crate) fn boxed(&mut self, ast: &Ast) -> Result<Box<Expr>, SyntaxError> {
        self.resolve(ast).map(Box::new)
    }

    fn every(&mut self, asts: &[Ast]) -> Result<Vec<Expr>, SyntaxError> {
        asts.iter().map(|ast| self.resolve(ast)).collect()
    }

    /// Resolves an expression that has more variables.
    pub(crate) fn within(&mut self, names: &[&str], ast: &Ast) -> Result<Expr, SyntaxError> {
        let before = self.names.len();
        self.names.extend(names.iter().map(|&name| name.to_owned()));
        let resolved = self.resolve(ast);
        self.names.truncate(before);
        resolved
    }

    pub(crate) fn resolve(&mut self, ast: &Ast) -> Result<Expr, SyntaxError> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(SyntaxError::new(
                "the expression is nested too deeply".to_owned(),
            ));
        }
        let resolved = self.resolve_within(ast)?;
        self.depth -= 1;
        Ok(resolved)
    }

    fn resolve_within(&mut self, ast: &Ast) -> Result<Expr, SyntaxError> {
        Ok(match ast {
            Ast::Null => Expr::Null,
            Ast::Bool(value) => Expr::Bool(*value),
            Ast::Int(value) => Expr::Int(*value),
            Ast::Uint(value) => Expr::Uint(*value),
            Ast::Double(value) => Expr::Double(*value),
            Ast::Str(text) => Expr::Str(text.clone()),
            Ast::Bytes(bytes) => Expr::Bytes(bytes.clone()),
            Ast::Ident(name) => self.name(name)?,
            Ast::Select(operand, field, optional) => match self.attribute(operand, field)? {
                Some(attribute) => Expr::Attribute(attribute, *optional),
                None => Expr::Select(self.boxed(operand)?, Name::new(field), *optional),
            },
            Ast::Index(operand, index, optional) => {
                if let Ast::Str(field) = &**index
                    && let Some(attribute) = self.attribute(operand, field)?
                {
                    return Ok(Expr::Attribute(attribute, *optional));
                }
                Expr::Index(self.boxed(operand)?, self.boxed(index)?, *optional)
            }
            Ast::List(members) => {
                let members = members.iter();
                let resolved = members.map(|(one, optional)| Ok((self.resolve(one)?, *optional)));
                Expr::List(resolved.collect::<Result<_, SyntaxError>>()?)
            }
            Ast::Map(entries) => {
                let entries = entries.iter().map(|(key, value, optional)| {
                    Ok((self.resolve(key)?, self.resolve(value)?, *optional))
                });
                Expr::Map(entries.collect::<Result<_, SyntaxError>>()?)
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

    fn name(&mut self, name: &str) -> Result<Expr, SyntaxError> {
        if let Some(place) = self.names.iter().rposition(|one| one == name) {
            let bit = u32::try_from(place)
                .ok()
                .and_then(|place| 1_u64.checked_shl(place));
            self.variables |= bit.unwrap_or(0);
            return Ok(Expr::Variable(place));
        }
        if let Some(root) = self.root(name) {
            let number = match root.fields {
                Fields::Whole(number) => number,
                Fields::Named(fields) => {
                    return Err(SyntaxError::new(format!(
                        "'{name}' is nothing by itself; there are {}",
                        listed(name, fields)
                    )));
                }
            };
            return Ok(Expr::Attribute(self.number(number, name), false));
        }
        if let Some(name) = functions::type_named(name) {
            return Ok(Expr::Type(name));
        }
        let mut what = format!("undeclared reference to '{name}'");
        if let Some(roots) = self.roots {
            let names: Vec<_> = roots.iter().map(|root| root.name).collect();
            what.push_str("; there are ");
            what.push_str(&names.join(", "));
        }
        Err(SyntaxError::new(what))
    }

    /// The root of a name, unless a variable of a macro has that name.
    fn root(&self, name: &str) -> Option<Root> {
        if self.names.iter().any(|one| one == name) {
            return None;
        }
        self.roots?.iter().find(|root| root.name == name).copied()
    }

    fn number(&mut self, number: u16, name: &str) -> Attribute {
        if !self.attributes.contains(&number) {
            self.attributes.push(number);
        }
        Attribute {
            number,
            name: name.to_owned(),
        }
    }

    /// The attribute that a field is, if what it is a field of is the name of some.
    pub(crate) fn attribute(
        &mut self,
        operand: &Ast,
        field: &str,
    ) -> Result<Option<Attribute>, SyntaxError> {
        let Ast::Ident(name) = operand else {
            return Ok(None);
        };
        let Some(Fields::Named(fields)) = self.root(name).map(|root| root.fields) else {
            return Ok(None);
        };
        let Some((_, number)) = fields.iter().find(|(one, _)| *one == field) else {
            return Err(SyntaxError::new(format!(
                "there is no attribute '{name}.{field}', but {}",
                listed(name, fields)
            )));
        };
        Ok(Some(self.number(*number, field)))
    }

    fn call(
        &mut self,
        receiver: Option<&Ast>,
        name: &str,
        arguments: &[Ast],
    ) -> Result<Expr, SyntaxError> {
        if let Some(expanded) = macros::expand(self, receiver, name, arguments)? {
            return Ok(expanded);
        }
        // `format.dns1123Label()` is a function of that name, unless there is a variable `format`.
        if let Some(Ast::Ident(space)) = receiver
            && !self.names.contains(space)
            && self.root(space).is_none()
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
                    .ok_or_else(|| SyntaxError::new(format!("`{written}` is no pattern")))?;
                // A pattern that is too large matches nothing, which a policy must not.
                if self.roots.is_some() && !pattern.is_sound() {
                    return Err(SyntaxError::new(format!(
                        "the pattern `{written}` is too large"
                    )));
                }
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

/// The attributes of a root, as errors list them.
fn listed(root: &str, fields: &[(&str, u16)]) -> String {
    let names: Vec<_> = fields
        .iter()
        .map(|(field, _)| format!("{root}.{field}"))
        .collect();
    names.join(", ")
}

fn unknown(name: &str) -> SyntaxError {
    SyntaxError::new(format!(
        "undeclared reference to '{name}', or other arguments"
    ))
}

impl Expr {
    /// Whether the result may be a boolean.
    pub(crate) fn may_be_bool(&self) -> bool {
        match self {
            Self::Null
            | Self::Int(_)
            | Self::Uint(_)
            | Self::Double(_)
            | Self::Str(_)
            | Self::Bytes(_)
            | Self::Type(_)
            | Self::List(_)
            | Self::Map(_)
            | Self::Negate(_)
            | Self::OptMap(..) => false,
            Self::Binary(operator, ..) => !matches!(
                operator,
                Operator::Add
                    | Operator::Subtract
                    | Operator::Multiply
                    | Operator::Divide
                    | Operator::Modulo
            ),
            Self::Condition(_, then, otherwise) => then.may_be_bool() || otherwise.may_be_bool(),
            Self::Loop(each) => matches!(
                each.kind,
                LoopKind::All | LoopKind::Exists | LoopKind::ExistsOne
            ),
            Self::Select(_, _, optional)
            | Self::Index(_, _, optional)
            | Self::Attribute(_, optional) => !optional,
            Self::Bool(_)
            | Self::Variable(_)
            | Self::HasAttribute(_)
            | Self::Has(..)
            | Self::Not(_)
            | Self::Chain(..)
            | Self::Call(..)
            | Self::Matches(..) => true,
        }
    }
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
    pub(crate) fn new(written: &str) -> Self {
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
