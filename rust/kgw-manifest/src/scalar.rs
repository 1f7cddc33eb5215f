//! Plain scalars to JSON values, exactly as `sigs.k8s.io/yaml` reads them.
//!
//! The rules are go-yaml v2's (`resolve.go`), which differ from YAML 1.2's core schema:
//!
//! | text                                   | value                                             |
//! |----------------------------------------|---------------------------------------------------|
//! | `y` `yes` `on` `true` (three cases)    | true                                              |
//! | `n` `no` `off` `false` (three cases)   | false                                             |
//! | `~` `null` (three cases), nothing      | null                                              |
//! | `0644` `0o644` `0x1a` `0b11` `1_000`   | integers, with a leading zero for octal           |
//! | `.5` `1.` `1e3` `0999`                 | floating point numbers                            |
//! | `2001-01-01`, `12:30:00`, `1.2.3`      | strings                                           |
//!
//! An integer that needs more than 64 bits becomes a floating point number there, and a floating
//! point number with an integral value goes through JSON as an integer (`1.0` is `1`).

use crate::tree::Scalar;

/// Resolves a plain (unquoted, untagged) scalar.
///
/// Returns `None` for an infinity, a NaN or an integer beyond all floating point numbers, which
/// JSON does not have.
pub(crate) fn resolve(text: &str) -> Option<Scalar> {
    let Some(first) = text.bytes().next() else {
        return Some(Scalar::Null);
    };
    Some(match first {
        b'0'..=b'9' | b'+' | b'-' | b'.' => match text {
            ".nan" | ".NaN" | ".NAN" | ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF"
            | "-.inf" | "-.Inf" | "-.INF" => return None,
            _ => match number(text) {
                Some(Scalar::Float(value)) if !value.is_finite() => return None,
                Some(value) => value,
                None => Scalar::String(text.into()),
            },
        },
        b'y' | b'Y' | b'n' | b'N' | b't' | b'T' | b'f' | b'F' | b'o' | b'O' | b'~' => match text {
            "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
                Scalar::Bool(true)
            }
            "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off"
            | "OFF" => Scalar::Bool(false),
            "~" | "null" | "Null" | "NULL" => Scalar::Null,
            _ => Scalar::String(text.into()),
        },
        _ => Scalar::String(text.into()),
    })
}

/// Reads an integer or a floating point number, or nothing for any other text.
pub(crate) fn number(text: &str) -> Option<Scalar> {
    // go-yaml drops every `_`, wherever it stands, but not in what starts with a dot.
    let stripped;
    let plain = if text.contains('_') && !text.starts_with('.') {
        stripped = text.replace('_', "");
        stripped.as_str()
    } else {
        text
    };
    match integer(plain) {
        Integer::Fits(value) => Some(value),
        Integer::TooLarge(value) => Some(Scalar::Float(value)),
        Integer::No => float(plain).map(json_number),
    }
}

enum Integer {
    Fits(Scalar),
    TooLarge(f64),
    No,
}

/// Go's `strconv.ParseInt(s, 0, 64)`, then `ParseUint`.
fn integer(text: &str) -> Integer {
    let (negative, unsigned) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let bytes = unsigned.as_bytes();
    let (radix, digits) = match (bytes.first(), bytes.get(1)) {
        (Some(b'0'), Some(b'x' | b'X')) => (16, &unsigned[2..]),
        (Some(b'0'), Some(b'o' | b'O')) => (8, &unsigned[2..]),
        (Some(b'0'), Some(b'b' | b'B')) => (2, &unsigned[2..]),
        (Some(b'0'), Some(_)) => (8, &unsigned[1..]),
        _ => (10, unsigned),
    };
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return Integer::No;
    }
    match u64::from_str_radix(digits, radix) {
        Ok(value) if negative => match 0i64.checked_sub_unsigned(value) {
            Some(value) => Integer::Fits(Scalar::Int(value)),
            None => Integer::TooLarge(large(digits, radix, true)),
        },
        Ok(value) => Integer::Fits(i64::try_from(value).map_or(Scalar::UInt(value), Scalar::Int)),
        Err(_) => Integer::TooLarge(large(digits, radix, negative)),
    }
}

/// The nearest floating point number to an integer of more than 64 bits.
fn large(digits: &str, radix: u32, negative: bool) -> f64 {
    let value = if radix == 10 {
        digits.parse().unwrap_or(f64::INFINITY)
    } else {
        let digits = digits.chars().filter_map(|digit| digit.to_digit(radix));
        digits.fold(0.0, |sum, digit| sum * f64::from(radix) + f64::from(digit))
    };
    if negative { -value } else { value }
}

