//! `RequestHeaderModifier` and `ResponseHeaderModifier`.

use kgw_h1::Headers;

use crate::config::ir;

/// Changes to header fields.
///
/// Removals come first, then replacements, then additions; the Gateway API leaves the order open. An
/// added field is a line of its own, as Envoy's `APPEND_IF_EXISTS_OR_ADD` makes it.
#[derive(Debug)]
pub(crate) struct HeaderMutation {
    remove: Box<[Box<[u8]>]>,
    set: Box<[Field]>,
    add: Box<[Field]>,
}

#[derive(Debug)]
struct Field {
    name: Box<[u8]>,
    value: Box<[u8]>,
}

impl HeaderMutation {
    /// Compiles a mutation, or names the field that no HTTP message may have.
    pub(crate) fn compile(mutation: &ir::HeaderMutation) -> Result<Self, String> {
        let pairs = |pairs: &[(String, String)]| {
            pairs
                .iter()
                .map(|(name, value)| {
                    check(name, value)?;
                    Ok(Field {
                        name: name.as_bytes().into(),
                        value: value.as_bytes().into(),
                    })
                })
                .collect::<Result<Box<[_]>, String>>()
        };
        for name in &mutation.remove {
            check(name, "")?;
        }
        Ok(Self {
            remove: mutation
                .remove
                .iter()
                .map(|name| name.as_bytes().into())
                .collect(),
            set: pairs(&mutation.set)?,
            add: pairs(&mutation.add)?,
        })
    }

    pub(crate) fn apply(&self, headers: &mut Headers) {
        for name in &self.remove {
            headers.remove(name);
        }
        for field in &self.set {
            headers.set(&field.name, &field.value);
        }
        for field in &self.add {
            headers.append(&field.name, &field.value);
        }
    }
}

/// Fields that say how a message is framed, where it goes or what the connection does.
const RESERVED: [&str; 10] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Whether the proxy alone decides about the fields of a name.
pub(crate) fn is_reserved(name: &[u8]) -> bool {
    RESERVED
        .iter()
        .any(|reserved| name.eq_ignore_ascii_case(reserved.as_bytes()))
}

/// Checks a field that is to be set. Errors do not show its value, which may be of a Secret.
pub(crate) fn check(name: &str, value: &str) -> Result<(), String> {
    if !kgw_h1::is_valid_name(name.as_bytes()) {
        return Err(format!("{name:?} is not a header field name"));
    }
    if !kgw_h1::is_valid_value(value.as_bytes()) {
        return Err(format!(
            "what is given is not a value that header field {name} can have"
        ));
    }
    // The proxy decides how messages are framed and where they go; a filter that changed these
    // would let its requests be read differently by the next hop.
    if is_reserved(name.as_bytes()) {
        return Err(format!("header field {name} cannot be changed by a filter"));
    }
    Ok(())
}
