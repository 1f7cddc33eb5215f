//! What becomes of answers that the proxy makes itself: other statuses, fields and bodies, where a
//! listener's policy says so (Envoy's `local_reply_config`).
//!
//! Of the mappers the first one counts whose filter holds. Its body comes first, then its fields, then its
//! status; the body's form comes last and sees all of them. A listener without any costs one look.

use bytes::Bytes;
use kgw_h1::Headers;

use super::reply::Reply;
use crate::config::ir::{self, ReplyBody};
use crate::filter::header_mutation::check;
use crate::telemetry::access_log::{Filter, FormatError, FormatOptions, LogProgram, Record};

/// A listener's changes to answers.
#[derive(Debug)]
pub(crate) struct LocalReplies {
    mappers: Box<[Mapper]>,
    form: Option<Form>,
}

#[derive(Debug)]
pub(crate) struct Mapper {
    filter: Filter,
    status: Option<u16>,
    body: Option<Bytes>,
    form: Option<Form>,
    fields: Box<[Field]>,
}

/// The form of a body.
#[derive(Debug)]
struct Form {
    program: LogProgram,
    is_json: bool,
    content_type: Box<[u8]>,
}

#[derive(Debug)]
struct Field {
    name: Box<[u8]>,
    value: LogProgram,
    replaces: bool,
}

/// What a field of an answer becomes.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Given<'a> {
    name: &'a [u8],
    value: Vec<u8>,
    replaces: bool,
}

// === impl LocalReplies ===

impl LocalReplies {
    /// Compiles changes, or says what cannot be used of them.
    pub(crate) fn compile(config: &ir::LocalReplies) -> Result<Self, String> {
        let mappers = config.mappers.iter().enumerate().map(|(at, mapper)| {
            Mapper::compile(mapper).map_err(|problem| format!("mapper {at}: {problem}"))
        });
        Ok(Self {
            mappers: mappers.collect::<Result<_, _>>()?,
            form: config.body_format.as_ref().map(Form::compile).transpose()?,
        })
    }

    /// The mapper of an answer.
    pub(crate) fn mapper(&self, record: &Record<'_>) -> Option<&Mapper> {
        let mut mappers = self.mappers.iter();
        mappers.find(|mapper| mapper.filter.holds(record))
    }

    /// Forms the body of an answer, which has its status and its fields by now; none leaves it as it is.
    /// Of a call it becomes a header field, in which JSON has no line's end (Envoy).
    pub(crate) fn body(
        &self,
        mapper: Option<&Mapper>,
        record: &Record<'_>,
        is_call: bool,
    ) -> Option<Bytes> {
        let form = self.form(mapper)?;
        let mut body = Vec::new();
        form.program.render(record, &mut body);
        if is_call && form.is_json {
            body.truncate(body.trim_ascii_end().len());
        }
        Some(body.into())
    }

    /// States what the body is. `is_new` says that it is not what the answer was made with.
    pub(crate) fn describe(&self, mapper: Option<&Mapper>, headers: &mut Headers, fit: Fit<'_>) {
        if fit.length == 0 {
            headers.remove(b"content-type");
        } else if fit.is_new && headers.get(b"content-type") == fit.content_type_before
            || !headers.contains(b"content-type")
        {
            let form = self.form(mapper);
            let content_type = form.map_or(&b"text/plain"[..], |form| &form.content_type);
            headers.set(b"content-type", content_type);
        }
        let mut number = itoa::Buffer::new();
        headers.set(b"content-length", number.format(fit.length).as_bytes());
    }

    fn form<'a>(&'a self, mapper: Option<&'a Mapper>) -> Option<&'a Form> {
        let of_mapper = mapper.and_then(|mapper| mapper.form.as_ref());
        of_mapper.or(self.form.as_ref())
    }
}

/// What is to be known of a body to state what it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fit<'a> {
    /// Bytes.
    pub(crate) length: usize,
    /// It is not the one that the answer was made with.
    pub(crate) is_new: bool,
    /// What the answer said it was before a mapper's fields.
    pub(crate) content_type_before: Option<&'a [u8]>,
}

