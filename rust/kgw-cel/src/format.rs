//! The formats of texts that an API server knows: `format: ipv4` and the like.
//!
//! Formats that are not here (and those of numbers) mean nothing, there as well.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A format that decides whether a text is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Base64.
    Byte,
    /// A network: an address with the length of a prefix.
    Cidr,
    /// A day: `2006-01-02`.
    Date,
    /// A time of RFC 3339.
    DateTime,
    /// A duration as Go writes one: `1h30m`.
    Duration,
    /// An address of e-mail.
    Email,
    /// The name of a host of RFC 1034.
    Hostname,
    /// An IPv4 address.
    Ipv4,
    /// An IPv6 address.
    Ipv6,
    /// A hardware address.
    Mac,
    /// An absolute URI, or a path.
    Uri,
    /// A UUID.
    Uuid,
    /// A DNS label.
    ShortName,
    /// A DNS subdomain.
    LongName,
}

impl Format {
    /// Returns the format of a name as schemas have it.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "byte" => Self::Byte,
            "cidr" => Self::Cidr,
            "date" => Self::Date,
            "date-time" | "datetime" => Self::DateTime,
            "duration" => Self::Duration,
            "email" => Self::Email,
            "hostname" => Self::Hostname,
            "ipv4" => Self::Ipv4,
            "ipv6" => Self::Ipv6,
            "k8s-long-name" => Self::LongName,
            "k8s-short-name" => Self::ShortName,
            "mac" => Self::Mac,
            "uri" => Self::Uri,
            "uuid" => Self::Uuid,
            _ => return None,
        })
    }

    /// Whether a text has the format.
    pub fn admits(self, text: &str) -> bool {
        match self {
            Self::Byte => base64(text),
            Self::Cidr => cidr(text),
            Self::Date => date(text).is_some(),
            Self::DateTime => timestamp(text).is_some(),
            Self::Duration => duration(text).is_some(),
            Self::Email => email(text),
            Self::Hostname => hostname(text),
            Self::Ipv4 => Ipv4Addr::from_str(text).is_ok(),
            Self::Ipv6 => Ipv6Addr::from_str(text).is_ok(),
            Self::Mac => mac(text),
            Self::Uri => uri(text),
            Self::Uuid => uuid(text),
            Self::ShortName => is_label(text),
            Self::LongName => is_subdomain(text),
        }
    }
}

/// Whether a text is a DNS label of RFC 1123 in lower case.
pub fn is_label(text: &str) -> bool {
    text.len() <= 63
        && label_like(text, |byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit()
        })
}

/// Whether a text is a DNS label of RFC 1035 in lower case, which begins with a letter.
pub(crate) fn is_old_label(text: &str) -> bool {
    is_label(text) && text.starts_with(|first: char| first.is_ascii_lowercase())
}

/// Whether a text is a DNS subdomain of RFC 1123 in lower case. Its labels have no limit of their own.
pub fn is_subdomain(text: &str) -> bool {
    text.len() <= 253
        && text.split('.').all(|label| {
            label_like(label, |byte| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit()
            })
        })
}

/// Whether a text is what the name of a label, after the prefix, may be.
pub fn is_name_segment(text: &str) -> bool {
    let ends = |byte: u8| byte.is_ascii_alphanumeric();
    text.len() <= 63
        && text.bytes().next().is_some_and(ends)
        && text.bytes().last().is_some_and(ends)
        && text
            .bytes()
            .all(|byte| ends(byte) || matches!(byte, b'-' | b'_' | b'.'))
}

/// Whether a text is the key of a label or annotation: a name, which may have a DNS prefix.
pub fn is_qualified_name(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => is_subdomain(prefix) && is_name_segment(name),
        None => is_name_segment(text),
    }
}

fn label_like(text: &str, within: impl Fn(u8) -> bool) -> bool {
    !text.is_empty()
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text.bytes().all(|byte| within(byte) || byte == b'-')
}

fn hostname(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    text.len() <= 253
        && text.split('.').all(|label| {
            label.len() <= 63 && label_like(label, |byte| byte.is_ascii_alphanumeric())
        })
}

fn cidr(text: &str) -> bool {
    parse_cidr(text).is_some()
}

/// Reads an address with the length of a prefix.
pub(crate) fn parse_cidr(text: &str) -> Option<(std::net::IpAddr, u8)> {
    let (address, length) = text.split_once('/')?;
    let address: std::net::IpAddr = address.parse().ok()?;
    if length.is_empty()
        || length.len() > 3
        || (length.len() > 1 && length.starts_with('0'))
        || !length.bytes().all(|byte| byte.is_ascii_digit())
    {
        return None;
    }
    let length: u8 = length.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    (length <= most).then_some((address, length))
}

fn mac(text: &str) -> bool {
    let octets = |separator: char, digits: usize| {
        let parts: Vec<_> = text.split(separator).collect();
        matches!(parts.len() * digits / 2, 6 | 8 | 20)
            && parts.iter().all(|part| {
                part.len() == digits && part.bytes().all(|byte| byte.is_ascii_hexdigit())
            })
    };
    octets(':', 2) || octets('-', 2) || octets('.', 4)
}

