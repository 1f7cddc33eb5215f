//! The templates of one message, and what comes of rendering them.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use kgw_h1::{Headers, Request, has_no_body};
use kgw_template::{Context, Facts, RenderError, Template};

use super::Way;
use super::message::{Direction, Part};
use crate::config::ir::{self, EventFraming, ParseAs};
use crate::pipeline::reply::Reply;

/// The templates of a message.
#[derive(Debug)]
pub(super) struct Compiled {
    set: Box<[(Part, Template)]>,
    add: Box<[(Part, Template)]>,
    remove: Box<[Part]>,
    metadata: Box<[Note]>,
    pub(super) parse_as: ParseAs,
    body: Option<Template>,
    pub(super) stream: Option<Stream>,
    max_body: usize,
    /// Something has to be known of the body for the head, or for another body.
    wants_body: bool,
    /// Some template is no plain text.
    pub(super) asks: bool,
    pub(super) reads_metadata: bool,
}

/// What is noted in the dynamic metadata.
#[derive(Debug)]
struct Note {
    namespace: Box<str>,
    key: Box<str>,
    value: Template,
}

/// The template of events.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) framing: kgw_template::Framing,
    pub(super) value: Template,
    pub(super) max_event: usize,
}

/// What the templates made.
#[derive(Debug, Default)]
pub(super) struct Changes<'t> {
    pub(super) body: Option<Bytes>,
    /// None where the field goes.
    set: Vec<(&'t Part, Option<Cow<'t, str>>)>,
    add: Vec<(&'t Part, Cow<'t, str>)>,
    remove: &'t [Part],
    pub(super) metadata: Vec<(&'t str, &'t str, Cow<'t, str>)>,
    /// How many templates were not rendered.
    pub(super) failed: u64,
}

/// How much of a message there is to be looked at.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Look {
    /// The body as well.
    Into,
    /// The head alone, since no body was asked for.
    Head,
    /// The head alone, though templates may ask for a body.
    Past,
}

/// The longest value that a field is given. Bytes. Envoy bounds all of a head at 60 KiB.
const MAX_VALUE: usize = 60 << 10;

// === impl Compiled ===

impl Compiled {
    pub(super) fn compile(
        ir: &ir::MessageTransformation,
        direction: Direction,
    ) -> Result<Self, String> {
        let template = |text: &str, of: &str| {
            Template::compile(text).map_err(|error| format!("the template of {of}: {error}"))
        };
        let fields = |fields: &[(String, String)]| {
            let fields = fields.iter();
            let fields = fields
                .map(|(name, text)| Ok((Part::parse(name, direction)?, template(text, name)?)));
            fields.collect::<Result<Box<[_]>, String>>()
        };
        let notes = ir.metadata.iter().map(|(namespace, key, text)| {
            Ok(Note {
                namespace: namespace.as_str().into(),
                key: key.as_str().into(),
                value: template(text, &format!("{namespace}:{key}"))?,
            })
        });
        let body = ir.body.as_deref().filter(|text| !text.is_empty());
        let body = body.filter(|_| ir.parse_as != ParseAs::None);
        let stream = ir.stream.as_ref().map(|stream| {
            if stream.max_event_bytes == 0 {
                return Err("an event has a byte at least".to_owned());
            }
            Ok(Stream {
                framing: match stream.framing {
                    EventFraming::ServerSent => kgw_template::Framing::ServerSent,
                    EventFraming::JsonLines => kgw_template::Framing::JsonLines,
                },
                value: template(&stream.value, "events")?,
                max_event: stream.max_event_bytes,
            })
        });
        let remove = ir.remove.iter().map(|name| Part::parse(name, direction));
        let mut compiled = Self {
            set: fields(&ir.set)?,
            add: fields(&ir.add)?,
            remove: remove.collect::<Result<_, String>>()?,
            metadata: notes.collect::<Result<_, String>>()?,
            parse_as: ir.parse_as,
            body: body.map(|text| template(text, "the body")).transpose()?,
            stream: stream.transpose()?,
            max_body: ir.max_body_bytes,
            wants_body: false,
            asks: false,
            reads_metadata: false,
        };
        let of_head = || compiled.of_head();
        let wants_body = match compiled.parse_as {
            ParseAs::None => false,
            // As kgateway: it is refused if it is none, whatever looks at it.
            ParseAs::Json => true,
            ParseAs::String => compiled.body.is_some() || of_head().any(Template::reads_body),
        };
        let of_stream = compiled.stream.iter().map(|stream| &stream.value);
        let all = || of_head().chain(&compiled.body).chain(of_stream.clone());
        let asks = all().any(|template| !template.is_plain());
        let reads_metadata = all().any(Template::reads_metadata);
        compiled.wants_body = wants_body;
        compiled.asks = asks;
        compiled.reads_metadata = reads_metadata;
        Ok(compiled)
    }

    /// Whether it makes nothing of any message.
    pub(super) fn is_empty(&self) -> bool {
        self.of_head().next().is_none()
            && self.remove.is_empty()
            && !self.wants_body
            && self.stream.is_none()
    }

    fn of_head(&self) -> impl Iterator<Item = &Template> {
        let fields = self.set.iter().chain(&self.add).map(|(_, value)| value);
        fields.chain(self.metadata.iter().map(|note| &note.value))
    }

