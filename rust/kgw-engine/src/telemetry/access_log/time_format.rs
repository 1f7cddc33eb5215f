//! Dates and times in access logs: `START_TIME(format)` and its kin.
//!
//! The directives are strftime's, Abseil's extensions (`%E3S`, `%E*f`, `%Ez`) and Envoy's own:
//! `%s` is seconds since 1970 and `%f`, `%1f`..`%9f` a fraction of nine or so many digits. A format
//! is compiled once; printing a time does no allocation and, for UTC, no lookup.

use std::sync::OnceLock;

use jiff::{Timestamp, tz::TimeZone};

/// A compiled time format.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct TimeFormat {
    items: Box<[Item]>,
    local: bool,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Item {
    Literal(Box<[u8]>),
    /// `2025-04-10T18:36:34`, the greater part of the default format.
    DateTime,
    Year,
    Century,
    YearOfCentury,
    Month,
    MonthName {
        full: bool,
    },
    Day {
        pad: u8,
    },
    DayOfYear,
    Weekday {
        full: bool,
    },
    /// 0 is Sunday.
    WeekdayNumber,
    /// 1 is Monday, 7 is Sunday.
    IsoWeekdayNumber,
    IsoYear,
    IsoYearOfCentury,
    IsoWeek,
    WeekFromSunday,
    WeekFromMonday,
    Hour {
        pad: u8,
    },
    Hour12 {
        pad: u8,
    },
    Minute,
    Second,
    AmPm {
        lower: bool,
    },
    /// Digits of the fraction of the second, 0 to 9.
    Fraction(u8),
    /// The fraction without trailing zeros; with a dot in front if there is any.
    ShortFraction {
        dot: bool,
    },
    UnixSeconds,
    Offset {
        colon: bool,
    },
    Zone,
}

/// A time split into calendar fields.
struct Civil {
    year: i64,
    month: u8,
    day: u8,
    /// 0-based.
    day_of_year: u16,
    /// 0 is Sunday.
    weekday: u8,
    hour: u8,
    minute: u8,
    second: u8,
}

/// What is wrong with a time format: the directive that does not exist.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct BadDirective;

impl TimeFormat {
    /// Compiles `format`; the empty format is the default one.
    ///
    /// The default prints milliseconds and `Z`, or the offset for a local time.
    pub(super) fn compile(format: &str, local: bool) -> Result<Self, BadDirective> {
        let format = match (format, local) {
            ("", false) => "%Y-%m-%dT%H:%M:%E3SZ",
            ("", true) => "%Y-%m-%dT%H:%M:%E3S%z",
            _ => format,
        };
        let mut items = Items::default();
        let mut rest = format;
        while let Some(percent) = rest.find('%') {
            items.literal(&rest[..percent]);
            rest = items.directive(&rest[percent + 1..])?;
        }
        items.literal(rest);
        Ok(Self {
            items: items.finish().into_boxed_slice(),
            local,
        })
    }

    /// Writes the time `unix_ns` (nanoseconds since 1970 UTC).
    pub(super) fn write(&self, out: &mut Vec<u8>, unix_ns: i64) {
        let seconds = unix_ns.div_euclid(NANOS);
        let nanos = unix_ns.rem_euclid(NANOS).unsigned_abs() as u32;
        let offset = if self.local { local_offset(seconds) } else { 0 };
        let civil = Civil::from_unix(seconds + i64::from(offset));
        for item in &self.items {
            self.write_item(out, item, &civil, seconds, nanos, offset);
        }
    }

