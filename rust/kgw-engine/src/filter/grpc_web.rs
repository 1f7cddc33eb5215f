//! gRPC-Web (gRPC's `PROTOCOL-WEB`, Envoy's `grpc_web` filter): gRPC for clients that can neither read
//! trailers nor, some of them, binary bodies.
//!
//! A request becomes a gRPC one: its content type changes, and a text body is decoded. In the answer the
//! trailers become a last frame of the body, and all of it is encoded again where the client wants text.
//! Frames of messages pass as they are. An answer that is not gRPC becomes one of only a status.
//!
//! Nothing is buffered but 3 bytes of base64, the start of a frame's header, and the text of an answer
//! that is not gRPC, up to [`MAX_TEXT`]. Output does not depend on how the input is split.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kgw_h1::{Headers, Known};

use crate::pipeline::grpc::encode_message;
use crate::telemetry::grpc;

/// One call's translation.
#[derive(Debug)]
pub(crate) struct GrpcWeb {
    request: Option<TextDecoder>,
    response: Option<TextEncoder>,
    answer: Answer,
}

/// What kind of answer the upstream gave.
#[derive(Debug)]
enum Answer {
    /// None yet, or frames of messages.
    Messages,
    /// A status without messages: the fields that would have been trailers.
    Status(Headers),
    /// Not gRPC: its HTTP status and the start of its body.
    Text(u16, Vec<u8>),
}

/// The request's body is not base64.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct BadBase64;

/// Longest `grpc-message` made of an answer that is not gRPC. Bytes. Envoy reads 16 KiB.
const MAX_TEXT: usize = 16 * 1024;

/// What a frame of trailers starts with: the highest bit of a frame's flags.
const TRAILERS: u8 = 0x80;
const FRAME_HEADER: usize = 5;

const WEB: &[u8] = b"application/grpc-web+proto";
const WEB_TEXT: &[u8] = b"application/grpc-web-text+proto";

/// How gRPC-Web is spoken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Mode {
    Binary,
    Text,
}

impl Mode {
    /// The mode that a media type names, if it is gRPC-Web's.
    fn of(media_type: &[u8]) -> Option<Self> {
        let end = memchr::memchr(b';', media_type).unwrap_or(media_type.len());
        let essence = media_type[..end].trim_ascii().to_ascii_lowercase();
        match essence.as_slice() {
            b"application/grpc-web" | b"application/grpc-web+proto" => Some(Self::Binary),
            b"application/grpc-web-text" | b"application/grpc-web-text+proto" => Some(Self::Text),
            _ => None,
        }
    }
}

impl GrpcWeb {
    /// Turns the head of a gRPC-Web request into that of a gRPC one; none, and nothing changed, if it is
    /// no gRPC-Web request.
    ///
    /// To be called once hop-by-hop fields are gone, since it adds `te: trailers`. The body's length
    /// changes in text mode: no `content-length` may be sent with it.
    pub(crate) fn on_request_head(headers: &mut Headers) -> Option<Self> {
        let request = Mode::of(headers.get_known(Known::ContentType)?)?;
        // Envoy looks at `accept` alone, and gives a client of text that accepts anything binary.
        let response = headers
            .get_all_known(Known::Accept)
            .flat_map(|value| value.split(|&byte| byte == b','))
            .find_map(Mode::of)
            .unwrap_or(request);
        headers.remove_known(Known::ContentLength);
        headers.set(b"content-type", b"application/grpc");
        headers.set(b"te", b"trailers");
        // Few clients can read compressed messages.
        headers.set(b"grpc-accept-encoding", b"identity");
        Some(Self {
            request: (request == Mode::Text).then(TextDecoder::default),
            response: (response == Mode::Text).then(TextEncoder::default),
            answer: Answer::Messages,
        })
    }

