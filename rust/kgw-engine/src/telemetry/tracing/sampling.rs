//! Which requests are traced, and how `x-request-id` tells (Envoy's `mutateTracingRequestHeader`).

use kgw_h1::{Headers, Known};

use crate::config::ir::{RequestIdOptions, TraceSampling};

/// Why a request is traced.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Reason {
    NotTraceable,
    Sampling,
    ServiceForced,
    ClientForced,
}

/// Shares of requests.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sampling {
    given: TraceSampling,
    /// What the random share is a share of: 10,000 on listeners and 100 on routes, as in Envoy.
    random_of: u32,
}

impl Sampling {
    pub(super) fn of_listener(given: TraceSampling) -> Self {
        Self {
            given,
            random_of: 10_000,
        }
    }

    pub(super) fn of_route(given: TraceSampling) -> Self {
        Self {
            given,
            random_of: 100,
        }
    }

    /// Decides about a request, and says so in its id. What the id of one from outside says of it counts
    /// for nothing.
    pub(super) fn decide(
        &self,
        headers: &mut Headers,
        options: &RequestIdOptions,
        is_external: bool,
    ) -> Reason {
        if !options.samples_traces {
            return Reason::Sampling;
        }
        let Some((number, stated)) = headers.get_known(Known::XRequestId).and_then(read) else {
            return Reason::NotTraceable;
        };
        let before = if options.packs_trace_reason && !is_external {
            stated
        } else {
            Reason::NotTraceable
        };
        let random = u64::from(self.given.random) * u64::from(self.random_of) / 100;
        let mut reason = before;
        if reason == Reason::NotTraceable {
            if headers.get(b"x-client-trace-id").is_some()
                && fastrand::u32(..100) < self.given.client
            {
                reason = Reason::ClientForced;
            } else if u64::from(number % self.random_of) < random {
                reason = Reason::Sampling;
            }
        }
        if number % 100 >= self.given.overall {
            reason = Reason::NotTraceable;
        }
        if reason != stated && options.packs_trace_reason {
            pack(headers, reason);
        }
        reason
    }
}

/// The number that a request's id stands for, and why the request is traced by it.
fn read(id: &[u8]) -> Option<(u32, Reason)> {
    let number = std::str::from_utf8(id.get(..8)?).ok()?;
    if !number.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let number = u32::from_str_radix(number, 16).ok()? % 10_000;
    let reason = match id.get(REASON_AT).filter(|_| id.len() == UUID) {
        Some(b'9') => Reason::Sampling,
        Some(b'a') => Reason::ServiceForced,
        Some(b'b') => Reason::ClientForced,
        _ => Reason::NotTraceable,
    };
    Some((number, reason))
}

/// Says in the id why the request is traced.
fn pack(headers: &mut Headers, reason: Reason) {
    let Some(id) = headers.get_known(Known::XRequestId) else {
        return;
    };
    let Ok(mut id) = <[u8; UUID]>::try_from(id) else {
        return;
    };
    id[REASON_AT] = match reason {
        Reason::NotTraceable => b'4',
        Reason::Sampling => b'9',
        Reason::ServiceForced => b'a',
        Reason::ClientForced => b'b',
    };
    headers.set_known(Known::XRequestId, &id);
}

/// Characters of a UUID, and where its version is.
const UUID: usize = 36;
const REASON_AT: usize = 14;

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "00000064-d3e3-4921-92af-d06f0f0ce877"; // 100 of 10,000

    fn decide(
        shares: (u32, u32, u32),
        fields: &[(&str, &str)],
        options: &RequestIdOptions,
        is_external: bool,
    ) -> (Reason, Option<String>) {
        let mut headers = Headers::new();
        for (name, value) in fields {
            headers.append(name.as_bytes(), value.as_bytes());
        }
        let (client, random, overall) = shares;
        let given = TraceSampling {
            client,
            random,
            overall,
        };
        let reason = Sampling::of_listener(given).decide(&mut headers, options, is_external);
        let id = headers.get(b"x-request-id");
        (
            reason,
            id.map(|id| String::from_utf8(id.to_vec()).unwrap()[14..15].to_owned()),
        )
    }

    #[test]
    fn the_request_id_decides_and_says_so() {
        let id = ("x-request-id", PLAIN);
        let forced = ("x-client-trace-id", "1");
        let options = RequestIdOptions::default();
        let before = PLAIN.replace("-4921-", "-b921-");
        let before = ("x-request-id", &*before);
        for (shares, fields, expected, digit) in [
            ((100, 100, 100), vec![id], Reason::Sampling, "9"),
            ((100, 2, 100), vec![id], Reason::Sampling, "9"),
            ((100, 1, 100), vec![id], Reason::NotTraceable, "4"),
            ((100, 0, 100), vec![id], Reason::NotTraceable, "4"),
            ((100, 0, 100), vec![id, forced], Reason::ClientForced, "b"),
            ((0, 0, 100), vec![id, forced], Reason::NotTraceable, "4"),
            ((0, 0, 100), vec![before], Reason::ClientForced, "b"),
            ((100, 100, 0), vec![before], Reason::NotTraceable, "4"),
            ((100, 100, 1), vec![id], Reason::Sampling, "9"),
        ] {
            let found = decide(shares, &fields, &options, false);
            assert_eq!(found, (expected, Some(digit.to_owned())), "{shares:?}");
        }
        let none = decide((100, 100, 100), &[], &options, false);
        assert_eq!(none, (Reason::NotTraceable, None));
        // Anybody can write an id.
        let found = decide((100, 0, 100), &[before], &options, true);
        assert_eq!(found, (Reason::NotTraceable, Some("4".to_owned())));
    }

    #[test]
    fn the_id_stays_where_it_is_to() {
        let id = [("x-request-id", PLAIN)];
        let unpacked = RequestIdOptions {
            packs_trace_reason: false,
            ..RequestIdOptions::default()
        };
        let found = decide((100, 100, 100), &id, &unpacked, false);
        assert_eq!(found, (Reason::Sampling, Some("4".to_owned())));
        let unasked = RequestIdOptions {
            samples_traces: false,
            ..RequestIdOptions::default()
        };
        let found = decide((0, 0, 0), &id, &unasked, false);
        assert_eq!(found, (Reason::Sampling, Some("4".to_owned())));
        let other = [("x-request-id", "not-a-number-but-long-enough")];
        let (reason, _) = decide((100, 100, 100), &other, &RequestIdOptions::default(), false);
        assert_eq!(reason, Reason::NotTraceable);
    }
}
