//! Values of expressions in log lines, as Envoy prints them (`%CEL%`, `%TYPED_CEL%`).

use jiff::Timestamp;
use kgw_cel::Cel;
use serde_json::{Map, Number, Value};

/// The text of a value: lists and mappings have none but their type's name. None is nothing.
pub(super) fn text(value: &Cel<'_>) -> Option<String> {
    Some(match value {
        Cel::Null | Cel::Optional(None) => return None,
        Cel::Optional(Some(value)) => return text(value),
        Cel::Bool(value) => value.to_string(),
        Cel::Int(value) => value.to_string(),
        Cel::Uint(value) => value.to_string(),
        Cel::Double(value) => value.to_string(),
        Cel::Str(value) => value.to_string(),
        Cel::Bytes(value) => String::from_utf8_lossy(value).into_owned(),
        Cel::Duration(nanos) => duration(*nanos),
        Cel::Timestamp(nanos) => timestamp(**nanos),
        Cel::Ip(address) => address.to_string(),
        value if value.is_list() => "CelList value".to_owned(),
        value if value.is_map() => "CelMap value".to_owned(),
        value => format!("{} value", value.type_name()),
    })
}

/// A value as JSON; none is nothing, also inside of others.
pub(super) fn json(value: &Cel<'_>) -> Option<Value> {
    nested(value, 0)
}

fn nested(value: &Cel<'_>, depth: usize) -> Option<Value> {
    if depth > MAX_DEPTH {
        return None;
    }
    Some(match value {
        Cel::Null | Cel::Optional(None) => return None,
        Cel::Optional(Some(value)) => return nested(value, depth),
        Cel::Bool(value) => Value::Bool(*value),
        Cel::Int(value) => Value::from(*value),
        Cel::Uint(value) => Value::from(*value),
        Cel::Double(value) => Value::Number(Number::from_f64(*value)?),
        Cel::List(items) => items
            .iter()
            .map(|item| nested(item, depth + 1).unwrap_or_default())
            .collect(),
        Cel::Map(entries) => {
            let entries = entries.iter().filter_map(|(key, value)| {
                Some((text(key)?, nested(value, depth + 1).unwrap_or_default()))
            });
            Value::Object(entries.collect())
        }
        Cel::Data(data) if data.is_list() => {
            let items = (0..data.len()).map(|place| {
                let item = data.item(place);
                item.and_then(|item| nested(&item, depth + 1))
                    .unwrap_or_default()
            });
            items.collect()
        }
        Cel::Data(data) => {
            let mut entries = Map::new();
            for place in 0..data.len() {
                if let (Some(key), Some(value)) = (data.key(place), data.item(place))
                    && let Some(key) = text(&key)
                {
                    entries.insert(key, nested(&value, depth + 1).unwrap_or_default());
                }
            }
            Value::Object(entries)
        }
        value => Value::String(text(value)?),
    })
}

/// `1h2m3.5s`, and `1.5ms` of what is shorter than a second.
fn duration(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let nanos = nanos.unsigned_abs();
    if nanos == 0 {
        return "0".to_owned();
    }
    for (unit, size) in [("ns", 1_000), ("us", 1_000_000), ("ms", SECOND)] {
        if nanos < size {
            return format!("{sign}{}{unit}", fraction(nanos, size / 1_000));
        }
    }
    let (hours, minutes, seconds) = (
        nanos / (3_600 * SECOND),
        nanos / (60 * SECOND) % 60,
        nanos % (60 * SECOND),
    );
    let mut text = sign.to_owned();
    for (count, unit) in [(hours, "h"), (minutes, "m")] {
        if count > 0 {
            text.push_str(&count.to_string());
            text.push_str(unit);
        }
    }
    if seconds > 0 {
        text.push_str(&fraction(seconds, SECOND));
        text.push('s');
    }
    text
}

/// A number of `unit`s, with as many digits as it takes.
fn fraction(nanos: u64, unit: u64) -> String {
    let (whole, rest) = (nanos / unit, nanos % unit);
    if rest == 0 {
        return whole.to_string();
    }
    let width = unit.ilog10() as usize;
    let digits = format!("{rest:0width$}");
    format!("{whole}.{}", digits.trim_end_matches('0'))
}

/// RFC 3339, with as many digits as it takes.
fn timestamp(nanos: i128) -> String {
    let text = Timestamp::from_nanosecond(nanos).map(|at| at.to_string());
    let text = text.unwrap_or_default();
    text.strip_suffix('Z')
        .map_or_else(|| text.clone(), |text| format!("{text}+00:00"))
}

/// Lists in lists; what is deeper is nothing.
const MAX_DEPTH: usize = 32;
const SECOND: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        for (nanos, expected) in [
            (0, "0"),
            (5, "5ns"),
            (1_500, "1.5us"),
            (20_000_000, "20ms"),
            (1_050_000_000, "1.05s"),
            (3_723_500_000_000, "1h2m3.5s"),
            (7_200_000_000_000, "2h"),
            (-90_000_000_000, "-1m30s"),
        ] {
            assert_eq!(duration(nanos), expected);
        }
    }

    #[test]
    fn moments_are_in_utc() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00+00:00");
        assert_eq!(timestamp(1_500_000_000), "1970-01-01T00:00:01.5+00:00");
    }

    #[test]
    fn values_have_a_text_and_a_form_in_json() {
        use serde_json::json;
        let data = json!({"a": [1, "b", null], "c": {"d": true}});
        let list = Cel::list(vec![Cel::Int(1), Cel::Null, Cel::borrowed("x")]);
        for (value, expected, in_json) in [
            (Cel::Int(-2), Some("-2"), json!(-2)),
            (Cel::Double(1.5), Some("1.5"), json!(1.5)),
            (Cel::Bool(true), Some("true"), json!(true)),
            (Cel::borrowed("t"), Some("t"), json!("t")),
            (Cel::Null, None, Value::Null),
            (
                Cel::of_json(&data),
                Some("CelMap value"),
                json!({"a": [1.0, "b", null], "c": {"d": true}}),
            ),
            (list, Some("CelList value"), json!([1, null, "x"])),
            (Cel::Duration(1_000_000), Some("1ms"), json!("1ms")),
        ] {
            assert_eq!(text(&value).as_deref(), expected);
            assert_eq!(json(&value).unwrap_or_default(), in_json);
        }
    }
}