// === impl Mapper ===

impl Mapper {
    fn compile(config: &ir::ReplyMapper) -> Result<Self, String> {
        if let Some(status) = config.status
            && !(200..600).contains(&status)
        {
            return Err(format!("{status} is no status of an answer"));
        }
        let filter = Filter::compile(&config.filter).map_err(|error| error.to_string())?;
        let set = config.set.iter().map(|pair| Field::compile(pair, true));
        let add = config.add.iter().map(|pair| Field::compile(pair, false));
        Ok(Self {
            filter,
            status: config.status,
            body: config.body.clone().map(Bytes::from),
            form: config.body_format.as_ref().map(Form::compile).transpose()?,
            fields: set.chain(add).collect::<Result<_, _>>()?,
        })
    }

    /// The fields that it gives to an answer.
    pub(crate) fn fields(&self, record: &Record<'_>) -> Vec<Given<'_>> {
        let given = self.fields.iter().filter_map(|field| {
            let mut value = Vec::new();
            field.value.render(record, &mut value);
            // A client may have put anything in what a value is made of; Envoy leaves out what is empty.
            let is_fit = !value.is_empty() && kgw_h1::is_valid_value(&value);
            is_fit.then_some(Given {
                name: &field.name,
                value,
                replaces: field.replaces,
            })
        });
        given.collect()
    }

    /// Changes status and body of an answer. Returns whether it has a body of its own.
    pub(crate) fn change(&self, reply: &mut Reply) -> bool {
        if let Some(status) = self.status {
            reply.status = status;
        }
        if let Some(body) = &self.body {
            reply.set_body(Bytes::clone(body));
        }
        self.body.is_some()
    }
}

impl Given<'_> {
    /// Writes it into an answer.
    pub(crate) fn apply(&self, headers: &mut Headers) {
        if self.replaces {
            headers.set(self.name, &self.value);
        } else {
            headers.append(self.name, &self.value);
        }
    }
}

impl Field {
    fn compile((name, value): &(String, String), replaces: bool) -> Result<Self, String> {
        check(name, "")?;
        // Envoy: what has no value in a field is left out of it.
        let options = FormatOptions {
            omit_empty_values: true,
        };
        let value = LogProgram::text(value, options);
        Ok(Self {
            name: name.as_bytes().into(),
            value: value.map_err(|error| format!("header field {name}: {error}"))?,
            replaces,
        })
    }
}

