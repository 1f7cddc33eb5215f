//! The metadata of an object: what an API server checks of every kind.

use kgw_cel::{Value, format};

use crate::fault::{Fault, Step, Violation};

/// What a name has to be, which depends on the kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameForm {
    /// A DNS subdomain, as for most kinds.
    Subdomain,
    /// A DNS label, as for namespaces and services.
    Label,
}

/// The most bytes of keys and values that annotations may have.
const ANNOTATIONS: usize = 256 << 10;

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric \
    characters, '-' or '.', and must start and end with an alphanumeric character";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters \
    or '-', and must start and end with an alphanumeric character";
const NAME_PART: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and \
    must start and end with an alphanumeric character";
const PREFIX_PART: &str =
    "prefix part must be a DNS subdomain, with one '/' between it and the name";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric \
    characters, '-', '_' or '.', and must start and end with an alphanumeric character";

/// Checks the metadata of an object: names, labels, annotations, owners and finalizers.
///
/// Whether there is a name at all is for the caller to say.
#[must_use]
pub fn metadata(object: &Value<'_>, form: NameForm) -> Vec<Violation> {
    let mut check = Check {
        path: vec![Step::Key("metadata".to_owned())],
        violations: Vec::new(),
    };
    match object.field("metadata") {
        None | Some(Value::Null) => {}
        Some(Value::Map(entries)) => {
            for (key, value) in entries {
                if !matches!(value, Value::Null) {
                    check.within(key, |check| check.field(key, value, form));
                }
            }
        }
        Some(other) => check.mistyped("object", other),
    }
    check.violations
}

struct Check {
    path: Vec<Step>,
    violations: Vec<Violation>,
}

impl Check {
    fn within(&mut self, key: &str, work: impl FnOnce(&mut Self)) {
        self.path.push(Step::Key(key.to_owned()));
        work(self);
        self.path.pop();
    }

    fn report(&mut self, fault: Fault) {
        self.violations.push(Violation {
            path: self.path.clone(),
            fault,
        });
    }

    fn refuse(&mut self, message: impl Into<String>, value: &str) {
        self.report(Fault::Metadata {
            message: message.into(),
            value: Some(value.to_owned()),
        });
    }

    fn mistyped(&mut self, expected: &'static str, value: &Value<'_>) {
        self.report(Fault::Type {
            expected,
            found: value.kind(),
            value: value.json(),
        });
    }

    fn field(&mut self, key: &str, value: &Value<'_>, form: NameForm) {
        match key {
            "name" | "generateName" => {
                let Some(name) = value.text() else {
                    return self.mistyped("string", value);
                };
                // What is generated follows, so a prefix may end with a hyphen.
                let prefix = (key == "generateName")
                    .then(|| name.strip_suffix('-'))
                    .flatten();
                self.name(name, prefix.unwrap_or(name), form);
            }
            "namespace" => match value.text() {
                None => self.mistyped("string", value),
                Some("") => {}
                Some(name) => self.name(name, name, NameForm::Label),
            },
            "labels" => self.entries(value, |check, key, value| {
                check.qualified(key, key);
                if value.len() > 63 {
                    check.refuse("must be no more than 63 bytes", value);
                } else if !value.is_empty() && !format::is_name_segment(value) {
                    check.refuse(LABEL_VALUE, value);
                }
            }),
            "annotations" => {
                let mut total = 0;
                self.entries(value, |check, key, value| {
                    // Only the form counts, not the case, as an API server has it.
                    check.qualified(key, &key.to_ascii_lowercase());
                    total += key.len() + value.len();
                });
                if total > ANNOTATIONS {
                    self.refuse("must have at most 262144 bytes", &format!("{total} bytes"));
                }
            }
            "finalizers" => {
                let Value::List(items) = value else {
                    return self.mistyped("array", value);
                };
                for (place, item) in items.iter().enumerate() {
                    self.path.push(Step::Index(place));
                    match item.text() {
                        None => self.mistyped("string", item),
                        Some(name) => self.qualified(name, name),
                    }
                    self.path.pop();
                }
            }
            "ownerReferences" => self.owners(value),
            _ => {}
        }
    }

