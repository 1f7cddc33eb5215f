//! A chunked body: the split must not matter, and the data re-encodes to the same data.
#![no_main]

use kgw_h1::{BodyDecoder, BodyEncoder, BodyError, Framing};
use libfuzzer_sys::fuzz_target;

/// Returns the data, how many bytes the body took, and how it ended.
fn decode(bytes: &[u8], step: usize) -> (Vec<u8>, usize, Result<bool, BodyError>) {
    let mut decoder = BodyDecoder::new(Framing::Chunked);
    let (mut data, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let input = &bytes[at..bytes.len().min(at.saturating_add(step))];
        match decoder.decode(input) {
            Ok(decoded) => {
                assert!(decoded.data.end <= decoded.consumed && decoded.consumed <= input.len());
                assert!(decoded.consumed > 0 || decoded.done);
                data.extend_from_slice(&input[decoded.data]);
                at += decoded.consumed;
                if decoded.done {
                    return (data, at, Ok(true));
                }
            }
            Err(error) => return (data, 0, Err(error)),
        }
    }
    (data, at, Ok(false))
}

fuzz_target!(|input: (u8, &[u8])| {
    let (step, bytes) = input;
    let whole = decode(bytes, usize::MAX);
    assert_eq!(decode(bytes, usize::from(step) + 1), whole);
    if whole.2 != Ok(true) {
        return;
    }
    let mut wire = Vec::new();
    let mut encoder = BodyEncoder::new(Framing::Chunked);
    assert_eq!(encoder.encode(&whole.0, &mut wire), Ok(()));
    assert_eq!(encoder.finish(&mut wire), Ok(()));
    assert_eq!(decode(&wire, usize::MAX), (whole.0, wire.len(), Ok(true)));
});
