//! Every request case of the lab: what must be refused is, what is valid is read as RFC 9112 says.

mod common;

use common::{Data, End, Failures, load, play};
use kgw_h1::RequestError;
use serde::Deserialize;

#[derive(Debug, Deserialize)]
struct Case {
    id: String,
    level: String,
    data: Data,
    /// Method, target and body of each request in the RFC's reading.
    reading: Option<Vec<(String, String, Option<String>)>>,
}

/// Valid messages that are refused on purpose, with the answer they get.
///
/// HTTP/1.0: Envoy answers 426 unless `acceptHttp10` is set, and so does kgw.
const REFUSED_BY_DEFAULT: &[&str] = &["v-10", "v-10-ka", "h-10-none"];

fn cases() -> Vec<Case> {
    let cases: Vec<Case> = load("http1_requests.json");
    assert!(cases.len() >= 262, "cases are missing");
    cases
}

/// Says what is wrong with the outcome, if anything.
fn judge(case: &Case, accept_http_10: bool) -> Option<String> {
    let bytes = case.data.bytes();
    let (messages, end) = play(&bytes, usize::MAX, accept_http_10);
    for piece in [1, 7] {
        let (same, same_end) = play(&bytes, piece, accept_http_10);
        if (&same, &same_end) != (&messages, &end) {
            return Some(format!(
                "in pieces of {piece}: {same_end:?}, whole: {end:?}"
            ));
        }
    }
    let rejected = matches!(end, End::Head(_) | End::Body(_));
    let smuggled = messages.iter().any(|m| m.target.contains("/smuggled/"));
    match case.level.as_str() {
        "must_reject" if !rejected => return Some(format!("accepted: {end:?} {messages:?}")),
        "valid" if rejected || end == End::Waiting => return Some(format!("refused: {end:?}")),
        "may" if end == End::Waiting => return Some("stalled".into()),
        "info" => return None,
        _ => {}
    }
    let Some(reading) = &case.reading else {
        let expected = usize::from(!rejected);
        return (smuggled || messages.len() > expected.max(1))
            .then(|| format!("read too much: {messages:?}"));
    };
    if messages.len() > reading.len() || (!rejected && messages.len() != reading.len()) {
        return Some(format!(
            "{} requests, not {}: {end:?}",
            messages.len(),
            reading.len()
        ));
    }
    for (at, (message, (method, target, body))) in messages.iter().zip(reading).enumerate() {
        // The last message of a refused connection may lack a part of its body.
        let partial = rejected && at + 1 == messages.len();
        let body_is_right = body.as_ref().is_none_or(|body| {
            let body = common::latin1(body);
            message.body == body || (partial && body.starts_with(&message.body))
        });
        if message.method != *method || message.target != *target || !body_is_right {
            return Some(format!("misread: {message:?}"));
        }
    }
    None
}

#[test]
fn every_case_is_refused_or_read_as_the_rfc_reads_it() {
    let mut failures = Failures::default();
    for case in cases() {
        if REFUSED_BY_DEFAULT.contains(&case.id.as_str()) {
            let (messages, end) = play(&case.data.bytes(), usize::MAX, false);
            if !messages.is_empty() || end != End::Head(RequestError::UnsupportedVersion) {
                failures.add(&case.id, format!("{end:?}"));
            }
        } else if let Some(fault) = judge(&case, false) {
            failures.add(&case.id, fault);
        }
    }
    failures.check();
}

#[test]
fn http_10_is_read_when_it_is_allowed() {
    let mut failures = Failures::default();
    for case in cases() {
        if let Some(fault) = judge(&case, true) {
            failures.add(&case.id, fault);
        }
    }
    failures.check();
}
