//! Asking a service with a call of `envoy.service.auth.v3.Authorization/Check`.
//!
//! The call is one message each way. A call that fails, or whose answer cannot be read, is no decision.

use std::collections::BTreeMap;

use bytes::Bytes;
use kgw_h1::{Headers, Known, TargetForm};
use serde_json::{Map, Value};

use super::edit::{Edit, How};
use super::message::{
    CheckRequest, CheckResponse, DeniedHttpResponse, HttpRequest, HttpResponse, OkHttpResponse,
};
use super::{Changes, Decision, ExtAuthz, Question, Subject, Undecided};
use crate::bridge::Answer;
use crate::config::ir::AuthorizationService;
use crate::filter::header_mutation::is_reserved;
use crate::protobuf::header::{
    ADD_IF_ABSENT, HeaderValueOption, OVERWRITE_IF_EXISTS, OVERWRITE_IF_EXISTS_OR_ADD,
};
use crate::protobuf::{text, unary};
use crate::upstream::call::Called;

const PATH: &[u8] = b"/envoy.service.auth.v3.Authorization/Check";

/// Status of a denial that states none.
const DENIED: u16 = 403;

/// How a service is called.
#[derive(Debug)]
pub(super) struct Service {
    authority: Box<[u8]>,
    context_extensions: BTreeMap<String, String>,
}

impl Service {
    pub(super) fn compile(service: &AuthorizationService) -> Result<Self, String> {
        let AuthorizationService::Grpc {
            authority,
            context_extensions,
        } = service
        else {
            return Err("not a service that is called".to_owned());
        };
        if !kgw_h1::is_valid_authority(authority.as_bytes()) {
            return Err(format!("{authority:?} is not a host"));
        }
        Ok(Self {
            authority: authority.as_bytes().into(),
            context_extensions: context_extensions.clone(),
        })
    }

    pub(super) fn question(&self, filter: &ExtAuthz, subject: &Subject<'_>) -> Option<Question> {
        let fields = unary::fields(filter.timeout_ms);
        let head = super::head(b"POST", &self.authority, PATH, &fields, false)?;
        let message = CheckRequest {
            source: subject.source,
            destination: subject.destination,
            principal: subject.principal.unwrap_or_default(),
            time: subject.began,
            http: http_request(filter, subject),
            context_extensions: &self.context_extensions,
            server_name: subject.server_name,
        };
        Some(Question {
            head,
            body: unary::framed(&message.encode())?,
        })
    }
}

fn http_request<'a>(filter: &ExtAuthz, subject: &'a Subject<'_>) -> HttpRequest<'a> {
    let request = subject.request;
    let scheme = if subject.is_secure { "https" } else { "http" };
    let mut headers = BTreeMap::new();
    let pseudo: [(&[u8], &[u8]); 4] = [
        (b":authority", request.authority()),
        (b":method", request.method()),
        (b":path", request.path()),
        (b":scheme", scheme.as_bytes()),
    ];
    let has_path = request.target_form() != TargetForm::Authority;
    for (name, value) in pseudo {
        if filter.tells(name) && (has_path || !matches!(name, b":path" | b":scheme")) {
            headers.insert(text(name), text(value));
        }
    }
    for (name, value) in request.headers() {
        let name = name.to_ascii_lowercase();
        // The host is `:authority`.
        if name != b"host" && filter.tells(&name) {
            let separator = if name == b"cookie" { "; " } else { "," };
            let value = text(value);
            headers
                .entry(text(&name))
                .and_modify(|known: &mut String| {
                    known.push_str(separator);
                    known.push_str(&value);
                })
                .or_insert(value);
        }
    }
    let (mut body, mut raw_body): (&str, &[u8]) = ("", b"");
    if let (Some(told), Some(wanted)) = (&subject.body, filter.body)
        && !told.bytes.is_empty()
    {
        let partial = told.is_partial.to_string();
        headers.insert("x-envoy-auth-partial-body".to_owned(), partial);
        match std::str::from_utf8(&told.bytes) {
            Ok(text) if !wanted.as_bytes => body = text,
            // What is not text cannot be in a string, and is not mangled to be.
            _ => raw_body = &told.bytes,
        }
    }
    let length = subject.length;
    HttpRequest {
        id: request
            .headers()
            .get_known(Known::XRequestId)
            .map_or_else(String::new, text),
        method: text(request.method()),
        headers,
        path: text(request.path()),
        host: text(request.authority()),
        scheme,
        size: length.map_or(-1, |length| i64::try_from(length).unwrap_or(i64::MAX)),
        protocol: request.version().as_str(),
        body,
        raw_body,
    }
}

