//! What comes out of a stream of events does not depend on the pieces it came in.
#![no_main]

use kgw_template::{Change, EventStream, Framing};
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 64;

fn change(data: &[u8]) -> Change {
    match data.len() % 3 {
        0 => Change::Drop,
        1 => Change::Replace("x\ny".to_owned()),
        _ => Change::Keep,
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&framing, body)) = bytes.split_first() else {
        return;
    };
    let framing = if framing & 1 == 0 {
        Framing::ServerSent
    } else {
        Framing::JsonLines
    };
    let mut whole = Vec::new();
    let at_once = EventStream::new(framing, LIMIT).push(body, true, &mut whole, change);
    let mut stream = EventStream::new(framing, LIMIT);
    let mut pieces = Vec::new();
    let mut pushed = Ok(());
    for byte in body {
        pushed = stream.push(&[*byte], false, &mut pieces, change);
        assert!(stream.waiting() <= LIMIT);
        if pushed.is_err() {
            break;
        }
    }
    let pushed = pushed.and_then(|()| stream.push(&[], true, &mut pieces, change));
    assert_eq!(at_once, pushed);
    if at_once.is_ok() {
        assert_eq!(whole, pieces);
    }
});