impl Form {
    fn compile(config: &ir::ReplyFormat) -> Result<Self, String> {
        let (program, usual) = match &config.body {
            ReplyBody::Json(format) => (
                LogProgram::json(format, FormatOptions::default()),
                "application/json",
            ),
            ReplyBody::Text(format) => (
                LogProgram::text(format, FormatOptions::default()),
                "text/plain",
            ),
        };
        let content_type = config.content_type.as_deref().unwrap_or(usual);
        if !kgw_h1::is_valid_value(content_type.as_bytes()) {
            return Err(format!("{content_type:?} is no content type"));
        }
        Ok(Self {
            program: program.map_err(|error: FormatError| format!("body: {error}"))?,
            is_json: matches!(config.body, ReplyBody::Json(_)),
            content_type: content_type.as_bytes().into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn compile(config: Value) -> Result<LocalReplies, String> {
        LocalReplies::compile(&serde_json::from_value(config).expect("of the IR"))
    }

    fn at_least(value: u32) -> Value {
        json!({"type": "status_code", "op": "ge", "value": value})
    }

    fn with_code(code: u16) -> Record<'static> {
        let mut record = Record::new();
        record.response.code = code;
        record.response.local_reply_body = b"was";
        record
    }

    #[test]
    fn the_first_mapper_counts_whose_filter_holds() {
        let replies = compile(json!({"mappers": [
            {"filter": at_least(500), "status": 599},
            {"filter": at_least(400), "status": 499, "body": "new"},
        ]}))
        .expect("is right");
        for (code, expected, has_body) in [(503, 599, false), (404, 499, true)] {
            let mut reply = Reply::no_route();
            reply.status = code;
            let mapper = replies.mapper(&with_code(code)).expect("there is one");
            assert_eq!(mapper.change(&mut reply), has_body);
            assert_eq!(reply.status, expected);
        }
        assert!(replies.mapper(&with_code(301)).is_none());
    }

    #[test]
    fn bodies_have_a_form_and_say_which() {
        let replies = compile(json!({
            "mappers": [{
                "filter": at_least(500),
                "body_format": {"body": {"text": "<%LOCAL_REPLY_BODY%>"}, "content_type": "text/html"},
            }],
            "body_format": {"body": {"json": {"code": "%RESPONSE_CODE%", "why": "%LOCAL_REPLY_BODY%"}}},
        }))
        .expect("is right");
        for (code, body, content_type) in [
            (500, "<was>", "text/html"),
            (404, "{\"code\":404,\"why\":\"was\"}\n", "application/json"),
        ] {
            let record = with_code(code);
            let mapper = replies.mapper(&record);
            assert_eq!(replies.body(mapper, &record, false).expect("a form"), body);
            let of_call = replies.body(mapper, &record, true).expect("a form");
            assert_eq!(of_call, body.trim_end());
            let mut headers = Headers::new();
            headers.append(b"content-type", b"text/plain");
            let before = Some(&b"text/plain"[..]);
            let fit = Fit {
                length: body.len(),
                is_new: true,
                content_type_before: before,
            };
            replies.describe(mapper, &mut headers, fit);
            assert_eq!(headers.get(b"content-type"), Some(content_type.as_bytes()));
            assert_eq!(
                headers.get(b"content-length"),
                Some(body.len().to_string().as_bytes())
            );
            // A type that a mapper's field gave stays, and nothing has none.
            headers.set(b"content-type", b"application/problem+json");
            replies.describe(mapper, &mut headers, fit);
            assert_eq!(
                headers.get(b"content-type"),
                Some(&b"application/problem+json"[..])
            );
            replies.describe(mapper, &mut headers, Fit { length: 0, ..fit });
            assert_eq!(headers.get(b"content-type"), None);
        }
    }

    #[test]
    fn fields_may_have_operators_but_no_line_breaks() {
        let replies = compile(json!({"mappers": [{
            "filter": at_least(400),
            "set": [["x-code", "<%RESPONSE_CODE%>"], ["x-body", "%LOCAL_REPLY_BODY%"]],
            "add": [["x-none", "%ROUTE_NAME%"]],
        }]}))
        .expect("is right");
        let mut record = with_code(404);
        record.response.local_reply_body = b"a\r\nb: c";
        let fields = replies.mapper(&record).expect("holds").fields(&record);
        let expected = Given {
            name: b"x-code",
            value: b"<404>".to_vec(),
            replaces: true,
        };
        assert_eq!(fields, [expected]);
    }

    #[test]
    fn what_cannot_be_used_is_said() {
        let mapper = |more: Value| {
            let mut mapper = json!({"filter": at_least(400)});
            let fields = more.as_object().expect("members").clone();
            mapper.as_object_mut().expect("an object").extend(fields);
            compile(json!({"mappers": [mapper]})).expect_err("is wrong")
        };
        for status in [100, 101, 199, 600] {
            let expected = format!("mapper 0: {status} is no status of an answer");
            assert_eq!(mapper(json!({"status": status})), expected);
        }
        assert!(mapper(json!({"set": [["content-length", "1"]]})).contains("cannot be changed"));
        assert!(mapper(json!({"add": [["a", "%NOPE%"]]})).contains("unknown operator"));
        let wrong = compile(json!({"body_format": {"body": {"json": []}}})).expect_err("is wrong");
        assert_eq!(wrong, "body: a JSON format must be an object");
        let wrong = json!({"body_format": {"body": {"text": ""}, "content_type": "a\nb"}});
        assert!(compile(wrong).is_err());
    }
}