    /// Translates a piece of the request's body.
    pub(crate) fn request_data(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<(), BadBase64> {
        if let Some(decoder) = &mut self.request {
            return decoder.decode(data, out);
        }
        out.extend_from_slice(data);
        Ok(())
    }

    /// Ends the request's body.
    pub(crate) fn request_end(&self) -> Result<(), BadBase64> {
        self.request.as_ref().map_or(Ok(()), TextDecoder::finish)
    }

    /// Turns the head of the final answer, the upstream's or the proxy's own, into gRPC-Web's. Returns
    /// the HTTP status to send. The answer has a body of unknown length from now on, even if it had
    /// none: [`response_end`](Self::response_end) makes it.
    pub(crate) fn on_response_head(&mut self, status: u16, headers: &mut Headers) -> u16 {
        let is_grpc = headers
            .get_known(Known::ContentType)
            .is_some_and(grpc::is_grpc);
        if !is_grpc {
            self.answer = Answer::Text(status, Vec::new());
            headers.remove_known(Known::ContentEncoding);
        } else if headers.get_known(Known::GrpcStatus).is_some() {
            let mut trailers = Headers::new();
            for name in STATUS_FIELDS {
                if let Some(value) = headers.get(name) {
                    trailers.append(name, value);
                }
                headers.remove(name);
            }
            self.answer = Answer::Status(trailers);
        }
        headers.remove_known(Known::ContentLength);
        headers.remove_known(Known::Trailer);
        let content_type = if self.response.is_some() {
            WEB_TEXT
        } else {
            WEB
        };
        headers.set(b"content-type", content_type);
        if is_grpc { status } else { 200 }
    }

    /// Translates a piece of the answer's body.
    pub(crate) fn response_data(&mut self, data: &[u8], out: &mut Vec<u8>) {
        if let Answer::Text(_, text) = &mut self.answer {
            let room = MAX_TEXT - text.len();
            text.extend_from_slice(&data[..data.len().min(room)]);
            return;
        }
        match &mut self.response {
            Some(encoder) => encoder.encode(data, out),
            None => out.extend_from_slice(data),
        }
    }

    /// Ends the answer's body with the frame of trailers. Not to be called for an answer that broke off.
    pub(crate) fn response_end(&mut self, trailers: Option<&Headers>, out: &mut Vec<u8>) {
        let mut frame = vec![TRAILERS, 0, 0, 0, 0];
        match (&self.answer, trailers) {
            (Answer::Text(status, text), _) => {
                let mut number = itoa::Buffer::new();
                let status = number.format(grpc::status_of_http(*status));
                push_field(&mut frame, b"grpc-status", status.as_bytes());
                let message = encode_message(text, MAX_TEXT);
                if !message.is_empty() {
                    push_field(&mut frame, b"grpc-message", &message);
                }
            }
            (Answer::Messages, Some(trailers)) if !trailers.is_empty() => {
                push_fields(&mut frame, trailers);
            }
            (Answer::Status(fields), trailers) => {
                push_fields(&mut frame, fields);
                if let Some(trailers) = trailers {
                    push_fields(&mut frame, trailers);
                }
            }
            // gRPC's word for a call without a status.
            (Answer::Messages, _) => push_field(&mut frame, b"grpc-status", b"2"),
        }
        let length = u32::try_from(frame.len() - FRAME_HEADER).unwrap_or(u32::MAX);
        frame[1..FRAME_HEADER].copy_from_slice(&length.to_be_bytes());
        match &mut self.response {
            Some(encoder) => {
                encoder.finish(out);
                push_base64(&frame, out);
            }
            None => out.extend_from_slice(&frame),
        }
    }
}

/// The fields of a status that has no messages, which come in the head then.
const STATUS_FIELDS: [&[u8]; 3] = [b"grpc-status", b"grpc-message", b"grpc-status-details-bin"];

fn push_fields(frame: &mut Vec<u8>, fields: &Headers) {
    for (name, value) in fields {
        push_field(frame, name, value);
    }
}

fn push_field(frame: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    frame.extend(name.iter().map(u8::to_ascii_lowercase));
    frame.extend_from_slice(b": ");
    frame.extend_from_slice(value);
    frame.extend_from_slice(b"\r\n");
}

fn push_base64(bytes: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    let written = STANDARD.encode_slice(bytes, &mut out[start..]);
    debug_assert_eq!(written, Ok(out.len() - start));
}

/// Decodes base64 whose parts may each be padded, as clients encode their messages one by one.
#[derive(Debug, Default)]
pub(crate) struct TextDecoder {
    /// The start of a group of four characters.
    group: [u8; 3],
    filled: usize,
}

impl TextDecoder {
    /// Appends to `out` what `data` completes.
    pub(crate) fn decode(&mut self, mut data: &[u8], out: &mut Vec<u8>) -> Result<(), BadBase64> {
        if self.filled > 0 {
            let missing = 4 - self.filled;
            let Some((head, rest)) = data.split_at_checked(missing) else {
                self.keep(data);
                return Ok(());
            };
            let mut group = [0; 4];
            group[..self.filled].copy_from_slice(&self.group[..self.filled]);
            group[self.filled..].copy_from_slice(head);
            self.filled = 0;
            decode_groups(&group, out)?;
            data = rest;
        }
        let (groups, rest) = data.split_at(data.len() - data.len() % 4);
        let mut groups = groups;
        // Padding ends a part: what follows is decoded on its own.
        while let Some(padding) = memchr::memchr(b'=', groups) {
            let (part, following) = groups.split_at((padding / 4 + 1) * 4);
            decode_groups(part, out)?;
            groups = following;
        }
        decode_groups(groups, out)?;
        self.keep(rest);
        Ok(())
    }