/// What the answer to a call says.
pub(super) fn decision(answer: &Called) -> Result<Decision, Undecided> {
    let response = CheckResponse::decode(unary::message(answer)?)?;
    let mut changes = match (response.code, response.http) {
        (0, Some(HttpResponse::Ok(ok))) => allowed(ok)?,
        (0, _) => Changes::default(),
        (_, Some(HttpResponse::Denied(denied))) => {
            return denied_with(&denied, response.metadata);
        }
        (_, _) => return denied_with(&DeniedHttpResponse::default(), response.metadata),
    };
    changes.metadata = response.metadata;
    Ok(Decision::Allowed(Box::new(changes)))
}

fn allowed(ok: OkHttpResponse<'_>) -> Result<Changes, Undecided> {
    let mut changes = Changes::default();
    for field in &ok.headers {
        let name = field.name.to_ascii_lowercase();
        if !changes.target.take(&name, field.value)? {
            let how = how(field, How::Set, How::AddIfPresent);
            changes.edits.extend(Edit::new(&name, field.value, how)?);
        }
    }
    for name in ok.headers_to_remove {
        // What the request is made of stays, as in Envoy.
        if kgw_h1::is_valid_name(name) {
            changes.edits.extend(Edit::new(name, b"", How::Remove)?);
        }
    }
    for field in &ok.response_headers_to_add {
        let how = how(field, How::Add, How::Add);
        let edit = Edit::new(&field.name.to_ascii_lowercase(), field.value, how)?;
        changes.response.extend(edit);
    }
    let owned = |text: &[u8]| text.to_vec();
    let set = ok.query_parameters_to_set.into_iter();
    changes.query.set = set
        .map(|(name, value)| (owned(name), owned(value)))
        .collect();
    let remove = ok.query_parameters_to_remove.into_iter();
    changes.query.remove = remove.map(owned).collect();
    Ok(changes)
}

/// What becomes of the fields of a name: what `append` says if it is there, else the action.
fn how(field: &HeaderValueOption<'_>, default: How, appended: How) -> How {
    match (field.append, field.action) {
        (Some(true), _) => appended,
        (Some(false), _) | (None, OVERWRITE_IF_EXISTS_OR_ADD) => How::Set,
        (None, ADD_IF_ABSENT) => How::AddIfAbsent,
        (None, OVERWRITE_IF_EXISTS) => How::Replace,
        // The first action, to append, is also what a service has that says nothing.
        (None, _) => default,
    }
}

