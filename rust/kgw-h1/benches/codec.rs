//! Cost of one message, head by head. `cargo bench -p kgw-h1`.

use divan::{Bencher, black_box, counter::BytesCount};
use kgw_h1::{
    BodyDecoder, BodyEncoder, Framing, Known, Limits, Request, RequestContext, Response, Status,
    strip_hop_by_hop_request, write_request_head, write_response_head,
};

const REQUEST: &[u8] = b"GET /api/v1/models?limit=20 HTTP/1.1\r\n\
    Host: ollama.default.svc.cluster.local\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-US,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br\r\n\
    Connection: keep-alive\r\n\
    Cookie: session=0123456789abcdef; theme=dark\r\n\r\n";

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\n\
    Content-Type: application/json; charset=utf-8\r\n\
    Date: Mon, 23 Nov 2026 00:25:23 GMT\r\n\
    Content-Length: 1234\r\n\
    Vary: Accept-Encoding\r\n\
    Cache-Control: no-store\r\n\r\n";

fn main() {
    divan::main();
}

fn request() -> Request {
    let mut request = Request::new();
    let status = request.parse(REQUEST, &Limits::REQUEST);
    assert_eq!(status, Ok(Status::Complete(REQUEST.len())));
    request
}

fn response() -> Response {
    let mut response = Response::new();
    let status = response.parse(RESPONSE, &Limits::RESPONSE, RequestContext::default());
    assert_eq!(status, Ok(Status::Complete(RESPONSE.len())));
    response
}

#[divan::bench]
fn parse_request(bencher: Bencher<'_, '_>) {
    let mut request = request();
    bencher.bench_local(move || request.parse(black_box(REQUEST), &Limits::REQUEST));
}

#[divan::bench]
fn parse_request_bytewise(bencher: Bencher<'_, '_>) {
    let mut request = request();
    bencher.bench_local(move || {
        for len in 1..REQUEST.len() {
            let status = request.parse(black_box(&REQUEST[..len]), &Limits::REQUEST);
            assert_eq!(status, Ok(Status::Incomplete));
        }
        request.parse(black_box(REQUEST), &Limits::REQUEST)
    });
}

#[divan::bench]
fn parse_response(bencher: Bencher<'_, '_>) {
    let mut response = response();
    bencher.bench_local(move || {
        response.parse(
            black_box(RESPONSE),
            &Limits::RESPONSE,
            RequestContext::default(),
        )
    });
}

#[divan::bench]
fn normalize_plain_path(bencher: Bencher<'_, '_>) {
    let mut request = request();
    bencher.bench_local(move || black_box(&mut request).normalize_path(true));
}

#[divan::bench]
fn normalize_dotted_path(bencher: Bencher<'_, '_>) {
    bencher
        .bench_local(|| kgw_h1::normalize(black_box(b"/api/./v1//%6dodels/../x?limit=20"), true));
}

#[divan::bench]
fn lookup_known(bencher: Bencher<'_, '_>) {
    let request = request();
    bencher.bench_local(move || {
        black_box(request.headers())
            .get_known(Known::Cookie)
            .is_some()
    });
}

#[divan::bench]
fn write_request(bencher: Bencher<'_, '_>) {
    let mut request = request();
    strip_hop_by_hop_request(&mut request, false);
    let mut out = Vec::with_capacity(4096);
    bencher.bench_local(move || {
        out.clear();
        write_request_head(&mut out, black_box(&request), Framing::None);
        out.len()
    });
}

#[divan::bench]
fn write_response(bencher: Bencher<'_, '_>) {
    let response = response();
    let mut out = Vec::with_capacity(4096);
    bencher.bench_local(move || {
        out.clear();
        write_response_head(
            &mut out,
            response.status(),
            black_box(response.headers()),
            response.framing(),
            None,
        );
        out.len()
    });
}

/// Everything the codec does for one proxied request without bodies.
#[divan::bench]
fn proxy_heads(bencher: Bencher<'_, '_>) {
    let (mut request, mut response) = (request(), response());
    let mut out = Vec::with_capacity(4096);
    bencher.bench_local(move || {
        out.clear();
        let parsed = request.parse(black_box(REQUEST), &Limits::REQUEST);
        assert!(parsed.is_ok() && request.normalize_path(true).is_ok());
        strip_hop_by_hop_request(&mut request, false);
        request
            .headers_mut()
            .set(b"x-request-id", b"88c6a2f0-0000-4000-8000-000000000000");
        write_request_head(&mut out, &request, request.framing());
        let parsed = response.parse(
            black_box(RESPONSE),
            &Limits::RESPONSE,
            RequestContext::default(),
        );
        assert!(parsed.is_ok());
        response.headers_mut().set(b"server", b"kgw");
        write_response_head(
            &mut out,
            response.status(),
            response.headers(),
            response.framing(),
            None,
        );
        out.len()
    });
}

/// A body of 16 KiB in chunks of this size.
#[divan::bench(args = [16384, 1024, 64])]
fn decode_chunked_16k(bencher: Bencher<'_, '_>, chunk: usize) {
    let mut wire = Vec::new();
    let mut encoder = BodyEncoder::new(Framing::Chunked);
    for _ in 0..16384 / chunk {
        encoder
            .encode(&vec![b'x'; chunk], &mut wire)
            .expect("chunks have no bound");
    }
    encoder.finish(&mut wire).expect("nothing is missing");
    bencher
        .counter(BytesCount::new(16384_usize))
        .bench_local(move || {
            let mut decoder = BodyDecoder::new(Framing::Chunked);
            let (mut at, mut data) = (0, 0);
            while !decoder.is_done() {
                let step = decoder
                    .decode(black_box(&wire[at..]))
                    .expect("it is well-formed");
                at += step.consumed;
                data += step.data.len();
            }
            assert_eq!(data, 16384);
            at
        });
}