fn uuid(text: &str) -> bool {
    let lengths = [8, 4, 4, 4, 12];
    let hexadecimal = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let parts: Vec<_> = text.split('-').collect();
    (text.len() == 32 && hexadecimal(text))
        || (parts.len() == lengths.len()
            && parts
                .iter()
                .zip(lengths)
                .all(|(part, length)| part.len() == length && hexadecimal(part)))
}

fn email(text: &str) -> bool {
    text.rsplit_once('@').is_some_and(|(user, host)| {
        !user.is_empty()
            && !user.contains(|one: char| one.is_whitespace() || one == '<' || one == '>')
            && !host.is_empty()
            && !host.contains(|one: char| one.is_whitespace())
    })
}

/// An absolute URI as Go's `url.ParseRequestURI` reads one: with a scheme, or a path from the root.
fn uri(text: &str) -> bool {
    crate::url::Url::parse(text).is_some()
}

fn base64(text: &str) -> bool {
    decode_base64(text).is_some()
}

/// Decodes standard base64 with padding; line breaks in it mean nothing, as in Go.
pub(crate) fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held, mut padding, mut count) = (0_u32, 0_u32, 0_usize, 0_usize);
    for byte in text.bytes() {
        let digit = match byte {
            b'\r' | b'\n' => continue,
            b'=' => {
                padding += 1;
                count += 1;
                continue;
            }
            _ if padding > 0 => return None,
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        count += 1;
        bits = (bits << 6) | u32::from(digit);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from((bits >> held) & 0xff).ok()?);
            bits &= (1 << held) - 1;
        }
    }
    (count.is_multiple_of(4)
        && padding <= 2
        && (padding == 0 || held / 2 == u32::try_from(padding).ok()?))
    .then_some(bytes)
}

/// The days from 1970-01-01 to a date of the proleptic Gregorian calendar.
fn days(year: i64, month: u8, day: u8) -> i64 {
    // The year begins in March, so that the day that not every year has is its last one.
    let (year, month) = if month > 2 {
        (year, i64::from(month) - 3)
    } else {
        (year - 1, i64::from(month) + 9)
    };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * month + 2) / 5 + i64::from(day) - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The date of a day after 1970-01-01: year, month and day.
pub(crate) fn civil(day: i64) -> (i64, i64, i64) {
    let day = day + 719_468;
    let era = day.div_euclid(146_097);
    let of_era = day.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let date = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + i64::from(month <= 2);
    (year, month, date)
}

fn digits(text: &str, from: usize, count: usize) -> Option<u32> {
    let part = text.get(from..from + count)?;
    part.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| part.parse().ok())?
}

/// Reads `2006-01-02` as days since 1970.
pub(crate) fn date(text: &str) -> Option<i64> {
    let (year, month, day) = (
        digits(text, 0, 4)?,
        digits(text, 5, 2)?,
        digits(text, 8, 2)?,
    );
    if text.len() != 10 || text.as_bytes()[4] != b'-' || text.as_bytes()[7] != b'-' {
        return None;
    }
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let most = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    (1..=most).contains(&day).then(|| {
        days(
            i64::from(year),
            u8::try_from(month).unwrap_or(1),
            u8::try_from(day).unwrap_or(1),
        )
    })
}

/// Nanoseconds of a second.
pub(crate) const SECOND: i128 = 1_000_000_000;

/// Reads a time of RFC 3339 as nanoseconds since 1970.
pub(crate) fn timestamp(text: &str) -> Option<i128> {
    let day = date(text.get(..10)?)?;
    let bytes = text.as_bytes();
    let marks = [(10, b"Tt"), (13, b"::"), (16, b"::")];
    if marks
        .iter()
        .any(|(at, marks)| !bytes.get(*at).is_some_and(|byte| marks.contains(byte)))
    {
        return None;
    }
    let (hour, minute, second) = (
        digits(text, 11, 2)?,
        digits(text, 14, 2)?,
        digits(text, 17, 2)?,
    );
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let rest = text.get(19..)?;
    let zone = rest.trim_start_matches(|one: char| one.is_ascii_digit() || one == '.');
    let fraction = &rest[..rest.len() - zone.len()];
    let nanoseconds = match fraction.strip_prefix('.') {
        None if fraction.is_empty() => 0,
        Some(part) if !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()) => {
            let part: String = part.chars().chain("000000000".chars()).take(9).collect();
            part.parse::<i128>().ok()?
        }
        _ => return None,
    };
    let offset = if matches!(zone, "Z" | "z") {
        0
    } else {
        zone_offset(zone)?
    };
    let seconds =
        day * 86_400 + i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second) - offset;
    Some(i128::from(seconds) * SECOND + nanoseconds)
}

