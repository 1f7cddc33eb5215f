//! The functions: CEL's own and the extensions that Kubernetes has for rules.

#![allow(clippy::unnecessary_wraps)] // they are called through one type

use std::net::IpAddr;
use std::rc::Rc;

use crate::eval::{Failure, Machine, Outcome};
use crate::format::{self, SECOND};
use crate::pattern;
use crate::quantity::Quantity;
use crate::url::Url;
use crate::value::{Cel, Text};
use crate::version::Version;

/// A function with its arguments evaluated; what stands before the dot is the first one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Function {
    pub(crate) call: for<'v, 'm, 'c> fn(&'m mut Machine<'v, 'c>, &[Cel<'v>]) -> Outcome<'v>,
}

/// The name of a type that an expression may use.
pub(crate) fn type_named(name: &str) -> Option<&'static str> {
    [
        "bool",
        "int",
        "uint",
        "double",
        "string",
        "bytes",
        "list",
        "map",
        "null_type",
        "type",
    ]
    .into_iter()
    .find(|one| *one == name)
}

/// The function of a name and a number of arguments that stands alone.
pub(crate) fn global(name: &str, arguments: usize) -> Option<Function> {
    let call: for<'v, 'm, 'c> fn(&'m mut Machine<'v, 'c>, &[Cel<'v>]) -> Outcome<'v> =
        match (name, arguments) {
            ("bool", 1) => to_bool,
            ("bytes", 1) => to_bytes,
            ("cidr", 1) => cidr,
            ("double", 1) => to_double,
            ("duration", 1) => duration,
            ("dyn", 1) => same,
            ("format.named", 1) => format_named,
            ("int", 1) => to_int,
            ("ip", 1) => ip,
            ("ip.isCanonical", 1) => is_canonical_ip,
            ("isCIDR", 1) => is_cidr,
            ("isIP", 1) => is_ip,
            ("isQuantity", 1) => is_quantity,
            ("isSemver", 1 | 2) => is_semver,
            ("isURL", 1) => is_url,
            ("lists.range", 1) => range,
            ("matches", 2) => matches,
            ("optional.none", 0) => none,
            ("optional.of", 1) => some,
            ("optional.ofNonZeroValue", 1) => some_if_not_zero,
            ("quantity", 1) => quantity,
            ("semver", 1 | 2) => semver,
            ("sets.contains", 2) => set_contains,
            ("sets.equivalent", 2) => set_equivalent,
            ("sets.intersects", 2) => set_intersects,
            ("size", 1) => size,
            ("string", 1) => to_string,
            ("timestamp", 1) => timestamp,
            ("type", 1) => type_of,
            ("uint", 1) => to_uint,
            ("url", 1) => url,
            (name, 0) if name.starts_with("format.") => return named_format(&name[7..]),
            _ => return None,
        };
    Some(Function { call })
}

/// The function of a name and a number of arguments that stands after a dot.
pub(crate) fn method(name: &str, arguments: usize) -> Option<Function> {
    let call: for<'v, 'm, 'c> fn(&'m mut Machine<'v, 'c>, &[Cel<'v>]) -> Outcome<'v> =
        match (name, arguments) {
            ("add", 1) => quantity_add,
            ("asApproximateFloat", 0) => quantity_float,
            ("asInteger", 0) => quantity_integer,
            ("charAt", 1) => char_at,
            ("compareTo", 1) => compare_to,
            ("contains", 1) => contains,
            ("containsCIDR", 1) => contains_cidr,
            ("containsIP", 1) => contains_ip,
            ("distinct", 0) => distinct,
            ("endsWith", 1) => ends_with,
            ("family", 0) => ip_family,
            ("find", 1) => find,
            ("findAll", 1 | 2) => find_all,
            ("flatten", 0 | 1) => flatten,
            ("format", 1) => format_text,
            ("getDate", 0 | 1) => get_date,
            ("getDayOfMonth", 0 | 1) => get_day_of_month,
            ("getDayOfWeek", 0 | 1) => get_day_of_week,
            ("getDayOfYear", 0 | 1) => get_day_of_year,
            ("getEscapedPath", 0) => url_path,
            ("getFullYear", 0 | 1) => get_full_year,
            ("getHost", 0) => url_host,
            ("getHostname", 0) => url_hostname,
            ("getHours", 0 | 1) => get_hours,
            ("getMilliseconds", 0 | 1) => get_milliseconds,
            ("getMinutes", 0 | 1) => get_minutes,
            ("getMonth", 0 | 1) => get_month,
            ("getPort", 0) => url_port,
            ("getQuery", 0) => url_query,
            ("getScheme", 0) => url_scheme,
            ("getSeconds", 0 | 1) => get_seconds,
            ("hasValue", 0) => has_value,
            ("indexOf", 1 | 2) => index_of,
            ("ip", 0) => cidr_ip,
            ("isGlobalUnicast", 0) => is_global_unicast,
            ("isGreaterThan", 1) => is_greater_than,
            ("isInteger", 0) => quantity_is_integer,
            ("isLessThan", 1) => is_less_than,
            ("isLinkLocalMulticast", 0) => is_link_local_multicast,
            ("isLinkLocalUnicast", 0) => is_link_local_unicast,
            ("isLoopback", 0) => is_loopback,
            ("isSorted", 0) => is_sorted,
            ("isUnspecified", 0) => is_unspecified,
            ("join", 0 | 1) => join,
            ("lastIndexOf", 1 | 2) => last_index_of,
            ("lowerAscii", 0) => lower_ascii,
            ("major", 0) => major,
            ("masked", 0) => masked,
            ("matches", 1) => matches,
            ("max", 0) => max,
            ("min", 0) => min,
            ("minor", 0) => minor,
            ("or", 1) => or,
            ("orValue", 1) => or_value,
            ("patch", 0) => patch,
            ("prefixLength", 0) => prefix_length,
            ("replace", 2 | 3) => replace,
            ("reverse", 0) => reverse,
            ("sign", 0) => quantity_sign,
            ("size", 0) => size,
            ("slice", 2) => slice,
            ("sort", 0) => sort,
            ("split", 1 | 2) => split,
            ("startsWith", 1) => starts_with,
            ("sub", 1) => quantity_sub,
            ("substring", 1 | 2) => substring,
            ("sum", 0) => sum,
            ("trim", 0) => trim,
            ("upperAscii", 0) => upper_ascii,
            ("validate", 1) => validate,
            ("value", 0) => value,
            _ => return None,
        };
    Some(Function { call })
}

// === Arguments ===

fn text<'a, 'v>(arguments: &'a [Cel<'v>], place: usize) -> Result<&'a Text<'v>, Failure> {
    match arguments.get(place) {
        Some(Cel::Str(text)) => Ok(text),
        _ => Err(Failure::overload()),
    }
}

fn int(arguments: &[Cel<'_>], place: usize) -> Result<i64, Failure> {
    match arguments.get(place) {
        Some(Cel::Int(value)) => Ok(*value),
        _ => Err(Failure::overload()),
    }
}

/// The items of a list, paid for.
fn items<'v>(machine: &mut Machine<'v, '_>, list: &Cel<'v>) -> Result<Vec<Cel<'v>>, Failure> {
    if !list.is_list() {
        return Err(Failure::overload());
    }
    let length = list.len().unwrap_or(0);
    machine.cost.spend(length as u64)?;
    Ok((0..length).filter_map(|place| list.member(place)).collect())
}

