//! What a service does to the head of a request or of its answer.

use kgw_h1::{Headers, Request};

use super::Undecided;
use crate::filter::header_mutation::is_reserved;

/// A change to the fields of a name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Edit {
    name: Box<[u8]>,
    value: Box<[u8]>,
    how: How,
}

/// What becomes of the fields of a name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum How {
    /// They are replaced by one, if there are any or not.
    Set,
    /// There is one more.
    Add,
    /// There is one more, if there are any (Envoy: what a service appends to a request).
    AddIfPresent,
    /// There is one, if there was none.
    AddIfAbsent,
    /// They are replaced by one, if there are any.
    Replace,
    /// They go.
    Remove,
}

/// What a request asks for, as a service changes it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Target {
    method: Option<Box<[u8]>>,
    host: Option<Box<[u8]>>,
    path: Option<Box<[u8]>>,
}

impl Edit {
    /// Makes a change. None if it is about a field that says how a message is framed or what the
    /// connection does, which the proxy alone decides (Envoy ignores those too).
    ///
    /// # Errors
    /// No message can have such a field.
    pub(super) fn new(name: &[u8], value: &[u8], how: How) -> Result<Option<Self>, Undecided> {
        if !kgw_h1::is_valid_name(name) || !kgw_h1::is_valid_value(value) {
            return Err(Undecided);
        }
        Ok((!is_reserved(name)).then(|| Self {
            name: name.into(),
            value: value.into(),
            how,
        }))
    }

    /// One more field. A name or a value that none can have changes nothing.
    pub(crate) fn append(name: &[u8], value: &[u8]) -> Self {
        Self {
            name: name.into(),
            value: value.into(),
            how: How::Add,
        }
    }

    /// One more field, as a service wants it. As in [`new`](Self::new).
    pub(crate) fn added(name: &[u8], value: &[u8]) -> Result<Option<Self>, Undecided> {
        Self::new(name, value, How::Add)
    }

    pub(crate) fn apply(&self, headers: &mut Headers) {
        let is_present = headers.contains(&self.name);
        match self.how {
            How::Set => {
                headers.set(&self.name, &self.value);
            }
            How::Replace if is_present => {
                headers.set(&self.name, &self.value);
            }
            How::Add => {
                headers.append(&self.name, &self.value);
            }
            How::AddIfPresent if is_present => {
                headers.append(&self.name, &self.value);
            }
            How::AddIfAbsent if !is_present => {
                headers.append(&self.name, &self.value);
            }
            How::Remove => {
                headers.remove(&self.name);
            }
            How::Replace | How::AddIfPresent | How::AddIfAbsent => {}
        }
    }
}

impl Target {
    /// Takes a pseudo-field, or the host. Returns whether the field is one of those.
    ///
    /// # Errors
    /// The value is none that the request can have.
    pub(super) fn take(&mut self, name: &[u8], value: &[u8]) -> Result<bool, Undecided> {
        let (place, is_valid) = match name {
            b":method" => (&mut self.method, kgw_h1::is_valid_name(value)),
            b":authority" | b"host" => (&mut self.host, kgw_h1::is_valid_authority(value)),
            b":path" => (&mut self.path, is_path(value)),
            name => return Ok(name.first() == Some(&b':')),
        };
        if !is_valid {
            return Err(Undecided);
        }
        *place = Some(value.into());
        Ok(true)
    }

    pub(super) fn apply(&self, request: &mut Request) {
        if let Some(method) = &self.method {
            request.set_method(method);
        }
        if let Some(host) = &self.host {
            request.set_authority(host);
        }
        if let Some(path) = &self.path {
            request.set_path(path);
        }
    }
}

/// Whether a request can ask for this.
fn is_path(path: &[u8]) -> bool {
    path.first() == Some(&b'/')
        && path
            .iter()
            .all(|byte| (0x21..0x7f).contains(byte) && *byte != b'#')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(fields: &[(&str, &str)], edit: (&str, &str, How)) -> Vec<(String, String)> {
        let mut headers = Headers::new();
        for (name, value) in fields {
            headers.append(name.as_bytes(), value.as_bytes());
        }
        let (name, value, how) = edit;
        let edit = Edit::new(name.as_bytes(), value.as_bytes(), how).unwrap();
        edit.unwrap().apply(&mut headers);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let fields = headers.iter();
        fields
            .map(|(name, value)| (text(name), text(value)))
            .collect()
    }

    #[test]
    fn ways_to_change_fields() {
        for (how, with, without) in [
            (How::Set, "2", "2"),
            (How::Add, "1,2", "2"),
            (How::AddIfPresent, "1,2", ""),
            (How::AddIfAbsent, "1", "2"),
            (How::Replace, "2", ""),
            (How::Remove, "", ""),
        ] {
            let values = |fields: &[(&str, &str)]| {
                let found = applied(fields, ("X-A", "2", how)).into_iter();
                found.map(|(_, value)| value).collect::<Vec<_>>().join(",")
            };
            assert_eq!(values(&[("x-a", "1")]), with, "{how:?}");
            assert_eq!(values(&[]), without, "{how:?}");
        }
    }

    #[test]
    fn framing_is_not_for_services_to_change() {
        for name in ["Content-Length", "transfer-encoding", "connection", "host"] {
            assert_eq!(Edit::new(name.as_bytes(), b"1", How::Set), Ok(None));
        }
    }

    #[test]
    fn what_no_message_can_have_is_no_decision() {
        for (name, value) in [
            ("a b", "1"),
            ("", "1"),
            ("x-a", "1\r\nx-b: 2"),
            ("x-a", " 1"),
        ] {
            let made = Edit::new(name.as_bytes(), value.as_bytes(), How::Set);
            assert_eq!(made, Err(Undecided), "{name:?} {value:?}");
        }
    }

    #[test]
    fn targets_are_checked() {
        for (name, value, taken) in [
            (":method", "PUT", Ok(true)),
            (":method", "P UT", Err(Undecided)),
            (":authority", "a.example:1", Ok(true)),
            ("host", "a b", Err(Undecided)),
            (":path", "/a?b", Ok(true)),
            (":path", "a", Err(Undecided)),
            (":path", "/a b", Err(Undecided)),
            (":path", "/a\r\n", Err(Undecided)),
            (":scheme", "gopher", Ok(true)),
            ("x-a", "1", Ok(false)),
        ] {
            let mut target = Target::default();
            assert_eq!(
                target.take(name.as_bytes(), value.as_bytes()),
                taken,
                "{name} {value}"
            );
        }
    }
}
