//! Bytes to text that the YAML scanner can be trusted with.
//!
//! Invalid UTF-8 and control characters are replaced, remembered, and later held against the
//! document that contains them; so a stray byte costs one document and not the file. The scanner
//! takes NUL for the end of its input, so none may reach it.

use crate::problem::ProblemKind;
use crate::source::offset;

/// The replaced places: offset in the clean text, and what was there.
pub(crate) type Faults = Vec<(u32, ProblemKind)>;

/// Returns the text without its byte order mark, and what had to be replaced in it.
pub(crate) fn sanitize(bytes: &[u8]) -> (Box<str>, Faults) {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return (Box::default(), vec![(0, ProblemKind::Utf16)]);
    }
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(is_control) => (text.into(), Faults::new()),
        _ => replace(bytes),
    }
}

fn replace(bytes: &[u8]) -> (Box<str>, Faults) {
    let mut text = String::with_capacity(bytes.len() + 16);
    let mut faults = Faults::new();
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if is_control(character) {
                let code = u32::from(character);
                faults.push((offset(text.len()), ProblemKind::ControlCharacter { code }));
                text.push(char::REPLACEMENT_CHARACTER);
                if faults.len() > MANY_FAULTS {
                    return not_a_text(faults);
                }
            } else {
                text.push(character);
            }
        }
        if let Some(byte) = chunk.invalid().first() {
            faults.push((offset(text.len()), ProblemKind::NotUtf8 { byte: *byte }));
            text.push(char::REPLACEMENT_CHARACTER);
            if faults.len() > MANY_FAULTS {
                return not_a_text(faults);
            }
        }
    }
    (text.into(), faults)
}

/// Gives up on a binary: without a text there are no documents, and one fault says it all.
fn not_a_text(mut faults: Faults) -> (Box<str>, Faults) {
    faults.truncate(1);
    (Box::default(), faults)
}

/// What no manifest may contain outside of an escape: YAML 1.2.2 §5.1, without NEL.
fn is_control(character: char) -> bool {
    matches!(character, '\0'..='\x08' | '\x0b' | '\x0c' | '\x0e'..='\x1f' | '\x7f'..='\u{9f}')
        && character != '\u{85}'
}

/// Quotes a value for a message, cut to a readable length.
pub(crate) fn abridge(text: &str) -> String {
    const LONGEST: usize = 60;
    let mut short: String = text.chars().take(LONGEST).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// A file with more faults than this is taken for a binary.
const MANY_FAULTS: usize = 100;
