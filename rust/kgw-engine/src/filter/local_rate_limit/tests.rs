//! What a limit is made of. What it decides is tested over sockets.

use serde_json::{Value, json};

use super::*;

/// Compiles a limit with new buckets.
fn compiled(limit: &Value) -> Result<LocalRateLimit, String> {
    let limit: ir::LocalRateLimit = serde_json::from_value(limit.clone()).unwrap();
    LocalRateLimit::compile(&limit, |_, size| {
        let interval = Duration::from_nanos(size.fill_interval_ns);
        Bucket::new(
            size.max_tokens,
            size.tokens_per_fill,
            interval,
            size.max_keys,
        )
        .map(Arc::new)
        .map_err(|error| error.to_string())
    })
}

/// A limit of three a minute, with other members.
fn limit(more: &Value) -> Value {
    let mut limit = json!({"bucket": "a", "max_tokens": 3, "fill_interval_ns": 60_000_000_000_u64});
    let (members, more) = (limit.as_object_mut().unwrap(), more.as_object().unwrap());
    members.extend(more.clone());
    limit
}

fn descriptor(name: &str, max_tokens: u64, seconds: u64) -> Value {
    json!({
        "bucket": name, "name": name, "max_tokens": max_tokens, "tokens_per_fill": max_tokens,
        "fill_interval_ns": seconds * 1_000_000_000, "entries": [{"source": {"type": "path"}}],
    })
}

fn request(fields: &str) -> Request {
    let mut request = Request::new();
    let head = format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}\r\n");
    let limits = kgw_h1::Limits {
        max_head_bytes: 1_000,
        max_fields: 10,
    };
    request.parse(head.as_bytes(), &limits).unwrap();
    request
}

