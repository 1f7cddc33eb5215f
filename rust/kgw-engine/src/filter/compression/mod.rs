//! Compressing answers, and decompressing requests (Envoy `compressor`, `decompressor`).
//!
//! Which answers are compressed is as in Envoy under kgateway: text of some types, of 30 bytes or more,
//! that nobody has coded, for clients that take it. What a sender has written is passed on at once: each
//! piece is flushed. What comes of a request is bounded by a multiple of what came in.

mod accept;
mod decode;
mod encode;

use bytes::BytesMut;
use kgw_h1::Headers;

use self::accept::preferred;
use self::decode::Decoder;
use self::encode::Encoder;
use super::{BodyFilter, Decide, RequestView, Respond, ResponseView, Step, Taken};
use crate::config::ir::{Coding, Codings};
use crate::pipeline::reply::Reply;

/// The shortest body that is worth it. Bytes; Envoy's.
const LEAST: u64 = 30;

/// The types of bodies that are compressed, as kgateway has them.
const TYPES: [&[u8]; 8] = [
    b"application/javascript",
    b"application/json",
    b"application/xhtml+xml",
    b"image/svg+xml",
    b"text/css",
    b"text/html",
    b"text/plain",
    b"text/xml",
];

/// Answers are compressed.
#[derive(Debug)]
pub(crate) struct Compressor(Box<[Coding]>);

/// Requests are decompressed.
#[derive(Debug)]
pub(crate) struct Decompressor(Box<[Coding]>);

impl Coding {
    /// Its name in `content-encoding`.
    const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }
}

fn compile(codings: &Codings) -> Result<Box<[Coding]>, String> {
    match &*codings.codings {
        [] => Err("there is no coding".to_owned()),
        codings => Ok(codings.into()),
    }
}

impl Compressor {
    pub(crate) fn compile(codings: &Codings) -> Result<Self, String> {
        compile(codings).map(Self)
    }
}

impl Decompressor {
    pub(crate) fn compile(codings: &Codings) -> Result<Self, String> {
        compile(codings).map(Self)
    }
}

impl Respond for Compressor {
    fn on_response(&self, view: &mut ResponseView<'_, '_>) -> Result<Step, Reply> {
        if !view.has_body || !may_be_compressed(*view.status, view.headers) {
            return Ok(Step::Pass);
        }
        // What is stored on the way may be asked for by others.
        vary(view.headers);
        let Some(coding) = preferred(view.request.headers(), &self.0) else {
            return Ok(Step::Pass);
        };
        let headers = &mut *view.headers;
        // A strong validator is one of these very bytes (RFC 9110 8.8.1).
        if headers
            .get(b"etag")
            .is_some_and(|tag| !tag.starts_with(b"W/"))
        {
            headers.remove(b"etag");
        }
        headers.remove(b"content-length");
        headers.set(b"content-encoding", coding.name().as_bytes());
        view.worker.stats().compressed.increment();
        Ok(Step::Stage(Box::new(Encoder::new(coding))))
    }
}

impl Decide for Decompressor {
    fn on_request(&self, view: &mut RequestView<'_, '_>) -> Result<Step, Reply> {
        if view.is_tunnel || view.request.framing().is_empty() {
            return Ok(Step::Pass);
        }
        let Some((coding, rest)) = outermost(view.request.headers(), &self.0) else {
            return Ok(Step::Pass);
        };
        let headers = view.request.headers_mut();
        headers.remove(b"content-encoding");
        if !rest.is_empty() {
            headers.append(b"content-encoding", &rest);
        }
        view.worker.stats().decompressed.increment();
        Ok(Step::Stage(Box::new(Decoder::new(coding))))
    }
}

