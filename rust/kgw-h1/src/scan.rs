//! Finds the end of a head, line by line, remembering where it was.
//!
//! Each byte is looked at once however the input is split. Whatever is wrong with the line
//! structure is found here, before any field is looked at: bare LF, too many lines, too many bytes.

use memchr::memchr_iter;

/// Bounds of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest head in bytes, from the first byte of the start line to the final CRLF.
    pub max_head_bytes: usize,
    /// Largest number of field lines.
    pub max_fields: usize,
}

impl Limits {
    /// Envoy's defaults for requests: 60 KiB, 100 fields.
    pub const REQUEST: Self = Self {
        max_head_bytes: 60 * 1024,
        max_fields: 100,
    };

    /// Envoy's defaults for responses: 80 KiB, 100 fields.
    pub const RESPONSE: Self = Self {
        max_head_bytes: 80 * 1024,
        max_fields: 100,
    };
}

/// What a parse call found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The head is complete; it took this many bytes of the buffer.
    Complete(usize),
    /// More input is needed; call again with the same bytes and more behind them.
    Incomplete,
}

/// Where the scan of one head stands. `Default` is the start of a new head.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct HeadScan {
    /// Bytes of leading empty lines, a part of the head's length but not of its limit.
    pub(crate) skipped: usize,
    /// The first byte of the start line was seen (requests only).
    started: bool,
    /// End of the start line (behind its CRLF), once known.
    pub(crate) first_line: Option<usize>,
    /// Start of the current line.
    line_start: usize,
    /// Bytes already searched for LF.
    searched: usize,
    /// Complete field lines seen.
    pub(crate) fields: usize,
}

/// What [`HeadScan::advance`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scan {
    Complete(usize),
    Incomplete,
    BareLf { line: usize },
    TooLarge,
    TooManyFields,
}

impl HeadScan {
    /// Skips empty lines before the start line (RFC 9112 §2.2). `Some(true)` when the start line
    /// has begun, `None` when more input is needed to tell, `Some(false)` when what stands there is
    /// neither an empty line nor the beginning of a token.
    pub(crate) fn skip_empty_lines(&mut self, buf: &[u8]) -> Option<bool> {
        while !self.started {
            match buf.get(self.skipped..) {
                Some([b'\r', b'\n', ..]) => {
                    self.skipped += 2;
                    if self.skipped > 2 * MAX_LEADING_EMPTY_LINES {
                        return Some(false);
                    }
                }
                None | Some([] | [b'\r']) => return None,
                Some([first, ..]) => {
                    if !crate::chars::is_token(*first) {
                        return Some(false);
                    }
                    self.started = true;
                    self.line_start = self.skipped;
                    self.searched = self.skipped;
                }
            }
        }
        Some(true)
    }

    /// Looks at the bytes that came since the last call.
    pub(crate) fn advance(&mut self, buf: &[u8], limits: &Limits) -> Scan {
        let bound = self.skipped.saturating_add(limits.max_head_bytes);
        let window = &buf[..buf.len().min(bound)];
        let from = self.searched;
        for at in memchr_iter(b'\n', window.get(from..).unwrap_or_default()) {
            let lf = from + at;
            self.searched = lf + 1;
            if lf == self.line_start || window[lf - 1] != b'\r' {
                let line = self.fields + usize::from(self.first_line.is_some());
                return Scan::BareLf { line };
            }
            let is_empty = lf - 1 == self.line_start;
            self.line_start = lf + 1;
            if self.first_line.is_none() {
                self.first_line = Some(lf + 1);
            } else if is_empty {
                return Scan::Complete(lf + 1);
            } else if self.fields == limits.max_fields {
                return Scan::TooManyFields;
            } else {
                self.fields += 1;
            }
        }
        self.searched = window.len();
        if buf.len() >= bound {
            Scan::TooLarge
        } else {
            Scan::Incomplete
        }
    }
}

/// Empty lines that are skipped before a request line.
pub const MAX_LEADING_EMPTY_LINES: usize = 4;
