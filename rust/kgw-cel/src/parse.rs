//! The grammar: from words to a tree of what is written.

use crate::SyntaxError;
use crate::token::{Token, tokens};

/// An expression as it is written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Ast {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Str(String),
    Bytes(Vec<u8>),
    Ident(String),
    /// `a.b`, and `a.?b`.
    Select(Box<Self>, String, bool),
    /// `a[b]`, and `a[?b]`.
    Index(Box<Self>, Box<Self>, bool),
    /// A function or macro, with what stands before the dot.
    Call(Option<Box<Self>>, String, Vec<Self>),
    /// Members, each with whether it is optional.
    List(Vec<(Self, bool)>),
    Map(Vec<(Self, Self, bool)>),
    Unary(&'static str, Box<Self>),
    Binary(&'static str, Box<Self>, Box<Self>),
    /// A chain of `&&` or `||`.
    Chain(bool, Vec<Self>),
    Condition(Box<Self>, Box<Self>, Box<Self>),
}

/// How deeply an expression may be nested, and how long a chain of operators may be.
const DEPTH: usize = 120;

/// How many words an expression may have. The longest of the Gateway API's has some 600.
const WORDS: usize = 4096;

/// Reads an expression.
pub(crate) fn parse(text: &str) -> Result<Ast, SyntaxError> {
    let tokens = tokens(text)?;
    if tokens.len() > WORDS {
        return Err(SyntaxError::new("the expression is too long".to_owned()));
    }
    let mut parser = Parser {
        tokens,
        next: 0,
        depth: 0,
    };
    let ast = parser.expression()?;
    match parser.tokens.get(parser.next) {
        None => Ok(ast),
        Some(token) => Err(SyntaxError::new(format!("{token:?} is not expected"))),
    }
}

struct Parser {
    tokens: Vec<Token>,
    next: usize,
    depth: usize,
}

/// Operators that bind more strongly than `&&`, the weakest first; all of them to the left.
const LEVELS: [&[&str]; 3] = [
    &["==", "!=", "<=", ">=", "<", ">", "in"],
    &["+", "-"],
    &["*", "/", "%"],
];

impl Parser {
    fn expression(&mut self) -> Result<Ast, SyntaxError> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(SyntaxError::new(
                "the expression is nested too deeply".to_owned(),
            ));
        }
        let condition = self.chain(false)?;
        let ast = if self.takes("?") {
            let then = self.chain(false)?;
            self.expects(":")?;
            let otherwise = self.expression()?;
            Ast::Condition(Box::new(condition), Box::new(then), Box::new(otherwise))
        } else {
            condition
        };
        self.depth -= 1;
        Ok(ast)
    }

    /// A chain of `||`, or of `&&` within one.
    fn chain(&mut self, and: bool) -> Result<Ast, SyntaxError> {
        let mut members = Vec::new();
        loop {
            members.push(if and {
                self.binary(0)?
            } else {
                self.chain(true)?
            });
            if !self.takes(if and { "&&" } else { "||" }) {
                break;
            }
        }
        Ok(match members.pop() {
            Some(only) if members.is_empty() => only,
            last => {
                members.extend(last);
                Ast::Chain(and, members)
            }
        })
    }

    fn binary(&mut self, level: usize) -> Result<Ast, SyntaxError> {
        let Some(operators) = LEVELS.get(level) else {
            return self.unary();
        };
        let mut left = self.binary(level + 1)?;
        let mut length = 0;
        while let Some(operator) = operators.iter().find(|one| self.takes(one)) {
            // A chain is as deep as it is long where it is evaluated.
            length += 1;
            if length > DEPTH {
                return Err(SyntaxError::new("the expression is too long".to_owned()));
            }
            let right = self.binary(level + 1)?;
            left = Ast::Binary(operator, Box::new(left), Box::new(right));
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Ast, SyntaxError> {
        let mut operators = Vec::new();
        while let Some(operator) = ["!", "-"].into_iter().find(|one| self.takes(one)) {
            operators.push(operator);
            if operators.len() > DEPTH {
                return Err(SyntaxError::new("the expression is too long".to_owned()));
            }
        }
        let mut ast = if operators.last() == Some(&"-")
            && self.tokens.get(self.next) == Some(&Token::Least)
        {
            operators.pop();
            self.next += 1;
            Ast::Int(i64::MIN)
        } else {
            self.member()?
        };
        while let Some(operator) = operators.pop() {
            ast = match (operator, ast) {
                ("-", Ast::Int(value)) if value != i64::MIN => Ast::Int(-value),
                ("-", Ast::Double(value)) => Ast::Double(-value),
                (operator, ast) => Ast::Unary(operator, Box::new(ast)),
            };
        }
        Ok(ast)
    }

    fn member(&mut self) -> Result<Ast, SyntaxError> {
        let mut ast = self.primary()?;
        let mut length = 0;
        loop {
            length += 1;
            if length > DEPTH {
                return Err(SyntaxError::new("the expression is too long".to_owned()));
            }
            if self.takes(".") {
                let optional = self.takes("?");
                let name = self.ident()?;
                ast = if !optional && self.takes("(") {
                    let arguments = self.arguments(")")?;
                    Ast::Call(Some(Box::new(ast)), name, arguments)
                } else {
                    Ast::Select(Box::new(ast), name, optional)
                };
            } else if self.takes("[") {
                let optional = self.takes("?");
                let index = self.expression()?;
                self.expects("]")?;
                ast = Ast::Index(Box::new(ast), Box::new(index), optional);
            } else {
                return Ok(ast);
            }
        }
    }

    fn primary(&mut self) -> Result<Ast, SyntaxError> {
        if self.takes("(") {
            let ast = self.expression()?;
            self.expects(")")?;
            return Ok(ast);
        }
        if self.takes("[") {
            let mut members = Vec::new();
            while !self.takes("]") {
                let optional = self.takes("?");
                members.push((self.expression()?, optional));
                if !self.takes(",") {
                    self.expects("]")?;
                    break;
                }
            }
            return Ok(Ast::List(members));
        }
        if self.takes("{") {
            let mut entries = Vec::new();
            while !self.takes("}") {
                let optional = self.takes("?");
                let key = self.expression()?;
                self.expects(":")?;
                entries.push((key, self.expression()?, optional));
                if !self.takes(",") {
                    self.expects("}")?;
                    break;
                }
            }
            return Ok(Ast::Map(entries));
        }
        self.takes(".");
        let token = self.tokens.get(self.next).cloned();
        self.next += 1;
        Ok(match token {
            Some(Token::Int(value)) => Ast::Int(value),
            Some(Token::Uint(value)) => Ast::Uint(value),
            Some(Token::Double(value)) => Ast::Double(value),
            Some(Token::Str(text)) => Ast::Str(text),
            Some(Token::Bytes(bytes)) => Ast::Bytes(bytes),
            Some(Token::Ident(name)) => match name.as_str() {
                "true" => Ast::Bool(true),
                "false" => Ast::Bool(false),
                "null" => Ast::Null,
                _ if self.takes("(") => Ast::Call(None, name, self.arguments(")")?),
                _ => Ast::Ident(name),
            },
            Some(token) => return Err(SyntaxError::new(format!("{token:?} is not expected"))),
            None => return Err(SyntaxError::new("the expression has no end".to_owned())),
        })
    }

    fn arguments(&mut self, end: &'static str) -> Result<Vec<Ast>, SyntaxError> {
        let mut arguments = Vec::new();
        if self.takes(end) {
            return Ok(arguments);
        }
        loop {
            arguments.push(self.expression()?);
            if !self.takes(",") {
                self.expects(end)?;
                return Ok(arguments);
            }
        }
    }

    fn ident(&mut self) -> Result<String, SyntaxError> {
        match self.tokens.get(self.next) {
            Some(Token::Ident(name)) => {
                self.next += 1;
                Ok(name.clone())
            }
            _ => Err(SyntaxError::new(
                "a name is expected after a dot".to_owned(),
            )),
        }
    }

    fn takes(&mut self, mark: &str) -> bool {
        let here = match self.tokens.get(self.next) {
            Some(Token::Mark(found)) => *found == mark,
            Some(Token::Ident(name)) => mark == "in" && name == "in",
            _ => false,
        };
        self.next += usize::from(here);
        here
    }

    fn expects(&mut self, mark: &str) -> Result<(), SyntaxError> {
        if self.takes(mark) {
            return Ok(());
        }
        Err(SyntaxError::new(format!("`{mark}` is expected")))
    }
}
