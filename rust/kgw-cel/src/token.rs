//! The words of an expression.

use crate::SyntaxError;

/// A word of an expression.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Token {
    Ident(String),
    Int(i64),
    /// An integer whose value is one more than the largest, which is only legal after a minus.
    Least,
    Uint(u64),
    Double(f64),
    Str(String),
    Bytes(Vec<u8>),
    /// An operator or a bracket.
    Mark(&'static str),
}

/// The operators and brackets, the longer ones first.
const MARKS: [&str; 27] = [
    "&&", "||", "==", "!=", "<=", ">=", "<", ">", "+", "-", "*", "/", "%", "!", "?", ":", ",", ".",
    "(", ")", "[", "]", "{", "}", "=", "&", "|",
];

/// Splits an expression into its words.
pub(crate) fn tokens(text: &str) -> Result<Vec<Token>, SyntaxError> {
    let mut rest = text;
    let mut tokens = Vec::new();
    loop {
        rest = rest.trim_start();
        if let Some(comment) = rest.strip_prefix("//") {
            rest = comment.split_once('\n').map_or("", |(_, after)| after);
            continue;
        }
        let Some(first) = rest.chars().next() else {
            return Ok(tokens);
        };
        let (token, after) = if let Some(found) = quoted(rest)? {
            found
        } else if first.is_ascii_digit()
            || (first == '.' && rest[1..].starts_with(|next: char| next.is_ascii_digit()))
        {
            number(rest)?
        } else if first.is_ascii_alphabetic() || first == '_' {
            let end = rest
                .find(|one: char| !one.is_ascii_alphanumeric() && one != '_')
                .unwrap_or(rest.len());
            (Token::Ident(rest[..end].to_owned()), &rest[end..])
        } else if let Some(mark) = MARKS.iter().find(|mark| rest.starts_with(**mark)) {
            (Token::Mark(mark), &rest[mark.len()..])
        } else {
            return Err(SyntaxError::new(format!("`{first}` means nothing")));
        };
        tokens.push(token);
        rest = after;
    }
}

fn number(text: &str) -> Result<(Token, &str), SyntaxError> {
    let bad = |text: &str| SyntaxError::new(format!("`{text}` is no number"));
    if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        let end = hex
            .find(|one: char| !one.is_ascii_hexdigit())
            .unwrap_or(hex.len());
        let value = u64::from_str_radix(&hex[..end], 16).map_err(|_| bad(text))?;
        return integer(value, &hex[end..]).ok_or_else(|| bad(text));
    }
    let bytes = text.as_bytes();
    let mut end = 0;
    let mut fraction = false;
    while end < bytes.len() {
        let next = bytes.get(end + 1);
        match bytes[end] {
            b'0'..=b'9' => {}
            b'.' if !fraction && next.is_some_and(u8::is_ascii_digit) => fraction = true,
            b'e' | b'E'
                if next.is_some_and(|next| next.is_ascii_digit() || b"+-".contains(next)) =>
            {
                fraction = true;
                end += 1;
            }
            _ => break,
        }
        end += 1;
    }
    let (written, rest) = text.split_at(end);
    if fraction {
        let value = written.parse().map_err(|_| bad(written))?;
        return Ok((Token::Double(value), rest));
    }
    let value = written.parse().map_err(|_| bad(written))?;
    integer(value, rest).ok_or_else(|| bad(written))
}

fn integer(value: u64, rest: &str) -> Option<(Token, &str)> {
    if let Some(rest) = rest.strip_prefix(['u', 'U']) {
        return Some((Token::Uint(value), rest));
    }
    match i64::try_from(value) {
        Ok(value) => Some((Token::Int(value), rest)),
        Err(_) if value == 1 << 63 => Some((Token::Least, rest)),
        Err(_) => None,
    }
}