/// `^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$`, in range.
fn float(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => (&unsigned[..at], Some(&unsigned[at + 1..])),
        None => (unsigned, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let exponent_is_number = exponent.is_none_or(|exponent| {
        let digits = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        !digits.is_empty() && all_digits(digits)
    });
    let is_number = !(whole.is_empty() && fraction.is_empty())
        && all_digits(whole)
        && all_digits(fraction)
        && exponent_is_number;
    // Rust's grammar contains this one; what overflows stays a string, as with go-yaml.
    let value: f64 = if is_number {
        text.parse().ok()?
    } else {
        return None;
    };
    value.is_finite().then_some(value)
}

/// What a floating point number is after Go has written it as JSON.
fn json_number(value: f64) -> Scalar {
    // 2^63; every integral value below it is an `i64` exactly.
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if value.fract() == 0.0 && (-LIMIT..LIMIT).contains(&value) {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "integral and in range, just checked"
        )]
        return Scalar::Int(value as i64);
    }
    Scalar::Float(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(cases: &[(&str, Scalar)]) {
        for (text, expected) in cases {
            assert_eq!(resolve(text).as_ref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn booleans_and_null_are_those_of_yaml_1_1() {
        for text in [
            "y", "Y", "yes", "Yes", "YES", "on", "On", "ON", "true", "True", "TRUE",
        ] {
            assert_eq!(resolve(text), Some(Scalar::Bool(true)), "{text}");
        }
        for text in [
            "n", "N", "no", "No", "NO", "off", "Off", "OFF", "false", "False", "FALSE",
        ] {
            assert_eq!(resolve(text), Some(Scalar::Bool(false)), "{text}");
        }
        for text in ["", "~", "null", "Null", "NULL"] {
            assert_eq!(resolve(text), Some(Scalar::Null), "{text:?}");
        }
        for text in ["yEs", "oN", "tRUE", "nULL", "none", "ollama"] {
            assert_eq!(resolve(text), Some(Scalar::String(text.into())), "{text}");
        }
    }

    #[test]
    fn integers_are_those_of_go() {
        use Scalar::{Float, Int, UInt};
        check(&[
            ("0", Int(0)),
            ("80", Int(80)),
            ("+80", Int(80)),
            ("-1", Int(-1)),
            ("0644", Int(420)),
            ("0o644", Int(420)),
            ("0x1F", Int(31)),
            ("-0b101", Int(-5)),
            ("1_000", Int(1000)),
            ("9223372036854775807", Int(i64::MAX)),
            ("-9223372036854775808", Int(i64::MIN)),
            ("9223372036854775808", UInt(1 << 63)),
            ("18446744073709551615", UInt(u64::MAX)),
            ("18446744073709551616", Float(18_446_744_073_709_551_616.0)),
            ("-9223372036854775809", Float(-9_223_372_036_854_775_809.0)),
            (
                "0xffffffffffffffffff",
                Float(4_722_366_482_869_645_213_695.0),
            ),
        ]);
    }

    #[test]
    fn floats_go_through_json() {
        use Scalar::{Float, Int};
        check(&[
            ("1.5", Float(1.5)),
            (".5", Float(0.5)),
            ("-.5", Float(-0.5)),
            ("1.", Int(1)),
            ("1.0", Int(1)),
            ("1e3", Int(1000)),
            ("1E-3", Float(0.001)),
            ("0888", Int(888)),
            ("1e21", Float(1e21)),
        ]);
        for text in [".inf", "-.Inf", "+.INF", ".nan", ".NaN", &"9".repeat(400)] {
            assert_eq!(resolve(text), None, "{text}");
        }
    }

    #[test]
    fn what_only_looks_like_a_number_is_a_string() {
        for text in [
            "1.2.3",
            "12:30:00",
            "2001-01-01",
            "2001-01-01T00:00:00Z",
            "1s",
            "500m",
            "10.0.0.1",
            "-",
            "+",
            ".",
            "..",
            ".e5",
            "e5",
            "1e",
            "1e+",
            "0x",
            "0b2",
            "1e999",
            "--1",
            "+-1",
            "+nan",
            "+inf",
            "-infinity",
            "0o8",
            "._5",
            "-foo",
            "1 2",
            "٣",
        ] {
            assert_eq!(resolve(text), Some(Scalar::String(text.into())), "{text}");
        }
    }
}