    /// Whether the last group is whole.
    pub(crate) fn finish(&self) -> Result<(), BadBase64> {
        if self.filled == 0 {
            Ok(())
        } else {
            Err(BadBase64)
        }
    }

    fn keep(&mut self, data: &[u8]) {
        self.group[self.filled..self.filled + data.len()].copy_from_slice(data);
        self.filled += data.len();
    }
}

fn decode_groups(groups: &[u8], out: &mut Vec<u8>) -> Result<(), BadBase64> {
    STANDARD.decode_vec(groups, out).map_err(|_| BadBase64)
}

/// Encodes frames of messages, each padded on its own, so that a client has all of a message as soon as
/// the proxy has it.
#[derive(Debug, Default)]
struct TextEncoder {
    /// Bytes that are not three yet.
    carry: [u8; 2],
    carried: usize,
    /// The header of the frame, and how much of it there is.
    header: [u8; FRAME_HEADER],
    header_filled: usize,
    /// Bytes of the message to come, once the header is there.
    left: usize,
}

impl TextEncoder {
    fn encode(&mut self, mut data: &[u8], out: &mut Vec<u8>) {
        while !data.is_empty() {
            let count = self.advance(data);
            let (piece, rest) = data.split_at(count);
            self.push(piece, out);
            if self.header_filled == FRAME_HEADER && self.left == 0 {
                self.header_filled = 0;
                self.finish(out);
            }
            data = rest;
        }
    }

    /// Moves on in the frame by some bytes of `data`; returns how many.
    fn advance(&mut self, data: &[u8]) -> usize {
        if self.header_filled < FRAME_HEADER {
            let count = (FRAME_HEADER - self.header_filled).min(data.len());
            self.header[self.header_filled..self.header_filled + count]
                .copy_from_slice(&data[..count]);
            self.header_filled += count;
            if self.header_filled == FRAME_HEADER {
                let [_, length @ ..] = self.header;
                self.left = u32::from_be_bytes(length) as usize;
            }
            count
        } else {
            let count = self.left.min(data.len());
            self.left -= count;
            count
        }
    }

    fn push(&mut self, mut piece: &[u8], out: &mut Vec<u8>) {
        if self.carried > 0 {
            let missing = 3 - self.carried;
            let Some((head, rest)) = piece.split_at_checked(missing) else {
                self.carry(piece);
                return;
            };
            let mut group = [0; 3];
            group[..self.carried].copy_from_slice(&self.carry[..self.carried]);
            group[self.carried..].copy_from_slice(head);
            self.carried = 0;
            push_base64(&group, out);
            piece = rest;
        }
        let (whole, rest) = piece.split_at(piece.len() - piece.len() % 3);
        push_base64(whole, out);
        self.carry(rest);
    }

    fn carry(&mut self, bytes: &[u8]) {
        self.carry[self.carried..self.carried + bytes.len()].copy_from_slice(bytes);
        self.carried += bytes.len();
    }

