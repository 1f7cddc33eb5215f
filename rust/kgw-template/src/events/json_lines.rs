//! Lines of JSON.

use memchr::memchr;

use super::{Change, EventTooLong, keep};

/// A body of lines.
#[derive(Debug, Default)]
pub(super) struct JsonLines {
    line: Vec<u8>,
}

// === impl JsonLines ===

impl JsonLines {
    pub(super) fn push(
        &mut self,
        mut data: &[u8],
        end: bool,
        limit: usize,
        out: &mut Vec<u8>,
        transform: &mut dyn FnMut(&[u8]) -> Change,
    ) -> Result<(), EventTooLong> {
        while let Some(at) = memchr(b'\n', data) {
            let (line, rest) = data.split_at(at + 1);
            keep(&mut self.line, line, limit)?;
            self.pass(out, transform);
            data = rest;
        }
        keep(&mut self.line, data, limit)?;
        if end {
            self.pass(out, transform);
        }
        Ok(())
    }

    pub(super) fn waiting(&self) -> usize {
        self.line.len()
    }

    /// Passes on what is kept, which is a line, or the last one without its end.
    fn pass(&mut self, out: &mut Vec<u8>, transform: &mut dyn FnMut(&[u8]) -> Change) {
        let text = self.line.trim_ascii_end();
        let change = if text.is_empty() {
            Change::Keep
        } else {
            transform(text)
        };
        match change {
            Change::Keep => out.extend_from_slice(&self.line),
            Change::Drop => {}
            Change::Replace(new) => {
                // The ends of lines are white space to JSON, and would make two lines of one.
                let new = new.trim_ascii_end().bytes();
                out.extend(new.map(|byte| match byte {
                    b'\r' | b'\n' => b' ',
                    byte => byte,
                }));
                out.extend_from_slice(&self.line[text.len()..]);
            }
        }
        self.line.clear();
    }
}
