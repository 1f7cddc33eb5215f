//! What a filter decides.

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
        }
    }

    /// Returns the status of the answer to a request that is denied for it. As Envoy's `ext_proc`: 504
    /// for a filter that takes too long, 500 for one that fails; 503 where another try may succeed.
    pub fn status(self) -> u16 {
        match self {
            Self::Exception | Self::Invalid => 500,
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
    pub body: Vec<u8>,
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
}

impl Edits {
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
