//! Asking a service with a request like the client's.
//!
//! It has the method, host and path of the client's, `authorization`, and the fields that the service is
//! to be told. 200 lets the request pass; an answer of 5xx is no decision, as in Envoy; any other is the
//! client's answer.

use bytes::Bytes;
use kgw_h1::{Headers, Request, TargetForm};
use serde_json::Map;

use super::edit::{Edit, How};
use super::{Changes, Decision, ExtAuthz, Names, Question, Subject, Undecided};
use crate::bridge::Answer;
use crate::config::ir::AuthorizationService;
use crate::filter::header_mutation::is_reserved;
use crate::telemetry::access_log::{FormatOptions, LogProgram};
use crate::upstream::call::Called;

/// How a service is asked, and what is made of its answers.
#[derive(Debug)]
pub(super) struct Service {
    path_prefix: Box<[u8]>,
    headers_to_add: Vec<Added>,
    upstream_headers: Option<Names>,
    upstream_headers_to_append: Names,
    client_headers: Option<Names>,
    client_headers_on_success: Names,
}

/// A header field that a service is told in addition.
#[derive(Debug)]
struct Added {
    name: Box<[u8]>,
    value: LogProgram,
}

impl Service {
    pub(super) fn compile(service: &AuthorizationService) -> Result<Self, String> {
        let AuthorizationService::Http {
            path_prefix,
            headers_to_add,
            upstream_headers,
            upstream_headers_to_append,
            client_headers,
            client_headers_on_success,
        } = service
        else {
            return Err("not a service that is asked over HTTP".to_owned());
        };
        let is_path = |byte: u8| (0x21..0x7f).contains(&byte) && !b"?#".contains(&byte);
        let is_rooted = path_prefix.is_empty() || path_prefix.starts_with('/');
        if !is_rooted || !path_prefix.bytes().all(is_path) {
            return Err(format!("{path_prefix:?} is not a path"));
        }
        let mut added = Vec::new();
        for (name, value) in headers_to_add {
            let is_field = kgw_h1::is_valid_name(name.as_bytes()) && !is_reserved(name.as_bytes());
            if !is_field || !kgw_h1::is_valid_value(value.as_bytes()) {
                return Err(format!("header field {name} cannot be added"));
            }
            let options = FormatOptions {
                omit_empty_values: true,
            };
            let value = LogProgram::text(value, options)
                .map_err(|error| format!("header field {name}: {error}"))?;
            added.push(Added {
                name: name.as_bytes().into(),
                value,
            });
        }
        Ok(Self {
            // The request's path has a slash of its own.
            path_prefix: path_prefix.trim_end_matches('/').as_bytes().into(),
            headers_to_add: added,
            upstream_headers: Names::all_or(upstream_headers.as_deref())?,
            upstream_headers_to_append: Names::compile(upstream_headers_to_append)?,
            client_headers: Names::all_or(client_headers.as_deref())?,
            client_headers_on_success: Names::compile(client_headers_on_success)?,
        })
    }

    pub(super) fn question(&self, filter: &ExtAuthz, subject: &Subject<'_>) -> Option<Question> {
        let request = subject.request;
        if request.target_form() == TargetForm::Authority {
            // It has no path to ask for.
            return None;
        }
        let mut fields = Headers::new();
        for (name, value) in request.headers() {
            let name = name.to_ascii_lowercase();
            let is_told = name == b"authorization" || filter.tells(&name);
            if is_told && !is_reserved(&name) {
                fields.append(&name, value);
            }
        }
        let mut value = Vec::new();
        for added in &self.headers_to_add {
            value.clear();
            added.value.render(subject.record, &mut value);
            let value = value.trim_ascii();
            if !value.is_empty() && kgw_h1::is_valid_value(value) {
                fields.set(&added.name, value);
            }
        }
        let body = subject.body.clone().unwrap_or_default();
        if body.is_partial {
            fields.set(b"x-envoy-auth-partial-body", b"true");
        }
        let path = [&*self.path_prefix, request.path()].concat();
        let head = head_like(request, &path, &fields, body.bytes.is_empty())?;
        Some(Question {
            head,
            body: body.bytes,
        })
    }

    pub(super) fn decision(&self, answer: &Called) -> Result<Decision, Undecided> {
        match answer.head.status() {
            200 => self.allowed(answer.head.headers()),
            500.. => Err(Undecided),
            status => Ok(Decision::Denied {
                answer: self.denied(status, answer.head.headers(), answer.body.clone()),
                metadata: Map::new(),
            }),
        }
    }

