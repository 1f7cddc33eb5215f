//! Paths: what comes out is in its one form already, and what a strict server reads in it is what was
//! matched.
#![no_main]

use kgw_h1::{EscapedSlashes, PathOptions, PathOutcome, canonicalize};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| {
    let (settings, path) = input;
    let options = PathOptions {
        normalize: settings & 1 != 0,
        merge_slashes: settings & 2 != 0,
        strict: settings & 4 != 0,
        escaped_slashes: match settings >> 3 & 3 {
            0 => EscapedSlashes::Keep,
            1 => EscapedSlashes::Reject,
            2 => EscapedSlashes::Unescape,
            _ => EscapedSlashes::Redirect,
        },
    };
    let Ok((out, _)) = canonicalize(path, options) else {
        return;
    };
    assert_eq!(
        canonicalize(&out, options),
        Ok((out.clone(), PathOutcome::Normal))
    );
    let end = out
        .iter()
        .position(|&byte| byte == b'?')
        .unwrap_or(out.len());
    let part = &out[..end];
    if options.normalize {
        assert!(part.starts_with(b"/"));
        for segment in part.split(|&byte| byte == b'/') {
            assert!(segment != b"." && segment != b"..");
        }
        // Next to a `%` that begins no escape a decoded character could make it one.
        if is_well_formed(part) {
            assert!(!part.windows(3).any(|three| three == b"%2E"));
        }
        assert!(!part.contains(&b'\\'));
    }
    if options.merge_slashes {
        assert!(!part.windows(2).any(|two| two == b"//"));
    }
    if options.normalize && options.escaped_slashes != EscapedSlashes::Keep {
        let lower = part.to_ascii_lowercase();
        assert!(
            !lower
                .windows(3)
                .any(|three| three == b"%2f" || three == b"%5c")
        );
    }
    if options.merge_slashes && options.normalize {
        // A server that decodes once finds no other segments.
        assert!(!part.windows(4).any(|four| four == b"/../"));
    }
});

/// Whether every `%` begins an escape.
fn is_well_formed(path: &[u8]) -> bool {
    path.iter().enumerate().all(|(at, &byte)| {
        byte != b'%'
            || path
                .get(at + 1..at + 3)
                .is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    })
}