    /// Pads what is left over.
    fn finish(&mut self, out: &mut Vec<u8>) {
        push_base64(&self.carry[..self.carried], out);
        self.carried = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(fields: &[(&str, &str)]) -> Headers {
        let mut headers = Headers::new();
        for (name, value) in fields {
            headers.append(name.as_bytes(), value.as_bytes());
        }
        headers
    }

    fn call(content_type: &str, accept: &str) -> GrpcWeb {
        let mut head = headers(&[("content-type", content_type), ("accept", accept)]);
        GrpcWeb::on_request_head(&mut head).expect("gRPC-Web")
    }

    fn message(payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend((payload.len() as u32).to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    /// The pieces of `bytes` between `cuts`.
    fn pieces<'a>(bytes: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        cuts.windows(2)
            .map(|pair| &bytes[pair[0]..pair[1]])
            .collect()
    }

    fn answer(web: &mut GrpcWeb, pieces: &[&[u8]], trailers: Option<&Headers>) -> Vec<u8> {
        let mut out = Vec::new();
        for piece in pieces {
            web.response_data(piece, &mut out);
        }
        web.response_end(trailers, &mut out);
        out
    }

    /// What a client reads: groups of four characters, each alone.
    fn by_group(text: &[u8]) -> Vec<u8> {
        text.chunks(4)
            .flat_map(|group| STANDARD.decode(group).expect("base64"))
            .collect()
    }

    #[test]
    fn only_grpc_web_is_translated() {
        for content_type in [
            "application/grpc",
            "application/grpc+proto",
            "application/grpc-web+json",
            "application/grpc-webby",
            "text/plain",
        ] {
            let mut head = headers(&[("content-type", content_type), ("content-length", "3")]);
            assert!(GrpcWeb::on_request_head(&mut head).is_none());
            assert_eq!(head.len(), 2);
        }
        assert!(GrpcWeb::on_request_head(&mut Headers::new()).is_none());
    }

    #[test]
    fn a_request_becomes_grpc() {
        let mut head = headers(&[
            ("Content-Type", "Application/gRPC-Web+proto; charset=utf-8"),
            ("Content-Length", "8"),
            ("x-grpc-web", "1"),
        ]);
        let mut web = GrpcWeb::on_request_head(&mut head).expect("gRPC-Web");
        let fields: Vec<_> = head.iter().collect();
        let expected: [(&[u8], &[u8]); 4] = [
            (b"Content-Type", b"application/grpc"),
            (b"x-grpc-web", b"1"),
            (b"te", b"trailers"),
            (b"grpc-accept-encoding", b"identity"),
        ];
        assert_eq!(fields, expected);
        let mut out = Vec::new();
        assert_eq!(web.request_data(&message(b"abc"), &mut out), Ok(()));
        assert_eq!(web.request_end(), Ok(()));
        assert_eq!(out, message(b"abc"));
    }

    #[test]
    fn trailers_become_the_last_frame() {
        let mut web = call("application/grpc-web", "*/*");
        let mut head = headers(&[("content-type", "application/grpc"), ("x-a", "1")]);
        assert_eq!(web.on_response_head(200, &mut head), 200);
        assert_eq!(head.get(b"content-type"), Some(WEB));
        let trailers = headers(&[
            ("Grpc-Status", "5"),
            ("grpc-message", "no%20such"),
            ("x", ""),
        ]);
        let out = answer(&mut web, &[&message(b"abc")], Some(&trailers));
        let mut expected = message(b"abc");
        expected.extend(b"\x80\0\0\0\x31grpc-status: 5\r\ngrpc-message: no%20such\r\nx: \r\n");
        expected[12] = (expected.len() - 13) as u8;
        assert_eq!(out, expected);
    }

    #[test]
    fn accept_chooses_how_the_answer_is_written() {
        for (content_type, accept, written) in [
            ("application/grpc-web", "", WEB),
            (
                "application/grpc-web",
                "application/grpc-web-text",
                WEB_TEXT,
            ),
            (
                "application/grpc-web-text",
                "application/grpc-web+proto",
                WEB,
            ),
            ("application/grpc-web-text", "*/*", WEB_TEXT),
            (
                "application/grpc-web",
                "text/html, application/grpc-web-text;q=1",
                WEB_TEXT,
            ),
        ] {
            let mut web = call(content_type, accept);
            let mut head = headers(&[("content-type", "application/grpc+proto")]);
            web.on_response_head(200, &mut head);
            assert_eq!(
                head.get(b"content-type"),
                Some(written),
                "{content_type} {accept}"
            );
        }
    }

    #[test]
    fn a_status_in_the_head_becomes_a_frame() {
        let mut web = call("application/grpc-web-text", "");
        let mut head = headers(&[
            ("content-type", "application/grpc"),
            ("content-length", "0"),
            ("grpc-status", "14"),
            ("grpc-message", "busy"),
            ("server", "kgw"),
        ]);
        assert_eq!(web.on_response_head(200, &mut head), 200);
        assert_eq!(head.len(), 2);
        let out = answer(&mut web, &[], None);
        assert_eq!(
            by_group(&out),
            b"\x80\0\0\0\x25grpc-status: 14\r\ngrpc-message: busy\r\n"
        );
    }

    #[test]
    fn an_answer_that_is_not_grpc_becomes_a_status() {
        let mut web = call("application/grpc-web", "");
        let mut head = headers(&[("content-type", "text/plain"), ("content-length", "9")]);
        assert_eq!(web.on_response_head(503, &mut head), 200);
        assert_eq!(head.len(), 1);
        let out = answer(&mut web, &[b"over", b"load\n"], None);
        assert_eq!(
            &out[5..],
            b"grpc-status: 14\r\ngrpc-message: overload%0A\r\n"
        );
        let mut web = call("application/grpc-web", "");
        assert_eq!(web.on_response_head(500, &mut Headers::new()), 200);
        let out = answer(&mut web, &[&vec![b'a'; 100_000]], None);
        assert!((MAX_TEXT..MAX_TEXT + 100).contains(&out.len()));
    }

    #[test]
    fn a_call_without_a_status_has_an_unknown_one() {
        let mut web = call("application/grpc-web", "");
        web.on_response_head(200, &mut headers(&[("content-type", "application/grpc")]));
        assert_eq!(
            answer(&mut web, &[], None),
            b"\x80\0\0\0\x10grpc-status: 2\r\n"
        );
    }

    #[test]
    fn what_is_not_base64_is_refused() {
        for bad in [
            "AAA", "A", "AA=A", "=AAA", "A===", "====", "AAA\n", "AA-_", "AAAAA",
        ] {
            let mut web = call("application/grpc-web-text", "");
            let mut out = Vec::new();
            let data = web.request_data(bad.as_bytes(), &mut out);
            assert_eq!(
                data.and_then(|()| web.request_end()),
                Err(BadBase64),
                "{bad:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn text_requests_decode_at_any_split(
            messages in prop::collection::vec(any::<Vec<u8>>(), 0..6),
            apart in any::<bool>(),
            cuts in prop::collection::vec(any::<usize>(), 0..20),
        ) {
            let plain: Vec<_> = messages.iter().flat_map(|payload| message(payload)).collect();
            let text: String = if apart {
                messages.iter().map(|payload| STANDARD.encode(message(payload))).collect()
            } else {
                STANDARD.encode(&plain)
            };
            let mut web = call("application/grpc-web-text", "");
            let mut out = Vec::new();
            for piece in pieces(text.as_bytes(), &cuts) {
                prop_assert_eq!(web.request_data(piece, &mut out), Ok(()));
            }
            prop_assert_eq!(web.request_end(), Ok(()));
            prop_assert_eq!(out, plain);
        }

        #[test]
        fn any_bytes_decode_alike_at_any_split(
            bytes in prop::collection::vec(prop::sample::select(b"AQz/+=\n".to_vec()), 0..40),
            cuts in prop::collection::vec(any::<usize>(), 0..20),
        ) {
            let decode = |pieces: Vec<&[u8]>| {
                let mut decoder = TextDecoder::default();
                let mut out = Vec::new();
                for piece in pieces {
                    decoder.decode(piece, &mut out)?;
                }
                decoder.finish().map(|()| out)
            };
            prop_assert_eq!(decode(pieces(&bytes, &cuts)), decode(vec![&bytes]));
        }

        #[test]
        fn text_answers_are_the_same_at_any_split(
            messages in prop::collection::vec(any::<Vec<u8>>(), 0..6),
            cuts in prop::collection::vec(any::<usize>(), 0..20),
        ) {
            let plain: Vec<_> = messages.iter().flat_map(|payload| message(payload)).collect();
            let text: String =
                messages.iter().map(|payload| STANDARD.encode(message(payload))).collect();
            let trailers = headers(&[("grpc-status", "0")]);
            let mut web = call("application/grpc-web-text", "");
            web.on_response_head(200, &mut headers(&[("content-type", "application/grpc")]));
            let out = answer(&mut web, &pieces(&plain, &cuts), Some(&trailers));
            let frame = b"\x80\0\0\0\x10grpc-status: 0\r\n";
            prop_assert_eq!(&out, &[text.as_bytes(), STANDARD.encode(frame).as_bytes()].concat());
        }
    }
}