    /// How it goes about a message with these fields.
    ///
    /// # Errors
    /// It is a stream of events that nobody can read.
    pub(super) fn way(&self, is_upgrade: bool, headers: &Headers) -> Result<Way, Reply> {
        if is_upgrade {
            return Ok(Way::Head);
        }
        if let Some(stream) = &self.stream
            && let Some(media_type) = headers.get(b"content-type")
            && stream.framing.is_of(media_type)
        {
            let mut encodings = headers.get_all(b"content-encoding");
            if encodings.any(|encoding| !encoding.eq_ignore_ascii_case(b"identity")) {
                return Err(refused(&"compressed events in transformation template"));
            }
            return Ok(Way::Events);
        }
        Ok(if self.wants_body {
            Way::Whole(self.max_body)
        } else {
            Way::Head
        })
    }

    /// What templates see of a message with this body.
    ///
    /// # Errors
    /// The body is to be JSON, and is not.
    pub(super) fn context(&self, facts: Arc<dyn Facts>, body: Bytes) -> Result<Context, Reply> {
        match self.parse_as {
            ParseAs::Json => Context::with_json(facts, body).map_err(|error| refused(&error)),
            ParseAs::String | ParseAs::None => Ok(Context::with_text(facts, body)),
        }
    }

    /// Renders the templates. Of a stream variables have no value, nor of a response that cannot have a body;
    /// else a message without them is refused.
    pub(super) fn render<'t>(
        &'t self,
        context: &Context,
        look: Look,
    ) -> Result<Changes<'t>, Reply> {
        let mut changes = Changes {
            remove: &self.remove,
            ..Changes::default()
        };
        let mut failed = 0;
        let mut render = |template: &'t Template| match template.render(context) {
            Ok(text) => Ok(text),
            Err(error @ RenderError::UndeclaredVariables) if look != Look::Past => {
                Err(refused(&error))
            }
            Err(error) => {
                failed += u64::from(error != RenderError::UndeclaredVariables);
                Ok(Cow::Borrowed(""))
            }
        };
        if let Some(body) = &self.body
            && look == Look::Into
        {
            changes.body = Some(Bytes::from(render(body)?.into_owned()));
        }
        let mut too_long = 0;
        let mut value = |template: &'t Template| -> Result<_, Reply> {
            let text = render(template)?;
            let is_short = text.len() <= MAX_VALUE;
            too_long += u64::from(!is_short);
            Ok(Some(text).filter(|text| is_short && !text.is_empty()))
        };
        for (part, template) in &self.set {
            changes.set.push((part, value(template)?));
        }
        for (part, template) in &self.add {
            if let Some(text) = value(template)? {
                changes.add.push((part, text));
            }
        }
        for Note {
            namespace,
            key,
            value: template,
        } in &self.metadata
        {
            if let Some(text) = value(template)? {
                changes.metadata.push((namespace, key, text));
            }
        }
        changes.failed = failed + too_long;
        Ok(changes)
    }
}

// === impl Changes ===

impl Changes<'_> {
    pub(super) fn apply_to(&self, request: &mut Request) {
        self.of_body(request.headers_mut());
        for (part, value) in &self.set {
            match (part, value) {
                (Part::Field(name), Some(value)) => {
                    request.headers_mut().set(name, value.as_bytes());
                }
                (Part::Field(name), None) => {
                    request.headers_mut().remove(name);
                }
                (part, Some(value)) => set_pseudo(request, part, value),
                // No request can do without.
                (_, None) => {}
            }
        }
        for (part, value) in &self.add {
            match part {
                Part::Field(name) => {
                    request.headers_mut().append(name, value.as_bytes());
                }
                part => set_pseudo(request, part, value),
            }
        }
        self.remove_from(request.headers_mut());
    }

    pub(super) fn apply_to_response(&self, status: &mut u16, headers: &mut Headers) {
        self.of_body(headers);
        for (part, value) in &self.set {
            match (part, value) {
                (Part::Field(name), Some(value)) => {
                    headers.set(name, value.as_bytes());
                }
                (Part::Field(name), None) => {
                    headers.remove(name);
                }
                (_, Some(value)) => set_status(status, value),
                (_, None) => {}
            }
        }
        for (part, value) in &self.add {
            match part {
                Part::Field(name) => {
                    headers.append(name, value.as_bytes());
                }
                _ => set_status(status, value),
            }
        }
        self.remove_from(headers);
    }

    /// The type of a body goes with the body. Its length is told where messages are framed.
    fn of_body(&self, headers: &mut Headers) {
        if self.body.as_ref().is_some_and(Bytes::is_empty) {
            headers.remove(b"content-type");
        }
    }

    fn remove_from(&self, headers: &mut Headers) {
        for part in self.remove {
            if let Part::Field(name) = part {
                headers.remove(name);
            }
        }
    }
}

/// Changes what a request asks for. What it cannot ask for is left as it was.
fn set_pseudo(request: &mut Request, part: &Part, value: &str) {
    match part {
        Part::Method => {
            request.set_method(value.as_bytes());
        }
        Part::Authority => {
            request.set_authority(value.as_bytes());
        }
        Part::Path => request.set_path(value.as_bytes()),
        Part::Status | Part::Field(_) => {}
    }
}

/// A final status can be another final one, and with a body only one that has one. What is none is left as
/// it was.
fn set_status(status: &mut u16, value: &str) {
    if let Ok(new @ 200..600) = value.trim().parse()
        && *status >= 200
        && has_no_body(new) == has_no_body(*status)
    {
        *status = new;
    }
}

/// What a message gets that templates cannot do with: kgateway's details, which are the body as well here.
fn refused(why: &dyn std::fmt::Display) -> Reply {
    let why = why.to_string();
    Reply::new(400, why.clone(), why, None)
}
