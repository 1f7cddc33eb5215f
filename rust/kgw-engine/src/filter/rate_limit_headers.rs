//! The fields that tell clients about the limits that they are under, in the two forms that are in use.
//!
//! * `x-ratelimit-limit`, `x-ratelimit-remaining` and `x-ratelimit-reset`, as Envoy writes them (after
//!   draft-polli-ratelimit-headers-03): of one limit, with the policies behind it where there are any.
//! * `ratelimit-policy` and `ratelimit`, structured fields that list all limits
//!   (draft-ietf-httpapi-ratelimit-headers-10).

use std::fmt::Write as _;
use std::time::Duration;

use super::ext_authz::Edit;

/// A limit, and what is left of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quota<'a> {
    /// What it is called.
    pub(crate) name: &'a str,
    /// How many requests it allows in its window.
    pub(crate) limit: u64,
    /// The window, if it is known.
    pub(crate) window: Option<Duration>,
    /// How many are left.
    pub(crate) remaining: u64,
    /// When there are more.
    pub(crate) reset: Duration,
}

/// `x-ratelimit-*`: what is left of `tightest`. Of `policies`, limits and windows are told: none for a
/// limit in the process, all that the service has looked at for one of a service.
pub(crate) fn x_rate_limit(tightest: &Quota<'_>, policies: &[Quota<'_>]) -> [Edit; 3] {
    let mut limit = tightest.limit.to_string();
    for policy in policies {
        let _ = write!(limit, ", {}", policy.limit);
        if let Some(window) = policy.window {
            let _ = write!(limit, ";w={}", seconds(window));
        }
        if !policy.name.is_empty() {
            limit.push_str(";name=");
            push_string(&mut limit, policy.name);
        }
    }
    let number = |number: u64| number.to_string();
    [
        Edit::append(b"x-ratelimit-limit", limit.as_bytes()),
        Edit::append(
            b"x-ratelimit-remaining",
            number(tightest.remaining).as_bytes(),
        ),
        Edit::append(
            b"x-ratelimit-reset",
            number(seconds(tightest.reset)).as_bytes(),
        ),
    ]
}

/// `ratelimit-policy` and `ratelimit`: all limits that the request was counted by, at least one.
pub(crate) fn rate_limit(quotas: &[Quota<'_>]) -> [Edit; 2] {
    let (mut policies, mut states) = (String::new(), String::new());
    for quota in quotas {
        for list in [&mut policies, &mut states] {
            if !list.is_empty() {
                list.push_str(", ");
            }
            push_string(list, quota.name);
        }
        let _ = write!(policies, ";q={}", integer(quota.limit));
        if let Some(window) = quota.window {
            let _ = write!(policies, ";w={}", integer(seconds(window)));
        }
        let remaining = integer(quota.remaining);
        let reset = integer(seconds(quota.reset));
        let _ = write!(states, ";r={remaining};t={reset}");
    }
    [
        Edit::append(b"ratelimit-policy", policies.as_bytes()),
        Edit::append(b"ratelimit", states.as_bytes()),
    ]
}

/// Whole seconds, rounded up: who comes back then is not too early.
pub(crate) fn seconds(time: Duration) -> u64 {
    time.as_secs()
        .saturating_add(u64::from(time.subsec_nanos() > 0))
}

/// Whether a name can stand in a structured field (RFC 9651 3.3.3).
pub(crate) fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

/// Appends a name as a string of structured fields. What cannot be in one is left out.
fn push_string(out: &mut String, name: &str) {
    out.push('"');
    for character in name.chars().filter(|one| matches!(one, ' '..='~')) {
        if matches!(character, '"' | '\\') {
            out.push('\\');
        }
        out.push(character);
    }
    out.push('"');
}

/// The largest integer of structured fields (RFC 9651 3.3.1).
const MAX_INTEGER: u64 = 999_999_999_999_999;

fn integer(number: u64) -> u64 {
    number.min(MAX_INTEGER)
}

#[cfg(test)]
mod tests {
    use kgw_h1::Headers;

    use super::*;

    fn quota(name: &str) -> Quota<'_> {
        Quota {
            name,
            limit: 10,
            window: Some(Duration::from_secs(60)),
            remaining: 3,
            reset: Duration::from_millis(16_001),
        }
    }

    fn written(edits: &[Edit]) -> Vec<(String, String)> {
        let mut headers = Headers::new();
        for edit in edits {
            edit.apply(&mut headers);
        }
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        headers
            .iter()
            .map(|(name, value)| (text(name), text(value)))
            .collect()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn the_draft_tells_of_one_limit() {
        assert_eq!(
            written(&x_rate_limit(&quota("a"), &[])),
            pairs(&[
                ("x-ratelimit-limit", "10"),
                ("x-ratelimit-remaining", "3"),
                ("x-ratelimit-reset", "17"),
            ])
        );
    }

    /// The value recorded from Envoy with a rate limit service, and the form of a limit with a name.
    #[test]
    fn the_draft_lists_the_policies_of_a_service() {
        let limit =
            |policies: &[Quota<'_>]| written(&x_rate_limit(&quota(""), policies))[0].1.clone();
        assert_eq!(limit(&[quota(""), quota("")]), "10, 10;w=60, 10;w=60");
        assert_eq!(limit(&[quota("a")]), "10, 10;w=60;name=\"a\"");
    }

    #[test]
    fn structured_fields_list_all_limits() {
        let unknown = Quota {
            window: None,
            limit: u64::MAX,
            remaining: 0,
            ..quota("say \"hi\"")
        };
        assert_eq!(
            written(&rate_limit(&[quota("all"), unknown])),
            pairs(&[
                (
                    "ratelimit-policy",
                    "\"all\";q=10;w=60, \"say \\\"hi\\\"\";q=999999999999999"
                ),
                ("ratelimit", "\"all\";r=3;t=17, \"say \\\"hi\\\"\";r=0;t=17"),
            ])
        );
    }

    #[test]
    fn only_printable_ascii_is_a_name() {
        assert!(is_name("per client") && !is_name("") && !is_name("ü") && !is_name("a\n"));
    }
}
