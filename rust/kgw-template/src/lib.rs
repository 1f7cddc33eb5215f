//! The templates of transformations.
//!
//! * [`Template`] is one template (`MiniJinja`, with the functions of kgateway's transformations), compiled
//!   once. What a template looks at is known from then on: [`Template::reads_body`] says whether a body has
//!   to be there, so that templates of header fields alone never hold a body back.
//! * [`Context`] is what templates see of one message: its fields, its body, what was parsed of it.
//! * [`EventStream`] cuts server-sent events and JSON lines out of a body as it comes in, so that a template
//!   can be applied to each of them without the whole body being there.
//!
//! A render is bounded: [`FUEL`] units, each an instruction of the template or 64 bytes that it makes or
//! reads. Nothing here does I/O; random numbers and the [allowed variables](process_variables) of the
//! process are all that is taken from outside.
//!
//! ```
//! use std::sync::Arc;
//! use kgw_template::{Context, Facts, Template};
//!
//! #[derive(Debug)]
//! struct Request;
//! impl Facts for Request {
//!     fn header(&self, name: &str) -> Option<String> {
//!         (name == "x-user").then(|| "ann".to_owned())
//!     }
//!     fn request_header(&self, name: &str) -> Option<String> {
//!         self.header(name)
//!     }
//!     fn metadata(&self, _namespace: &str) -> Option<serde_json::Value> {
//!         None
//!     }
//! }
//!
//! let template = Template::compile(r#"user={{ header("X-User") | upper }}"#)?;
//! assert!(!template.reads_body());
//! assert_eq!(template.render(&Context::new(Arc::new(Request)))?, "user=ANN");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

mod context;
mod environment;
mod error;
mod events;
mod functions;
mod print;
mod template;
mod variables;

pub use context::{Context, Facts};
pub use environment::FUEL;
pub use error::{InvalidJson, RenderError, TemplateError};
pub use events::{Change, EventStream, EventTooLong, Framing};
pub use template::Template;
pub use variables::process_variables;