    fn allowed(&self, fields: &Headers) -> Result<Decision, Undecided> {
        let mut changes = Changes::default();
        let mut known: Vec<Box<[u8]>> = Vec::new();
        for (name, value) in fields {
            let name = name.to_ascii_lowercase().into_boxed_slice();
            let is_set = match &self.upstream_headers {
                None => !is_of_answer(&name),
                Some(names) => names.has(&name),
            };
            if is_set {
                // Of several fields of a name all are the request's.
                let is_first = !known.contains(&name);
                let how = if is_first { How::Set } else { How::Add };
                changes.edits.extend(Edit::new(&name, value, how)?);
                known.push(name.clone());
            }
            if self.upstream_headers_to_append.has(&name) {
                changes.edits.extend(Edit::new(&name, value, How::Add)?);
            }
            if self.client_headers_on_success.has(&name) {
                changes.response.extend(Edit::new(&name, value, How::Add)?);
            }
        }
        Ok(Decision::Allowed(Box::new(changes)))
    }

    /// The client's answer.
    fn denied(&self, status: u16, fields: &Headers, body: Bytes) -> Answer {
        let mut headers = Headers::new();
        for (name, value) in fields {
            let name = name.to_ascii_lowercase();
            let is_passed = match &self.client_headers {
                None => true,
                Some(names) => {
                    matches!(&*name, b"location" | b"www-authenticate") || names.has(&name)
                }
            };
            if is_passed && !is_reserved(&name) && !matches!(&*name, b"date" | b"server") {
                headers.append(&name, value);
            }
        }
        // What has no interim meaning here is not passed on as such.
        Answer {
            status,
            headers,
            body,
        }
    }
}

/// The head of a question about a request, to be asked for at another path.
fn head_like(request: &Request, path: &[u8], fields: &Headers, is_whole: bool) -> Option<Request> {
    super::head(
        request.method(),
        request.authority(),
        path,
        fields,
        is_whole,
    )
}

/// Whether a field is about the answer that it stands in, and would be wrong about a request: its length
/// and form, its time, and who made it.
fn is_of_answer(name: &[u8]) -> bool {
    matches!(
        name,
        b"content-encoding"
            | b"content-language"
            | b"content-length"
            | b"content-location"
            | b"content-range"
            | b"content-type"
            | b"date"
            | b"server"
    )
}

#[cfg(test)]
mod tests {
    use super::super::tests::{answer, filter, request, subject, text};
    use super::*;
    use crate::telemetry::access_log::Record;

    fn asked(filter_json: &str, line: &str, fields: &str, body: &'static [u8]) -> Option<String> {
        let request = request(line, fields);
        let mut record = Record::new();
        record.request.method = Some(request.method());
        let question = filter(filter_json).question(&subject(&request, body, &record))?;
        let head = &question.head;
        let target = [head.method(), head.authority(), head.path()].map(text);
        let fields = head.headers().iter();
        let fields = fields.map(|(name, value)| format!("{}: {}", text(name), text(value)));
        let mut lines = vec![target.join(" ")];
        lines.extend(fields);
        lines.push(text(&question.body).to_owned());
        Some(lines.join("\n"))
    }

    #[test]
    fn it_is_told_what_the_request_is_and_nothing_else() {
        let filter = r#"{"type": "http"}"#;
        let fields = "authorization: Basic x\r\ncookie: a=b\r\ncontent-length: 3\r\n";
        assert_eq!(
            asked(filter, "POST /a?b=c", fields, b"").unwrap(),
            "POST a.example /a?b=c\nhost: a.example\nauthorization: Basic x\n"
        );
    }

    #[test]
    fn it_is_told_the_fields_that_are_named_and_no_framing() {
        let filter = r#"{"type": "http", "path_prefix": "/check/", "headers_to_add": [["x-b", "2"]]}
            , "request_headers": ["X-A", "connection", "content-length"]"#;
        let fields = "X-a: 1\r\nX-B: 1\r\nx-c: 1\r\nconnection: close\r\ncontent-length: 3\r\n";
        assert_eq!(
            asked(filter, "PUT /a", fields, b"abc").unwrap(),
            "PUT a.example /check/a\nhost: a.example\nx-a: 1\nx-b: 2\nabc"
        );
    }