/// A text or bytes at the beginning, if there are any.
fn quoted(text: &str) -> Result<Option<(Token, &str)>, SyntaxError> {
    let (mut raw, mut bytes) = (false, false);
    let mut rest = text;
    loop {
        match rest.as_bytes().first() {
            Some(b'r' | b'R') if !raw => raw = true,
            Some(b'b' | b'B') if !bytes => bytes = true,
            Some(b'"' | b'\'') => break,
            _ => return Ok(None),
        }
        rest = &rest[1..];
    }
    let quote = ["\"\"\"", "'''", "\"", "'"]
        .into_iter()
        .find(|quote| rest.starts_with(quote))
        .unwrap_or("\"");
    rest = &rest[quote.len()..];
    let mut content = Vec::new();
    let open = || SyntaxError::new("a text has no end".to_owned());
    loop {
        if let Some(rest) = rest.strip_prefix(quote) {
            let token = if bytes {
                Token::Bytes(content)
            } else {
                let text = String::from_utf8(content);
                Token::Str(text.map_err(|_| SyntaxError::new("a text is not UTF-8".to_owned()))?)
            };
            return Ok(Some((token, rest)));
        }
        let character = rest.chars().next().ok_or_else(open)?;
        rest = &rest[character.len_utf8()..];
        if character == '\n' && quote.len() == 1 {
            return Err(open());
        }
        if character == '\\' && !raw {
            rest = escaped(rest, bytes, &mut content)?;
        } else {
            content.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
}

/// What a backslash begins; returns what is after it.
fn escaped<'a>(text: &'a str, bytes: bool, content: &mut Vec<u8>) -> Result<&'a str, SyntaxError> {
    let bad = || SyntaxError::new("an escape sequence means nothing".to_owned());
    let kind = text.chars().next().ok_or_else(bad)?;
    let rest = &text[kind.len_utf8()..];
    let simple = match kind {
        'a' => Some(7),
        'b' => Some(8),
        'f' => Some(12),
        'n' => Some(b'\n'),
        'r' => Some(b'\r'),
        't' => Some(b'\t'),
        'v' => Some(11),
        '\\' | '\'' | '"' | '`' | '?' => u8::try_from(kind).ok(),
        _ => None,
    };
    if let Some(byte) = simple {
        content.push(byte);
        return Ok(rest);
    }
    let (length, radix, digits) = match kind {
        'x' | 'X' => (2, 16, rest),
        'u' => (4, 16, rest),
        'U' => (8, 16, rest),
        '0'..='3' => (3, 8, text),
        _ => return Err(bad()),
    };
    let written = digits.get(..length).ok_or_else(bad)?;
    if !written.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(bad());
    }
    let code = u32::from_str_radix(written, radix).map_err(|_| bad())?;
    if bytes && length < 4 {
        content.push(u8::try_from(code).map_err(|_| bad())?);
    } else {
        let character = char::from_u32(code).ok_or_else(bad)?;
        content.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    }
    Ok(&digits[length..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_in_every_spelling() {
        let same = [
            r#""a\\d""#,
            r"'a\\d'",
            r#"r"a\d""#,
            r#"r"""a\d""""#,
            r"'''a\\d'''",
            r#""\x61\u005c\144""#,
        ];
        for text in same {
            assert_eq!(
                tokens(text),
                Ok(vec![Token::Str(r"a\d".to_owned())]),
                "{text}"
            );
        }
        for text in [
            "'a",
            "\"a\nb\"",
            r"'\q'",
            r"'\ud800'",
            "#",
            "99999999999999999999",
            "'''a''",
        ] {
            assert!(tokens(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_are_read_in_every_spelling() {
        let table = [
            ("12", Token::Int(12)),
            ("0x1F", Token::Int(31)),
            ("12u", Token::Uint(12)),
            ("1.5", Token::Double(1.5)),
            ("1e3", Token::Double(1000.0)),
            ("9223372036854775808", Token::Least),
        ];
        for (text, token) in table {
            assert_eq!(tokens(text), Ok(vec![token]), "{text}");
        }
    }
}
