//! The text of a file and its lines: byte offsets to lines and columns, and back to snippets.

/// A text with an index of its lines.
///
/// Lines end at LF, CR LF or a lone CR, as in YAML (1.2.2 §5.4).
#[derive(Debug, Clone)]
pub struct Source {
    text: Box<str>,
    /// Byte offset of the start of each line; the first is 0.
    starts: Vec<u32>,
}

/// A place on one line; everything counts from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The line.
    pub line: u32,
    /// The column of the first character.
    pub column: u32,
    /// The column after the last character on this line; equal to `column` for an empty place.
    pub end_column: u32,
}

/// A range of bytes of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) start: u32,
    pub(crate) end: u32,
}

/// Where parsing can begin anew after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Boundary {
    /// The `---`, or the line after the `...`.
    pub(crate) resume: u32,
    /// The length of the marker that stands at `resume`: 3 for a `---`, otherwise 0.
    pub(crate) marker: u32,
}

impl Source {
    pub(crate) fn new(text: Box<str>) -> Self {
        let bytes = text.as_bytes();
        let mut starts = vec![0];
        for at in memchr::memchr2_iter(b'\n', b'\r', bytes) {
            let crlf = bytes[at] == b'\r' && bytes.get(at + 1) == Some(&b'\n');
            if !crlf {
                starts.push(offset(at + 1));
            }
        }
        Self { text, starts }
    }

    /// Returns the whole text, with control characters and invalid bytes replaced.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the number of lines; a text that ends in a line break has an empty last line.
    pub fn lines(&self) -> usize {
        self.starts.len()
    }

    /// Returns the text of a line, from 1, without its line break.
    pub fn line(&self, number: usize) -> Option<&str> {
        let index = number.checked_sub(1)?;
        let start = *self.starts.get(index)? as usize;
        let end = self
            .starts
            .get(index + 1)
            .map_or(self.text.len(), |end| *end as usize);
        Some(self.text.get(start..end)?.trim_end_matches(['\n', '\r']))
    }

    /// Returns where lines start.
    pub(crate) fn starts(&self) -> impl Iterator<Item = u32> {
        self.starts.iter().copied()
    }

    /// Returns the number, from 1, of the line that holds a byte.
    pub(crate) fn line_of(&self, at: u32) -> u32 {
        offset(self.starts.partition_point(|start| *start <= at))
    }

    /// Returns the first boundary of documents on a line that starts at or after a byte.
    ///
    /// No scalar of any style may contain such a line (YAML 1.2.2 §9.1.2, `c-forbidden`), so this
    /// needs no knowledge of what the lines before it mean.
    pub(crate) fn boundary(&self, from: u32) -> Option<Boundary> {
        let first = self.starts.partition_point(|start| *start < from);
        (first + 1..=self.starts.len()).find_map(|number| {
            let start = self.starts[number - 1];
            let line = self.line(number)?;
            // Files that were put one after another may each have a byte order mark.
            let marked = line.trim_start_matches('\u{feff}');
            if marked.strip_prefix("---").is_some_and(is_separated) {
                return Some(Boundary {
                    resume: start + offset(line.len() - marked.len()),
                    marker: 3,
                });
            }
            let rest = marked
                .strip_prefix("...")
                .filter(|rest| is_separated(rest))?;
            let rest = rest.trim_start_matches([' ', '\t']);
            (rest.is_empty() || rest.starts_with('#')).then(|| Boundary {
                resume: self
                    .starts
                    .get(number)
                    .copied()
                    .unwrap_or_else(|| offset(self.text.len())),
                marker: 0,
            })
        })
    }

    /// Returns where a range starts, marked to its end or to the end of its first line.
    pub(crate) fn place(&self, range: Range) -> Place {
        let line = self.line_of(range.start);
        let start = self.starts[line as usize - 1];
        let text = self.line(line as usize).unwrap_or_default();
        let within = |at: u32| (at.saturating_sub(start) as usize).min(text.len());
        let column = 1 + characters(text, within(range.start));
        let end = if range.end > offset(text.len()).saturating_add(start) {
            text.trim_end().len()
        } else {
            within(range.end)
        };
        let end_column = (1 + characters(text, end)).max(column);
        Place {
            line,
            column,
            end_column,
        }
    }
}

/// Whether a marker is one, from what follows it on its line.
fn is_separated(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with([' ', '\t'])
}

/// Counts the characters before a byte of a line.
fn characters(line: &str, at: usize) -> u32 {
    offset(
        line.char_indices()
            .take_while(|(index, _)| *index < at)
            .count(),
    )
}

/// An offset as it is stored; texts are limited to less than 4 GiB before they get here.
pub(crate) fn offset(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str, start: u32, end: u32) -> (u32, u32, u32) {
        let place = Source::new(text.into()).place(Range { start, end });
        (place.line, place.column, place.end_column)
    }

    #[test]
    fn every_kind_of_line_break_ends_a_line() {
        let source = Source::new("a\nb\r\nc\rd".into());
        let lines: Vec<_> = (1..=source.lines())
            .filter_map(|n| source.line(n))
            .collect();
        assert_eq!(lines, ["a", "b", "c", "d"]);
        assert_eq!(source.line(0), None);
        assert_eq!(source.line(5), None);
    }

    #[test]
    fn boundaries_stand_at_the_start_of_a_line() {
        let at = |text: &str, from| {
            let found = Source::new(text.into()).boundary(from)?;
            Some((found.resume, found.marker))
        };
        assert_eq!(at("---\n", 0), Some((0, 3)));
        assert_eq!(at("---\na\n--- b", 1), Some((6, 3)));
        assert_eq!(at("a\r---\r\n", 0), Some((2, 3)));
        assert_eq!(at("a\n\u{feff}---\tb", 0), Some((5, 3)));
        assert_eq!(at("a\n...\nb", 0), Some((6, 0)));
        assert_eq!(at("a\n... # b", 0), Some((9, 0)));
        assert_eq!(at("a\n ---\n---b\n----\n...b\n... b\n....\n--", 0), None);
    }

    #[test]
    fn columns_count_characters() {
        assert_eq!(place("é: ü", 4, 6), (1, 4, 5));
        assert_eq!(place("a\r\nb: c", 6, 7), (2, 4, 5));
    }

    #[test]
    fn a_range_over_several_lines_is_marked_to_the_end_of_the_first() {
        assert_eq!(place("a: [1,  \n 2]", 3, 12), (1, 4, 7));
    }

    #[test]
    fn the_end_of_the_text_is_a_place() {
        assert_eq!(place("a:\n", 3, 3), (2, 1, 1));
        assert_eq!(place("", 0, 0), (1, 1, 1));
        assert_eq!(place("a", 9, 9), (1, 2, 2));
    }
}
