//! Byte classes of RFC 9110 §5.6 and RFC 3986 §2, as tables.

/// `tchar` of RFC 9110 §5.6.2.
pub(crate) const fn is_token(byte: u8) -> bool {
    TABLE[byte as usize] & TOKEN != 0
}

/// A byte a field value may contain: HTAB, SP, VCHAR, obs-text (RFC 9110 §5.5).
pub(crate) const fn is_value(byte: u8) -> bool {
    TABLE[byte as usize] & VALUE != 0
}

/// Whether all bytes are such as a field value may contain. Eight are looked at at once: most values
/// have neither a HTAB nor anything that they may not have.
pub(crate) fn is_all_value(value: &[u8]) -> bool {
    let (eights, rest) = value.as_chunks();
    eights.iter().all(|&eight| is_graphic(eight)) && rest.iter().all(|&byte| is_value(byte))
        || value.iter().all(|&byte| is_value(byte))
}

/// Whether no byte is a control character.
fn is_graphic(bytes: [u8; 8]) -> bool {
    const fn each(byte: u8) -> u64 {
        u64::from_ne_bytes([byte; 8])
    }
    let bytes = u64::from_ne_bytes(bytes);
    let deletes = bytes ^ each(0x7f);
    let is_low = bytes.wrapping_sub(each(0x20)) & !bytes;
    let is_delete = deletes.wrapping_sub(each(1)) & !deletes;
    (is_low | is_delete) & each(0x80) == 0
}

/// A byte a request target may contain here: printable US-ASCII without SP.
///
/// RFC 3986 allows fewer; Envoy passes the others and escapes them when it normalises the path.
pub(crate) const fn is_target(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7e)
}

/// A control character that Envoy reports as `http1.invalid_characters` (CR and LF are framing).
pub(crate) const fn is_forbidden_control(byte: u8) -> bool {
    matches!(byte, 0..=0x08 | 0x0b | 0x0c | 0x0e..=0x1f | 0x7f)
}

/// `unreserved` of RFC 3986 §2.3.
pub(crate) const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Returns the value of a hexadecimal digit.
pub(crate) const fn hex_value(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// Upper-case hexadecimal digits, for percent-encoding.
pub(crate) const HEX_UPPER: &[u8; 16] = b"0123456789ABCDEF";

/// Removes SP and HTAB at both ends (OWS, RFC 9110 §5.6.3).
pub(crate) fn trim_ows(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Iterates the members of a comma-separated list (RFC 9110 §5.6.1), empty ones left out.
pub(crate) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|&byte| byte == b',')
        .map(trim_ows)
        .filter(|member| !member.is_empty())
}

const TOKEN: u8 = 1;
const VALUE: u8 = 2;

static TABLE: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0_usize;
    while byte < 256 {
        let b = byte as u8;
        if b.is_ascii_alphanumeric()
            || matches!(
                b,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            )
        {
            table[byte] |= TOKEN;
        }
        if matches!(b, b'\t' | 0x20..=0x7e | 0x80..=0xff) {
            table[byte] |= VALUE;
        }
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_to_look_at_a_value_agree() {
        for byte in 0..=u8::MAX {
            for before in 0..=16 {
                let value = [vec![b'a'; before], vec![byte], vec![b'~'; 9]].concat();
                assert_eq!(
                    is_all_value(&value),
                    value.iter().all(|&byte| is_value(byte))
                );
            }
        }
    }
}
