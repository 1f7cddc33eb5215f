//! Header fields as spans into one byte arena.
//!
//! The received head is copied once; edits are appended behind it and change spans only, so that
//! untouched fields are written out byte for byte, in their order and case.
//!
//! Nothing stored here can break a message apart: names are tokens, values hold no CR, LF, NUL or
//! other control. The parser refuses such input; [`Headers::set`] and [`Headers::append`] refuse
//! names and clean values (RFC 9110 §5.5: "replace each of those characters with SP").

use crate::chars;
use crate::known::Known;

/// Header fields in order, with case kept. Lookups ignore case.
#[derive(Clone, Default)]
pub struct Headers {
    bytes: Vec<u8>,
    fields: Vec<Field>,
    /// Names that may be present; a set bit can be stale after a removal, a clear one never is.
    present: u64,
    live: usize,
}

/// A byte range of the arena. `u32` suffices: a head is bounded far below 4 GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Span {
    start: u32,
    end: u32,
}

#[derive(Clone, Copy)]
struct Field {
    name: Span,
    value: Span,
    known: Option<Known>,
    removed: bool,
}

/// A part of the fields, as it goes on the wire.
pub(crate) enum Piece<'a> {
    /// Whole lines.
    Lines(&'a [u8]),
    /// A field whose parts lie apart, or that was asked for apart.
    Field(Option<Known>, &'a [u8], &'a [u8]),
}

/// Iterator over the live fields of a [`Headers`].
#[derive(Debug, Clone)]
pub struct Iter<'a> {
    headers: &'a Headers,
    next: usize,
}

/// Returns whether `name` is a field name: a non-empty token (RFC 9110 §5.1).
pub fn is_valid_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|&byte| chars::is_token(byte))
}

/// Returns whether `value` can be stored as it is: no control character but HTAB, and no white
/// space at either end (RFC 9110 §5.5).
pub fn is_valid_value(value: &[u8]) -> bool {
    chars::is_all_value(value) && chars::trim_ows(value).len() == value.len()
}

/// What is wrong with a field that came apart from a message's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FieldError {
    /// A control character in the name or the value.
    Control,
    /// The name is no token in lower case, or the value has white space at an end.
    Malformed,
    /// The field describes a connection, which HTTP/2 does not do with fields.
    ConnectionSpecific,
}

/// Checks a field of HTTP/2 (RFC 9113 §8.2) and returns the number of its name. Nothing that this
/// lets through can end a line of HTTP/1.
pub(crate) fn check_lower(name: &[u8], value: &[u8]) -> Result<Option<Known>, FieldError> {
    let is_control =
        |byte: &u8| matches!(byte, b'\r' | b'\n') || chars::is_forbidden_control(*byte);
    if !is_valid_name(name) || name.iter().any(u8::is_ascii_uppercase) || !is_valid_value(value) {
        return Err(if name.iter().chain(value).any(is_control) {
            FieldError::Control
        } else {
            FieldError::Malformed
        });
    }
    match Known::of(name) {
        Some(
            Known::Connection
            | Known::KeepAlive
            | Known::ProxyConnection
            | Known::TransferEncoding
            | Known::Upgrade,
        ) => Err(FieldError::ConnectionSpecific),
        known => Ok(known),
    }
}

// === impl Span ===

impl Span {
    pub(crate) fn new(start: usize, len: usize) -> Self {
        Self {
            start: start as u32,
            end: (start + len) as u32,
        }
    }
}

// === impl Headers ===

