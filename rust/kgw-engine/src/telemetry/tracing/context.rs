//! The trace that a request is a part of, as it says itself (W3C Trace Context, `traceparent`).

/// What `traceparent` says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct TraceParent {
    /// Of the trace; not all zero.
    pub(crate) trace: [u8; 16],
    /// Of the span that the request comes from; not all zero.
    pub(crate) span: [u8; 8],
    pub(crate) is_sampled: bool,
}

/// Bytes of a `traceparent` of version 00.
pub(crate) const LENGTH: usize = 55;

impl TraceParent {
    /// Reads the value of a field; none if it is not of the form (W3C Trace Context 3.2).
    pub(crate) fn parse(value: &[u8]) -> Option<Self> {
        let mut parts = value.split(|&byte| byte == b'-');
        let [version] = hex::<1>(parts.next()?)?;
        let trace = hex::<16>(parts.next()?)?;
        let span = hex::<8>(parts.next()?)?;
        let [flags] = hex::<1>(parts.next()?)?;
        // Later versions may have more parts.
        let is_of_form = version != 0xff && (version != 0 || parts.next().is_none());
        (is_of_form && trace != [0; 16] && span != [0; 8]).then_some(Self {
            trace,
            span,
            is_sampled: flags & SAMPLED != 0,
        })
    }

    /// The value of a field, of version 00.
    pub(crate) fn render(&self) -> [u8; LENGTH] {
        let mut text = *b"00-________________________________-________________-00";
        write_hex(&self.trace, &mut text[3..35]);
        write_hex(&self.span, &mut text[36..52]);
        text[LENGTH - 1] = if self.is_sampled { b'1' } else { b'0' };
        text
    }
}

/// Reads so many bytes in lower-case hexadecimal digits.
fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    if digits.len() != 2 * N {
        return None;
    }
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(bytes)
}

fn write_hex(bytes: &[u8], out: &mut [u8]) {
    for (byte, pair) in bytes.iter().zip(out.chunks_exact_mut(2)) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 0xf)];
    }
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";
const SAMPLED: u8 = 1;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    #[test]
    fn what_is_of_the_form_is_read() {
        let read = |text: &str| TraceParent::parse(text.as_bytes());
        let sampled = read(&format!("00-{TRACE}-{SPAN}-01")).unwrap();
        assert!(sampled.is_sampled && sampled.trace[0] == 0x0a && sampled.span[7] == 0x31);
        assert!(!read(&format!("00-{TRACE}-{SPAN}-02")).unwrap().is_sampled);
        assert!(read(&format!("01-{TRACE}-{SPAN}-01-more")).is_some());
        for wrong in [
            String::new(),
            "00".to_owned(),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("00-{}-{SPAN}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{SPAN}-{TRACE}-01"),
            format!(" 00-{TRACE}-{SPAN}-01"),
        ] {
            assert_eq!(read(&wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(trace in 1_u128.., span in 1_u64.., is_sampled: bool) {
            let one = TraceParent {
                trace: trace.to_be_bytes(),
                span: span.to_be_bytes(),
                is_sampled,
            };
            prop_assert_eq!(TraceParent::parse(&one.render()), Some(one));
        }

        #[test]
        fn what_is_read_is_written_as_it_was(text in "0[01]-[0-9a-f]{31,33}-[0-9a-f]{15,17}-0[0-3]") {
            if let Some(one) = TraceParent::parse(text.as_bytes()) {
                let written = one.render();
                prop_assert_eq!(&written[2..53], &text.as_bytes()[2..53]);
            } else {
                let mut parts = text.split('-').skip(1);
                let lengths: Vec<_> = text.split('-').map(str::len).collect();
                let is_zero = parts.any(|part| part.bytes().all(|byte| byte == b'0'));
                prop_assert!(is_zero || lengths != [2, 32, 16, 2]);
            }
        }

        #[test]
        fn anything_is_refused_without_harm(value: Vec<u8>) {
            let _ = TraceParent::parse(&value);
        }
    }
}