fn count<'v>(count: usize) -> Cel<'v> {
    Cel::Int(i64::try_from(count).unwrap_or(i64::MAX))
}

// === Types ===

fn same<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    Ok(arguments[0].clone())
}

fn type_of<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    Ok(Cel::Type(arguments[0].type_name()))
}

fn to_bool<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    match &arguments[0] {
        Cel::Bool(value) => Ok(Cel::Bool(*value)),
        Cel::Str(text) => match &**text {
            "true" | "TRUE" | "True" | "t" | "1" => Ok(Cel::Bool(true)),
            "false" | "FALSE" | "False" | "f" | "0" => Ok(Cel::Bool(false)),
            _ => Err(Failure::error(
                "type conversion error from 'string' to 'bool'",
            )),
        },
        _ => Err(Failure::overload()),
    }
}

fn to_bytes<'v>(machine: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    match &arguments[0] {
        Cel::Bytes(bytes) => Ok(Cel::Bytes(Rc::clone(bytes))),
        Cel::Str(text) => {
            machine.cost.read(text)?;
            Ok(Cel::Bytes(text.as_bytes().into()))
        }
        _ => Err(Failure::overload()),
    }
}

#[allow(clippy::cast_precision_loss)] // as the specification converts
fn to_double<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    Ok(Cel::Double(match &arguments[0] {
        Cel::Double(value) => *value,
        Cel::Int(value) => *value as f64,
        Cel::Uint(value) => *value as f64,
        Cel::Str(text) => text
            .parse()
            .map_err(|_| Failure::error("type conversion error from 'string' to 'double'"))?,
        _ => return Err(Failure::overload()),
    }))
}

fn to_int<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    let range = || Failure::error("integer overflow");
    Ok(Cel::Int(match &arguments[0] {
        // A duration is the nanoseconds that it has.
        Cel::Int(value) | Cel::Duration(value) => *value,
        Cel::Uint(value) => i64::try_from(*value).map_err(|_| range())?,
        Cel::Double(value) => {
            // The bounds themselves are not in range, as in Go.
            if value.is_nan() || value.abs() >= 9_223_372_036_854_775_808.0 {
                return Err(range());
            }
            #[allow(clippy::cast_possible_truncation)] // it is in range, and fractions are cut
            let whole = *value as i64;
            whole
        }
        Cel::Str(text) => text
            .parse()
            .map_err(|_| Failure::error("type conversion error from 'string' to 'int'"))?,
        Cel::Timestamp(value) => i64::try_from(value.div_euclid(SECOND)).map_err(|_| range())?,
        _ => return Err(Failure::overload()),
    }))
}

fn to_uint<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    let range = || Failure::error("unsigned integer overflow");
    Ok(Cel::Uint(match &arguments[0] {
        Cel::Uint(value) => *value,
        Cel::Int(value) => u64::try_from(*value).map_err(|_| range())?,
        Cel::Double(value) => {
            if !(*value > -1.0 && *value < 18_446_744_073_709_551_616.0) {
                return Err(range());
            }
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // it is in range
            let whole = *value as u64;
            whole
        }
        Cel::Str(text) => text
            .parse()
            .map_err(|_| Failure::error("type conversion error from 'string' to 'uint'"))?,
        _ => return Err(Failure::overload()),
    }))
}

fn to_string<'v>(machine: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    Ok(match &arguments[0] {
        Cel::Str(text) => Cel::Str(text.clone()),
        Cel::Bool(value) => Cel::made(value.to_string()),
        Cel::Int(value) => Cel::made(value.to_string()),
        Cel::Uint(value) => Cel::made(value.to_string()),
        Cel::Double(value) => Cel::made(value.to_string()),
        Cel::Bytes(bytes) => {
            machine.cost.spend(bytes.len() as u64 / 10)?;
            let text = std::str::from_utf8(bytes);
            Cel::made(text.map_err(|_| Failure::error("invalid UTF-8 in bytes"))?)
        }
        Cel::Duration(value) => Cel::made(duration_text(*value)),
        Cel::Timestamp(value) => Cel::made(timestamp_text(**value)),
        Cel::Ip(address) => Cel::made(address.to_string()),
        Cel::Cidr(cidr) => Cel::made(format!("{}/{}", cidr.0, cidr.1)),
        _ => return Err(Failure::overload()),
    })
}

/// A duration in seconds, as CEL writes it.
fn duration_text(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let all = nanoseconds.unsigned_abs();
    let (seconds, rest) = (all / 1_000_000_000, all % 1_000_000_000);
    let fraction = format!(".{rest:09}");
    let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
    format!("{sign}{seconds}{fraction}s")
}

fn timestamp_text(nanoseconds: i128) -> String {
    let seconds = i64::try_from(nanoseconds.div_euclid(SECOND)).unwrap_or(0);
    let rest = nanoseconds.rem_euclid(SECOND);
    let (year, month, day) = format::civil(seconds.div_euclid(86_400));
    let of_day = seconds.rem_euclid(86_400);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let fraction = format!(".{rest:09}");
    let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

fn size<'v>(machine: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    Ok(count(match &arguments[0] {
        Cel::Str(text) => {
            machine.cost.read(text)?;
            text.chars().count()
        }
        Cel::Bytes(bytes) => bytes.len(),
        other => other.len().ok_or_else(Failure::overload)?,
    }))
}

// === Optional values ===