impl Headers {
    /// Bytes of memory that are kept for the fields, whether there are any now or not.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity() + self.fields.capacity() * size_of::<Field>()
    }

    /// Returns an empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Removes everything and keeps the storage.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.fields.clear();
        self.present = 0;
        self.live = 0;
    }

    /// Returns the number of fields.
    pub fn len(&self) -> usize {
        self.live
    }

    /// Returns whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Returns the value of the first field called `name`.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        let known = Known::of(name);
        self.fields
            .iter()
            .find(|field| self.is(field, known, name))
            .map(|field| self.span(field.value))
    }

    /// Returns the value of the first field of a known name: one bit test when it is absent, a
    /// scan over one byte per field when it is present.
    #[inline]
    pub fn get_known(&self, known: Known) -> Option<&[u8]> {
        if self.present & known.bit() == 0 {
            return None;
        }
        self.fields
            .iter()
            .find(|field| field.known == Some(known) && !field.removed)
            .map(|field| self.span(field.value))
    }

    /// Iterates the values of all fields called `name`, in order.
    pub fn get_all<'a>(&'a self, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let known = Known::of(name);
        self.fields
            .iter()
            .filter(move |field| self.is(field, known, name))
            .map(|field| self.span(field.value))
    }

    /// Iterates the values of all fields of a known name, in order.
    pub fn get_all_known(&self, known: Known) -> impl Iterator<Item = &[u8]> {
        let fields: &[Field] = if self.present & known.bit() == 0 {
            &[]
        } else {
            &self.fields
        };
        fields
            .iter()
            .filter(move |field| field.known == Some(known) && !field.removed)
            .map(|field| self.span(field.value))
    }

    /// Returns whether there is a field called `name`.
    pub fn contains(&self, name: &[u8]) -> bool {
        self.get(name).is_some()
    }

    /// Gives the first field called `name` this value, in place, and removes the others; appends
    /// a field when there is none.
    ///
    /// Returns false, and changes nothing, when `name` is not a token. In `value` every control
    /// character but HTAB becomes SP, and white space at the ends is dropped.
    pub fn set(&mut self, name: &[u8], value: &[u8]) -> bool {
        let known = Known::of(name);
        let mut places = 0..self.fields.len();
        let Some(first) = places.find(|&at| self.is(&self.fields[at], known, name)) else {
            return self.append(name, value);
        };
        let value = self.store(value);
        self.fields[first].value = value;
        for at in places {
            if self.is(&self.fields[at], known, name) {
                self.fields[at].removed = true;
                self.live -= 1;
            }
        }
        true
    }

    /// Does what [`set`](Self::set) does for a known name: no scan if there is no such field.
    pub fn set_known(&mut self, known: Known, value: &[u8]) {
        if self.present & known.bit() == 0 {
            self.append_known(known, value);
        } else {
            self.set(known.name().as_bytes(), value);
        }
    }

    /// Appends a field of a known name behind the others. Same rules as [`set`](Self::set).
    pub fn append_known(&mut self, known: Known, value: &[u8]) {
        self.append_line(known.name().as_bytes(), value, Some(known));
    }

    /// Appends a field behind the others. Same rules as [`set`](Self::set).
    pub fn append(&mut self, name: &[u8], value: &[u8]) -> bool {
        if !is_valid_name(name) {
            return false;
        }
        self.append_line(name, value, Known::of(name));
        true
    }

    /// Appends a field the way it is written.
    fn append_line(&mut self, name: &[u8], value: &[u8], known: Option<Known>) {
        self.bytes.reserve(name.len() + value.len() + 4);
        let name = self.store_raw(name);
        self.bytes.extend_from_slice(b": ");
        let value = self.store(value);
        self.bytes.truncate(value.end as usize);
        self.bytes.extend_from_slice(b"\r\n");
        self.push(name, value, known);
    }

    /// Removes all fields called `name` and returns how many there were.
    pub fn remove(&mut self, name: &[u8]) -> usize {
        let known = Known::of(name);
        if known.is_some_and(|known| self.present & known.bit() == 0) {
            return 0;
        }
        self.remove_where(|headers, field| headers.is(field, known, name))
    }

    /// Removes all fields of a known name and returns how many there were.
    pub fn remove_known(&mut self, known: Known) -> usize {
        if self.present & known.bit() == 0 {
            return 0;
        }
        let removed = self.remove_where(|_, field| field.known == Some(known) && !field.removed);
        self.present &= !known.bit();
        removed
    }

    /// Removes the fields for which `predicate(name, value)` holds and returns how many.
    pub fn remove_if(&mut self, mut predicate: impl FnMut(&[u8], &[u8]) -> bool) -> usize {
        self.remove_where(|headers, field| {
            !field.removed && predicate(headers.span(field.name), headers.span(field.value))
        })
    }

    /// Iterates the fields as `(name, value)`, in order.
    pub fn iter(&self) -> Iter<'_> {
        Iter {
            headers: self,
            next: 0,
        }
    }

    /// Gives out all fields in order, those that lie one after the other in one piece: most of a
    /// message that was received, and what was added to it. Known names that are `apart` are fields of
    /// their own.
    pub(crate) fn pieces<'a>(
        &'a self,
        apart: impl Fn(Known) -> bool,
        mut give: impl FnMut(Piece<'a>),
    ) {
        let mut lines = Span::default();
        for field in self.fields.iter().filter(|field| !field.removed) {
            let line = self.line(field);
            if let Some(line) = line
                && line.start == lines.end
                && !field.known.is_some_and(&apart)
            {
                lines.end = line.end;
                continue;
            }
            if lines.start < lines.end {
                give(Piece::Lines(self.span(lines)));
                lines = Span::default();
            }
            match line {
                Some(line) if !field.known.is_some_and(&apart) => lines = line,
                _ => give(Piece::Field(
                    field.known,
                    self.span(field.name),
                    self.span(field.value),
                )),
            }
        }
        if lines.start < lines.end {
            give(Piece::Lines(self.span(lines)));
        }
    }

    /// Where the line of a field is, if the arena has it as it would be written.
    fn line(&self, field: &Field) -> Option<Span> {
        let (name, value) = (field.name.end as usize, field.value.end as usize);
        let is_line = field.value.start == field.name.end + 2
            && self.bytes.get(name..name + 2) == Some(b": ")
            && self.bytes.get(value..value + 2) == Some(b"\r\n");
        is_line.then_some(Span {
            start: field.name.start,
            end: field.value.end + 2,
        })
    }

    /// Copies a received head in; fields are added with [`push`](Self::push).
    pub(crate) fn load(&mut self, head: &[u8], fields: usize) {
        self.clear();
        self.bytes.extend_from_slice(head);
        self.fields.reserve(fields);
    }

    /// Adds a field whose bytes are in the arena and were checked by the parser.
    #[inline]
    pub(crate) fn push(&mut self, name: Span, value: Span, known: Option<Known>) {
        if let Some(known) = known {
            self.present |= known.bit();
        }
        self.fields.push(Field {
            name,
            value,
            known,
            removed: false,
        });
        self.live += 1;
    }

    /// Appends raw bytes to the arena and returns where they are.
    pub(crate) fn store_raw(&mut self, bytes: &[u8]) -> Span {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        Span::new(start, bytes.len())
    }

    #[inline]
    pub(crate) fn span(&self, span: Span) -> &[u8] {
        self.bytes
            .get(span.start as usize..span.end as usize)
            .unwrap_or_default()
    }

    /// Appends a cleaned value to the arena.
    fn store(&mut self, value: &[u8]) -> Span {
        let start = self.bytes.len();
        let value = chars::trim_ows(value);
        self.bytes.extend_from_slice(value);
        if chars::is_all_value(value) {
            return Span::new(start, value.len());
        }
        for byte in &mut self.bytes[start..] {
            if !chars::is_value(*byte) {
                *byte = b' ';
            }
        }
        let stored = &self.bytes[start..];
        let leading = stored
            .iter()
            .take_while(|&&b| b == b' ' || b == b'\t')
            .count();
        let len = chars::trim_ows(stored).len();
        Span::new(start + leading, len)
    }

    fn is(&self, field: &Field, known: Option<Known>, name: &[u8]) -> bool {
        !field.removed
            && match known {
                Some(_) => field.known == known,
                None => field.known.is_none() && self.span(field.name).eq_ignore_ascii_case(name),
            }
    }

    fn remove_where(&mut self, mut predicate: impl FnMut(&Self, &Field) -> bool) -> usize {
        let mut removed = 0;
        for at in 0..self.fields.len() {
            let field = self.fields[at];
            if predicate(self, &field) {
                self.fields[at].removed = true;
                removed += 1;
            }
        }
        self.live -= removed;
        removed
    }
}

