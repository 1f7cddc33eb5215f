//! Splits a format string into literal text and operators.
//!
//! The grammar is Envoy's: `%NAME%`, `%NAME(parameter)%`, `%NAME:length%`, `%NAME(parameter):length%`
//! with a name of upper-case letters, digits and `_`, and `%%` for a percent sign. A parameter may
//! hold anything, parentheses and percent signs too; it ends at the first `)` followed by `%` or
//! `:length%`.

use super::error::FormatError;

/// A piece of a format string.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Token<'a> {
    /// Text that is written as it is.
    Literal(&'a str),
    /// An operator.
    Operator(Call<'a>),
}

/// An operator with its parameter and length, as written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Call<'a> {
    /// The operator's name.
    pub(super) name: &'a str,
    /// What is between the parentheses; without parentheses nothing.
    pub(super) parameter: Option<&'a str>,
    /// Longest value to print. Bytes.
    pub(super) length: Option<usize>,
}

/// Splits `format`.
pub(super) fn tokens(format: &str) -> Result<Vec<Token<'_>>, FormatError> {
    let mut tokens = Vec::new();
    let mut rest = format;
    while let Some(percent) = rest.find('%') {
        let (literal, after) = (&rest[..percent], &rest[percent + 1..]);
        if !literal.is_empty() {
            tokens.push(Token::Literal(literal));
        }
        if let Some(after) = after.strip_prefix('%') {
            tokens.push(Token::Literal("%"));
            rest = after;
            continue;
        }
        let Some((call, after)) = call(after) else {
            let at = format.len() - rest.len() + percent;
            return Err(FormatError::BadOperator {
                at,
                format: format.to_owned(),
            });
        };
        tokens.push(Token::Operator(call));
        rest = after;
    }
    if !rest.is_empty() {
        tokens.push(Token::Literal(rest));
    }
    Ok(tokens)
}

/// Reads an operator behind its `%`; returns it and what follows its closing `%`.
fn call(text: &str) -> Option<(Call<'_>, &str)> {
    let is_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let end = text.find(|c| !is_name(c))?;
    if end == 0 {
        return None;
    }
    let (name, rest) = text.split_at(end);
    let Some(inner) = rest.strip_prefix('(') else {
        let (length, rest) = length_and_percent(rest)?;
        return Some((
            Call {
                name,
                parameter: None,
                length,
            },
            rest,
        ));
    };
    inner.match_indices(')').find_map(|(at, _)| {
        let (length, rest) = length_and_percent(&inner[at + 1..])?;
        Some((
            Call {
                name,
                parameter: Some(&inner[..at]),
                length,
            },
            rest,
        ))
    })
}

/// Reads `%` or `:digits%`.
fn length_and_percent(text: &str) -> Option<(Option<usize>, &str)> {
    if let Some(rest) = text.strip_prefix('%') {
        return Some((None, rest));
    }
    let (digits, rest) = text.strip_prefix(':')?.split_once('%')?;
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some((Some(digits.parse().ok()?), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operator<'a>(name: &'a str, parameter: Option<&'a str>, length: Option<usize>) -> Token<'a> {
        Token::Operator(Call {
            name,
            parameter,
            length,
        })
    }

    #[test]
    fn literals_and_operators_alternate() {
        assert_eq!(
            tokens("a%PROTOCOL%%%b%REQ(X?Y):5%").unwrap(),
            [
                Token::Literal("a"),
                operator("PROTOCOL", None, None),
                Token::Literal("%"),
                Token::Literal("b"),
                operator("REQ", Some("X?Y"), Some(5)),
            ]
        );
        assert_eq!(tokens("").unwrap(), []);
    }

    #[test]
    fn a_parameter_may_hold_percent_signs_and_parentheses() {
        assert_eq!(
            tokens("%START_TIME(%Y/%m/%dT%H:%M:%S%z %s)%").unwrap(),
            [operator("START_TIME", Some("%Y/%m/%dT%H:%M:%S%z %s"), None)]
        );
        assert_eq!(
            tokens("%CEL(size(request.path) > 0):3%").unwrap(),
            [operator("CEL", Some("size(request.path) > 0"), Some(3))]
        );
    }

    #[test]
    fn what_is_no_operator_is_refused_with_its_position() {
        for (format, at) in [
            ("abc%", 3),
            ("a%b%", 1),
            ("%PROTOCOL", 0),
            ("%REQ(X%", 0),
            ("%REQ(X)", 0),
            ("%REQ(X):%", 0),
            ("%REQ(X):x%", 0),
            ("100% of", 3),
            ("%PROTOCOL%%", 10),
            ("%REQ(X):99999999999999999999999%", 0),
        ] {
            let error = FormatError::BadOperator {
                at,
                format: format.to_owned(),
            };
            assert_eq!(tokens(format), Err(error), "{format}");
        }
    }
}