    fn write_item(
        &self,
        out: &mut Vec<u8>,
        item: &Item,
        civil: &Civil,
        seconds: i64,
        nanos: u32,
        offset: i32,
    ) {
        match *item {
            Item::Literal(ref text) => out.extend_from_slice(text),
            Item::DateTime => {
                year(out, civil.year);
                let mut text = *b"-00-00T00:00:00";
                text[1..3].copy_from_slice(&two(civil.month));
                text[4..6].copy_from_slice(&two(civil.day));
                text[7..9].copy_from_slice(&two(civil.hour));
                text[10..12].copy_from_slice(&two(civil.minute));
                text[13..15].copy_from_slice(&two(civil.second));
                out.extend_from_slice(&text);
            }
            Item::Year => year(out, civil.year),
            Item::Century => padded(out, civil.year.div_euclid(100), 2, b'0'),
            Item::YearOfCentury => padded(out, civil.year.rem_euclid(100), 2, b'0'),
            Item::Month => out.extend_from_slice(&two(civil.month)),
            Item::MonthName { full } => name(out, MONTHS[usize::from(civil.month) - 1], full),
            Item::Day { pad } => padded(out, civil.day.into(), 2, pad),
            Item::DayOfYear => padded(out, i64::from(civil.day_of_year) + 1, 3, b'0'),
            Item::Weekday { full } => name(out, WEEKDAYS[usize::from(civil.weekday)], full),
            Item::WeekdayNumber => padded(out, civil.weekday.into(), 1, b'0'),
            Item::IsoWeekdayNumber => padded(out, civil.days_from_monday() + 1, 1, b'0'),
            Item::IsoYear => year(out, civil.iso_year_and_week().0),
            Item::IsoYearOfCentury => {
                padded(out, civil.iso_year_and_week().0.rem_euclid(100), 2, b'0');
            }
            Item::IsoWeek => padded(out, civil.iso_year_and_week().1, 2, b'0'),
            Item::WeekFromSunday => {
                let first = i64::from(civil.day_of_year) + 7 - i64::from(civil.weekday);
                padded(out, first / 7, 2, b'0');
            }
            Item::WeekFromMonday => {
                let first = i64::from(civil.day_of_year) + 7 - civil.days_from_monday();
                padded(out, first / 7, 2, b'0');
            }
            Item::Hour { pad } => padded(out, civil.hour.into(), 2, pad),
            Item::Hour12 { pad } => padded(out, ((civil.hour + 11) % 12 + 1).into(), 2, pad),
            Item::Minute => out.extend_from_slice(&two(civil.minute)),
            Item::Second => out.extend_from_slice(&two(civil.second)),
            Item::AmPm { lower } => out.extend_from_slice(match (civil.hour < 12, lower) {
                (true, false) => b"AM",
                (false, false) => b"PM",
                (true, true) => b"am",
                (false, true) => b"pm",
            }),
            Item::Fraction(digits) => {
                out.extend_from_slice(&fraction(nanos)[..usize::from(digits)]);
            }
            Item::ShortFraction { dot } => {
                let digits = fraction(nanos);
                let length = digits
                    .iter()
                    .rposition(|&digit| digit != b'0')
                    .map_or(0, |at| at + 1);
                if dot && length > 0 {
                    out.push(b'.');
                }
                out.extend_from_slice(if length == 0 && !dot {
                    b"0"
                } else {
                    &digits[..length]
                });
            }
            Item::UnixSeconds => padded(out, seconds, 1, b'0'),
            Item::Offset { colon } => {
                out.push(if offset < 0 { b'-' } else { b'+' });
                let minutes = offset.unsigned_abs() / 60;
                out.extend_from_slice(&two((minutes / 60) as u8));
                if colon {
                    out.push(b':');
                }
                out.extend_from_slice(&two((minutes % 60) as u8));
            }
            Item::Zone if self.local => match Timestamp::from_second(seconds) {
                Ok(time) => {
                    let zone = local_zone().to_offset_info(time);
                    out.extend_from_slice(zone.abbreviation().as_bytes());
                }
                Err(_) => out.extend_from_slice(b"UTC"),
            },
            Item::Zone => out.extend_from_slice(b"UTC"),
        }
    }
}

/// Collects items, joining literals and recognising the common date and time.
#[derive(Default)]
struct Items {
    items: Vec<Item>,
}

impl Items {
    fn literal(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        if let Some(Item::Literal(last)) = self.items.last_mut() {
            *last = [last, text.as_bytes()].concat().into_boxed_slice();
        } else {
            self.items.push(Item::Literal(text.as_bytes().into()));
        }
    }

    fn push(&mut self, item: Item) {
        self.items.push(item);
    }