/// Whether an answer is one that is compressed for clients that take it.
fn may_be_compressed(status: u16, headers: &Headers) -> bool {
    let is_long = match headers.get(b"content-length") {
        None => true,
        Some(length) => std::str::from_utf8(length)
            .ok()
            .and_then(|length| length.parse::<u64>().ok())
            .is_some_and(|length| length >= LEAST),
    };
    let is_text = headers.get(b"content-type").is_some_and(|value| {
        let kind = value.split(|&byte| byte == b';').next().unwrap_or_default();
        let kind = kind.trim_ascii();
        TYPES.iter().any(|one| one.eq_ignore_ascii_case(kind))
    });
    let is_fixed = headers.get_all(b"cache-control").any(|value| {
        let mut parts = value.split(|&byte| byte == b',');
        parts.any(|part| part.trim_ascii().eq_ignore_ascii_case(b"no-transform"))
    });
    // A part of an answer is a part of its bytes.
    let is_part = status == 206 || headers.contains(b"content-range");
    is_long && is_text && !is_fixed && !is_part && !headers.contains(b"content-encoding")
}

/// Says that the answer depends on what the client takes.
fn vary(headers: &mut Headers) {
    let is_said = headers.get_all(b"vary").any(|value| {
        let mut parts = value.split(|&byte| byte == b',');
        parts.any(|part| {
            let part = part.trim_ascii();
            part == b"*" || part.eq_ignore_ascii_case(b"accept-encoding")
        })
    });
    if is_said {
        return;
    }
    match headers.get(b"vary").map(<[u8]>::to_vec) {
        Some(mut value) if headers.get_all(b"vary").count() == 1 => {
            value.extend_from_slice(b", Accept-Encoding");
            headers.set(b"vary", &value);
        }
        _ => {
            headers.append(b"vary", b"Accept-Encoding");
        }
    }
}

/// The coding that was applied last, if it is one of `known`, and those that were before.
fn outermost(headers: &Headers, known: &[Coding]) -> Option<(Coding, Vec<u8>)> {
    let values: Vec<&[u8]> = headers.get_all(b"content-encoding").collect();
    let all = values.join(&b","[..]);
    let (rest, last) = match all.iter().rposition(|&byte| byte == b',') {
        Some(at) => (all[..at].trim_ascii_end(), &all[at + 1..]),
        None => (&[][..], &all[..]),
    };
    let last = last.trim_ascii();
    let mut known = known.iter().copied();
    let coding = known.find(|coding| {
        last.eq_ignore_ascii_case(coding.name().as_bytes())
            || *coding == Coding::Gzip && last.eq_ignore_ascii_case(b"x-gzip")
    })?;
    Some((coding, rest.to_vec()))
}

impl BodyFilter for Encoder {
    fn push(&mut self, data: &[u8], end: bool, out: &mut BytesMut) -> Result<Taken, Reply> {
        self.encode(data, end, out)
            .map_err(|_| Reply::new(500, "", "response_compression_failed", None))?;
        Ok(Taken::All)
    }
}

