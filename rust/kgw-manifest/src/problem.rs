//! What can be wrong with a text.

use crate::source::Place;

/// Something that is wrong in a text, and where.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// What is wrong.
    pub kind: ProblemKind,
    /// Where.
    pub place: Place,
    /// The index of the document that has it.
    pub document: usize,
    /// What to do about it, where that is clear.
    pub hint: Option<&'static str>,
}

/// The kinds of problems; the text is one sentence without a full stop.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ProblemKind {
    /// A byte sequence that is not UTF-8. The only encoding accepted is UTF-8.
    #[error("the text is not UTF-8: byte 0x{byte:02x}")]
    NotUtf8 {
        /// The first byte of the invalid sequence.
        byte: u8,
    },
    /// A UTF-16 byte order mark.
    #[error("the text is UTF-16, not UTF-8")]
    Utf16,
    /// A control character, which YAML and JSON do not allow in the text itself.
    #[error("control character U+{code:04X}")]
    ControlCharacter {
        /// The character's number.
        code: u32,
    },
    /// Not well-formed YAML.
    #[error("{0}")]
    Syntax(String),
    /// A text that never gets as far as a mapping or a sequence: prose, a script, a certificate.
    #[error("this is not YAML: {0}")]
    NotYaml(String),
    /// A key that its mapping has already.
    #[error("the key `{key}` is given twice, first on line {first_line}")]
    DuplicateKey {
        /// The key.
        key: String,
        /// The line of the first one.
        first_line: u32,
    },
    /// An alias whose anchor does not exist before it in the document.
    #[error("the alias `*{name}` names no anchor of this document")]
    UnknownAlias {
        /// The alias without its `*`.
        name: String,
    },
    /// An alias within the node that it names.
    #[error("an alias stands within the node that it names")]
    RecursiveAlias,
    /// The text is larger than [`Limits::bytes`](crate::Limits::bytes).
    #[error("the text has {bytes} bytes; {limit} is the limit")]
    TooLarge {
        /// The size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Nested deeper than [`Limits::depth`](crate::Limits::depth).
    #[error("nested deeper than {limit} levels")]
    TooDeep {
        /// The limit.
        limit: u32,
    },
    /// Aliases expand to more than [`Limits::alias_nodes`](crate::Limits::alias_nodes).
    #[error("the document's aliases expand to more than {limit} values")]
    TooManyAliases {
        /// The limit.
        limit: u64,
    },
    /// A key that JSON cannot have: null, a sequence, a mapping.
    #[error("a key must be a string, not {found}")]
    KeyNotString {
        /// What it is.
        found: &'static str,
    },
    /// A plain key that is read as something else than its text. Only a warning.
    #[error("the key `{written}` is read as {read}, not as its text: it becomes `{becomes}`")]
    KeyRewritten {
        /// The key as written.
        written: String,
        /// The type it is read as.
        read: &'static str,
        /// The key that Kubernetes, and kgw, make of it.
        becomes: String,
    },
    /// The value of a merge key `<<` that is neither a mapping nor a sequence of mappings.
    #[error("`<<` merges mappings, not {found}")]
    MergeNotMapping {
        /// What it is.
        found: &'static str,
    },
    /// A tag that no manifest can use.
    #[error("the tag `{tag}` has no meaning in a manifest")]
    UnknownTag {
        /// The tag as written.
        tag: String,
    },
    /// A value that does not fit the core tag it carries.
    #[error("`{text}` is not {wanted}, as its tag says")]
    TagMismatch {
        /// The value as written.
        text: String,
        /// What the tag asks for.
        wanted: &'static str,
    },
    /// An infinity or a NaN.
    #[error("`{text}` has no JSON form")]
    NotJson {
        /// The value as written.
        text: String,
    },
}

impl ProblemKind {
    /// Returns the stable code that users see, documented in `docs/findings.md`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotUtf8 { .. } | Self::Utf16 => "KGW102",
            Self::ControlCharacter { .. } | Self::Syntax(_) | Self::NotYaml(_) => "KGW103",
            Self::DuplicateKey { .. } => "KGW104",
            Self::UnknownAlias { .. } | Self::RecursiveAlias => "KGW105",
            Self::TooLarge { .. } | Self::TooDeep { .. } | Self::TooManyAliases { .. } => "KGW106",
            Self::KeyNotString { .. } => "KGW107",
            Self::KeyRewritten { .. } => "KGW108",
            Self::MergeNotMapping { .. }
            | Self::UnknownTag { .. }
            | Self::TagMismatch { .. }
            | Self::NotJson { .. } => "KGW109",
        }
    }

    /// Whether the document is usable all the same.
    pub fn is_warning(&self) -> bool {
        matches!(self, Self::KeyRewritten { .. })
    }
}
