//! What a filter sees: heads of messages, owned, and editable as far as a filter may.
//!
//! An edit changes the copy, so that the filter reads what it wrote, and is recorded. The worker applies
//! the record to the message itself; the copy stays with the filter.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use kgw_h1::{
    Headers, Method, Request, Version, has_no_body, is_valid_authority, is_valid_name,
    is_valid_value,
};

use super::verdict::{Answer, Edits, FieldEdit};
use crate::config::snapshot::Policy;
use crate::filter::header_mutation::is_reserved;

/// An edit that no message can have, or that a filter may not make.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BadEdit {
    /// The name is no field name.
    #[error("{0:?} is not a header field name")]
    Name(String),
    /// The value has control characters, or white space at an end.
    #[error("{value:?} is not a value that header field {name} can have")]
    Value {
        /// The field.
        name: String,
        /// The value.
        value: String,
    },
    /// The field says how messages are framed, where they go or what the connection does.
    #[error("header field {0} cannot be changed by a filter")]
    Reserved(String),
    /// No known method, or one that would change whether the answer has a body.
    #[error("the method cannot become {0:?}")]
    Method(String),
    /// No host.
    #[error("{0:?} is not a host")]
    Host(String),
    /// A path is empty, or the request has none.
    #[error("{0:?} cannot be the path")]
    Path(String),
    /// No status of a final answer, or one that would change whether the answer has a body.
    #[error("the status cannot become {0}")]
    Status(u16),
    /// The message has no body, or its body is not held.
    #[error("the body cannot be changed: the filter does not have it, or the message has none")]
    Body,
    /// No backend of the route.
    #[error("{0:?} is not a backend of the route")]
    Upstream(String),
    /// A key of no or too many bytes.
    #[error("a rate limit's key has 1 to {MAX_KEY} bytes, not {0}")]
    Key(usize),
}

/// The longest key of a rate limit. Bytes.
const MAX_KEY: usize = 256;

/// Where a request comes from, and what it has come to.
#[derive(Clone, Debug)]
pub(crate) struct About {
    pub(crate) client: IpAddr,
    pub(crate) peer: SocketAddr,
    pub(crate) secure: bool,
    pub(crate) principal: Option<Box<str>>,
    pub(crate) route: Arc<str>,
    pub(crate) metadata: Vec<(String, String)>,
    /// What holds the backends that a filter can choose from.
    pub(crate) policy: Option<Arc<Policy>>,
}

/// A request's head, and its body if the filter has that as a whole.
#[derive(Clone, Debug)]
pub struct RequestHead {
    request: Request,
    about: About,
    body: Option<Bytes>,
    edits: Edits,
}

/// A response's head, and its body if the filter has that as a whole.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    status: u16,
    headers: Headers,
    body: Body,
    edits: Edits,
}

/// What a filter has of a response's body.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    /// Nothing.
    Unseen,
    /// The response has none and can have none.
    Never,
    /// All of it.
    Whole(Bytes),
}

// === impl RequestHead ===

impl RequestHead {
    pub(crate) fn new(request: &Request, about: About, body: Option<Bytes>) -> Self {
        Self {
            request: request.clone(),
            about,
            body,
            edits: Edits::default(),
        }
    }

    /// Returns the method.
    pub fn method(&self) -> &[u8] {
        self.request.method()
    }

    /// Returns path and query.
    pub fn target(&self) -> &[u8] {
        self.request.path()
    }

    /// Returns the path without the query.
    pub fn path(&self) -> &[u8] {
        self.request.path_only()
    }

    /// Returns the query without `?`, if there is one.
    pub fn query(&self) -> Option<&[u8]> {
        self.request.query()
    }

    /// Returns the host, with the port if one was given.
    pub fn host(&self) -> &[u8] {
        self.request.authority()
    }

