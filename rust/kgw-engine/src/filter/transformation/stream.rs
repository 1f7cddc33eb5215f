//! Streams of events on their way through a template.

use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;
use kgw_template::{Change, Context, EventStream, Facts};
use memchr::memchr;

use super::compiled::{Compiled, Stream};
use crate::config::ir::ParseAs;
use crate::filter::{BodyFilter, Taken};
use crate::pipeline::reply::Reply;
use crate::runtime::Worker;

/// A body that is a stream of events.
#[derive(Debug)]
pub(super) struct Events {
    compiled: Arc<Compiled>,
    facts: Arc<dyn Facts>,
    worker: Rc<Worker>,
    stream: EventStream,
}

/// How much may come of a piece before the rest of it waits. Bytes.
const ENOUGH: usize = 64 << 10;

impl Events {
    /// None if nothing is to become of events.
    pub(super) fn new(
        compiled: &Arc<Compiled>,
        facts: Arc<dyn Facts>,
        worker: Rc<Worker>,
    ) -> Option<Self> {
        let Stream {
            framing, max_event, ..
        } = compiled.stream.as_ref()?;
        Some(Self {
            stream: EventStream::new(*framing, *max_event),
            compiled: Arc::clone(compiled),
            facts,
            worker,
        })
    }
}

impl BodyFilter for Events {
    fn push(&mut self, data: &[u8], end: bool, out: &mut BytesMut) -> Result<Taken, Reply> {
        let Self {
            compiled,
            facts,
            worker,
            stream,
        } = self;
        let mut transform = |data: &[u8]| changed(compiled, facts, worker, data);
        let mut made = Vec::new();
        let mut taken = 0;
        // Line by line, so that a template that makes much of little does not fill the memory.
        while taken < data.len() {
            if made.len() >= ENOUGH {
                out.extend_from_slice(&made);
                return Ok(Taken::Part(taken));
            }
            let rest = &data[taken..];
            let line = memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
            let pushed = stream.push(&rest[..line], false, &mut made, &mut transform);
            taken += line;
            if pushed.is_err() {
                worker.stats().transformation_event_too_long.increment();
                return Err(Reply::payload_too_large());
            }
        }
        if end && stream.push(&[], true, &mut made, &mut transform).is_err() {
            worker.stats().transformation_event_too_long.increment();
            return Err(Reply::payload_too_large());
        }
        out.extend_from_slice(&made);
        Ok(Taken::All)
    }
}

/// What becomes of an event. One that cannot be transformed is left out: it may hold what a template is to
/// take out.
fn changed(compiled: &Compiled, facts: &Arc<dyn Facts>, worker: &Worker, data: &[u8]) -> Change {
    let Some(stream) = &compiled.stream else {
        return Change::Keep;
    };
    let facts = Arc::clone(facts);
    let context = match compiled.parse_as {
        ParseAs::Json => Context::with_json(facts, data.to_vec()),
        ParseAs::String | ParseAs::None => Ok(Context::with_text(facts, data.to_vec())),
    };
    let rendered = context.map(|context| stream.value.render(&context));
    match rendered {
        Ok(Ok(text)) if text.is_empty() => Change::Drop,
        Ok(Ok(text)) => Change::Replace(text.into_owned()),
        Ok(Err(_)) | Err(_) => {
            worker.stats().transformation_template_failed.increment();
            Change::Drop
        }
    }
}
