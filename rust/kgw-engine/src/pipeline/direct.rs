//! Fixed answers of routes (Envoy's `direct_response`), whose bodies may be made for each request.

use bytes::Bytes;
use kgw_h1::Headers;

use super::reply::{Extra, Reply};
use crate::bridge::Answer;
use crate::config::ir::{DirectBody, DirectFormat};
use crate::filter::header_mutation::check;
use crate::telemetry::access_log::{FormatOptions, LogProgram, Record};

/// A route's answer.
#[derive(Debug)]
pub(crate) struct Direct {
    status: u16,
    body: String,
    form: Option<Box<Form>>,
}

#[derive(Debug)]
struct Form {
    program: LogProgram,
    content_type: Box<[u8]>,
}

impl Direct {
    /// An answer that is always the same.
    pub(crate) fn new(status: u16, body: String) -> Self {
        Self {
            status,
            body,
            form: None,
        }
    }

    /// Compiles an answer.
    ///
    /// # Errors
    /// What cannot be used of it.
    pub(crate) fn compile(
        status: u16,
        body: &str,
        format: Option<&DirectFormat>,
    ) -> Result<Self, String> {
        if !(200..600).contains(&status) {
            return Err(format!("{status} is not the status of a final answer"));
        }
        let form = format.map(Form::compile).transpose()?;
        Ok(Self {
            form: form.map(Box::new),
            ..Self::new(status, body.to_owned())
        })
    }

    /// Whether its body depends on the request.
    pub(crate) fn is_formed(&self) -> bool {
        self.form.is_some()
    }

    /// The answer, if it is always the same.
    pub(crate) fn fixed(&self) -> Reply {
        Reply::direct(self.status, self.body.clone())
    }

    /// The answer to the request that `record` is of.
    pub(crate) fn formed<'a>(&'a self, mut record: Record<'a>) -> Reply {
        let Some(form) = &self.form else {
            return self.fixed();
        };
        record.response.local_reply_body = self.body.as_bytes();
        let mut body = Vec::new();
        form.program.render(&record, &mut body);
        let mut headers = Headers::new();
        if !body.is_empty() {
            headers.append(b"content-type", &form.content_type);
        }
        // What is not UTF-8 is sent as it is; logs show the rest of it.
        let shown = String::from_utf8_lossy(&body).into_owned();
        let mut reply = Reply::direct(self.status, shown);
        reply.extra = Extra::Answer(Box::new(Answer {
            status: self.status,
            headers,
            body: Bytes::from(body),
        }));
        reply
    }
}

impl Form {
    fn compile(format: &DirectFormat) -> Result<Self, String> {
        let options = FormatOptions::default();
        let (program, usual) = match &format.body {
            DirectBody::Text(text) => (LogProgram::text(text, options), "text/plain"),
            DirectBody::Json(object) => (LogProgram::json(object, options), "application/json"),
        };
        let content_type = format.content_type.as_deref().unwrap_or(usual);
        check("content-type", content_type)?;
        Ok(Self {
            program: program.map_err(|error| error.to_string())?,
            content_type: content_type.as_bytes().into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn compiled(format: serde_json::Value) -> Result<Direct, String> {
        let format = serde_json::from_value(format).unwrap();
        Direct::compile(418, "short and stout", Some(&format))
    }

    fn answer(direct: &Direct) -> (String, String) {
        let reply = direct.formed(Record::new());
        let Extra::Answer(answer) = &reply.extra else {
            panic!("the answer has no body of its own");
        };
        let content_type = answer.headers.get(b"content-type").unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (text(content_type), text(&answer.body))
    }

    #[test]
    fn a_text_has_operators() {
        let direct = compiled(json!({"body": {"text": "I am %LOCAL_REPLY_BODY%!"}})).unwrap();
        assert!(direct.is_formed());
        let expected = ("text/plain".to_owned(), "I am short and stout!".to_owned());
        assert_eq!(answer(&direct), expected);
    }

    #[test]
    fn an_object_is_json_unless_it_is_said_to_be_something_else() {
        let object = json!({"json": {"is": "%LOCAL_REPLY_BODY%", "n": 1}});
        let (content_type, body) = answer(&compiled(json!({"body": object})).unwrap());
        assert_eq!(content_type, "application/json");
        assert_eq!(body, "{\"is\":\"short and stout\",\"n\":1}\n");
        let given = json!({"body": object, "content_type": "application/problem+json"});
        assert_eq!(
            answer(&compiled(given).unwrap()).0,
            "application/problem+json"
        );
    }

    #[test]
    fn what_cannot_be_used_is_refused() {
        assert!(compiled(json!({"body": {"text": "%NO_SUCH_THING%"}})).is_err());
        assert!(compiled(json!({"body": {"json": "text"}})).is_err());
        assert!(compiled(json!({"body": {"text": "a"}, "content_type": "a\nb"})).is_err());
        assert!(Direct::compile(199, "", None).is_err());
    }
}