fn none<'v>(_: &mut Machine<'v, '_>, _: &[Cel<'v>]) -> Outcome<'v> {
    Ok(Cel::Optional(None))
}

fn some<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    Ok(Cel::some(arguments[0].clone()))
}

fn some_if_not_zero<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    let one = &arguments[0];
    let zero = match one {
        Cel::Null => true,
        Cel::Bool(value) => !value,
        Cel::Int(value) | Cel::Duration(value) => *value == 0,
        Cel::Uint(value) => *value == 0,
        Cel::Double(value) => *value == 0.0,
        Cel::Str(text) => text.is_empty(),
        Cel::Bytes(bytes) => bytes.is_empty(),
        other => other.len() == Some(0),
    };
    Ok(if zero {
        Cel::Optional(None)
    } else {
        Cel::some(one.clone())
    })
}

fn has_value<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    match &arguments[0] {
        Cel::Optional(inner) => Ok(Cel::Bool(inner.is_some())),
        _ => Err(Failure::overload()),
    }
}

fn value<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    match &arguments[0] {
        Cel::Optional(Some(inner)) => Ok((**inner).clone()),
        Cel::Optional(None) => Err(Failure::error("optional.none() dereference")),
        _ => Err(Failure::overload()),
    }
}

fn or<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    match (&arguments[0], &arguments[1]) {
        (Cel::Optional(Some(_)), Cel::Optional(_)) => Ok(arguments[0].clone()),
        (Cel::Optional(None), Cel::Optional(_)) => Ok(arguments[1].clone()),
        _ => Err(Failure::overload()),
    }
}

fn or_value<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    match &arguments[0] {
        Cel::Optional(Some(inner)) => Ok((**inner).clone()),
        Cel::Optional(None) => Ok(arguments[1].clone()),
        _ => Err(Failure::overload()),
    }
}

// === Texts ===

fn contains<'v>(machine: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    let (one, two) = (text(arguments, 0)?, text(arguments, 1)?);
    machine.cost.read(one)?;
    machine.cost.read(two)?;
    Ok(Cel::Bool(one.contains(&**two)))
}

fn starts_with<'v>(machine: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    machine.cost.read(text(arguments, 1)?)?;
    Ok(Cel::Bool(
        text(arguments, 0)?.starts_with(&**text(arguments, 1)?),
    ))
}

fn ends_with<'v>(machine: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    machine.cost.read(text(arguments, 1)?)?;
    Ok(Cel::Bool(
        text(arguments, 0)?.ends_with(&**text(arguments, 1)?),
    ))
}

/// A pattern that is not known before, compiled for what that costs.
fn regex(
    machine: &mut Machine<'_, '_>,
    written: &str,
    text: &str,
) -> Result<regex_automata::meta::Regex, Failure> {
    let (text_cost, regex_cost) = (text.len() as u64 / 10 + 1, written.len() as u64 / 4 + 1);
    machine.cost.spend(text_cost.saturating_mul(regex_cost))?;
    // Compiling takes thousands of times what a step does.
    machine.cost.spend(COMPILE + 10 * written.len() as u64)?;
    pattern::compile(written).ok_or_else(|| Failure::error(format!("`{written}` is no pattern")))
}

/// What it costs to compile a pattern that is not known before.
const COMPILE: u64 = 2_000;

fn matches<'v>(machine: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    let (text, written) = (text(arguments, 0)?, text(arguments, 1)?);
    let regex = regex(machine, written, text)?;
    Ok(Cel::Bool(regex.is_match(text.as_bytes())))
}

fn find<'v>(machine: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    let (text, written) = (text(arguments, 0)?, text(arguments, 1)?);
    let regex = regex(machine, written, text)?;
    let found = regex.find(text.as_bytes());
    Ok(Cel::made(found.map_or("", |found| &text[found.range()])))
}

fn find_all<'v>(machine: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    let (text, written) = (text(arguments, 0)?, text(arguments, 1)?);
    let most = match arguments.get(2) {
        None => usize::MAX,
        Some(_) => usize::try_from(int(arguments, 2)?).unwrap_or(usize::MAX),
    };
    let regex = regex(machine, written, text)?;
    machine.cost.spend(text.len() as u64)?;
    let found = regex.find_iter(text.as_bytes()).take(most);
    Ok(Cel::list(
        found.map(|found| Cel::made(&text[found.range()])).collect(),
    ))
}

fn char_at<'v>(machine: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    let text = text(arguments, 0)?;
    machine.cost.read(text)?;
    let index = int(arguments, 1)?;
    let outside = || Failure::error(format!("index out of range: {index}"));
    let place = usize::try_from(index).map_err(|_| outside())?;
    match text.chars().nth(place) {
        Some(character) => Ok(Cel::made(character.to_string())),
        None if text.chars().count() == place => Ok(Cel::made("")),
        None => Err(outside()),
    }
}

/// The byte at which a character begins.
fn place_of(text: &str, index: i64) -> Result<usize, Failure> {
    let outside = || Failure::error(format!("index out of range: {index}"));
    let place = usize::try_from(index).map_err(|_| outside())?;
    text.char_indices()
        .map(|(at, _)| at)
        .chain([text.len()])
        .nth(place)
        .ok_or_else(outside)
}

fn index_of<'v>(machine: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    if arguments[0].is_list() {
        let members = items(machine, &arguments[0])?;
        return place_in(machine, members.iter().enumerate(), &arguments[1]);
    }
    let (text, part) = (text(arguments, 0)?, text(arguments, 1)?);
    machine.cost.read(text)?;
    machine.cost.read(part)?;
    let from = if arguments.len() > 2 {
        place_of(text, int(arguments, 2)?)?
    } else {
        0
    };
    let found = text[from..].find(&**part);
    Ok(found.map_or(Cel::Int(-1), |at| count(text[..from + at].chars().count())))
}

fn last_index_of<'v>(machine: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    if arguments[0].is_list() {
        let members = items(machine, &arguments[0])?;
        return place_in(machine, members.iter().enumerate().rev(), &arguments[1]);
    }
    let (text, part) = (text(arguments, 0)?, text(arguments, 1)?);
    machine.cost.read(text)?;
    machine.cost.read(part)?;
    let most = if arguments.len() > 2 {
        place_of(text, int(arguments, 2)?)?
    } else {
        text.len()
    };
    let end = (most + part.len()).min(text.len());
    let found = text.get(..end).and_then(|text| text.rfind(&**part));
    Ok(found.map_or(Cel::Int(-1), |at| count(text[..at].chars().count())))
}