    #[test]
    fn added_fields_may_have_operators_and_are_left_out_if_nothing_fills_them() {
        let filter = r#"{"type": "http", "headers_to_add": [
            ["x-m", "it is %REQ(:METHOD)%"], ["x-none", "%REQ(X-NOTHING)%"], ["x-p", "100%%"]]}"#;
        assert_eq!(
            asked(filter, "GET /", "x-none: client\r\n", b"").unwrap(),
            "GET a.example /\nhost: a.example\nx-m: it is GET\nx-p: 100%\n"
        );
    }

    #[test]
    fn a_connect_request_has_nothing_to_ask_with() {
        assert_eq!(
            asked(r#"{"type": "http"}"#, "CONNECT a.example:1", "", b""),
            None
        );
    }

    fn changed(filter_json: &str, status: u16, fields: &str) -> Result<String, Undecided> {
        let answer = answer(status, fields, b"body");
        let mut request = request("GET /", "x-user: client\r\ncontent-type: text/x\r\n");
        match filter(filter_json).decision(&answer)? {
            Decision::Denied { answer, .. } => {
                let fields = answer.headers.iter();
                let fields: Vec<_> = fields
                    .map(|(name, value)| format!("{}: {}", text(name), text(value)))
                    .collect();
                Ok(format!(
                    "{} {} {}",
                    answer.status,
                    fields.join(", "),
                    text(&answer.body)
                ))
            }
            Decision::Allowed(changes) => {
                changes.apply(&mut request);
                let mut response = Headers::new();
                for edit in &changes.response {
                    edit.apply(&mut response);
                }
                let listed = |headers: &Headers| {
                    let fields = headers.iter();
                    let fields =
                        fields.map(|(name, value)| format!("{}: {}", text(name), text(value)));
                    fields.collect::<Vec<_>>().join(", ")
                };
                Ok(format!(
                    "{} | {}",
                    listed(request.headers()),
                    listed(&response)
                ))
            }
        }
    }

    #[test]
    fn an_answer_of_200_changes_what_it_may() {
        let answer = "x-user: admin\r\nx-user: other\r\nX-More: 1\r\ncontent-type: text/y\r\n";
        assert_eq!(
            changed(r#"{"type": "http"}"#, 200, answer).unwrap(),
            "host: a.example, x-user: client, content-type: text/x | "
        );
        assert_eq!(
            changed(r#"{"type": "http", "upstream_headers": null}"#, 200, answer).unwrap(),
            "host: a.example, x-user: admin, content-type: text/x, x-user: other, x-more: 1 | "
        );
        let some = r#"{"type": "http", "upstream_headers": ["Content-Type"],
            "upstream_headers_to_append": ["x-user"], "client_headers_on_success": ["x-more"]}"#;
        assert_eq!(
            changed(some, 200, answer).unwrap(),
            "host: a.example, x-user: client, content-type: text/y, x-user: admin, x-user: other \
             | x-more: 1"
        );
    }

    #[test]
    fn any_other_answer_is_the_clients_save_for_failures() {
        let fields = "location: /login\r\nX-a: 1\r\nserver: x\r\nconnection: close\r\n";
        assert_eq!(
            changed(r#"{"type": "http"}"#, 302, fields).unwrap(),
            "302 location: /login, x-a: 1 body"
        );
        let some = r#"{"type": "http", "client_headers": ["x-b"]}"#;
        assert_eq!(
            changed(some, 401, fields).unwrap(),
            "401 location: /login body"
        );
        assert_eq!(
            changed(some, 201, fields).unwrap(),
            "201 location: /login body"
        );
        assert_eq!(changed(some, 503, fields), Err(Undecided));
    }

    #[test]
    fn prefixes_are_paths() {
        for (prefix, is_path) in [
            ("", true),
            ("/a", true),
            ("a", false),
            ("/a?b", false),
            ("/ ", false),
        ] {
            let service = AuthorizationService::Http {
                path_prefix: prefix.to_owned(),
                headers_to_add: Vec::new(),
                upstream_headers: None,
                upstream_headers_to_append: Vec::new(),
                client_headers: None,
                client_headers_on_success: Vec::new(),
            };
            assert_eq!(Service::compile(&service).is_ok(), is_path, "{prefix:?}");
        }
    }
}
