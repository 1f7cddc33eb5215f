//! Models of backends that are laxer than the RFC, in every combination of their ways: what is
//! forwarded must mean the same to all of them.

/// How a model reads lines.
#[derive(Clone, Copy, Debug)]
enum LineEnd {
    CrLf,
    OrLf,
    OrCr,
}

/// When a model takes a body for chunked.
#[derive(Clone, Copy, Debug)]
enum Chunked {
    /// The value is `chunked`.
    Exactly,
    /// The value has `chunked` somewhere in it.
    Somewhere,
    /// There is a `Transfer-Encoding`.
    IfPresent,
}

#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent ways of being lax, all of them combined"
)]
struct Model {
    line_end: LineEnd,
    chunked: Chunked,
    /// White space around a name does not count.
    trims_names: bool,
    /// `_` in a name reads as `-`.
    underscores: bool,
    /// A line that starts with a blank goes on from the one before.
    folds: bool,
    /// Of several lengths the last counts, not the first.
    last_length: bool,
    /// A length goes before chunks.
    length_first: bool,
    /// A chunk size ends at the first byte that is no digit.
    lax_size: bool,
}

/// Reads `wire` with every model and compares the first request's target and body, and that the
/// second one is for `/next`.
///
/// # Panics
/// When a model reads anything else.
pub(super) fn check(wire: &[u8], path: &[u8], body: &[u8]) {
    for model in models() {
        // A name with `_` is the operator's affair: there is an option to drop or refuse them.
        let is_affected = model.underscores && has_underscored_framing(wire);
        if is_affected {
            continue;
        }
        let Some((target, read, rest)) = model.read(wire) else {
            panic!("{model:?} does not read {}", wire.escape_ascii());
        };
        assert_eq!(target, path, "{model:?} of {}", wire.escape_ascii());
        assert_eq!(read, body, "{model:?} of {}", wire.escape_ascii());
        let next = model.read(&wire[rest..]).map(|(target, ..)| target);
        let next = next.as_deref();
        assert_eq!(
            next,
            Some(&b"/next"[..]),
            "{model:?} of {}",
            wire.escape_ascii()
        );
    }
}

fn has_underscored_framing(wire: &[u8]) -> bool {
    let lower = wire.to_ascii_lowercase();
    [&b"content_length"[..], b"transfer_encoding"]
        .iter()
        .any(|name| lower.windows(name.len()).any(|window| window == *name))
}

/// All 576 of them.
fn models() -> impl Iterator<Item = Model> {
    let ends = [LineEnd::CrLf, LineEnd::OrLf, LineEnd::OrCr];
    let forms = [Chunked::Exactly, Chunked::Somewhere, Chunked::IfPresent];
    ends.into_iter().flat_map(move |line_end| {
        forms.into_iter().flat_map(move |chunked| {
            (0_u8..64).map(move |bits| Model {
                line_end,
                chunked,
                trims_names: bits & 1 != 0,
                underscores: bits & 2 != 0,
                folds: bits & 4 != 0,
                last_length: bits & 8 != 0,
                length_first: bits & 16 != 0,
                lax_size: bits & 32 != 0,
            })
        })
    })
}

impl Model {
    /// Reads one request: its target, its body, and where the next one starts.
    fn read(self, wire: &[u8]) -> Option<(Vec<u8>, Vec<u8>, usize)> {
        let mut at = 0;
        let line = self.line(wire, &mut at)?;
        let target = line.split(|&byte| byte == b' ').nth(1)?.to_vec();
        let mut fields: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        loop {
            let line = self.line(wire, &mut at)?;
            if line.is_empty() {
                break;
            }
            if self.folds && matches!(line[0], b' ' | b'\t') {
                let (_, value) = fields.last_mut()?;
                value.extend_from_slice(line);
                continue;
            }
            let colon = line.iter().position(|&byte| byte == b':')?;
            let mut name = line[..colon].to_ascii_lowercase();
            if self.trims_names {
                name = name.trim_ascii().to_vec();
            }
            if self.underscores {
                name.iter_mut()
                    .filter(|byte| **byte == b'_')
                    .for_each(|byte| *byte = b'-');
            }
            fields.push((name, line[colon + 1..].trim_ascii().to_vec()));
        }
        let all = |wanted: &'static [u8]| {
            fields
                .iter()
                .filter(move |(name, _)| name == wanted)
                .map(|(_, value)| value.to_ascii_lowercase())
        };
        let is_chunked = all(b"transfer-encoding").any(|value| match self.chunked {
            Chunked::Exactly => value == b"chunked",
            Chunked::Somewhere => value.windows(7).any(|part| part == b"chunked"),
            Chunked::IfPresent => true,
        });
        let lengths = all(b"content-length").collect::<Vec<_>>();
        let length = if self.last_length {
            lengths.last()
        } else {
            lengths.first()
        };
        if let Some(length) = length
            && (self.length_first || !is_chunked)
        {
            let length: usize = std::str::from_utf8(length).ok()?.parse().ok()?;
            let body = wire.get(at..at.checked_add(length)?)?.to_vec();
            return Some((target, body, at + length));
        }
        let mut body = Vec::new();
        if is_chunked {
            loop {
                let size = self.line(wire, &mut at)?;
                let digits = size
                    .iter()
                    .take_while(|byte| byte.is_ascii_hexdigit())
                    .count();
                if digits < size.len() && !self.lax_size {
                    return None;
                }
                let size = std::str::from_utf8(&size[..digits]).ok()?;
                let size = usize::from_str_radix(size, 16).ok()?;
                if size == 0 {
                    break;
                }
                body.extend_from_slice(wire.get(at..at.checked_add(size)?)?);
                at += size;
                if !self.line(wire, &mut at)?.is_empty() {
                    return None;
                }
            }
            while !self.line(wire, &mut at)?.is_empty() {}
        }
        Some((target, body, at))
    }

    /// Takes a line off.
    fn line<'a>(self, wire: &'a [u8], at: &mut usize) -> Option<&'a [u8]> {
        let rest = wire.get(*at..)?;
        let (len, width) = (0..rest.len()).find_map(|len| match (&rest[len..], self.line_end) {
            ([b'\r', b'\n', ..], _) => Some((len, 2)),
            ([b'\n', ..], LineEnd::OrLf) | ([b'\r', ..], LineEnd::OrCr) => Some((len, 1)),
            _ => None,
        })?;
        *at += len + width;
        Some(&rest[..len])
    }
}