fn place_in<'a, 'v: 'a>(
    machine: &mut Machine<'v, '_>,
    members: impl Iterator<Item = (usize, &'a Cel<'v>)>,
    wanted: &Cel<'v>,
) -> Outcome<'v> {
    for (place, member) in members {
        machine.compare(member, wanted)?;
        if member.equals(wanted) {
            return Ok(count(place));
        }
    }
    Ok(Cel::Int(-1))
}

fn lower_ascii<'v>(machine: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    machine.cost.read(text(arguments, 0)?)?;
    Ok(Cel::made(text(arguments, 0)?.to_ascii_lowercase()))
}

fn upper_ascii<'v>(machine: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    machine.cost.read(text(arguments, 0)?)?;
    Ok(Cel::made(text(arguments, 0)?.to_ascii_uppercase()))
}

fn trim<'v>(machine: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    machine.cost.read(text(arguments, 0)?)?;
    Ok(Cel::made(text(arguments, 0)?.trim()))
}

fn replace<'v>(machine: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    let (text, from, to) = (
        text(arguments, 0)?,
        text(arguments, 1)?,
        text(arguments, 2)?,
    );
    let most = match arguments.get(3) {
        None => usize::MAX,
        Some(_) => usize::try_from(int(arguments, 3)?).unwrap_or(usize::MAX),
    };
    machine.cost.read(text)?;
    let times = text.matches(&**from).count().min(most) as u64;
    machine
        .cost
        .spend(times.saturating_mul(1 + to.len() as u64) / 10)?;
    Ok(Cel::made(text.replacen(&**from, to, most)))
}

fn split<'v>(machine: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    let (text, separator) = (text(arguments, 0)?, text(arguments, 1)?);
    machine.cost.read(text)?;
    let most = if arguments.len() > 2 {
        int(arguments, 2)?
    } else {
        -1
    };
    let part = |part: &str| Cel::made(part);
    let parts: Vec<_> = match (usize::try_from(most), separator.is_empty()) {
        (Ok(0), _) => Vec::new(),
        (limit, true) => {
            let limit = limit.unwrap_or(usize::MAX);
            let mut parts = Vec::new();
            let mut rest = &**text;
            while let Some(first) = rest.chars().next() {
                if parts.len() + 1 == limit {
                    parts.push(part(rest));
                    break;
                }
                parts.push(part(&rest[..first.len_utf8()]));
                rest = &rest[first.len_utf8()..];
            }
            parts
        }
        (Ok(limit), false) => text.splitn(limit, &**separator).map(part).collect(),
        (Err(_), false) => text.split(&**separator).map(part).collect(),
    };
    machine.cost.spend(parts.len() as u64)?;
    Ok(Cel::list(parts))
}

fn substring<'v>(machine: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    let text = text(arguments, 0)?;
    machine.cost.read(text)?;
    let from = place_of(text, int(arguments, 1)?)?;
    let to = if arguments.len() > 2 {
        place_of(text, int(arguments, 2)?)?
    } else {
        text.len()
    };
    let part = text.get(from..to);
    Ok(Cel::made(part.ok_or_else(|| {
        Failure::error("invalid substring range")
    })?))
}

fn join<'v>(machine: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    let members = items(machine, &arguments[0])?;
    let separator = if arguments.len() > 1 {
        &**text(arguments, 1)?
    } else {
        ""
    };
    let mut joined = String::new();
    for (place, _) in members.iter().enumerate() {
        let member = text(&members, place)?;
        machine
            .cost
            .spend((member.len() + separator.len()) as u64 / 10)?;
        if place > 0 {
            joined.push_str(separator);
        }
        joined.push_str(member);
    }
    Ok(Cel::made(joined))
}

fn format_text<'v>(machine: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    let template = text(arguments, 0)?;
    machine.cost.read(template)?;
    let values = items(machine, &arguments[1])?;
    let mut values = values.into_iter();
    let mut written = String::new();
    let mut characters = template.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            written.push(character);
            continue;
        }
        let mut verb = characters.next();
        if verb == Some('%') {
            written.push('%');
            continue;
        }
        let mut precision = None;
        if verb == Some('.') {
            let rest = characters.as_str();
            let end = rest
                .find(|one: char| !one.is_ascii_digit())
                .unwrap_or(rest.len());
            precision = rest[..end]
                .parse::<usize>()
                .ok()
                .filter(|digits| *digits <= 100);
            characters = rest[end..].chars();
            verb = characters.next();
        }
        let missing = || Failure::error("index out of range of the arguments of format");
        let value = values.next().ok_or_else(missing)?;
        machine.cost.spend(value.weight())?;
        let shown = match (verb, value) {
            (Some('s'), value) => {
                let mut text = String::new();
                show(&value, &mut text)?;
                text
            }
            (Some('d'), Cel::Int(value)) => value.to_string(),
            (Some('d'), Cel::Uint(value)) => value.to_string(),
            (Some('f'), Cel::Double(value)) => format!("{value:.*}", precision.unwrap_or(6)),
            (Some('e'), Cel::Double(value)) => format!("{value:.*e}", precision.unwrap_or(6)),
            (Some('b'), Cel::Int(value)) => format!("{value:b}"),
            (Some('b'), Cel::Bool(value)) => u8::from(value).to_string(),
            (Some('o'), Cel::Int(value)) => format!("{value:o}"),
            (Some('x'), Cel::Int(value)) => format!("{value:x}"),
            (Some('X'), Cel::Int(value)) => format!("{value:X}"),
            (Some('x'), Cel::Str(text)) => hexadecimal(&text),
            (Some('X'), Cel::Str(text)) => hexadecimal(&text).to_uppercase(),
            _ => return Err(Failure::error("could not parse formatting clause")),
        };
        written.push_str(&shown);
        machine.cost.spend(written.len() as u64 / 100)?;
    }
    Ok(Cel::made(written))
}

/// The bytes of a text in hexadecimal digits.
fn hexadecimal(text: &str) -> String {
    let digits = text.bytes().flat_map(|byte| [byte >> 4, byte & 15]);
    digits
        .filter_map(|digit| char::from_digit(u32::from(digit), 16))
        .collect()
}