fn denied_with(
    denied: &DeniedHttpResponse<'_>,
    metadata: Map<String, Value>,
) -> Result<Decision, Undecided> {
    let status = match denied.status {
        0 => DENIED,
        code => u16::try_from(code).map_err(|_| Undecided)?,
    };
    if !(200..600).contains(&status) {
        return Err(Undecided);
    }
    let mut headers = Headers::new();
    for field in &denied.headers {
        if !kgw_h1::is_valid_name(field.name) || !kgw_h1::is_valid_value(field.value) {
            return Err(Undecided);
        }
        let name = field.name.to_ascii_lowercase();
        if !is_reserved(&name) {
            headers.append(&name, field.value);
        }
    }
    let answer = Answer {
        status,
        headers,
        body: Bytes::copy_from_slice(denied.body),
    };
    Ok(Decision::Denied { answer, metadata })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{answer, filter, request, subject};
    use super::*;
    use crate::protobuf::wire::{Field, Writer, read};
    use crate::telemetry::access_log::Record;

    const GRPC: &str = r#"{"type": "grpc", "authority": "auth.example"}"#;

    /// What of a message has these numbers, each inside of the one before.
    fn within(mut message: Vec<u8>, numbers: &[u64]) -> Vec<u8> {
        for wanted in numbers {
            message = all(&message, *wanted).pop().unwrap_or_default();
        }
        message
    }

    fn all(message: &[u8], wanted: u64) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        read(message, |Field { number, value }| {
            if number == wanted {
                found.push(value.bytes().to_vec());
            }
            Ok(())
        })
        .unwrap();
        found
    }

    /// The `HttpRequest` that a service is told.
    fn check(filter_json: &str, request: &kgw_h1::Request, body: &'static [u8]) -> Vec<u8> {
        let question = filter(filter_json)
            .question(&subject(request, body, &Record::new()))
            .unwrap();
        assert_eq!(question.head.path(), PATH);
        assert_eq!(
            question.head.headers().get(b"grpc-timeout"),
            Some(&b"200m"[..])
        );
        let (prefix, message) = question.body.split_at(5);
        let length = u32::try_from(message.len()).unwrap();
        assert_eq!((prefix[0], &prefix[1..]), (0, &length.to_be_bytes()[..]));
        let message = message.to_vec();
        assert_eq!(
            within(message.clone(), &[1, 1, 4]),
            b"spiffe://mesh/ns/a/sa/b"
        );
        assert_eq!(within(message.clone(), &[1, 1, 1, 1, 2]), b"10.0.0.1");
        assert_eq!(within(message.clone(), &[1, 2, 1, 1, 2]), b"10.0.0.2");
        assert_eq!(within(message.clone(), &[1, 4, 1]), b"\x08\x07\x10\x05");
        within(message, &[1, 4, 2])
    }

    /// The header fields that a service is told.
    fn told(http: &[u8]) -> String {
        let entries = all(http, 3).into_iter();
        let entries = entries.map(|entry| {
            let text = |number| String::from_utf8(within(entry.clone(), &[number])).unwrap();
            format!("{}={}", text(1), text(2))
        });
        entries.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn it_is_told_all_of_a_request() {
        let fields =
            "X-A: 1\r\nx-a: 2\r\ncookie: a\r\ncookie: b\r\nx-request-id: 7\r\nx-b: \u{fc}\r\n";
        let http = check(GRPC, &request("GET /a?b", fields), b"");
        let texts = [2, 4, 5, 6, 1, 10].map(|number| within(http.clone(), &[number]));
        assert_eq!(texts.join(&b' '), b"GET /a?b a.example https 7 HTTP/1.1");
        assert_eq!(
            told(&http),
            ":authority=a.example :method=GET :path=/a?b :scheme=https cookie=a; b x-a=1,2 \
             x-b=\u{fc} x-request-id=7"
        );
    }

    #[test]
    fn it_is_told_the_fields_that_are_named() {
        let some = r#"{"type": "grpc", "authority": "auth.example"}, "request_headers": ["x-a"]"#;
        let http = check(some, &request("GET /", "X-A: 1\r\nx-b: 2\r\n"), b"");
        assert_eq!(told(&http), "x-a=1");
    }

    #[test]
    fn bodies_are_text_if_they_can_be() {
        let told_of = |options: &str, body| {
            let json = format!(r#"{GRPC}, "body": {{"max_bytes": 9 {options}}}"#);
            let http = check(&json, &request("POST /", ""), body);
            assert!(told(&http).ends_with("x-envoy-auth-partial-body=false"));
            [11, 12].map(|number| within(http.clone(), &[number]))
        };
        assert_eq!(told_of("", b"abc"), [&b"abc"[..], b""]);
        assert_eq!(told_of("", b"\xff"), [&b""[..], b"\xff"]);
        assert_eq!(told_of(r#", "as_bytes": true"#, b"abc"), [&b""[..], b"abc"]);
    }

    fn field(name: &str, value: &str, append: Option<bool>, action: i64) -> impl Fn(&mut Writer) {
        move |option| {
            option.message(1, |header| {
                header.bytes(1, name.as_bytes());
                header.bytes(2, value.as_bytes());
            });
            if let Some(append) = append {
                option.message(2, |of| of.int(1, append.into()));
            }
            option.int(3, action);
        }
    }

    fn answered(write: impl FnOnce(&mut Writer)) -> Result<Decision, Undecided> {
        let mut message = Writer::default();
        write(&mut message);
        let message = message.into_bytes();
        let mut body = vec![0];
        body.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
        body.extend(message);
        let mut answer = answer(200, "content-type: application/grpc\r\n", b"");
        answer.body = body.into();
        let mut trailers = Headers::new();
        trailers.append(b"grpc-status", b"0");
        answer.trailers = Some(trailers);
        filter(GRPC).decision(&answer)
    }

    fn listed(headers: &Headers) -> String {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let fields = headers.iter();
        let fields = fields.map(|(name, value)| format!("{}={}", text(name), text(value)));
        fields.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_request_that_passes_is_changed() {
        let decided = answered(|response| {
            response.message(3, |ok| {
                ok.message(2, field("X-Set", "2", None, 0));
                ok.message(2, field("x-append", "2", Some(true), 0));
                ok.message(2, field("x-new", "2", Some(true), 0));
                ok.message(2, field("x-absent", "2", None, 1));
                ok.message(2, field("content-length", "9", None, 0));
                ok.message(2, field(":path", "/b?x=1", None, 0));
                ok.message(2, field("host", "b.example", None, 0));
                ok.bytes(5, b"x-secret");
                ok.bytes(5, b":method");
                ok.bytes(5, b"host");
                ok.message(6, field("x-r", "1", None, 0));
                ok.message(6, field("x-r", "2", None, 0));
                ok.entry(7, "y", "2");
                ok.bytes(8, b"x");
            });
            response.message(4, |metadata| {
                metadata.message(1, |entry| {
                    entry.bytes(1, b"user");
                    entry.message(2, |value| value.bytes(3, b"a"));
                });
            });
        });
        let Ok(Decision::Allowed(changes)) = decided else {
            panic!("{decided:?}");
        };
        let fields =
            "x-set: 1\r\nx-append: 1\r\nx-absent: 1\r\nx-secret: 1\r\ncontent-length: 0\r\n";
        let mut request = request("POST /a", fields);
        changes.apply(&mut request);
        assert_eq!(request.path(), b"/b?y=2");
        assert_eq!(request.authority(), b"b.example");
        let mut names: Vec<_> = listed(request.headers())
            .split(' ')
            .map(str::to_owned)
            .collect();
        names.sort_unstable();
        assert_eq!(
            names.join(" "),
            "content-length=0 host=b.example x-absent=1 x-append=1 x-append=2 x-set=2"
        );
        let mut response = Headers::new();
        changes
            .response
            .iter()
            .for_each(|edit| edit.apply(&mut response));
        assert_eq!(listed(&response), "x-r=1 x-r=2");
        assert_eq!(changes.metadata["user"], "a");
    }

    #[test]
    fn an_empty_answer_lets_pass() {
        assert!(matches!(answered(|_| {}), Ok(Decision::Allowed(_))));
    }

    #[test]
    fn a_denial_says_what_the_client_gets() {
        let denied = |write: &dyn Fn(&mut Writer)| {
            let decided = answered(|response| {
                response.message(1, |status| status.int(1, 7));
                write(response);
            });
            decided.map(|decided| match decided {
                Decision::Denied { answer, .. } => {
                    (answer.status, listed(&answer.headers), answer.body)
                }
                Decision::Allowed(changes) => panic!("{changes:?}"),
            })
        };
        assert_eq!(denied(&|_| {}), Ok((403, String::new(), Bytes::new())));
        let full = |response: &mut Writer| {
            response.message(2, |denied| {
                denied.message(1, |status| status.int(1, 401));
                denied.message(2, field("www-authenticate", "Basic", None, 0));
                denied.message(2, field("set-cookie", "a", None, 0));
                denied.message(2, field("set-cookie", "b", None, 0));
                denied.message(2, field("content-length", "7", None, 0));
                denied.bytes(3, b"no");
            });
        };
        let fields = "www-authenticate=Basic set-cookie=a set-cookie=b".to_owned();
        assert_eq!(denied(&full), Ok((401, fields, Bytes::from_static(b"no"))));
        for (code, value) in [(99, ""), (600, ""), (-1, ""), (403, "a\r\nb: c")] {
            let broken = move |response: &mut Writer| {
                response.message(2, |denied| {
                    denied.message(1, |status| status.int(1, code));
                    denied.message(2, field("x-a", value, None, 0));
                });
            };
            assert_eq!(denied(&broken), Err(Undecided), "{code}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_no_decision() {
        let with = |status, fields: &str, body: &'static [u8], grpc: &str| {
            let mut answer = answer(status, fields, body);
            let mut trailers = Headers::new();
            trailers.append(b"grpc-status", grpc.as_bytes());
            answer.trailers = Some(trailers);
            filter(GRPC).decision(&answer).map(|_| ())
        };
        let typed = "content-type: application/grpc\r\n";
        assert_eq!(with(200, typed, b"\0\0\0\0\0", "0"), Ok(()));
        assert_eq!(with(200, typed, b"\0\0\0\0\0", "7"), Err(Undecided));
        assert_eq!(with(503, typed, b"\0\0\0\0\0", "0"), Err(Undecided));
        let html = "content-type: text/html\r\n";
        assert_eq!(with(200, html, b"\0\0\0\0\0", "0"), Err(Undecided));
        assert_eq!(with(200, typed, b"", "0"), Err(Undecided));
        assert_eq!(with(200, typed, b"\x01\0\0\0\0", "0"), Err(Undecided));
        assert_eq!(with(200, typed, b"\0\0\0\0\x02\x0a", "0"), Err(Undecided));
        assert_eq!(
            with(200, typed, b"\0\0\0\0\x02\x0a\x09", "0"),
            Err(Undecided)
        );
    }
}