/// Reads `+01:00` as seconds.
pub(crate) fn zone_offset(text: &str) -> Option<i64> {
    let sign = match text.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = (digits(text, 1, 2)?, digits(text, 4, 2)?);
    (text.len() == 6 && text.as_bytes()[3] == b':' && hours < 24 && minutes < 60)
        .then(|| sign * (i64::from(hours) * 3600 + i64::from(minutes) * 60))
}

/// Reads a duration as Go's `time.ParseDuration` does, as nanoseconds: `1h30m`, `-1.5s`, `0`.
pub(crate) fn duration(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let number = rest.find(|one: char| !one.is_ascii_digit() && one != '.')?;
        let (whole, fraction) = match rest[..number].split_once('.') {
            Some((whole, fraction)) => (whole, fraction),
            None => (&rest[..number], ""),
        };
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return None;
        }
        rest = &rest[number..];
        let end = rest
            .find(|one: char| one.is_ascii_digit() || one == '.')
            .unwrap_or(rest.len());
        let unit: i128 = match &rest[..end] {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => SECOND,
            "m" => 60 * SECOND,
            "h" => 3600 * SECOND,
            _ => return None,
        };
        rest = &rest[end..];
        if whole.len() > 19 {
            return None;
        }
        let whole: i128 = if whole.is_empty() {
            0
        } else {
            whole.parse().ok()?
        };
        // Digits beyond the eighteenth are worth less than a nanosecond.
        let shown = &fraction[..fraction.len().min(18)];
        let scale = 10_i128.pow(u32::try_from(shown.len()).ok()?);
        let parts: i128 = if shown.is_empty() {
            0
        } else {
            shown.parse().ok()?
        };
        total += whole * unit + parts * unit / scale;
        if total > i128::from(i64::MAX) {
            return None;
        }
    }
    i64::try_from(sign * total).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_admit_what_an_api_server_admits() {
        let table: &[(&str, &[&str], &[&str])] = &[
            (
                "ipv4",
                &["1.2.3.4"],
                &["1.2.3.4:80", "1.2.3", "01.2.3.4", "::1", ""],
            ),
            (
                "ipv6",
                &["::1", "2001:db8::1"],
                &["1.2.3.4", "::1%eth0", "g::"],
            ),
            (
                "cidr",
                &["10.0.0.0/8", "::/0"],
                &["10.0.0.0", "10.0.0.0/33", "10.0.0.0/08"],
            ),
            (
                "mac",
                &["01:23:45:67:89:ab", "0123.4567.89ab"],
                &["01:23:45", "01-23:45-67:89-ab"],
            ),
            ("uuid", &["01234567-89ab-cdef-0123-456789abcdef"], &["0123"]),
            (
                "date",
                &["2024-02-29"],
                &["2023-02-29", "2024-13-01", "2024-1-1"],
            ),
            (
                "date-time",
                &["2024-01-02T03:04:05Z", "2024-01-02T03:04:05.678+01:00"],
                &[
                    "2024-01-02",
                    "2024-01-02T24:00:00Z",
                    "2024-01-02T03:04:05",
                    "2024-01-02T03:04:05.Z",
                ],
            ),
            (
                "duration",
                &["1h30m", "0", "1.5s", ".5s", "-3ms"],
                &["", "1", "1d", "s", "1..5s"],
            ),
            ("byte", &["", "aGk=", "aGl5"], &["a", "aGk", "aG=k", "aGk*"]),
            ("hostname", &["a.b", "A-1.b."], &["-a", "a_b", ""]),
            ("email", &["a@b.c"], &["a", "@b"]),
            (
                "uri",
                &["https://a/b", "urn:a", "/a"],
                &["", "a b://c", "a"],
            ),
            ("k8s-short-name", &["a-1"], &["A", "a.b"]),
            ("k8s-long-name", &["a-1.b"], &["A", "a..b"]),
        ];
        for (name, good, bad) in table {
            let format = Format::named(name).expect("a format");
            for text in *good {
                assert!(format.admits(text), "{name} {text:?}");
            }
            for text in *bad {
                assert!(!format.admits(text), "{name} {text:?}");
            }
        }
        assert_eq!(Format::named("int32"), None);
    }

    #[test]
    fn durations_are_those_of_go() {
        assert_eq!(duration("1h1m1s1ms1us1ns"), Some(3_661_001_001_001));
        assert_eq!(duration("1.25s"), Some(1_250_000_000));
        assert_eq!(duration("1.5h"), Some(5_400_000_000_000));
        assert_eq!(duration("-0.5ms"), Some(-500_000));
        assert_eq!(duration("9999999999h"), None);
    }

    #[test]
    fn times_and_dates_are_inverse() {
        for text in [
            "1969-12-31",
            "1970-01-01",
            "2000-02-29",
            "2024-12-31",
            "0001-01-01",
        ] {
            let (year, month, day) = civil(date(text).expect("a date"));
            assert_eq!(format!("{year:04}-{month:02}-{day:02}"), text);
        }
        assert_eq!(timestamp("1970-01-01T01:00:00.5+01:00"), Some(SECOND / 2));
    }
}
