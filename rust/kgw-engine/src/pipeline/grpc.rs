//! gRPC on its way through: the proxy's own answers in gRPC's terms, and the client's deadline.

use std::time::Duration;

use kgw_h1::{Headers, Known};

use super::reply::Reply;
use crate::clock::Nanos;
use crate::telemetry::grpc;

/// Whether the message with `headers` is of a gRPC call.
pub(crate) fn is_grpc(headers: &Headers) -> bool {
    headers
        .get_known(Known::ContentType)
        .is_some_and(grpc::is_grpc)
}

/// Turns `headers` of an answer that the proxy makes into those of a gRPC answer without messages: HTTP
/// status 200, no body, and the failure in `grpc-status` and `grpc-message` (Envoy: every local reply to
/// a gRPC request). The caller has set `content-length`, if its protocol wants one, to 0.
pub(crate) fn state_failure(headers: &mut Headers, reply: &Reply) {
    let status = reply
        .grpc_status
        .unwrap_or_else(|| grpc::status_of_http(reply.status));
    headers.set(b"content-type", b"application/grpc");
    let mut number = itoa::Buffer::new();
    headers.set(b"grpc-status", number.format(status).as_bytes());
    if reply.body.is_empty() {
        headers.remove_known(Known::GrpcMessage);
    } else {
        let message = encode_message(reply.body.as_bytes(), MAX_MESSAGE);
        headers.set(b"grpc-message", &message);
    }
}

/// Percent-encodes a status message (gRPC's `PROTOCOL-HTTP2`, "Status-Message"). What does not fit
/// `limit` bytes is left out. Spaces at the ends are encoded too, since header fields lose them.
pub(crate) fn encode_message(message: &[u8], limit: usize) -> Vec<u8> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = Vec::with_capacity(message.len().min(limit));
    for (at, &byte) in message.iter().enumerate() {
        let at_end = at == 0 || at == message.len() - 1;
        let plain = matches!(byte, b' '..=b'~') && byte != b'%' && (byte != b' ' || !at_end);
        if encoded.len() + if plain { 1 } else { 3 } > limit {
            break;
        }
        if plain {
            encoded.push(byte);
        } else {
            let (high, low) = (usize::from(byte >> 4), usize::from(byte & 0xf));
            encoded.extend([b'%', HEX[high], HEX[low]]);
        }
    }
    while encoded.last() == Some(&b' ') {
        encoded.pop();
    }
    encoded
}

/// When the client's own deadline for a gRPC call comes: its `grpc-timeout` counted from the call's
/// beginning, messages in both directions included. Never without one, or with one that is malformed
/// (Envoy ignores those).
///
/// The route's time-out counts from the end of the request and stays beside it; whichever comes first
/// ends the call. This one ends it with [`Reply::duration_timed_out`].
pub(crate) fn deadline(headers: &Headers, began: Nanos) -> Nanos {
    headers
        .get_known(Known::GrpcTimeout)
        .and_then(parse_timeout)
        .map_or(Nanos::NEVER, |timeout| {
            let nanos = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
            Nanos(began.0.saturating_add(nanos))
        })
}

