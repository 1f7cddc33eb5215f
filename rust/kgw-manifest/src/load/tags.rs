//! What a scalar is: by its tag, or without one by its text.

use granit_parser::Tag;

use super::{Loader, Tagged};
use crate::problem::ProblemKind;
use crate::sanitize::abridge;
use crate::scalar;
use crate::source::Range;
use crate::tree::Scalar;

impl Loader<'_> {
    /// Resolves a scalar by its tag, or by its text if it is plain.
    pub(super) fn resolve(
        &mut self,
        text: &str,
        plain: bool,
        tag: Tagged<'_>,
        range: Range,
    ) -> Scalar {
        let string = || Scalar::String(text.into());
        let Some((tag, tag_range)) = tag else {
            if !plain {
                return string();
            }
            return scalar::resolve(text).unwrap_or_else(|| {
                let kind = ProblemKind::NotJson {
                    text: abridge(text),
                };
                self.refuse(kind, range, Some("quote it if it is meant as text"));
                Scalar::Null
            });
        };
        // `!` alone says: not resolved, a string (YAML 1.2.2 §6.9.1).
        if tag.original() == "!" {
            return string();
        }
        let (wanted, value) = match tag.core_suffix() {
            Some("str") => return string(),
            Some("null") => ("null", scalar::resolve(text).filter(|v| *v == Scalar::Null)),
            Some("bool") => {
                let value = scalar::resolve(text);
                (
                    "a boolean",
                    value.filter(|value| matches!(value, Scalar::Bool(_))),
                )
            }
            Some("int") => {
                let value = scalar::number(text);
                let is_int = |v: &Scalar| matches!(v, Scalar::Int(_) | Scalar::UInt(_));
                ("an integer", value.filter(is_int))
            }
            Some("float") => {
                let value = scalar::number(text);
                let is_finite = |v: &Scalar| !matches!(v, Scalar::Float(v) if !v.is_finite());
                ("a finite number", value.filter(is_finite))
            }
            _ => {
                self.unknown_tag(tag, tag_range);
                return string();
            }
        };
        value.unwrap_or_else(|| {
            let kind = ProblemKind::TagMismatch {
                text: abridge(text),
                wanted,
            };
            self.refuse(kind, range, None);
            Scalar::Null
        })
    }

    pub(super) fn collection_tag(&mut self, tag: Tagged<'_>, expected: &str) {
        if let Some((tag, range)) = tag
            && tag.core_suffix() != Some(expected)
            && tag.original() != "!"
        {
            self.unknown_tag(tag, range);
        }
    }

    pub(super) fn unknown_tag(&mut self, tag: &Tag, range: Range) {
        let hint = match tag.suffix_in_namespace("tag:yaml.org,2002:").as_deref() {
            Some("binary") => "write the base64 text without the tag",
            _ => "quote a value that begins with `!`",
        };
        let kind = ProblemKind::UnknownTag {
            tag: abridge(&tag.original()),
        };
        self.refuse(kind, range, Some(hint));
    }
}