    /// Reads one directive behind its `%`; returns what follows.
    fn directive<'a>(&mut self, text: &'a str) -> Result<&'a str, BadDirective> {
        let mut chars = text.chars();
        let letter = chars.next().ok_or(BadDirective)?;
        let rest = chars.as_str();
        if let Some(digits) = letter.to_digit(10) {
            let rest = rest.strip_prefix('f').ok_or(BadDirective)?;
            if digits == 0 {
                return Err(BadDirective);
            }
            self.push(Item::Fraction(digits as u8));
            return Ok(rest);
        }
        match letter {
            'Y' => self.push(Item::Year),
            'C' => self.push(Item::Century),
            'y' => self.push(Item::YearOfCentury),
            'm' => self.push(Item::Month),
            'd' => self.push(Item::Day { pad: b'0' }),
            'e' => self.push(Item::Day { pad: b' ' }),
            'j' => self.push(Item::DayOfYear),
            'B' => self.push(Item::MonthName { full: true }),
            'b' | 'h' => self.push(Item::MonthName { full: false }),
            'A' => self.push(Item::Weekday { full: true }),
            'a' => self.push(Item::Weekday { full: false }),
            'w' => self.push(Item::WeekdayNumber),
            'u' => self.push(Item::IsoWeekdayNumber),
            'G' => self.push(Item::IsoYear),
            'g' => self.push(Item::IsoYearOfCentury),
            'V' => self.push(Item::IsoWeek),
            'U' => self.push(Item::WeekFromSunday),
            'W' => self.push(Item::WeekFromMonday),
            'H' => self.push(Item::Hour { pad: b'0' }),
            'k' => self.push(Item::Hour { pad: b' ' }),
            'I' => self.push(Item::Hour12 { pad: b'0' }),
            'l' => self.push(Item::Hour12 { pad: b' ' }),
            'M' => self.push(Item::Minute),
            'S' => self.push(Item::Second),
            'p' => self.push(Item::AmPm { lower: false }),
            'P' => self.push(Item::AmPm { lower: true }),
            'f' => self.push(Item::Fraction(9)),
            's' => self.push(Item::UnixSeconds),
            'z' => self.push(Item::Offset { colon: false }),
            'Z' => self.push(Item::Zone),
            'n' => self.literal("\n"),
            't' => self.literal("\t"),
            '%' => self.literal("%"),
            'F' => self.all("%Y-%m-%d")?,
            'T' | 'X' => self.all("%H:%M:%S")?,
            'R' => self.all("%H:%M")?,
            'r' => self.all("%I:%M:%S %p")?,
            'D' | 'x' => self.all("%m/%d/%y")?,
            'c' => self.all("%a %b %e %H:%M:%S %Y")?,
            'E' => return self.extended(rest),
            _ => return Err(BadDirective),
        }
        Ok(rest)
    }

    /// Reads one of Abseil's directives behind `%E`.
    fn extended<'a>(&mut self, text: &'a str) -> Result<&'a str, BadDirective> {
        let mut chars = text.chars();
        let first = chars.next().ok_or(BadDirective)?;
        let rest = chars.as_str();
        match first {
            'z' => self.push(Item::Offset { colon: true }),
            'T' => self.literal("T"),
            '*' => match rest.chars().next() {
                Some('S') => {
                    self.push(Item::Second);
                    self.push(Item::ShortFraction { dot: true });
                    return Ok(&rest[1..]);
                }
                Some('f') => {
                    self.push(Item::ShortFraction { dot: false });
                    return Ok(&rest[1..]);
                }
                Some('z') => {
                    self.push(Item::Offset { colon: true });
                    return Ok(&rest[1..]);
                }
                _ => return Err(BadDirective),
            },
            '0'..='9' => {
                let end = text
                    .find(|c: char| !c.is_ascii_digit())
                    .ok_or(BadDirective)?;
                let digits: u8 = text[..end].parse().map_err(|_| BadDirective)?;
                let mut after = text[end..].chars();
                match after.next() {
                    Some('S') if digits <= 9 => {
                        self.push(Item::Second);
                        if digits > 0 {
                            self.literal(".");
                            self.push(Item::Fraction(digits));
                        }
                    }
                    Some('f') if digits <= 9 => self.push(Item::Fraction(digits)),
                    Some('Y') if digits == 4 => self.push(Item::Year),
                    _ => return Err(BadDirective),
                }
                return Ok(after.as_str());
            }
            _ => return Err(BadDirective),
        }
        Ok(rest)
    }

    fn all(&mut self, format: &str) -> Result<(), BadDirective> {
        let mut rest = format;
        while let Some(percent) = rest.find('%') {
            self.literal(&rest[..percent]);
            rest = self.directive(&rest[percent + 1..])?;
        }
        self.literal(rest);
        Ok(())
    }

    fn finish(mut self) -> Vec<Item> {
        let literal = |text: &[u8]| Item::Literal(text.into());
        let date_time = [
            Item::Year,
            literal(b"-"),
            Item::Month,
            literal(b"-"),
            Item::Day { pad: b'0' },
            literal(b"T"),
            Item::Hour { pad: b'0' },
            literal(b":"),
            Item::Minute,
            literal(b":"),
            Item::Second,
        ];
        if let Some(at) = self
            .items
            .windows(date_time.len())
            .position(|items| items == date_time)
        {
            self.items
                .splice(at..at + date_time.len(), [Item::DateTime]);
        }
        self.items
    }
}

