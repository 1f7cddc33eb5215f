//! Server-sent events (WHATWG HTML §9.2.5 and §9.2.6).
//!
//! Lines end with LF, CR or CR LF; a blank line ends an event. A CR ends its line at once: an LF that follows
//! it belongs to the same end, and may come much later.

use memchr::memchr2;

use super::{Change, EventTooLong, keep};

/// A body of events.
#[derive(Debug, Default)]
pub(super) struct ServerSent {
    /// The lines of the event, with their ends.
    event: Vec<u8>,
    /// Where its last line begins.
    line: usize,
    /// The last byte was a CR, which an LF may belong to.
    after_cr: bool,
    /// The last event was left out, and so is what belongs to its end.
    is_dropped: bool,
}

// === impl ServerSent ===

impl ServerSent {
    pub(super) fn push(
        &mut self,
        mut data: &[u8],
        end: bool,
        limit: usize,
        out: &mut Vec<u8>,
        transform: &mut dyn FnMut(&[u8]) -> Change,
    ) -> Result<(), EventTooLong> {
        while let Some(&first) = data.first() {
            if std::mem::take(&mut self.after_cr) && first == b'\n' {
                data = &data[1..];
                if !self.event.is_empty() {
                    keep(&mut self.event, b"\n", limit)?;
                    self.line = self.event.len();
                } else if !self.is_dropped {
                    out.push(b'\n');
                }
                continue;
            }
            let Some(at) = memchr2(b'\r', b'\n', data) else {
                break;
            };
            let (line, rest) = data.split_at(at + 1);
            keep(&mut self.event, line, limit)?;
            self.after_cr = line.ends_with(b"\r");
            data = rest;
            if self.event.len() == self.line + 1 {
                self.pass(out, transform);
            } else {
                self.line = self.event.len();
            }
        }
        if !data.is_empty() {
            self.after_cr = false;
        }
        keep(&mut self.event, data, limit)?;
        if end && !self.event.is_empty() {
            self.pass(out, transform);
        }
        Ok(())
    }

    pub(super) fn waiting(&self) -> usize {
        self.event.len()
    }

    /// Passes on what is kept, which is an event, or the last one without its end.
    fn pass(&mut self, out: &mut Vec<u8>, transform: &mut dyn FnMut(&[u8]) -> Change) {
        let data = data_of(&self.event);
        let change = data.as_ref().map_or(Change::Keep, |data| transform(data));
        self.is_dropped = change == Change::Drop;
        match change {
            Change::Keep => out.extend_from_slice(&self.event),
            Change::Drop => {}
            Change::Replace(new) => write(&self.event, &new, out),
        }
        self.event.clear();
        self.line = 0;
    }
}

/// The lines of an event, each with its end.
fn lines(mut event: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    std::iter::from_fn(move || {
        if event.is_empty() {
            return None;
        }
        let text = memchr2(b'\r', b'\n', event).unwrap_or(event.len());
        let end = if event[text..].starts_with(b"\r\n") {
            2
        } else {
            1
        };
        let end = end.min(event.len() - text);
        let (line, rest) = event.split_at(text + end);
        event = rest;
        Some(line.split_at(text))
    })
}

/// The value of a `data` line.
fn value(line: &[u8]) -> Option<&[u8]> {
    let rest = line.strip_prefix(b"data")?;
    if rest.is_empty() {
        return Some(rest);
    }
    let value = rest.strip_prefix(b":")?;
    Some(value.strip_prefix(b" ").unwrap_or(value))
}

/// The data of an event that has some.
fn data_of(event: &[u8]) -> Option<Vec<u8>> {
    let values: Vec<_> = lines(event).filter_map(|(line, _)| value(line)).collect();
    (!values.is_empty()).then(|| values.join(&b'\n'))
}

/// Writes an event with other data: all of its lines where the first one was.
fn write(event: &[u8], new: &str, out: &mut Vec<u8>) {
    let mut new = Some(new);
    for (line, end) in lines(event) {
        if value(line).is_none() {
            out.extend_from_slice(line);
            out.extend_from_slice(end);
        } else if let Some(new) = new.take() {
            let mut rest = new.as_bytes();
            loop {
                let (text, after) = match lines(rest).next() {
                    Some((text, cut)) => (text, (!cut.is_empty()).then(|| text.len() + cut.len())),
                    None => (rest, None),
                };
                out.extend_from_slice(b"data: ");
                out.extend_from_slice(text);
                let Some(after) = after else {
                    // The last of the event's bytes may be the last of the body, without an end.
                    out.extend_from_slice(end);
                    break;
                };
                out.extend_from_slice(if end.is_empty() { b"\n" } else { end });
                rest = &rest[after..];
            }
        }
    }
}
