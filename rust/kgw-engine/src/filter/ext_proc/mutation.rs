//! What a service changes of header and trailer fields, and what it may not (Envoy: the default
//! `HeaderMutationRules`, as observed from Envoy 1.40).
//!
//! A name or value that no message can have is a failure of the service. What is not for it to change is
//! left as it is: the host, the method and the scheme, `x-envoy-...`, and what says how a message is framed.

use kgw_h1::{Headers, Request, has_no_body};

use super::message::HeaderMutation;
use crate::filter::header_mutation::is_reserved;

/// A mutation that is none: the details of the answer that the client gets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct InvalidMutation(pub(crate) &'static str);

const BAD_SET: InvalidMutation = InvalidMutation("header_mutation_set_contains_invalid_character");
const BAD_REMOVE: InvalidMutation =
    InvalidMutation("header_mutation_remove_contains_invalid_character");

/// What a mutation says about the length of the body, last.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum StatedLength {
    /// Nothing.
    AsBefore,
    /// There is no statement any more.
    Removed,
    /// So many bytes.
    Bytes(u64),
}

/// Checks all of a mutation before anything of it is done.
fn check(mutation: &HeaderMutation) -> Result<(), InvalidMutation> {
    for name in &mutation.remove {
        if !is_name(name) {
            return Err(BAD_REMOVE);
        }
    }
    for header in &mutation.set {
        if !is_name(&header.name) || !kgw_h1::is_valid_value(&header.value) {
            return Err(BAD_SET);
        }
    }
    Ok(())
}

fn is_name(name: &[u8]) -> bool {
    kgw_h1::is_valid_name(name.strip_prefix(b":").unwrap_or(name))
}

/// Whether a service may set or remove the fields of this name, which is in lower case.
fn may_change(name: &[u8]) -> bool {
    !name.starts_with(b":") && !name.starts_with(b"x-envoy-") && !is_reserved(name)
}

/// Changes the head of a request.
///
/// # Errors
/// Nothing is changed: there is a field that no request can have.
pub(crate) fn of_request(
    mutation: &HeaderMutation,
    request: &mut Request,
) -> Result<StatedLength, InvalidMutation> {
    check(mutation)?;
    for header in &mutation.set {
        if header.name == b":path" && !header.append && !is_path(&header.value) {
            return Err(BAD_SET);
        }
    }
    apply(mutation, request.headers_mut());
    // There is a path already, and none can be added to it.
    let paths = mutation.set.iter();
    let mut paths = paths.filter(|one| one.name == b":path" && !one.append);
    if let Some(path) = paths.next_back() {
        request.set_path(&path.value);
    }
    Ok(stated_length(mutation))
}

/// Changes the head of an answer.
///
/// # Errors
/// Nothing is changed: there is a field that no answer can have.
pub(crate) fn of_response(
    mutation: &HeaderMutation,
    status: &mut u16,
    headers: &mut Headers,
) -> Result<StatedLength, InvalidMutation> {
    check(mutation)?;
    apply(mutation, headers);
    let statuses = mutation.set.iter();
    for header in statuses.filter(|one| one.name == b":status" && !one.append) {
        if let Some(changed) = number(&header.value)
            && let Ok(changed @ 200..600) = u16::try_from(changed)
            // Whether there is a body is settled.
            && has_no_body(changed) == has_no_body(*status)
        {
            *status = changed;
        }
    }
    Ok(stated_length(mutation))
}

/// Changes trailer fields.
///
/// # Errors
/// Nothing is changed: there is a field that no message can have.
pub(crate) fn of_trailers(
    mutation: &HeaderMutation,
    trailers: &mut Headers,
) -> Result<(), InvalidMutation> {
    check(mutation)?;
    apply(mutation, trailers);
    trailers.remove_if(|name, _| !kgw_h1::may_be_trailer(name));
    Ok(())
}

/// The fields of an answer that a service makes. What cannot be one of them is left out (Envoy).
pub(crate) fn of_immediate(mutation: &HeaderMutation) -> Headers {
    let mut headers = Headers::new();
    if check(mutation).is_ok() {
        apply(mutation, &mut headers);
    }
    headers
}

/// Removes first, then sets, as Envoy does.
fn apply(mutation: &HeaderMutation, headers: &mut Headers) {
    for name in mutation.remove.iter().filter(|name| may_change(name)) {
        headers.remove(name);
    }
    for header in mutation.set.iter().filter(|one| may_change(&one.name)) {
        if header.append {
            headers.append(&header.name, &header.value);
        } else {
            headers.set(&header.name, &header.value);
        }
    }
}

fn stated_length(mutation: &HeaderMutation) -> StatedLength {
    const NAME: &[u8] = b"content-length";
    let set = mutation.set.iter().rfind(|header| header.name == NAME);
    if let Some(bytes) = set.and_then(|header| number(&header.value)) {
        return StatedLength::Bytes(bytes);
    }
    if mutation.remove.iter().any(|name| name == NAME) {
        return StatedLength::Removed;
    }
    StatedLength::AsBefore
}

