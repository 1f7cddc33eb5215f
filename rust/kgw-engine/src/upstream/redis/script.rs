//! The script that decides, and what it is given and answers.
//!
//! Everything happens in it: one round trip, nothing between looking and taking, and the time is the
//! server's, so that proxies need not agree about it. The algebra is that of the local rate limit: a bucket
//! that starts full and is refilled continuously.

use std::time::Duration;

use super::resp::{Reply, write_command};

/// A script in Lua 5.1, as Redis since 5 and every Valkey run it.
const SOURCE: &[u8] = include_bytes!("take.lua");

/// Its SHA-1, by which a server knows it that has run it before.
const SHA1: &[u8] = b"6383cee6be75eb634518a77d54cfcf24c77b1b8e";

/// A bucket, and what is wanted of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Wanted {
    pub(crate) key: String,
    /// Tokens that come back in each `unit`. At least 1.
    pub(crate) refill: u64,
    pub(crate) unit: Duration,
    /// Most tokens of the bucket. At least 1.
    pub(crate) most: u64,
    /// Tokens to take.
    pub(crate) hits: u64,
}

/// What became of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Taken {
    /// All tokens were taken, or none.
    pub(crate) is_taken: bool,
    /// In the order of what was wanted.
    pub(crate) buckets: Vec<Bucket>,
}

/// A bucket afterwards.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Bucket {
    /// Whole tokens in it.
    pub(crate) remaining: u64,
    /// How long until there are as many as were wanted: zero if there were; none if there never will be.
    pub(crate) retry_after: Option<Duration>,
    /// How long until it is full.
    pub(crate) reset: Duration,
}

impl Taken {
    /// How long until all tokens are there that were not: none if nothing was missing, or never will be there.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        let waits = self.buckets.iter().map(|bucket| bucket.retry_after);
        let longest = waits.collect::<Option<Vec<_>>>()?.into_iter().max();
        longest.filter(|wait| !wait.is_zero())
    }
}

/// Writes the command that runs the script: by its name, or with the whole of it.
pub(super) fn command(wanted: &[Wanted], is_whole: bool) -> Vec<u8> {
    let count = wanted.len().to_string();
    let numbers: Vec<[String; 4]> = wanted
        .iter()
        .map(|wanted| {
            [
                wanted.refill.to_string(),
                wanted.unit.as_micros().to_string(),
                wanted.most.to_string(),
                wanted.hits.to_string(),
            ]
        })
        .collect();
    let mut words: Vec<&[u8]> = if is_whole {
        vec![b"EVAL", SOURCE]
    } else {
        vec![b"EVALSHA", SHA1]
    };
    words.push(count.as_bytes());
    words.extend(wanted.iter().map(|wanted| wanted.key.as_bytes()));
    words.extend(numbers.iter().flatten().map(String::as_bytes));
    let mut out = Vec::new();
    write_command(&mut out, &words);
    out
}

/// Whether a server does not know the script.
pub(super) fn is_unknown(reply: &Reply) -> bool {
    matches!(reply, Reply::Error(text) if text.starts_with(b"NOSCRIPT"))
}

/// What the script answered about so many buckets. None if it did not.
pub(super) fn taken(reply: &Reply, count: usize) -> Option<Taken> {
    let Reply::Array(items) = reply else {
        return None;
    };
    let (first, numbers) = items.split_first()?;
    let is_taken = match first {
        Reply::Int(0) => false,
        Reply::Int(1) => true,
        _ => return None,
    };
    let (triples, []) = numbers.as_chunks::<3>() else {
        return None;
    };
    let buckets: Vec<Bucket> = triples.iter().map(bucket).collect::<Option<_>>()?;
    (buckets.len() == count).then_some(Taken { is_taken, buckets })
}

fn bucket(numbers: &[Reply; 3]) -> Option<Bucket> {
    let [Reply::Int(remaining), Reply::Int(wait), Reply::Int(reset)] = *numbers else {
        return None;
    };
    Some(Bucket {
        remaining: u64::try_from(remaining).ok()?,
        retry_after: match wait {
            -1 => None,
            wait => Some(Duration::from_micros(u64::try_from(wait).ok()?)),
        },
        reset: Duration::from_micros(u64::try_from(reset).ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_has_the_name_that_it_is_called_by() {
        let digest = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, SOURCE);
        let named = SHA1.as_chunks::<2>().0.iter().map(|digits| {
            let digits = std::str::from_utf8(digits).unwrap();
            u8::from_str_radix(digits, 16).unwrap()
        });
        assert_eq!(digest.as_ref(), named.collect::<Vec<_>>());
    }

    #[test]
    fn a_command_has_the_keys_and_then_the_numbers() {
        let wanted = [Wanted {
            key: "k".to_owned(),
            refill: 3,
            unit: Duration::from_secs(60),
            most: 5,
            hits: 2,
        }];
        let command = command(&wanted, false);
        let text = command.escape_ascii().to_string();
        let expected = r"$1\r\n1\r\n$1\r\nk\r\n$1\r\n3\r\n$8\r\n60000000\r\n$1\r\n5\r\n$1\r\n2\r\n";
        assert!(
            text.starts_with(r"*8\r\n$7\r\nEVALSHA\r\n$40\r\n"),
            "{text}"
        );
        assert!(text.ends_with(expected), "{text}");
    }

    #[test]
    fn only_what_the_script_answers_is_an_answer() {
        let ints = |numbers: &[i64]| Reply::Array(numbers.iter().map(|&n| Reply::Int(n)).collect());
        let found = taken(&ints(&[0, 1, 2_000_000, 3_000_000, 0, -1, 5]), 2).unwrap();
        let expected = [
            Bucket {
                remaining: 1,
                retry_after: Some(Duration::from_secs(2)),
                reset: Duration::from_secs(3),
            },
            Bucket {
                remaining: 0,
                retry_after: None,
                reset: Duration::from_micros(5),
            },
        ];
        assert_eq!((found.is_taken, &*found.buckets), (false, &expected[..]));
        for reply in [
            Reply::Null,
            Reply::Int(1),
            ints(&[]),
            ints(&[2, 1, 0, 0]),
            ints(&[1, 1, 0]),
            ints(&[1, 1, 0, 0, 1, 0, 0]),
            ints(&[1, -1, 0, 0]),
            ints(&[1, 1, -2, 0]),
        ] {
            assert_eq!(taken(&reply, 1), None, "{reply:?}");
        }
    }
}
