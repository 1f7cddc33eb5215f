//! What a client takes (RFC 9110 12.5.3).

use kgw_h1::Headers;

use crate::config::ir::Coding;

/// The coding of `known` that a client likes best, if it likes it no less than none; of several the first
/// one.
pub(super) fn preferred(headers: &Headers, known: &[Coding]) -> Option<Coding> {
    let values = headers.get_all(b"accept-encoding");
    let accepted: Vec<(&[u8], u16)> = values
        .flat_map(|value| value.split(|&byte| byte == b','))
        .filter_map(weighed)
        .collect();
    let of = |name: &[u8]| {
        let mut accepted = accepted.iter();
        let found = accepted.find(|(token, _)| token.eq_ignore_ascii_case(name));
        found.map(|&(_, weight)| weight)
    };
    let any = of(b"*");
    let plain = of(b"identity").unwrap_or(0);
    let mut best: Option<(Coding, u16)> = None;
    for &coding in known {
        let weight = of(coding.name().as_bytes()).or(any).unwrap_or(0);
        if weight > 0 && weight >= plain && best.is_none_or(|(_, most)| weight > most) {
            best = Some((coding, weight));
        }
    }
    best.map(|(coding, _)| coding)
}

/// A token, and how much it is liked. Thousandths; 1000 if nothing is said.
fn weighed(part: &[u8]) -> Option<(&[u8], u16)> {
    let mut parts = part.split(|&byte| byte == b';');
    let token = parts.next().unwrap_or_default().trim_ascii();
    if token.is_empty() {
        return None;
    }
    let mut weight = 1000;
    for parameter in parts {
        if let [b'q' | b'Q', b'=', value @ ..] = parameter.trim_ascii() {
            weight = thousandths(value)?;
        }
    }
    Some((token, weight))
}

/// A weight of at most three decimals (RFC 9110 12.4.2), in thousandths.
fn thousandths(text: &[u8]) -> Option<u16> {
    let (whole, decimals) = match text {
        [whole @ (b'0' | b'1')] => (whole, &[][..]),
        [whole @ (b'0' | b'1'), b'.', decimals @ ..] if decimals.len() <= 3 => (whole, decimals),
        _ => return None,
    };
    let mut weight = u16::from(whole - b'0') * 1000;
    for (decimal, unit) in decimals.iter().zip([100, 10, 1]) {
        weight += u16::from(decimal.checked_sub(b'0').filter(|digit| *digit < 10)?) * unit;
    }
    (weight <= 1000).then_some(weight)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_say_what_they_like() {
        use Coding::{Brotli, Gzip, Zstd};
        for (accept, expected) in [
            ("gzip", Some(Gzip)),
            ("GZIP;q=0.5, br", Some(Brotli)),
            ("br, gzip", Some(Gzip)),
            ("zstd;q=0.9, gzip;q=0.8", Some(Zstd)),
            ("*", Some(Gzip)),
            ("*;q=0.1, gzip;q=0", Some(Brotli)),
            ("identity, gzip;q=0.5", None),
            ("identity;q=0.5, gzip", Some(Gzip)),
            ("deflate", None),
            ("gzip;q=0", None),
            ("gzip;q=x", None),
            ("gzip;q=0.0005", None),
            ("gzip;q=1.5", None),
            ("gzip;q=0.001", Some(Gzip)),
            ("gzip; Q=1.000", Some(Gzip)),
            ("", None),
        ] {
            let mut headers = Headers::new();
            headers.append(b"accept-encoding", accept.as_bytes());
            assert_eq!(
                preferred(&headers, &[Gzip, Brotli, Zstd]),
                expected,
                "{accept}"
            );
        }
        assert_eq!(preferred(&Headers::new(), &[Gzip]), None);
    }
}