impl std::fmt::Debug for Headers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map()
            .entries(self.iter().map(|(name, value)| {
                (
                    String::from_utf8_lossy(name),
                    String::from_utf8_lossy(value),
                )
            }))
            .finish()
    }
}

impl<'a> IntoIterator for &'a Headers {
    type Item = (&'a [u8], &'a [u8]);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

// === impl Iter ===

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let field = self.headers.fields.get(self.next)?;
            self.next += 1;
            if !field.removed {
                return Some((
                    self.headers.span(field.name),
                    self.headers.span(field.value),
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(headers: &Headers) -> Vec<(String, String)> {
        headers
            .iter()
            .map(|(n, v)| {
                (
                    String::from_utf8(n.to_vec()).unwrap(),
                    String::from_utf8(v.to_vec()).unwrap(),
                )
            })
            .collect()
    }

    fn of(fields: &[(&str, &str)]) -> Headers {
        let mut headers = Headers::new();
        for (name, value) in fields {
            assert!(headers.append(name.as_bytes(), value.as_bytes()));
        }
        headers
    }

    #[test]
    fn set_replaces_the_first_in_place_and_drops_the_rest() {
        for name in ["X-A", "Cookie"] {
            let mut headers = of(&[(name, "1"), ("Y", "2"), (name, "3")]);
            assert!(headers.set(name.to_lowercase().as_bytes(), b"9"));
            assert_eq!(
                pairs(&headers),
                [(name.into(), "9".into()), ("Y".into(), "2".into())]
            );
            assert_eq!(headers.len(), 2);
        }
    }

    #[test]
    fn lookups_ignore_case_and_removed_fields() {
        let mut headers = of(&[("Host", "a"), ("X-A", "1"), ("x-a", "2"), ("HOST", "b")]);
        assert_eq!(headers.get(b"hOsT"), Some(&b"a"[..]));
        assert_eq!(headers.get_known(Known::Host), Some(&b"a"[..]));
        assert_eq!(headers.get_all(b"X-a").collect::<Vec<_>>(), [b"1", b"2"]);
        assert_eq!(headers.get_all_known(Known::Host).count(), 2);
        assert_eq!(headers.remove(b"X-A"), 2);
        assert_eq!(headers.remove_known(Known::Host), 2);
        assert_eq!(headers.get_known(Known::Host), None);
        assert!(headers.is_empty());
        assert!(headers.append(b"Host", b"c"));
        assert_eq!(headers.get_known(Known::Host), Some(&b"c"[..]));
    }

    #[test]
    fn edits_cannot_break_a_line() {
        let mut headers = Headers::new();
        assert!(headers.append(b"X-A", b" a\r\nX-B: b\0c\x7f "));
        assert_eq!(headers.get(b"x-a"), Some(&b"a  X-B: b c"[..]));
        assert!(headers.set(b"X-A", b"\r\n"));
        assert_eq!(headers.get(b"x-a"), Some(&b""[..]));
        for bad in [&b""[..], b"a b", b"a:", b"a\r\n", b":path", b"\xe9"] {
            assert!(!headers.append(bad, b"v"));
            assert!(!headers.set(bad, b"v"));
            assert!(!is_valid_name(bad));
        }
        assert_eq!(headers.len(), 1);
        assert!(is_valid_value(b"a\tb \xe9c") && is_valid_value(b""));
        assert!(!is_valid_value(b" a") && !is_valid_value(b"a\n") && !is_valid_value(b"a\0"));
    }

    #[test]
    fn a_known_name_is_set_like_any_other() {
        for before in [
            &[][..],
            &[("SERVER", "1")],
            &[("server", "1"), ("a", "b"), ("Server", "2")],
        ] {
            let (mut known, mut named) = (of(before), of(before));
            known.set_known(Known::Server, b" x\ny ");
            named.set(b"server", b" x\ny ");
            assert_eq!(pairs(&known), pairs(&named));
            assert_eq!(known.get_known(Known::Server), Some(&b"x y"[..]));
        }
    }

    #[test]
    fn remove_if_sees_names_and_values() {
        let mut headers = of(&[("x-envoy-a", "1"), ("b", "2"), ("X-Envoy-C", "3")]);
        let removed = headers.remove_if(|name, value| {
            name.len() > 7 && name[..8].eq_ignore_ascii_case(b"x-envoy-") && value != b"3"
        });
        assert_eq!(removed, 1);
        assert_eq!(headers.len(), 2);
    }
}