impl BodyFilter for Decoder {
    fn push(&mut self, data: &[u8], end: bool, out: &mut BytesMut) -> Result<Taken, Reply> {
        self.decode(data, end, out).map_err(|fault| match fault {
            decode::Fault::TooLarge => Reply::payload_too_large(),
            decode::Fault::Malformed => {
                Reply::new(400, "Bad Request", "request_decompression_failed", None)
            }
        })?;
        Ok(Taken::All)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&str, &str)]) -> Headers {
        let mut headers = Headers::new();
        for (name, value) in pairs {
            headers.append(name.as_bytes(), value.as_bytes());
        }
        headers
    }

    #[test]
    fn text_that_nobody_coded_is_compressed() {
        let json = ("content-type", "Application/JSON; charset=utf-8");
        for (status, headers, expected) in [
            (200, vec![json], true),
            (404, vec![json, ("content-length", "30")], true),
            (200, vec![json, ("content-length", "29")], false),
            (200, vec![("content-type", "image/png")], false),
            (200, vec![], false),
            (200, vec![json, ("content-encoding", "br")], false),
            (
                200,
                vec![json, ("cache-control", "private, no-transform")],
                false,
            ),
            (206, vec![json], false),
        ] {
            let headers = fields(&headers);
            assert_eq!(may_be_compressed(status, &headers), expected, "{headers:?}");
        }
    }

    #[test]
    fn what_an_answer_depends_on_is_said_once() {
        for (given, expected) in [
            (vec![], vec!["Accept-Encoding"]),
            (vec![("vary", "origin")], vec!["origin, Accept-Encoding"]),
            (vec![("vary", "accept-encoding")], vec!["accept-encoding"]),
            (vec![("vary", "*")], vec!["*"]),
            (
                vec![("vary", "a"), ("vary", "b")],
                vec!["a", "b", "Accept-Encoding"],
            ),
        ] {
            let mut headers = fields(&given);
            vary(&mut headers);
            let got: Vec<_> = headers.get_all(b"vary").collect();
            let expected: Vec<_> = expected.iter().map(|one| one.as_bytes()).collect();
            assert_eq!(got, expected);
        }
    }

    #[test]
    fn the_last_coding_is_taken_off_first() {
        let known = [Coding::Gzip, Coding::Zstd];
        for (given, expected) in [
            ("gzip", Some((Coding::Gzip, ""))),
            ("X-GZIP", Some((Coding::Gzip, ""))),
            ("zstd, gzip", Some((Coding::Gzip, "zstd"))),
            ("gzip, br", None),
            ("identity", None),
            ("", None),
        ] {
            let got = outermost(&fields(&[("content-encoding", given)]), &known);
            let expected = expected.map(|(coding, rest)| (coding, rest.as_bytes().to_vec()));
            assert_eq!(got, expected, "{given}");
        }
    }

    fn coded(coding: Coding, pieces: &[&[u8]]) -> Vec<u8> {
        let mut encoder = Encoder::new(coding);
        let mut out = BytesMut::new();
        for (number, piece) in pieces.iter().enumerate() {
            let before = out.len();
            let end = number + 1 == pieces.len();
            assert_eq!(encoder.push(piece, end, &mut out).unwrap(), Taken::All);
            // What was written is on its way.
            assert!(out.len() > before || piece.is_empty());
        }
        out.to_vec()
    }

    #[test]
    fn what_is_compressed_is_decompressed() {
        for coding in [Coding::Gzip, Coding::Brotli, Coding::Zstd] {
            let text = b"{\"some\": \"text\"}".repeat(100);
            let whole = coded(coding, &[&text[..10], &text[10..800], &text[800..], b""]);
            assert!(whole.len() < text.len(), "{coding:?}");
            for size in [1, 7, 4096] {
                let mut decoder = Decoder::new(coding);
                let mut out = BytesMut::new();
                for piece in whole.chunks(size) {
                    decoder.push(piece, false, &mut out).unwrap();
                }
                decoder.push(b"", true, &mut out).unwrap();
                assert_eq!(out, text, "{coding:?} {size}");
            }
        }
    }

    #[test]
    fn what_is_cut_off_or_is_none_is_refused() {
        for coding in [Coding::Gzip, Coding::Brotli, Coding::Zstd] {
            let whole = coded(coding, &[&b"some text".repeat(100)]);
            for (given, at) in [
                (&whole[..whole.len() / 2], "half"),
                (b"none at all", "none"),
            ] {
                let mut decoder = Decoder::new(coding);
                let decoded = decoder.push(given, true, &mut BytesMut::new());
                assert_eq!(decoded.unwrap_err().status, 400, "{coding:?} {at}");
            }
            let mut decoder = Decoder::new(coding);
            decoder.push(b"", true, &mut BytesMut::new()).unwrap();
        }
    }

    #[test]
    fn a_bomb_is_refused_before_it_goes_off() {
        for coding in [Coding::Gzip, Coding::Brotli, Coding::Zstd] {
            let bomb = coded(coding, &[&vec![0; 32 << 20]]);
            let mut decoder = Decoder::new(coding);
            let mut out = BytesMut::new();
            let refused = bomb
                .chunks(16 << 10)
                .map(|piece| decoder.push(piece, false, &mut out))
                .find_map(Result::err);
            assert_eq!(refused.unwrap().status, 413, "{coding:?}");
            assert!(out.len() <= 100 * bomb.len() + (64 << 10), "{coding:?}");
        }
    }
}