    /// Returns `http` or `https`: what the client's connection is.
    pub fn scheme(&self) -> &'static str {
        if self.about.secure { "https" } else { "http" }
    }

    /// Returns the version of HTTP that the client spoke.
    pub fn version(&self) -> Version {
        self.request.version()
    }

    /// Returns the header fields.
    pub fn headers(&self) -> &Headers {
        self.request.headers()
    }

    /// Returns the client's address, as far as it can be trusted.
    pub fn client(&self) -> IpAddr {
        self.about.client
    }

    /// Returns the address that the connection comes from; a PROXY header's, if there was one.
    pub fn peer(&self) -> SocketAddr {
        self.about.peer
    }

    /// Returns the client's mesh identity.
    pub fn principal(&self) -> Option<&str> {
        self.about.principal.as_deref()
    }

    /// Returns the name of the route.
    pub fn route(&self) -> &str {
        &self.about.route
    }

    /// Returns what filters noted about the request.
    pub fn metadata(&self) -> &[(String, String)] {
        &self.about.metadata
    }

    /// Replaces the method.
    pub fn set_method(&mut self, method: &[u8]) -> Result<(), BadEdit> {
        if !self.request.set_method(method) {
            return Err(BadEdit::Method(text(method)));
        }
        self.edits.method = Some(method.into());
        Ok(())
    }

    /// Replaces path and query. What cannot stand in one is percent-encoded.
    pub fn set_target(&mut self, target: &[u8]) -> Result<(), BadEdit> {
        if self.request.method_kind() == Method::Connect || target.first() != Some(&b'/') {
            return Err(BadEdit::Path(text(target)));
        }
        self.request.set_path(target);
        self.edits.target = Some(target.into());
        Ok(())
    }

    /// Replaces the path; the query stays.
    pub fn set_path(&mut self, path: &[u8]) -> Result<(), BadEdit> {
        let mut target = Vec::with_capacity(path.len() + 16);
        for &byte in path {
            match byte {
                b'?' => target.extend_from_slice(b"%3F"),
                byte => target.push(byte),
            }
        }
        if let Some(query) = self.query() {
            target.push(b'?');
            target.extend_from_slice(query);
        }
        self.set_target(&target)
    }

    /// Replaces the host.
    pub fn set_host(&mut self, host: &[u8]) -> Result<(), BadEdit> {
        if !is_valid_authority(host) || !self.request.set_authority(host) {
            return Err(BadEdit::Host(text(host)));
        }
        self.edits.host = Some(host.into());
        Ok(())
    }

    /// Changes a header field.
    pub fn edit(&mut self, edit: FieldEdit) -> Result<(), BadEdit> {
        check(&edit)?;
        edit.apply(self.request.headers_mut());
        self.edits.fields.push(edit);
        Ok(())
    }

    /// Notes something about the request, for filters to come and access logs.
    pub fn set_metadata(&mut self, key: String, value: String) {
        note(&mut self.about.metadata, key.clone(), value.clone());
        self.edits.metadata.push((key, value));
    }

    /// Returns the body, if the filter has it as a whole.
    pub fn body(&self) -> Option<&Bytes> {
        self.body.as_ref()
    }

    /// Replaces the body.
    pub fn set_body(&mut self, body: Bytes) -> Result<(), BadEdit> {
        if self.body.is_none() {
            return Err(BadEdit::Body);
        }
        self.edits.body = Some(body.clone());
        self.body = Some(body);
        Ok(())
    }

    /// Returns the names of the backends that the request can go to: the route's.
    pub fn backends(&self) -> Vec<String> {
        let policy = self.about.policy.as_deref();
        policy.map_or_else(Vec::new, |policy| {
            policy.backend_names().map(Cow::into_owned).collect()
        })
    }

    /// Returns the name of the backend that the request goes to, if a filter chose one.
    pub fn backend(&self) -> Option<&str> {
        self.edits.upstream.as_deref()
    }

    /// Chooses the backend that the request goes to.
    pub fn set_backend(&mut self, name: &str) -> Result<(), BadEdit> {
        let policy = self.about.policy.as_deref();
        if !policy.is_some_and(|policy| policy.backend_names().any(|known| known == name)) {
            return Err(BadEdit::Upstream(name.to_owned()));
        }
        self.edits.upstream = Some(name.into());
        Ok(())
    }

    /// Returns what the request's rate is counted by, if the filter said so.
    pub fn rate_limit_key(&self) -> Option<&str> {
        self.edits.rate_limit_key.as_deref()
    }

    /// Says what the request's rate is counted by, at local rate limits that come after the filter.
    pub fn set_rate_limit_key(&mut self, key: &str) -> Result<(), BadEdit> {
        if !(1..=MAX_KEY).contains(&key.len()) {
            return Err(BadEdit::Key(key.len()));
        }
        self.edits.rate_limit_key = Some(key.into());
        Ok(())
    }

    /// Takes the record of the edits; none if there are none.
    pub fn take_edits(&mut self) -> Option<Box<Edits>> {
        take(&mut self.edits)
    }
}