impl Civil {
    /// Splits seconds since 1970 (Hinnant's `civil_from_days`).
    #[expect(
        clippy::cast_sign_loss,
        reason = "remainders of Euclidean divisions are not negative"
    )]
    fn from_unix(seconds: i64) -> Self {
        let days = seconds.div_euclid(86_400);
        let time = seconds.rem_euclid(86_400);
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let from_march = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * from_march + 2) / 153;
        let day = from_march - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 {
            shifted_month + 3
        } else {
            shifted_month - 9
        };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        let day_of_year =
            DAYS_BEFORE[month as usize - 1] + day - 1 + i64::from(month > 2 && is_leap(year));
        Self {
            year,
            month: month as u8,
            day: day as u8,
            day_of_year: day_of_year as u16,
            weekday: (days + 4).rem_euclid(7) as u8,
            hour: (time / 3_600) as u8,
            minute: (time / 60 % 60) as u8,
            second: (time % 60) as u8,
        }
    }

    fn days_from_monday(&self) -> i64 {
        (i64::from(self.weekday) + 6) % 7
    }

    /// Year and week of ISO 8601: week 1 is the one with the year's first Thursday.
    fn iso_year_and_week(&self) -> (i64, i64) {
        let thursday = i64::from(self.day_of_year) - self.days_from_monday() + 3;
        let length = 365 + i64::from(is_leap(self.year));
        if thursday < 0 {
            let before = 365 + i64::from(is_leap(self.year - 1));
            (self.year - 1, (thursday + before) / 7 + 1)
        } else if thursday >= length {
            (self.year + 1, 1)
        } else {
            (self.year, thursday / 7 + 1)
        }
    }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// The machine's zone: `TZ`, or else `/etc/localtime`; read once.
fn local_zone() -> &'static TimeZone {
    static ZONE: OnceLock<TimeZone> = OnceLock::new();
    ZONE.get_or_init(TimeZone::system)
}

/// The local offset from UTC at a time. Seconds, east is positive.
fn local_offset(seconds: i64) -> i32 {
    Timestamp::from_second(seconds).map_or(0, |time| local_zone().to_offset(time).seconds())
}

fn two(number: u8) -> [u8; 2] {
    [b'0' + number / 10, b'0' + number % 10]
}

fn year(out: &mut Vec<u8>, year: i64) {
    match u8::try_from(year / 100) {
        Ok(century @ 10..=99) => {
            out.extend_from_slice(&two(century));
            out.extend_from_slice(&two((year % 100).unsigned_abs() as u8));
        }
        _ => padded(out, year, 4, b'0'),
    }
}