/// Writes a value as `%s` does.
fn show(value: &Cel<'_>, written: &mut String) -> Result<(), Failure> {
    match value {
        Cel::Null => written.push_str("null"),
        Cel::Bool(value) => written.push_str(&value.to_string()),
        Cel::Int(value) => written.push_str(&value.to_string()),
        Cel::Uint(value) => written.push_str(&value.to_string()),
        Cel::Double(value) => written.push_str(&value.to_string()),
        Cel::Str(text) => written.push_str(text),
        Cel::Bytes(bytes) => written.push_str(&String::from_utf8_lossy(bytes)),
        Cel::Duration(value) => written.push_str(&duration_text(*value)),
        Cel::Timestamp(value) => written.push_str(&timestamp_text(**value)),
        Cel::Type(name) => written.push_str(name),
        list if list.is_list() => {
            written.push('[');
            for place in 0..list.len().unwrap_or(0) {
                if place > 0 {
                    written.push_str(", ");
                }
                if let Some(member) = list.member(place) {
                    show(&member, written)?;
                }
            }
            written.push(']');
        }
        map if map.is_map() => {
            written.push('{');
            for place in 0..map.len().unwrap_or(0) {
                if place > 0 {
                    written.push_str(", ");
                }
                if let Some((key, value)) = map.member(place).zip(map.element(place)) {
                    show(&key, written)?;
                    written.push_str(": ");
                    show(&value, written)?;
                }
            }
            written.push('}');
        }
        _ => return Err(Failure::error("could not convert argument to string")),
    }
    Ok(())
}

fn reverse<'v>(machine: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    if let Cel::Str(text) = &arguments[0] {
        machine.cost.read(text)?;
        return Ok(Cel::made(text.chars().rev().collect::<String>()));
    }
    let mut members = items(machine, &arguments[0])?;
    members.reverse();
    Ok(Cel::list(members))
}

// === Lists ===

fn sorted<'v>(machine: &mut Machine<'v, '_>, list: &Cel<'v>) -> Result<bool, Failure> {
    let members = items(machine, list)?;
    for two in members.windows(2) {
        machine.compare(&two[0], &two[1])?;
        if two[0].order(&two[1]).ok_or_else(Failure::overload)?.is_gt() {
            return Ok(false);
        }
    }
    Ok(true)
}

fn is_sorted<'v>(machine: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    sorted(machine, &arguments[0]).map(Cel::Bool)
}

fn extreme<'v>(
    machine: &mut Machine<'v, '_>,
    list: &Cel<'v>,
    wanted: std::cmp::Ordering,
) -> Outcome<'v> {
    let mut best: Option<Cel<'v>> = None;
    for member in items(machine, list)? {
        let better = match &best {
            None => true,
            Some(best) => member.order(best).ok_or_else(Failure::overload)? == wanted,
        };
        if better {
            best = Some(member);
        }
    }
    best.ok_or_else(|| Failure::error("min or max called on empty list"))
}

fn min<'v>(machine: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    extreme(machine, &arguments[0], std::cmp::Ordering::Less)
}

fn max<'v>(machine: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    extreme(machine, &arguments[0], std::cmp::Ordering::Greater)
}

fn sum<'v>(machine: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    let overflow = || Failure::error("integer overflow");
    let mut total = Cel::Int(0);
    for (place, member) in items(machine, &arguments[0])?.into_iter().enumerate() {
        total = match (total, member) {
            (_, member @ (Cel::Int(_) | Cel::Uint(_) | Cel::Double(_) | Cel::Duration(_)))
                if place == 0 =>
            {
                member
            }
            (Cel::Int(one), Cel::Int(two)) => Cel::Int(one.checked_add(two).ok_or_else(overflow)?),
            (Cel::Uint(one), Cel::Uint(two)) => {
                Cel::Uint(one.checked_add(two).ok_or_else(overflow)?)
            }
            (Cel::Double(one), Cel::Double(two)) => Cel::Double(one + two),
            (Cel::Duration(one), Cel::Duration(two)) => {
                Cel::Duration(one.checked_add(two).ok_or_else(overflow)?)
            }
            _ => return Err(Failure::overload()),
        };
    }
    Ok(total)
}

fn distinct<'v>(machine: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    let mut kept: Vec<Cel<'v>> = Vec::new();
    for member in items(machine, &arguments[0])? {
        machine.cost.spend(kept.len() as u64)?;
        if !kept.iter().any(|one| one.equals(&member)) {
            kept.push(member);
        }
    }
    Ok(Cel::list(kept))
}

fn flatten<'v>(machine: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    let depth = if arguments.len() > 1 {
        int(arguments, 1)?
    } else {
        1
    };
    let mut members = items(machine, &arguments[0])?;
    for _ in 0..depth.clamp(0, 32) {
        let mut flat = Vec::with_capacity(members.len());
        for member in members {
            if member.is_list() {
                flat.extend(items(machine, &member)?);
            } else {
                flat.push(member);
            }
        }
        members = flat;
    }
    Ok(Cel::list(members))
}

fn slice<'v>(machine: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    let members = items(machine, &arguments[0])?;
    let (from, to) = (
        usize::try_from(int(arguments, 1)?),
        usize::try_from(int(arguments, 2)?),
    );
    let part = from
        .ok()
        .zip(to.ok())
        .and_then(|(from, to)| members.get(from..to));
    Ok(Cel::list(
        part.ok_or_else(|| Failure::error("cannot slice: index out of bounds"))?
            .to_vec(),
    ))
}

fn sort<'v>(machine: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    let mut members = items(machine, &arguments[0])?;
    machine.cost.spend(arguments[0].weight())?;
    if members
        .windows(2)
        .any(|two| two[0].order(&two[1]).is_none())
    {
        return Err(Failure::overload());
    }
    members.sort_by(|one, two| one.order(two).unwrap_or(std::cmp::Ordering::Equal));
    Ok(Cel::list(members))
}

fn range<'v>(machine: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    let end = int(arguments, 0)?.max(0);
    machine.cost.spend(end.unsigned_abs())?;
    Ok(Cel::list((0..end).map(Cel::Int).collect()))
}

/// Whether every member of the second list is in the first.
fn covers<'v>(
    machine: &mut Machine<'v, '_>,
    one: &Cel<'v>,
    two: &Cel<'v>,
) -> Result<bool, Failure> {
    let (members, wanted) = (items(machine, one)?, items(machine, two)?);
    machine
        .cost
        .spend((members.len() as u64).saturating_mul(wanted.len() as u64))?;
    Ok(wanted
        .iter()
        .all(|want| members.iter().any(|member| member.equals(want))))
}

