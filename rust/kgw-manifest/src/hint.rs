//! What usually helps against a syntax error.

use granit_parser::ErrorKind;

/// Returns advice for an error, seeing the line it was found on.
pub(crate) fn hint(error: &ErrorKind, line: &str) -> Option<&'static str> {
    template(line).or(match error {
        ErrorKind::TabNotAllowed
        | ErrorKind::TabInBlockIndentation
        | ErrorKind::TabInIndentation
        | ErrorKind::TabAtBlockScalarStart
        | ErrorKind::TabInPlainScalar => Some("indent with spaces, not tabs"),
        ErrorKind::MappingValueNotAllowed | ErrorKind::InvalidColonPlacement => {
            Some("check the indentation, and quote a value that contains `: `")
        }
        ErrorKind::ExpectedBlockMappingKey
        | ErrorKind::ExpectedBlockSequenceEntry
        | ErrorKind::InvalidIndentation
        | ErrorKind::BlockSequenceEntryNotAllowed
        | ErrorKind::MappingKeyNotAllowed => {
            Some("check the indentation: siblings begin in the same column")
        }
        ErrorKind::ExpectedDocumentStart => Some("separate documents with a line `---`"),
        ErrorKind::SimpleKeyExpected => Some("a key ends with `:` and a space"),
        ErrorKind::UnexpectedCharacter { .. } => {
            Some("quote a value that begins with this character")
        }
        ErrorKind::UnclosedQuotedScalar | ErrorKind::DocumentIndicatorInQuotedScalar => {
            Some("close the quotes")
        }
        ErrorKind::UnclosedFlowCollection { .. }
        | ErrorKind::UnexpectedEofFlowMapping
        | ErrorKind::UnexpectedEofFlowSequence => Some("close the bracket"),
        _ => None,
    })
}

/// Returns advice for a line that is a template's, which YAML takes for a mapping in a mapping.
pub(crate) fn template(line: &str) -> Option<&'static str> {
    let advice = "this looks like a template: render it first, as with `helm template`";
    line.contains("{{").then_some(advice)
}
