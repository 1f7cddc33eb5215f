//! What templates see of one message.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use minijinja::State;
use minijinja::value::{Object, Value};

use crate::error::InvalidJson;

/// The facts about a message and its exchange that functions ask for. Names are in lower case; they may be
/// pseudo fields (`:path`). Several fields of a name are one value, with `, ` between.
pub trait Facts: fmt::Debug + Send + Sync + 'static {
    /// A field of the message that is transformed.
    fn header(&self, name: &str) -> Option<String>;
    /// A field of the request, also while its response is transformed.
    fn request_header(&self, name: &str) -> Option<String>;
    /// What filters noted in a namespace of the dynamic metadata.
    fn metadata(&self, namespace: &str) -> Option<serde_json::Value>;
}

/// What the templates of one message are rendered with.
#[derive(Clone, Debug)]
pub struct Context {
    /// A [`Message`].
    message: Value,
    has_variables: bool,
}

/// A message, where functions find it.
pub(crate) struct Message {
    pub(crate) facts: Arc<dyn Facts>,
    /// The body, if it is there.
    body: Box<dyn AsRef<[u8]> + Send + Sync>,
    /// The root of a JSON body; undefined if there is none.
    pub(crate) json: Value,
}

/// The variables of one render.
#[derive(Debug)]
pub(crate) struct Root {
    /// A [`Message`].
    message: Value,
    /// Functions that the template calls: variables of these names stay hidden.
    called: Arc<[&'static str]>,
}

/// Where [`Root`] has the message. No template can name it.
const MESSAGE: &str = "\0message";

// === impl Context ===

impl Context {
    /// Of a message whose body is not looked at.
    pub fn new(facts: Arc<dyn Facts>) -> Self {
        Self::with_text(facts, "")
    }

    /// Of a message with this body. What is not UTF-8 in it is replaced by U+FFFD.
    pub fn with_text(
        facts: Arc<dyn Facts>,
        body: impl AsRef<[u8]> + Send + Sync + 'static,
    ) -> Self {
        Self::of(facts, Box::new(body), Value::UNDEFINED)
    }

    /// Of a message with this body, which is JSON. An empty body, or `null`, has no variables.
    ///
    /// # Errors
    /// The body is not JSON, or nested more than 128 deep.
    pub fn with_json(
        facts: Arc<dyn Facts>,
        body: impl AsRef<[u8]> + Send + Sync + 'static,
    ) -> Result<Self, InvalidJson> {
        let json = match body.as_ref() {
            b"" => Value::UNDEFINED,
            text => serde_json::from_slice(text).map_err(|_| InvalidJson)?,
        };
        let json = if json.is_none() {
            Value::UNDEFINED
        } else {
            json
        };
        Ok(Self::of(facts, Box::new(body), json))
    }

    fn of(facts: Arc<dyn Facts>, body: Box<dyn AsRef<[u8]> + Send + Sync>, json: Value) -> Self {
        Self {
            has_variables: !json.is_undefined(),
            message: Value::from_object(Message { facts, body, json }),
        }
    }

    /// Whether there is a JSON body, whose members are variables.
    pub fn has_variables(&self) -> bool {
        self.has_variables
    }

    pub(crate) fn root(&self, called: &Arc<[&'static str]>) -> Root {
        Root {
            message: self.message.clone(),
            called: Arc::clone(called),
        }
    }
}

// === impl Message ===

impl Message {
    /// Lets a function look at the message.
    pub(crate) fn see<T>(state: &State<'_, '_>, look: impl FnOnce(&Self) -> T) -> Option<T> {
        let message = state.lookup(MESSAGE)?;
        message.downcast_object_ref().map(look)
    }

    /// The body as text.
    pub(crate) fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy((*self.body).as_ref())
    }
}

impl Object for Message {}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message").finish_non_exhaustive()
    }
}

// === impl Root ===

impl Object for Root {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        if key == MESSAGE {
            return Some(self.message.clone());
        }
        if self.called.contains(&key) {
            return None;
        }
        let message: &Message = self.message.downcast_object_ref()?;
        // Only objects have members that are variables; the index of a list is no name.
        message
            .json
            .get_attr(key)
            .ok()
            .filter(|value| !value.is_undefined())
    }
}