fn set_contains<'v>(machine: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    covers(machine, &arguments[0], &arguments[1]).map(Cel::Bool)
}

fn set_equivalent<'v>(machine: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    let (one, two) = (&arguments[0], &arguments[1]);
    Ok(Cel::Bool(
        covers(machine, one, two)? && covers(machine, two, one)?,
    ))
}

fn set_intersects<'v>(machine: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    let (one, two) = (
        items(machine, &arguments[0])?,
        items(machine, &arguments[1])?,
    );
    machine
        .cost
        .spend((one.len() as u64).saturating_mul(two.len() as u64))?;
    Ok(Cel::Bool(
        one.iter().any(|one| two.iter().any(|two| two.equals(one))),
    ))
}

// === Times ===

fn duration<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    match &arguments[0] {
        Cel::Duration(value) => Ok(Cel::Duration(*value)),
        Cel::Str(text) => format::duration(text).map(Cel::Duration).ok_or_else(|| {
            Failure::error("type conversion error from 'string' to 'google.protobuf.Duration'")
        }),
        _ => Err(Failure::overload()),
    }
}

fn timestamp<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    match &arguments[0] {
        Cel::Timestamp(value) => Ok(Cel::Timestamp(Rc::clone(value))),
        Cel::Int(seconds) => Ok(Cel::Timestamp(Rc::new(i128::from(*seconds) * SECOND))),
        Cel::Str(text) => format::timestamp(text)
            .map(|value| Cel::Timestamp(Rc::new(value)))
            .ok_or_else(|| {
                Failure::error("type conversion error from 'string' to 'google.protobuf.Timestamp'")
            }),
        _ => Err(Failure::overload()),
    }
}

/// Seconds since 1970 in a zone, and the nanoseconds of the second.
fn local(arguments: &[Cel<'_>]) -> Result<(i64, i64), Failure> {
    let Some(Cel::Timestamp(time)) = arguments.first() else {
        return Err(Failure::overload());
    };
    let offset = if arguments.len() < 2 {
        0
    } else {
        let zone = text(arguments, 1)?;
        let signed = |zone: &str| zone.starts_with(['+', '-']);
        match &**zone {
            "UTC" | "" => 0,
            zone if signed(zone) => format::zone_offset(zone).ok_or_else(Failure::overload)?,
            zone => format::zone_offset(&format!("+{zone}"))
                .ok_or_else(|| Failure::error(format!("unknown time zone {zone}")))?,
        }
    };
    let outside = |_| Failure::error("timestamp overflow");
    let seconds = i64::try_from(time.div_euclid(SECOND)).map_err(outside)?;
    let rest = i64::try_from(time.rem_euclid(SECOND)).map_err(outside)?;
    let shifted = seconds.checked_add(offset);
    Ok((
        shifted.ok_or_else(|| Failure::error("timestamp overflow"))?,
        rest,
    ))
}

/// The day of a time: year, month from 1, day from 1.
fn day_of(arguments: &[Cel<'_>]) -> Result<(i64, i64, i64), Failure> {
    let (seconds, _) = local(arguments)?;
    let day = seconds.div_euclid(86_400);
    if day.abs() > 4_000_000 {
        return Err(Failure::error("timestamp overflow"));
    }
    Ok(format::civil(day))
}

fn get_full_year<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    Ok(Cel::Int(day_of(arguments)?.0))
}

fn get_month<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    Ok(Cel::Int(day_of(arguments)?.1 - 1))
}

fn get_date<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    Ok(Cel::Int(day_of(arguments)?.2))
}

fn get_day_of_month<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    Ok(Cel::Int(day_of(arguments)?.2 - 1))
}

fn get_day_of_week<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    // 1970 began with a Thursday.
    let (seconds, _) = local(arguments)?;
    Ok(Cel::Int((seconds.div_euclid(86_400) + 4).rem_euclid(7)))
}

fn get_day_of_year<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    let (year, _, _) = day_of(arguments)?;
    let (seconds, _) = local(arguments)?;
    let first = format::date(&format!("{year:04}-01-01")).unwrap_or(0);
    Ok(Cel::Int(seconds.div_euclid(86_400) - first))
}

/// Seconds and nanoseconds of a duration, or of the day of a time.
fn clock(arguments: &[Cel<'_>], within: i64) -> Result<(i64, i64), Failure> {
    match arguments.first() {
        Some(Cel::Duration(value)) if arguments.len() == 1 => {
            Ok((value / 1_000_000_000, value % 1_000_000_000))
        }
        _ => {
            let (seconds, rest) = local(arguments)?;
            Ok((seconds.rem_euclid(within), rest))
        }
    }
}

fn get_hours<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    Ok(Cel::Int(clock(arguments, 86_400)?.0 / 3600))
}

fn get_minutes<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    Ok(Cel::Int(clock(arguments, 3600)?.0 / 60))
}

fn get_seconds<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    Ok(Cel::Int(clock(arguments, 60)?.0))
}

fn get_milliseconds<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    match &arguments[0] {
        Cel::Duration(value) => Ok(Cel::Int(value / 1_000_000)),
        _ => Ok(Cel::Int(local(arguments)?.1 / 1_000_000)),
    }
}

// === URLs ===

fn url<'v>(machine: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    let text = text(arguments, 0)?;
    machine.cost.read(text)?;
    Url::parse(text)
        .map(|url| Cel::Url(Rc::new(url)))
        .ok_or_else(|| {
            Failure::error(format!(
                "URL parse error during conversion from string: {:?}",
                &**text
            ))
        })
}

fn is_url<'v>(machine: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    let text = text(arguments, 0)?;
    machine.cost.read(text)?;
    Ok(Cel::Bool(Url::parse(text).is_some()))
}

fn part<'v>(arguments: &[Cel<'v>], part: fn(&Url) -> String) -> Outcome<'v> {
    match &arguments[0] {
        Cel::Url(url) => Ok(Cel::made(part(url))),
        _ => Err(Failure::overload()),
    }
}

fn url_scheme<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    part(arguments, |url| url.scheme.clone())
}

fn url_host<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    part(arguments, |url| url.host.clone())
}

fn url_hostname<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    part(arguments, |url| url.hostname().to_owned())
}

fn url_port<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    part(arguments, |url| url.port().to_owned())
}

