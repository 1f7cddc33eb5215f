//! Trailer fields: read, filtered, and written behind the last chunk.

use kgw_h1::{BodyDecoder, BodyEncoder, BodyError, Framing, Headers};

fn decode(body: &str, piece: usize) -> Result<(BodyDecoder, Vec<u8>), BodyError> {
    let mut decoder = BodyDecoder::new(Framing::Chunked);
    let mut data = Vec::new();
    for piece in body.as_bytes().chunks(piece) {
        let mut at = 0;
        while at < piece.len() && !decoder.is_done() {
            let step = decoder.decode(&piece[at..])?;
            data.extend_from_slice(&piece[at..][step.data]);
            at += step.consumed;
        }
    }
    Ok((decoder, data))
}

fn list(headers: &Headers) -> Vec<(&str, &str)> {
    let text = |bytes| std::str::from_utf8(bytes).expect("trailers here are ASCII");
    headers
        .iter()
        .map(|(name, value)| (text(name), text(value)))
        .collect()
}

#[test]
fn what_may_be_a_trailer_is_kept() {
    let body = "1\r\nx\r\n0\r\nGrpc-Status: 0\r\nHost: evil\r\nContent-Length: 9\r\nx-sum:  a b\t\r\n\
                x_forwarded_for: 1.1.1.1\r\nempty:\r\n\r\n";
    for piece in [usize::MAX, 1, 3] {
        let (decoder, data) = decode(body, piece).unwrap();
        assert!(decoder.is_done());
        assert_eq!(data, b"x");
        assert_eq!(
            list(decoder.trailers().unwrap()),
            [("Grpc-Status", "0"), ("x-sum", "a b"), ("empty", "")]
        );
    }
}

#[test]
fn none_is_an_empty_set() {
    let (decoder, _) = decode("0\r\n\r\n", usize::MAX).unwrap();
    assert!(decoder.is_done() && decoder.trailers().is_none());
}

#[test]
fn they_are_written_and_read_back() {
    let mut trailers = Headers::new();
    trailers.append(b"grpc-status", b"0");
    trailers.append(b"grpc-message", b"a\r\nb");
    trailers.append(b"transfer-encoding", b"chunked");
    let mut wire = Vec::new();
    let mut encoder = BodyEncoder::new(Framing::Chunked);
    encoder.encode(b"data", &mut wire).unwrap();
    encoder.finish_with_trailers(&trailers, &mut wire).unwrap();
    encoder.finish_with_trailers(&trailers, &mut wire).unwrap();
    assert_eq!(
        wire,
        b"4\r\ndata\r\n0\r\ngrpc-status: 0\r\ngrpc-message: a  b\r\n\r\n"
    );
    let (decoder, data) = decode(std::str::from_utf8(&wire).unwrap(), 1).unwrap();
    assert_eq!(data, b"data");
    assert_eq!(
        list(decoder.trailers().unwrap()),
        [("grpc-status", "0"), ("grpc-message", "a  b")]
    );
}

#[test]
fn a_body_with_a_length_carries_none() {
    let mut trailers = Headers::new();
    trailers.append(b"grpc-status", b"0");
    let mut wire = Vec::new();
    let mut encoder = BodyEncoder::new(Framing::Length(1));
    assert_eq!(
        encoder.finish_with_trailers(&trailers, &mut wire),
        Err(BodyError::Truncated)
    );
    encoder.encode(b"x", &mut wire).unwrap();
    encoder.finish_with_trailers(&trailers, &mut wire).unwrap();
    assert_eq!(wire, b"x");
}

#[test]
fn the_limits_hold() {
    let large = format!("0\r\nx: {}\r\n\r\n", "v".repeat(8192));
    assert_eq!(
        decode(&large, usize::MAX).map(|_| ()),
        Err(BodyError::BadTrailer)
    );
    let many = format!("0\r\n{}\r\n", "a: b\r\n".repeat(65));
    assert_eq!(
        decode(&many, usize::MAX).map(|_| ()),
        Err(BodyError::BadTrailer)
    );
}