#[test]
fn a_token_of_one_bucket_needs_no_more_than_that() {
    assert!(compiled(&limit(&json!({}))).unwrap().more.is_none());
    for more in [
        json!({"percent_enforced": 99}),
        json!({"cost": {"tokens": 2}}),
        json!({"headers": ["draft_03"]}),
        json!({"retry_after": false}),
        json!({"status": 503}),
        json!({"descriptors": [descriptor("d", 1, 1)]}),
    ] {
        assert!(compiled(&limit(&more)).unwrap().more.is_some(), "{more}");
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let entry = |entry: Value| {
        let mut one = descriptor("d", 1, 1);
        one["entries"] = json!([entry]);
        limit(&json!({"descriptors": [one]}))
    };
    let mut without_entries = descriptor("d", 1, 1);
    without_entries["entries"] = json!([]);
    for (broken, reason) in [
        (json!({}), "a rate limit has a bucket or a descriptor"),
        (limit(&json!({"fill_interval_ns": 1})), "below the minimum"),
        (
            limit(&json!({"percent_enabled": 101})),
            "at most 100 percent",
        ),
        (
            limit(&json!({"percent_enforced": 101})),
            "at most 100 percent",
        ),
        (
            limit(&json!({"status": 200})),
            "is not the status of an error",
        ),
        (
            limit(&json!({"status": 600})),
            "is not the status of an error",
        ),
        (
            limit(&json!({"response_headers": [["a b", "c"]]})),
            "is not a header field name",
        ),
        (
            limit(&json!({"not_enforced_headers": [["content-length", "0"]]})),
            "cannot be changed by a filter",
        ),
        (
            limit(&json!({"cost": {"header": "a b"}})),
            "is not the name of a header field",
        ),
        (
            limit(&json!({"queue": {"max_wait_ms": 0, "max_waiting": 1}})),
            "has room for a request, and time",
        ),
        (
            limit(&json!({"queue": {"max_wait_ms": 1, "max_waiting": 0}})),
            "has room for a request, and time",
        ),
        (
            limit(&json!({"descriptors": [without_entries]})),
            "a descriptor has an entry",
        ),
        (
            limit(&json!({"descriptors": [descriptor("\u{e4}", 1, 1)]})),
            "is not printable ASCII",
        ),
        (
            entry(json!({"source": {"type": "header", "name": ""}})),
            "is not the name of a header field",
        ),
        (
            entry(json!({"source": {"type": "cookie", "name": ""}})),
            "has to have a name",
        ),
        (
            entry(json!({"source": {"type": "remote_address", "v4_bits": 33, "v6_bits": 64}})),
            "32 or 128 bits",
        ),
    ] {
        let error = compiled(&broken).unwrap_err();
        assert!(error.contains(reason), "{broken}: {error}");
    }
}

#[test]
fn the_slowest_descriptor_is_the_first() {
    let descriptors = [
        descriptor("fast", 100, 1),
        descriptor("slow", 1_000, 600),
        descriptor("slower", 1, 600),
        descriptor("as fast", 200, 2),
    ];
    let limit = compiled(&json!({"descriptors": descriptors})).unwrap();
    let more = limit.more.unwrap();
    let names: Vec<_> = more.descriptors.iter().map(|one| &*one.name).collect();
    assert_eq!(names, ["slower", "slow", "fast", "as fast"]);
}

#[test]
fn a_request_says_what_it_costs_within_bounds() {
    let cost = |most: Option<u64>, fields: &str| {
        let mut cost = json!({"tokens": 2, "header": "x-cost"});
        if let Some(most) = most {
            cost["max_tokens"] = json!(most);
        }
        let cost: RateLimitCost = serde_json::from_value(cost).unwrap();
        Cost::compile(&cost).unwrap().of(&request(fields))
    };
    for (fields, expected) in [
        ("", 2),
        ("x-cost: 7\r\n", 7),
        ("x-cost: 0\r\n", 2),
        ("x-cost: -3\r\n", 2),
        ("x-cost: 3.5\r\n", 2),
        ("x-cost:\r\n", 2),
        ("x-cost: 99999999999999999999999\r\n", 9),
    ] {
        assert_eq!(cost(Some(9), fields), expected, "{fields}");
    }
    assert_eq!(cost(None, "x-cost: 99999999999999999999999\r\n"), u64::MAX);
}

#[test]
fn a_share_of_the_requests_is_that_share() {
    assert!((0..1_000).all(|_| happens(100) && !happens(0)));
    fastrand::seed(7);
    for percent in [1_u8, 25, 50, 99] {
        let count = (0..100_000).filter(|_| happens(percent)).count();
        let expected = usize::from(percent) * 1_000;
        assert!(count.abs_diff(expected) < 1_000, "{percent}: {count}");
    }
}

#[test]
fn a_refusal_is_as_the_policy_wants_it() {
    let refusal = |more: &Value| {
        let limit = serde_json::from_value(limit(more)).unwrap();
        Refusal::compile(&limit).unwrap()
    };
    let wait = Some(Duration::from_millis(1_200));
    let plain = refusal(&json!({"status": 503})).reply(wait);
    assert_eq!(
        (plain.status, plain.body_bytes()),
        (503, &b"local_rate_limited"[..])
    );
    assert!(matches!(plain.extra, Extra::RetryAfter(2)));
    let silent = refusal(&json!({"retry_after": false, "body": "no"})).reply(wait);
    assert_eq!((silent.status, silent.body_bytes()), (429, &b"no"[..]));
    assert!(matches!(silent.extra, Extra::None));
    let full = json!({"body": "{}", "response_headers": [["content-type", "application/json"]]});
    let Extra::Answer(answer) = refusal(&full).reply(wait).extra else {
        panic!("it has fields");
    };
    let headers = |name: &[u8]| answer.headers.get(name);
    assert_eq!(headers(b"content-type"), Some(&b"application/json"[..]));
    assert_eq!(headers(b"retry-after"), Some(&b"2"[..]));
    assert_eq!(answer.body, "{}");
}
