//! No bytes are read one way here and another way elsewhere: hyper, and 576 lax models of backends.

mod common;
mod oracle;

use common::{Data, load};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    data: Data,
}

fn cases() -> Vec<Vec<u8>> {
    let cases: Vec<Case> = load("http1_requests.json");
    cases
        .iter()
        .map(|case| case.data.bytes())
        // The large ones are about limits.
        .filter(|bytes| bytes.len() < 4096)
        .collect()
}

/// What is put into messages to spoil them.
const SPOILERS: &[&str] = &[
    "\r\n",
    "\n",
    "\r",
    "\0",
    " ",
    "\t",
    ":",
    ";",
    ",",
    "0",
    "1",
    "+",
    "_",
    "a",
    "%",
    "\\",
    "#",
    "/",
    "\"",
    "chunked",
    "Transfer-Encoding: chunked\r\n",
    "Content-Length: 3\r\n",
    "Content-Length: 0\r\n",
    "Transfer-Encoding:\r\n",
    "Host: x\r\n",
    "Connection: close\r\n",
    "Connection: x\r\n",
    "Expect: 100-continue\r\n",
    "Upgrade: h2c\r\n",
    "0\r\n\r\n",
    "3\r\nabc\r\n",
    "HTTP/1.0",
    "HTTP/1.1",
    "GET /s HTTP/1.1\r\nHost: s\r\n\r\n",
    "http://y",
    "\u{a0}",
    "Content_Length: 5\r\n",
];

/// A change of a message.
#[derive(Clone, Debug)]
enum Edit {
    Insert(Index, &'static str),
    Remove(Index, usize),
    Swap(Index, u8),
    Splice(Index, Index, Index),
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        (any::<Index>(), select(SPOILERS)).prop_map(|(at, text)| Edit::Insert(at, text)),
        (any::<Index>(), 1_usize..4).prop_map(|(at, len)| Edit::Remove(at, len)),
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Edit::Swap(at, byte)),
        (any::<Index>(), any::<Index>(), any::<Index>())
            .prop_map(|(at, case, from)| Edit::Splice(at, case, from)),
    ]
}

fn apply(edit: &Edit, bytes: &mut Vec<u8>, cases: &[Vec<u8>]) {
    if bytes.is_empty() {
        return;
    }
    match edit {
        Edit::Insert(at, text) => {
            let at = at.index(bytes.len());
            bytes.splice(at..at, common::latin1(text));
        }
        Edit::Remove(at, len) => {
            let at = at.index(bytes.len());
            bytes.drain(at..bytes.len().min(at + len));
        }
        Edit::Swap(at, byte) => {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
        Edit::Splice(at, case, from) => {
            let other = &cases[case.index(cases.len())];
            bytes.truncate(at.index(bytes.len()));
            bytes.extend_from_slice(&other[from.index(other.len() + 1)..]);
        }
    }
}

#[test]
fn the_cases_of_the_lab() {
    for bytes in cases() {
        oracle::check(&bytes);
    }
}

#[test]
fn spoiled_cases() {
    let cases = cases();
    let default = ProptestConfig::default();
    let config = ProptestConfig {
        // More with PROPTEST_CASES.
        cases: default.cases.max(2048),
        failure_persistence: None,
        ..default
    };
    let edits = proptest::collection::vec(edit(), 1..5);
    proptest!(config, |(case in any::<Index>(), edits in edits)| {
        let mut bytes = cases[case.index(cases.len())].clone();
        for edit in &edits {
            apply(edit, &mut bytes, &cases);
        }
        bytes.extend_from_slice(b"GET /behind HTTP/1.1\r\nHost: behind\r\n\r\n");
        oracle::check(&bytes);
    });
}

/// The oracle itself sees what it should: it must not pass because nothing is compared.
#[test]
fn both_readers_read_a_plain_message() {
    let plain = b"POST /a?b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nx: y\r\n\r\n3\r\nabc\r\n0\r\n\r\n\
                  GET /c HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    assert_eq!(oracle::compared(plain), 2);
    assert_eq!(
        oracle::compared(
            b"GET /a HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx"
        ),
        0
    );
}