fn url_path<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    part(arguments, Url::escaped_path)
}

fn url_query<'v>(machine: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    let Cel::Url(url) = &arguments[0] else {
        return Err(Failure::overload());
    };
    let mut query: Vec<(String, Vec<Cel<'v>>)> = Vec::new();
    for (name, value) in url.parameters() {
        machine.cost.spend(1 + query.len() as u64 / 32)?;
        let value = Cel::made(value);
        match query.iter_mut().find(|(one, _)| *one == name) {
            Some((_, values)) => values.push(value),
            None => query.push((name, vec![value])),
        }
    }
    let entries = query.into_iter();
    let entries = entries.map(|(name, values)| (Cel::made(name), Cel::list(values)));
    Ok(Cel::Map(Rc::new(entries.collect())))
}

// === Addresses ===

/// Reads an address as Kubernetes does: without a zone, and no IPv4 address in an IPv6 one.
fn address(text: &str) -> Option<IpAddr> {
    let address: IpAddr = text.parse().ok()?;
    match address {
        IpAddr::V6(six) if six.to_ipv4_mapped().is_some() => None,
        address => Some(address),
    }
}

fn ip<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    let text = text(arguments, 0)?;
    address(text)
        .map(|address| Cel::Ip(Rc::new(address)))
        .ok_or_else(|| Failure::error(format!("IP Address {:?} parse error", &**text)))
}

fn is_ip<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    Ok(Cel::Bool(address(text(arguments, 0)?).is_some()))
}

fn is_canonical_ip<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    let text = text(arguments, 0)?;
    let address = address(text)
        .ok_or_else(|| Failure::error(format!("IP Address {:?} parse error", &**text)))?;
    Ok(Cel::Bool(address.to_string() == **text))
}

fn the_ip(arguments: &[Cel<'_>]) -> Result<IpAddr, Failure> {
    match &arguments[0] {
        Cel::Ip(address) => Ok(**address),
        _ => Err(Failure::overload()),
    }
}

fn ip_family<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    Ok(Cel::Int(if the_ip(arguments)?.is_ipv4() { 4 } else { 6 }))
}

fn is_unspecified<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    Ok(Cel::Bool(the_ip(arguments)?.is_unspecified()))
}

fn is_loopback<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    Ok(Cel::Bool(the_ip(arguments)?.is_loopback()))
}

fn is_link_local_multicast<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    Ok(Cel::Bool(link_local_multicast(the_ip(arguments)?)))
}

fn link_local_multicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(four) => four.octets()[..3] == [224, 0, 0],
        IpAddr::V6(six) => six.segments()[0] & 0xff0f == 0xff02,
    }
}

fn link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(four) => four.is_link_local(),
        IpAddr::V6(six) => six.is_unicast_link_local(),
    }
}

fn is_link_local_unicast<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    Ok(Cel::Bool(link_local(the_ip(arguments)?)))
}

fn is_global_unicast<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    let address = the_ip(arguments)?;
    let broadcast = matches!(address, IpAddr::V4(four) if four.is_broadcast());
    Ok(Cel::Bool(
        !broadcast
            && !address.is_unspecified()
            && !address.is_loopback()
            && !address.is_multicast()
            && !link_local(address),
    ))
}

/// Reads a network as Kubernetes does.
fn network(text: &str) -> Option<(IpAddr, u8)> {
    let (network, length) = format::parse_cidr(text)?;
    match network {
        IpAddr::V6(six) if six.to_ipv4_mapped().is_some() => None,
        network => Some((network, length)),
    }
}

fn cidr<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    let text = text(arguments, 0)?;
    network(text)
        .map(|network| Cel::Cidr(Rc::new(network)))
        .ok_or_else(|| Failure::error(format!("network address parse error: {:?}", &**text)))
}

fn is_cidr<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    Ok(Cel::Bool(network(text(arguments, 0)?).is_some()))
}

/// The first address of a network.
fn mask((address, length): (IpAddr, u8)) -> IpAddr {
    match address {
        IpAddr::V4(four) => {
            let bits = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            IpAddr::V4((four.to_bits() & bits).into())
        }
        IpAddr::V6(six) => {
            let bits = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            IpAddr::V6((six.to_bits() & bits).into())
        }
    }
}

fn the_network(arguments: &[Cel<'_>], place: usize) -> Result<(IpAddr, u8), Failure> {
    match &arguments[place] {
        Cel::Cidr(network) => Ok(**network),
        Cel::Str(text) if place > 0 => network(text)
            .ok_or_else(|| Failure::error(format!("network address parse error: {:?}", &**text))),
        _ => Err(Failure::overload()),
    }
}

fn contains_ip<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    let network = the_network(arguments, 0)?;
    let wanted = match &arguments[1] {
        Cel::Ip(address) => **address,
        Cel::Str(text) => address(text)
            .ok_or_else(|| Failure::error(format!("IP Address {:?} parse error", &**text)))?,
        _ => return Err(Failure::overload()),
    };
    Ok(Cel::Bool(
        wanted.is_ipv4() == network.0.is_ipv4() && mask((wanted, network.1)) == mask(network),
    ))
}

fn contains_cidr<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    let (outer, inner) = (the_network(arguments, 0)?, the_network(arguments, 1)?);
    Ok(Cel::Bool(
        outer.0.is_ipv4() == inner.0.is_ipv4()
            && outer.1 <= inner.1
            && mask((inner.0, outer.1)) == mask(outer),
    ))
}

fn masked<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    let network = the_network(arguments, 0)?;
    Ok(Cel::Cidr(Rc::new((mask(network), network.1))))
}

fn prefix_length<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    Ok(Cel::Int(i64::from(the_network(arguments, 0)?.1)))
}

fn cidr_ip<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    Ok(Cel::Ip(Rc::new(the_network(arguments, 0)?.0)))
}

// === Quantities and versions ===

fn quantity<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    let text = text(arguments, 0)?;
    Quantity::parse(text)
        .map(|quantity| Cel::Quantity(Rc::new(quantity)))
        .ok_or_else(|| Failure::error("quantities must match the regular expression of quantities"))
}

fn is_quantity<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    Ok(Cel::Bool(Quantity::parse(text(arguments, 0)?).is_some()))
}

