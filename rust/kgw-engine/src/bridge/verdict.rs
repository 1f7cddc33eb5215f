//! What a filter decides.

use bytes::Bytes;
use kgw_h1::{Headers, Request};

/// A filter's decision about one [`Message`](super::Message).
#[derive(Debug)]
#[non_exhaustive]
pub enum Verdict {
    /// The message goes on, changed if there are edits.
    Continue(Option<Box<Edits>>),
    /// The client gets this answer instead.
    Respond(Box<Answer>),
    /// There is no decision.
    Failed(Failure),
}

/// Why there is no decision.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Failure {
    /// The filter raised an exception.
    Exception,
    /// What the filter returned is no decision.
    Invalid,
    /// The time for it ran out.
    Timeout,
    /// As many jobs exist as may.
    Overflow,
    /// Nobody runs filters any longer, or who took the job dropped it.
    Closed,
    /// The body is longer than the filter takes as a whole.
    TooLarge,
}

impl Failure {
    /// Returns the word for it in access logs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Exception => "exception",
            Self::Invalid => "invalid",
            Self::Timeout => "timeout",
            Self::Overflow => "overflow",
            Self::Closed => "closed",
            Self::TooLarge => "too_large",
        }
    }

    /// Returns the status of the answer to a request that is denied for it. As Envoy's `ext_proc`: 504
    /// for a filter that takes too long, 500 for one that fails; 503 where another try may succeed. For
    /// a body that is too large, 413 if it is the client's own, as Envoy's buffering filters.
    pub fn status(self, is_of_request: bool) -> u16 {
        match self {
            Self::TooLarge if is_of_request => 413,
            Self::Exception | Self::Invalid | Self::TooLarge => 500,
            Self::Timeout => 504,
            Self::Overflow | Self::Closed => 503,
        }
    }
}

/// An answer that a filter makes.
#[derive(Clone, Debug)]
pub struct Answer {
    /// 200 to 599.
    pub status: u16,
    /// Its fields, apart from those that the proxy states (`content-length`, `date`, `server`).
    pub headers: Headers,
    /// Its body.
    pub body: Bytes,
}

/// A change to header fields. Checked when it was made.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum FieldEdit {
    /// Replaces all fields of the name by one.
    Set(Box<[u8]>, Box<[u8]>),
    /// Adds a field behind the others.
    Append(Box<[u8]>, Box<[u8]>),
    /// Takes all fields of the name off.
    Remove(Box<[u8]>),
}

impl FieldEdit {
    pub(crate) fn apply(&self, headers: &mut Headers) {
        match self {
            Self::Set(name, value) => {
                headers.set(name, value);
            }
            Self::Append(name, value) => {
                headers.append(name, value);
            }
            Self::Remove(name) => {
                headers.remove(name);
            }
        }
    }
}

/// Changes to a message, in the order in which they were made where that matters.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Edits {
    pub(crate) method: Option<Box<[u8]>>,
    pub(crate) target: Option<Box<[u8]>>,
    pub(crate) host: Option<Box<[u8]>>,
    pub(crate) status: Option<u16>,
    pub(crate) fields: Vec<FieldEdit>,
    pub(crate) metadata: Vec<(String, String)>,
    /// What takes the body's place, or the chunk's.
    pub(crate) body: Option<Bytes>,
    /// The name of the backend that the request goes to.
    pub(crate) upstream: Option<Box<str>>,
    /// What the request's rate is counted by.
    pub(crate) rate_limit_key: Option<Box<str>>,
}

impl Edits {
    /// Edits of a chunk: what takes its place.
    pub fn of_chunk(data: Bytes) -> Self {
        Self {
            body: Some(data),
            ..Self::default()
        }
    }

    /// Takes the notes of other edits over.
    pub fn take_notes(&mut self, other: &mut Self) {
        self.metadata.append(&mut other.metadata);
    }

    /// Applies the edits of a request.
    pub(crate) fn apply_to_request(&self, request: &mut Request) {
        if let Some(method) = &self.method {
            request.set_method(method);
        }
        if let Some(target) = &self.target {
            request.set_path(target);
        }
        if let Some(host) = &self.host {
            request.set_authority(host);
        }
        for edit in &self.fields {
            edit.apply(request.headers_mut());
        }
    }

    /// Applies the edits of a response.
    pub(crate) fn apply_to_response(&self, status: &mut u16, headers: &mut Headers) {
        if let Some(edited) = self.status {
            *status = edited;
        }
        for edit in &self.fields {
            edit.apply(headers);
        }
    }
}