// === impl ResponseHead ===

impl ResponseHead {
    pub(crate) fn new(status: u16, headers: &Headers, body: Body) -> Self {
        Self {
            status,
            headers: headers.clone(),
            body,
            edits: Edits::default(),
        }
    }

    /// Returns a head without fields, for an answer of a filter's own. None if the status is none of a
    /// final answer, or of one without a body while there is one.
    pub fn of_answer(status: u16, body: Bytes) -> Option<Self> {
        let body = if !has_no_body(status) {
            Body::Whole(body)
        } else if body.is_empty() {
            Body::Never
        } else {
            return None;
        };
        (200..600)
            .contains(&status)
            .then(|| Self::new(status, &Headers::new(), body))
    }

    /// Returns the answer that it makes.
    pub fn answer(&self) -> Answer {
        Answer {
            status: self.status,
            headers: self.headers.clone(),
            body: match &self.body {
                Body::Whole(body) => body.clone(),
                Body::Unseen | Body::Never => Bytes::new(),
            },
        }
    }

    /// Returns the status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Returns the header fields.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// Returns the body, if the filter has it as a whole.
    pub fn body(&self) -> Option<&[u8]> {
        match &self.body {
            Body::Unseen => None,
            Body::Never => Some(b""),
            Body::Whole(body) => Some(body),
        }
    }

    /// Replaces the body.
    pub fn set_body(&mut self, body: Bytes) -> Result<(), BadEdit> {
        if !matches!(self.body, Body::Whole(_)) {
            return Err(BadEdit::Body);
        }
        self.edits.body = Some(body.clone());
        self.body = Body::Whole(body);
        Ok(())
    }

    /// Replaces the status.
    pub fn set_status(&mut self, status: u16) -> Result<(), BadEdit> {
        if !(200..600).contains(&status) || has_no_body(status) != has_no_body(self.status) {
            return Err(BadEdit::Status(status));
        }
        self.status = status;
        self.edits.status = Some(status);
        Ok(())
    }

    /// Changes a header field.
    pub fn edit(&mut self, edit: FieldEdit) -> Result<(), BadEdit> {
        check(&edit)?;
        edit.apply(&mut self.headers);
        self.edits.fields.push(edit);
        Ok(())
    }

    /// Takes the record of the edits; none if there are none.
    pub fn take_edits(&mut self) -> Option<Box<Edits>> {
        take(&mut self.edits)
    }
}

/// Gives a key its value.
pub(crate) fn note(metadata: &mut Vec<(String, String)>, key: String, value: String) {
    match metadata.iter_mut().find(|(known, _)| *known == key) {
        Some(found) => found.1 = value,
        None => metadata.push((key, value)),
    }
}

fn take(edits: &mut Edits) -> Option<Box<Edits>> {
    (*edits != Edits::default()).then(|| Box::new(std::mem::take(edits)))
}

/// Checks what a filter wants to change.
pub(super) fn check(edit: &FieldEdit) -> Result<(), BadEdit> {
    let (name, value) = match edit {
        FieldEdit::Set(name, value) | FieldEdit::Append(name, value) => (name, Some(value)),
        FieldEdit::Remove(name) => (name, None),
    };
    if !is_valid_name(name) {
        return Err(BadEdit::Name(text(name)));
    }
    if is_reserved(name) {
        return Err(BadEdit::Reserved(text(name)));
    }
    match value {
        Some(value) if !is_valid_value(value) => Err(BadEdit::Value {
            name: text(name),
            value: text(value),
        }),
        _ => Ok(()),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
