//! Quantities of Kubernetes: `500m`, `1Gi`, `1e3`.

/// The smallest part of a quantity that counts: a billionth. What is less is rounded up.
const PARTS: i128 = 1_000_000_000;

/// A quantity in billionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity(i128);

impl Quantity {
    /// Reads a quantity: a decimal number and a suffix.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (negative, rest) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let end = rest
            .find(|one: char| !one.is_ascii_digit() && one != '.')
            .unwrap_or(rest.len());
        let (whole, fraction) = rest[..end].split_once('.').unwrap_or((&rest[..end], ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return None;
        }
        let (base, power): (i128, i32) = match &rest[end..] {
            "" => (10, 0),
            "n" => (10, -9),
            "u" => (10, -6),
            "m" => (10, -3),
            "k" => (10, 3),
            "M" => (10, 6),
            "G" => (10, 9),
            "T" => (10, 12),
            "P" => (10, 15),
            "E" => (10, 18),
            "Ki" => (2, 10),
            "Mi" => (2, 20),
            "Gi" => (2, 30),
            "Ti" => (2, 40),
            "Pi" => (2, 50),
            "Ei" => (2, 60),
            exponent => {
                let digits = exponent.strip_prefix(['e', 'E'])?;
                let power: i32 = digits.parse().ok()?;
                (10, (-30..=30).contains(&power).then_some(power)?)
            }
        };
        let digits = format!("{whole}{fraction}");
        let mut value: i128 = digits
            .trim_start_matches('0')
            .parse()
            .or_else(|error| {
                if digits.bytes().all(|byte| byte == b'0') {
                    Ok(0)
                } else {
                    Err(error)
                }
            })
            .ok()?;
        let mut divisor = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
        let factor = base.checked_pow(power.unsigned_abs())?;
        if power < 0 {
            divisor = divisor.checked_mul(factor)?;
        } else {
            value = value.checked_mul(factor)?;
        }
        let parts = value.checked_mul(PARTS)?;
        let rounded = parts.checked_add(divisor - 1)? / divisor;
        Some(Self(if negative { -rounded } else { rounded }))
    }

    /// The quantity of an integer.
    pub(crate) fn of(value: i64) -> Self {
        Self(i128::from(value) * PARTS)
    }

    /// The quantity as an integer, if it is one that fits.
    pub(crate) fn integer(self) -> Option<i64> {
        (self.0 % PARTS == 0)
            .then(|| i64::try_from(self.0 / PARTS).ok())
            .flatten()
    }

    /// The quantity as a floating point number.
    #[allow(clippy::cast_precision_loss)] // it is called approximate
    pub(crate) fn float(self) -> f64 {
        self.0 as f64 / PARTS as f64
    }

    /// -1, 0 or 1.
    pub(crate) fn sign(self) -> i64 {
        i64::try_from(self.0.signum()).unwrap_or(0)
    }

    /// The sum, if it fits.
    pub(crate) fn plus(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// The difference, if it fits.
    pub(crate) fn minus(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_are_those_of_kubernetes() {
        let same = [
            ("1", "1000m"),
            ("1Ki", "1024"),
            ("1.5Gi", "1610612736"),
            ("1e3", "1k"),
            ("-2E", "-2e18"),
            ("0.5", "500m"),
            ("1n", "0.000000001"),
        ];
        for (one, two) in same {
            assert_eq!(
                Quantity::parse(one).expect(one),
                Quantity::parse(two).expect(two)
            );
        }
        for text in ["", "a", "1.2.3", "1KiB", ".", "1e", "1e99", "--1"] {
            assert_eq!(Quantity::parse(text), None, "{text:?}");
        }
        assert_eq!(
            Quantity::parse("3k").and_then(Quantity::integer),
            Some(3000)
        );
        assert_eq!(Quantity::parse("1500m").and_then(Quantity::integer), None);
    }
}