fn padded(out: &mut Vec<u8>, number: i64, width: usize, pad: u8) {
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(number);
    out.extend(std::iter::repeat_n(pad, width.saturating_sub(digits.len())));
    out.extend_from_slice(digits.as_bytes());
}

fn name(out: &mut Vec<u8>, name: &str, full: bool) {
    out.extend_from_slice(&name.as_bytes()[..if full { name.len() } else { 3 }]);
}

fn fraction(nanos: u32) -> [u8; 9] {
    let mut digits = [b'0'; 9];
    let mut rest = nanos;
    for digit in digits.iter_mut().rev() {
        *digit += (rest % 10) as u8;
        rest /= 10;
    }
    digits
}

const NANOS: i64 = 1_000_000_000;
const DAYS_BEFORE: [i64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::fmt::strtime;
    use proptest::prelude::*;

    fn format(format: &str, unix_ns: i64) -> String {
        let mut out = Vec::new();
        TimeFormat::compile(format, false)
            .unwrap()
            .write(&mut out, unix_ns);
        String::from_utf8(out).unwrap()
    }

    /// 2026-11-23T00:51:12.156047009Z
    const TIME: i64 = 1_795_395_072_156_047_009;

    #[test]
    fn the_default_has_milliseconds_and_a_z() {
        assert_eq!(format("", TIME), "2026-11-23T00:51:12.156Z");
        assert_eq!(format("", 0), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn envoys_directives_print_seconds_and_fractions() {
        assert_eq!(format("%s", TIME), "1795395072");
        assert_eq!(format("%s.%3f", TIME), "1795395072.156");
        assert_eq!(format("%s.%6f", TIME), "1795395072.156047");
        assert_eq!(format("%f", TIME), "156047009");
        assert_eq!(format("%FT%T.%3fZ", TIME), "2026-11-23T00:51:12.156Z");
        assert_eq!(
            format("%d/%b/%Y:%H:%M:%S %z", TIME),
            "23/Nov/2026:00:51:12 +0000"
        );
        assert_eq!(
            format("%Y/%m/%dT%H:%M:%S%z %s", TIME),
            "2026/11/23T00:51:12+0000 1795395072"
        );
    }

    #[test]
    fn abseils_directives_print_fractions_as_wanted() {
        assert_eq!(
            format("%E3S|%E0S|%E*S|%E*f|%E6f|%Ez|%E4Y|%ET", TIME),
            "12.156|12|12.156047009|156047009|156047|+00:00|2026|T"
        );
        assert_eq!(format("%E*S|%E*f", TIME - 156_047_009), "12|0");
    }

    #[test]
    fn unknown_directives_are_refused() {
        for bad in [
            "%", "%Q", "%3", "%3S", "%0f", "%E", "%E3", "%E99S", "%E*", "%E*Y", "%Ö",
        ] {
            assert_eq!(TimeFormat::compile(bad, false), Err(BadDirective), "{bad}");
        }
    }

    #[test]
    fn a_local_time_prints_its_offset() {
        let mut out = Vec::new();
        TimeFormat::compile("%s %z", true)
            .unwrap()
            .write(&mut out, TIME);
        let text = String::from_utf8(out).unwrap();
        let offset = text.strip_prefix("1795395072 ").unwrap();
        assert!(
            offset.len() == 5 && offset.starts_with(['+', '-']),
            "{offset}"
        );
    }

    proptest! {
        // No file of failures: what was found becomes a test of its own.
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Every directive that jiff has too prints the same.
        #[test]
        fn calendar_fields_agree_with_jiff(seconds in -9_200_000_000_i64..9_200_000_000) {
            let all = "%Y %C %y %m %d %e %j %B %b %A %a %w %u %G %g %V %U %W %H %k %I %l %M %S %p %P %s %z";
            let time = Timestamp::from_second(seconds).unwrap().to_zoned(TimeZone::UTC);
            let mut out = Vec::new();
            let format = TimeFormat::compile(all, false).unwrap();
            format.write(&mut out, seconds * NANOS);
            prop_assert_eq!(String::from_utf8(out).unwrap(), strtime::format(all, &time).unwrap());
        }
    }
}
