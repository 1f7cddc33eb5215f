//! RESP2, the protocol of Redis and Valkey: commands are written, replies are read.
//!
//! Everything that is read is bounded: a reply as a whole by [`MAX_REPLY`], its nesting by [`MAX_DEPTH`] and
//! its arrays by [`MAX_ITEMS`]. A server that says more than a script can answer is not one.

use bytes::Bytes;

/// Most bytes of a reply.
pub(crate) const MAX_REPLY: usize = 16 * 1024;

/// How deep arrays may be nested.
const MAX_DEPTH: usize = 4;

/// Most items of an array.
const MAX_ITEMS: usize = 1024;

/// A reply.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Reply {
    /// `+`: a word such as `OK`.
    Status(Bytes),
    /// `-`: the command failed.
    Error(Bytes),
    /// `:`
    Int(i64),
    /// `$`: bytes.
    Bulk(Bytes),
    /// `*`
    Array(Vec<Self>),
    /// A bulk or array that there is none of.
    Null,
}

/// What was received is no reply, or longer than one may be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Malformed;

/// Adds a command: its name, and what it is given.
pub(crate) fn write_command(out: &mut Vec<u8>, words: &[&[u8]]) {
    let mut number = itoa::Buffer::new();
    out.push(b'*');
    out.extend_from_slice(number.format(words.len()).as_bytes());
    out.extend_from_slice(b"\r\n");
    for word in words {
        out.push(b'$');
        out.extend_from_slice(number.format(word.len()).as_bytes());
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

/// Reads a reply from the beginning of `input`, and says how many bytes it has. None if there is not all
/// of it yet.
///
/// # Errors
/// It is none, or longer than [`MAX_REPLY`].
pub(crate) fn read_reply(input: &[u8]) -> Result<Option<(Reply, usize)>, Malformed> {
    let most = input.len().min(MAX_REPLY);
    let mut rest = &input[..most];
    match read(&mut rest, MAX_DEPTH) {
        Ok(reply) => Ok(Some((reply, most - rest.len()))),
        Err(Unread::Incomplete) if input.len() < MAX_REPLY => Ok(None),
        Err(_) => Err(Malformed),
    }
}

/// Why there is no reply.
enum Unread {
    Incomplete,
    Malformed,
}

fn read(input: &mut &[u8], depth: usize) -> Result<Reply, Unread> {
    let line = line(input)?;
    let (&kind, of) = line.split_first().ok_or(Unread::Malformed)?;
    match kind {
        b'+' => Ok(Reply::Status(Bytes::copy_from_slice(of))),
        b'-' => Ok(Reply::Error(Bytes::copy_from_slice(of))),
        b':' => Ok(Reply::Int(integer(of)?)),
        b'$' => match integer(of)? {
            -1 => Ok(Reply::Null),
            length => bulk(input, length),
        },
        b'*' => match integer(of)? {
            -1 => Ok(Reply::Null),
            count => array(input, count, depth),
        },
        _ => Err(Unread::Malformed),
    }
}

fn bulk(input: &mut &[u8], length: i64) -> Result<Reply, Unread> {
    let length = usize::try_from(length).map_err(|_| Unread::Malformed)?;
    if length > MAX_REPLY {
        return Err(Unread::Malformed);
    }
    let (bytes, rest) = input.split_at_checked(length).ok_or(Unread::Incomplete)?;
    match rest {
        [b'\r', b'\n', rest @ ..] => {
            *input = rest;
            Ok(Reply::Bulk(Bytes::copy_from_slice(bytes)))
        }
        [] | [b'\r'] => Err(Unread::Incomplete),
        _ => Err(Unread::Malformed),
    }
}

fn array(input: &mut &[u8], count: i64, depth: usize) -> Result<Reply, Unread> {
    let count = usize::try_from(count).map_err(|_| Unread::Malformed)?;
    let deeper = depth.checked_sub(1).ok_or(Unread::Malformed)?;
    if count > MAX_ITEMS {
        return Err(Unread::Malformed);
    }
    let mut items = Vec::new();
    for _ in 0..count {
        items.push(read(input, deeper)?);
    }
    Ok(Reply::Array(items))
}

/// Takes a line, without its end.
fn line<'a>(input: &mut &'a [u8]) -> Result<&'a [u8], Unread> {
    let end = memchr::memchr(b'\r', input).ok_or(Unread::Incomplete)?;
    let (line, rest) = input.split_at(end);
    match rest {
        [_, b'\n', rest @ ..] => {
            *input = rest;
            Ok(line)
        }
        [_] => Err(Unread::Incomplete),
        _ => Err(Unread::Malformed),
    }
}

fn integer(text: &[u8]) -> Result<i64, Unread> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Unread::Malformed);
    }
    let text = std::str::from_utf8(text).map_err(|_| Unread::Malformed)?;
    text.parse().map_err(|_| Unread::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(input: &[u8]) -> Reply {
        let (reply, length) = read_reply(input).unwrap().unwrap();
        assert_eq!(length, input.len());
        reply
    }

    #[test]
    fn commands_are_arrays_of_bulk_strings() {
        let mut out = Vec::new();
        write_command(&mut out, &[b"SELECT", b"2"]);
        assert_eq!(out, b"*2\r\n$6\r\nSELECT\r\n$1\r\n2\r\n");
    }

    #[test]
    fn replies_are_read() {
        let bytes = Bytes::from_static;
        assert_eq!(whole(b"+OK\r\n"), Reply::Status(bytes(b"OK")));
        assert_eq!(whole(b"-ERR a b\r\n"), Reply::Error(bytes(b"ERR a b")));
        assert_eq!(whole(b":-12\r\n"), Reply::Int(-12));
        assert_eq!(whole(b"$4\r\na\r\nb\r\n"), Reply::Bulk(bytes(b"a\r\nb")));
        assert_eq!(whole(b"$0\r\n\r\n"), Reply::Bulk(Bytes::new()));
        assert_eq!(whole(b"$-1\r\n"), Reply::Null);
        assert_eq!(whole(b"*-1\r\n"), Reply::Null);
        let nested = Reply::Array(vec![Reply::Int(1), Reply::Array(vec![]), Reply::Null]);
        assert_eq!(whole(b"*3\r\n:1\r\n*0\r\n$-1\r\n"), nested);
    }

    #[test]
    fn what_is_not_all_there_is_waited_for() {
        let input = b"*3\r\n:1\r\n$2\r\nab\r\n+OK\r\n";
        for end in 0..input.len() {
            assert_eq!(read_reply(&input[..end]), Ok(None), "{end}");
        }
        let two = [&input[..], b":1\r\n"].concat();
        let (_, length) = read_reply(&two).unwrap().unwrap();
        assert_eq!(length, input.len());
    }

    #[test]
    fn what_is_malformed_or_too_much_is_refused() {
        let deep = [&b"*1\r\n".repeat(MAX_DEPTH + 1)[..], b":1\r\n"].concat();
        let long = [&b"+"[..], &[b'a'; MAX_REPLY]].concat();
        for input in [
            &b"\r\n"[..],
            b"?\r\n",
            b":\r\n",
            b":1a\r\n",
            b":+1\r\n",
            b":99999999999999999999\r\n",
            b"$-2\r\n",
            b"$16385\r\n",
            b"$1\r\nab\r\n",
            b"*-2\r\n",
            b"*1025\r\n",
            b"+a\rb\r\n",
            &deep,
            &long,
        ] {
            assert_eq!(
                read_reply(input),
                Err(Malformed),
                "{:?}",
                input.escape_ascii().to_string()
            );
        }
    }
}