    fn name(&mut self, name: &str, checked: &str, form: NameForm) {
        let (most, fits, message) = match form {
            NameForm::Subdomain => (253, format::is_subdomain(checked), SUBDOMAIN),
            NameForm::Label => (63, format::is_label(checked), LABEL),
        };
        if name.len() > most {
            self.refuse(format!("must be no more than {most} bytes"), name);
        } else if !fits {
            self.refuse(message, name);
        }
    }

    fn entries(&mut self, value: &Value<'_>, mut each: impl FnMut(&mut Self, &str, &str)) {
        let Value::Map(entries) = value else {
            return self.mistyped("object", value);
        };
        for (key, value) in entries {
            self.within(key, |check| match value {
                Value::Str(text) => each(check, key, text),
                // The API server's decoder takes it for an empty text.
                Value::Null => each(check, key, ""),
                other => check.mistyped("string", other),
            });
        }
    }

    fn qualified(&mut self, key: &str, checked: &str) {
        if format::is_qualified_name(checked) {
            return;
        }
        let named = match checked.split_once('/') {
            Some((_, name)) => format::is_name_segment(name),
            None => false,
        };
        self.refuse(if named { PREFIX_PART } else { NAME_PART }, key);
    }

    fn owners(&mut self, value: &Value<'_>) {
        let Value::List(items) = value else {
            return self.mistyped("array", value);
        };
        for (place, item) in items.iter().enumerate() {
            self.path.push(Step::Index(place));
            for field in ["apiVersion", "kind", "name", "uid"] {
                match item.field(field) {
                    Some(Value::Str(text)) if text.is_empty() => {
                        self.within(field, |check| check.refuse("must not be empty", ""));
                    }
                    Some(Value::Null) | None => self.report(Fault::Required {
                        field: field.to_owned(),
                        every: ["apiVersion", "kind", "name", "uid"]
                            .map(str::to_owned)
                            .into(),
                    }),
                    Some(Value::Str(_)) => {}
                    Some(other) => self.within(field, |check| check.mistyped("string", other)),
                }
            }
            self.path.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::path_text;

    fn faults(metadata_of: &serde_json::Value, form: NameForm) -> Vec<String> {
        let object = serde_json::json!({"metadata": metadata_of});
        let found = metadata(&Value::from(&object), form);
        found.iter().map(|one| path_text(&one.path)).collect()
    }

    #[test]
    fn metadata_is_what_an_api_server_wants() {
        let good = serde_json::json!({
            "name": "a.b-1", "namespace": "c", "generateName": "a-",
            "labels": {"a.b/C_1": "x.Y", "d": ""},
            "annotations": {"Example.com/A": "anything at all", "b": null},
            "finalizers": ["a.b/c"],
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "1"}],
            "uid": 3,
        });
        assert_eq!(faults(&good, NameForm::Subdomain), [""; 0]);
        assert_eq!(faults(&good, NameForm::Label), ["metadata.name"]);
        let bad = serde_json::json!({
            "name": "A", "namespace": "a.b", "generateName": "_",
            "labels": {"a/b/c": "", "d": "x y", "e": 1, "f": "x".repeat(64)},
            "annotations": {"_": "", "g": "x".repeat(ANNOTATIONS)},
            "finalizers": ["/"],
            "ownerReferences": [{"apiVersion": "", "kind": 1, "name": "a"}],
        });
        let mut found = faults(&bad, NameForm::Subdomain);
        found.sort();
        let expected = [
            "metadata.annotations",
            "metadata.annotations._",
            "metadata.finalizers[0]",
            "metadata.generateName",
            "metadata.labels.a/b/c",
            "metadata.labels.d",
            "metadata.labels.e",
            "metadata.labels.f",
            "metadata.name",
            "metadata.namespace",
            "metadata.ownerReferences[0]",
            "metadata.ownerReferences[0].apiVersion",
            "metadata.ownerReferences[0].kind",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn the_longest_name_is_taken() {
        let name = |length: usize| serde_json::json!({"name": "a".repeat(length)});
        assert_eq!(faults(&name(253), NameForm::Subdomain), [""; 0]);
        assert_eq!(faults(&name(254), NameForm::Subdomain), ["metadata.name"]);
        assert_eq!(faults(&name(63), NameForm::Label), [""; 0]);
        assert_eq!(faults(&name(64), NameForm::Label), ["metadata.name"]);
    }
}