/// Parses a `grpc-timeout` (gRPC's `PROTOCOL-HTTP2`): 1 to 8 digits and a unit.
pub(crate) fn parse_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if !(1..=8).contains(&digits.len()) {
        return None;
    }
    let mut count = 0_u64;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        count = count * 10 + u64::from(digit - b'0');
    }
    match unit {
        b'H' => Some(Duration::from_secs(count * 3600)),
        b'M' => Some(Duration::from_secs(count * 60)),
        b'S' => Some(Duration::from_secs(count)),
        b'm' => Some(Duration::from_millis(count)),
        b'u' => Some(Duration::from_micros(count)),
        b'n' => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

/// Longest encoded message of the proxy's own. Bytes. Clients bound all metadata, by 8 KiB mostly.
const MAX_MESSAGE: usize = 4096;

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

    fn stated(reply: &Reply) -> Vec<(String, String)> {
        let mut headers = headers(&[("content-length", "0"), ("content-type", "text/plain")]);
        state_failure(&mut headers, reply);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
        headers
            .iter()
            .map(|(name, value)| (text(name), text(value)))
            .collect()
    }

    fn fields(fields: &[(&str, &str)]) -> Vec<(String, String)> {
        fields
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn replies_state_their_failure() {
        assert_eq!(
            stated(&Reply::rate_limited(None)),
            fields(&[
                ("content-length", "0"),
                ("content-type", "application/grpc"),
                ("grpc-status", "14"),
                ("grpc-message", "local_rate_limited"),
            ])
        );
        assert_eq!(
            stated(&Reply::no_route()),
            fields(&[
                ("content-length", "0"),
                ("content-type", "application/grpc"),
                ("grpc-status", "12"),
            ])
        );
        assert_eq!(
            stated(&Reply::duration_timed_out())[2..],
            fields(&[
                ("grpc-status", "4"),
                ("grpc-message", "downstream duration timeout"),
            ])
        );
        assert_eq!(
            stated(&Reply::direct(200, "100 %\n".to_owned()))[2..],
            fields(&[("grpc-status", "2"), ("grpc-message", "100 %25%0A")])
        );
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let reply = Reply::direct(503, "\u{e9}".repeat(10_000));
        let (_, message) = stated(&reply).pop().expect("a message");
        assert!(message.len() <= MAX_MESSAGE);
        assert!(message.len() > MAX_MESSAGE - 3);
        assert_eq!(message.len() % 3, 0);
    }

    #[test]
    fn timeouts_are_of_eight_digits_and_a_unit() {
        let day = Duration::from_secs(24 * 3600);
        for (value, timeout) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("90M", Some(Duration::from_secs(5400))),
            ("0S", Some(Duration::ZERO)),
            ("300m", Some(Duration::from_millis(300))),
            ("00000001u", Some(Duration::from_micros(1))),
            ("12345678u", Some(Duration::from_micros(12_345_678))),
            ("5n", Some(Duration::from_nanos(5))),
            ("99999999H", Some(day * 4_166_666 + day / 24 * 15)),
            ("", None),
            ("m", None),
            ("1", None),
            ("123456789m", None),
            ("+1m", None),
            ("-1m", None),
            ("1.5S", None),
            ("1s", None),
            ("1 m", None),
            (" 1m", None),
        ] {
            assert_eq!(parse_timeout(value.as_bytes()), timeout, "{value:?}");
        }
    }

    #[test]
    fn deadlines_count_from_the_beginning() {
        let began = Nanos(1_000);
        let of = |value| deadline(&headers(&[("grpc-timeout", value)]), began);
        assert_eq!(of("2u"), Nanos(3_000));
        assert_eq!(of("99999999H"), Nanos::NEVER);
        assert_eq!(of("soon"), Nanos::NEVER);
        assert_eq!(deadline(&Headers::new(), began), Nanos::NEVER);
    }

    #[test]
    fn calls_are_told_by_their_content_type() {
        assert!(is_grpc(&headers(&[(
            "Content-Type",
            "application/grpc+proto"
        )])));
        assert!(!is_grpc(&headers(&[(
            "content-type",
            "application/grpc-web"
        )])));
        assert!(!is_grpc(&Headers::new()));
    }

    proptest! {
        #[test]
        fn messages_are_encoded_so_that_clients_read_them(message in any::<Vec<u8>>()) {
            let encoded = encode_message(&message, usize::MAX);
            prop_assert!(encoded.iter().all(|byte| matches!(byte, b' '..=b'~')));
            prop_assert!(encoded.trim_ascii().len() == encoded.len());
            let mut decoded = Vec::new();
            let mut rest = &encoded[..];
            while let Some((&first, after)) = rest.split_first() {
                if first == b'%' {
                    let digits = std::str::from_utf8(&after[..2]).expect("digits");
                    decoded.push(u8::from_str_radix(digits, 16).expect("digits"));
                    rest = &after[2..];
                } else {
                    decoded.push(first);
                    rest = after;
                }
            }
            prop_assert_eq!(decoded, message);
        }
    }
}