fn the_quantity(arguments: &[Cel<'_>], place: usize) -> Result<Quantity, Failure> {
    match &arguments[place] {
        Cel::Quantity(quantity) => Ok(**quantity),
        Cel::Int(value) if place > 0 => Ok(Quantity::of(*value)),
        _ => Err(Failure::overload()),
    }
}

fn quantity_is_integer<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    Ok(Cel::Bool(the_quantity(arguments, 0)?.integer().is_some()))
}

fn quantity_integer<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    let value = the_quantity(arguments, 0)?.integer();
    value
        .map(Cel::Int)
        .ok_or_else(|| Failure::error("cannot convert value to integer"))
}

fn quantity_float<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    Ok(Cel::Double(the_quantity(arguments, 0)?.float()))
}

fn quantity_sign<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    Ok(Cel::Int(the_quantity(arguments, 0)?.sign()))
}

fn quantity_add<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    let sum = the_quantity(arguments, 0)?.plus(the_quantity(arguments, 1)?);
    let sum = sum.ok_or_else(|| Failure::error("quantity overflow"))?;
    Ok(Cel::Quantity(Rc::new(sum)))
}

fn quantity_sub<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    let rest = the_quantity(arguments, 0)?.minus(the_quantity(arguments, 1)?);
    let rest = rest.ok_or_else(|| Failure::error("quantity overflow"))?;
    Ok(Cel::Quantity(Rc::new(rest)))
}

/// The order of two quantities or versions.
fn order_of(arguments: &[Cel<'_>]) -> Result<std::cmp::Ordering, Failure> {
    match (&arguments[0], &arguments[1]) {
        (Cel::Version(one), Cel::Version(two)) => Ok(one.cmp(two)),
        (Cel::Quantity(one), Cel::Quantity(two)) => Ok(one.cmp(two)),
        _ => Err(Failure::overload()),
    }
}

fn compare_to<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    Ok(Cel::Int(order_of(arguments)? as i64))
}

fn is_less_than<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    Ok(Cel::Bool(order_of(arguments)?.is_lt()))
}

fn is_greater_than<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    Ok(Cel::Bool(order_of(arguments)?.is_gt()))
}

fn read_version(arguments: &[Cel<'_>]) -> Result<Option<Version>, Failure> {
    let lenient = match arguments.get(1) {
        None => false,
        Some(Cel::Bool(lenient)) => *lenient,
        Some(_) => return Err(Failure::overload()),
    };
    Ok(Version::parse(text(arguments, 0)?, lenient))
}

fn semver<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    read_version(arguments)?
        .map(|version| Cel::Version(Rc::new(version)))
        .ok_or_else(|| Failure::error("semver parse error"))
}

fn is_semver<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    Ok(Cel::Bool(read_version(arguments)?.is_some()))
}

fn number_of<'v>(arguments: &[Cel<'v>], place: usize) -> Outcome<'v> {
    match &arguments[0] {
        Cel::Version(version) => i64::try_from(version.numbers[place])
            .map(Cel::Int)
            .map_err(|_| Failure::error("integer overflow")),
        _ => Err(Failure::overload()),
    }
}

fn major<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    number_of(arguments, 0)
}

fn minor<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    number_of(arguments, 1)
}

fn patch<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    number_of(arguments, 2)
}

// === Named formats ===

/// The formats that Kubernetes has names for, with what is wrong where a text is none.
type Admits = fn(&str) -> bool;

const FORMATS: [(&str, Admits, &str); 13] = [
    (
        "byte",
        |text| format::decode_base64(text).is_some(),
        "invalid base64",
    ),
    ("date", |text| format::date(text).is_some(), "invalid date"),
    (
        "datetime",
        |text| format::timestamp(text).is_some(),
        "invalid datetime",
    ),
    (
        "dns1035Label",
        format::is_old_label,
        "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character",
    ),
    (
        "dns1035LabelPrefix",
        |text| prefix(text, format::is_old_label),
        "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character",
    ),
    (
        "dns1123Label",
        format::is_label,
        "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character",
    ),
    (
        "dns1123LabelPrefix",
        |text| prefix(text, format::is_label),
        "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character",
    ),
    (
        "dns1123Subdomain",
        format::is_subdomain,
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character",
    ),
    (
        "dns1123SubdomainPrefix",
        |text| prefix(text, format::is_subdomain),
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character",
    ),
    (
        "labelValue",
        |text| text.is_empty() || format::is_name_segment(text),
        "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
    ),
    (
        "qualifiedName",
        format::is_qualified_name,
        "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
    ),
    ("uri", |text| Url::parse(text).is_some(), "invalid URI"),
    (
        "uuid",
        |text| format::Format::Uuid.admits(text),
        "does not match the UUID format",
    ),
];

/// Whether a text is the beginning of a name: what is generated after it may follow a hyphen.
fn prefix(text: &str, admits: Admits) -> bool {
    admits(text.strip_suffix('-').unwrap_or(text))
}

fn named_format(name: &str) -> Option<Function> {
    macro_rules! formats {
        ($($name:literal),*) => {
            match name {
                $($name => {
                    fn format<'v>(_: &mut Machine<'v, '_>, _: &[Cel<'v>]) -> Outcome<'v> {
                        Ok(Cel::Format($name))
                    }
                    Some(Function { call: format })
                })*
                _ => None,
            }
        };
    }
    formats!(
        "byte",
        "date",
        "datetime",
        "dns1035Label",
        "dns1035LabelPrefix",
        "dns1123Label",
        "dns1123LabelPrefix",
        "dns1123Subdomain",
        "dns1123SubdomainPrefix",
        "labelValue",
        "qualifiedName",
        "uri",
        "uuid"
    )
}

fn format_named<'v>(_: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    let name = text(arguments, 0)?;
    let found = FORMATS.iter().find(|(one, _, _)| **one == **name);
    Ok(Cel::Optional(
        found.map(|(name, _, _)| Rc::new(Cel::Format(name))),
    ))
}

fn validate<'v>(machine: &mut Machine<'v, '_>, arguments: &[Cel<'v>]) -> Outcome<'v> {
    let (Cel::Format(name), text) = (&arguments[0], text(arguments, 1)?) else {
        return Err(Failure::overload());
    };
    machine.cost.read(text)?;
    let format = FORMATS.iter().find(|(one, _, _)| one == name);
    Ok(match format {
        Some((_, admits, message)) if !admits(text) => {
            Cel::some(Cel::list(vec![Cel::made(*message)]))
        }
        _ => Cel::Optional(None),
    })
}