fn number(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// Whether a request can ask for this.
fn is_path(path: &[u8]) -> bool {
    path.first() == Some(&b'/')
        && path
            .iter()
            .all(|byte| (0x21..0x7f).contains(byte) && *byte != b'#')
}

#[cfg(test)]
mod tests {
    use kgw_h1::Limits;

    use super::*;
    use crate::filter::ext_proc::message::SetHeader;

    fn mutation(set: &[(&str, &str, bool)], remove: &[&str]) -> HeaderMutation {
        let set = set.iter().map(|(name, value, append)| SetHeader {
            name: name.as_bytes().to_vec(),
            value: value.as_bytes().to_vec(),
            append: *append,
        });
        HeaderMutation {
            set: set.collect(),
            remove: remove.iter().map(|name| name.as_bytes().to_vec()).collect(),
        }
    }

    fn request() -> Request {
        let mut request = Request::new();
        let bytes = b"GET /a HTTP/1.1\r\nhost: h\r\nx-a: 1\r\nx-a: 2\r\nx-envoy-a: 1\r\n\r\n";
        let limits = Limits {
            max_head_bytes: 4096,
            max_fields: 100,
        };
        request.parse(bytes, &limits).unwrap();
        request
    }

    fn all(headers: &Headers, name: &str) -> String {
        let found = headers.get_all(name.as_bytes());
        let found = found.map(|value| String::from_utf8_lossy(value).into_owned());
        found.collect::<Vec<_>>().join(",")
    }

    #[test]
    fn fields_of_requests() {
        let mut changed = request();
        let wanted = mutation(
            &[
                ("x-a", "9", false),
                ("x-b", "1", true),
                ("x-b", "2", true),
                (":path", "/b", false),
            ],
            &[],
        );
        assert_eq!(
            of_request(&wanted, &mut changed),
            Ok(StatedLength::AsBefore)
        );
        assert_eq!(all(changed.headers(), "x-a"), "9");
        assert_eq!(all(changed.headers(), "x-b"), "1,2");
        assert_eq!(changed.path(), b"/b");
        let removed = mutation(&[("x-a", "3", true)], &["x-a"]);
        of_request(&removed, &mut changed).unwrap();
        assert_eq!(all(changed.headers(), "x-a"), "3");
    }

    #[test]
    fn what_is_not_for_services() {
        let mut changed = request();
        let wanted = mutation(
            &[
                (":method", "PUT", false),
                (":authority", "b", false),
                (":scheme", "https", false),
                ("host", "b", false),
                ("x-envoy-a", "2", false),
                ("transfer-encoding", "chunked", false),
                (":path", "/b", true),
                (":other", "1", false),
            ],
            &["host", ":path", ":method", "x-envoy-a"],
        );
        of_request(&wanted, &mut changed).unwrap();
        assert_eq!(changed.method(), b"GET");
        assert_eq!(changed.authority(), b"h");
        assert_eq!(changed.path(), b"/a");
        assert!(changed.headers().iter().eq(request().headers().iter()));
    }

    #[test]
    fn what_no_message_can_have_is_refused_as_a_whole() {
        for (set, remove, expected) in [
            (("x a", "1"), "x-b", BAD_SET),
            (("", "1"), "x-b", BAD_SET),
            (("x-a", "1\r\nx-b: 2"), "x-b", BAD_SET),
            ((":path", "b c"), "x-b", BAD_SET),
            ((":path", "b"), "x-b", BAD_SET),
            (("x-a", "1"), "x b", BAD_REMOVE),
            (("x-a", "1"), "", BAD_REMOVE),
        ] {
            let mut changed = request();
            let wanted = mutation(&[("x-a", "9", false), (set.0, set.1, false)], &[remove]);
            assert_eq!(of_request(&wanted, &mut changed), Err(expected), "{set:?}");
            assert_eq!(all(changed.headers(), "x-a"), "1,2");
        }
    }

    #[test]
    fn statuses() {
        for (value, expected) in [
            ("404", 404),
            ("200", 200),
            ("999", 201),
            ("101", 201),
            ("abc", 201),
            ("", 201),
        ] {
            let mut status = 201;
            let wanted = mutation(&[(":status", value, false)], &[":status"]);
            of_response(&wanted, &mut status, &mut Headers::new()).unwrap();
            assert_eq!(status, expected, "{value}");
        }
    }

    #[test]
    fn statements_about_lengths_are_noted_and_not_made() {
        for (set, remove, expected) in [
            ("content-length", "x-a", StatedLength::Bytes(5)),
            ("x-b", "content-length", StatedLength::Removed),
            ("x-b", "x-a", StatedLength::AsBefore),
        ] {
            let mut headers = Headers::new();
            headers.append(b"content-length", b"3");
            let wanted = mutation(&[(set, "5", false)], &[remove]);
            let mut status = 200;
            let stated = of_response(&wanted, &mut status, &mut headers);
            assert_eq!(stated, Ok(expected));
            assert_eq!(all(&headers, "content-length"), "3");
        }
    }

    #[test]
    fn trailers_have_no_field_of_heads() {
        let mut trailers = Headers::new();
        trailers.append(b"x-a", b"1");
        let wanted = mutation(
            &[("x-b", "2", false), ("content-type", "a/b", false)],
            &["x-a"],
        );
        of_trailers(&wanted, &mut trailers).unwrap();
        let names: Vec<_> = trailers.iter().map(|(name, _)| name.to_vec()).collect();
        assert_eq!(names, [b"x-b"]);
    }
}
