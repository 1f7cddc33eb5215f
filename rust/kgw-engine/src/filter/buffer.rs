//! Passing requests on as a whole (Envoy `buffer`).

use bytes::Bytes;

use super::{Decide, RequestView, Step};
use crate::config::ir;
use crate::pipeline::reply::Reply;

/// Requests whose body has no stated length get one: what goes on is all of it.
#[derive(Debug)]
pub(crate) struct Buffer {
    max_request_bytes: usize,
}

impl Buffer {
    pub(crate) fn compile(buffer: &ir::Buffer) -> Result<Self, String> {
        match buffer.max_request_bytes {
            0 => Err("a buffer has room for a byte at least".to_owned()),
            max_request_bytes => Ok(Self { max_request_bytes }),
        }
    }
}

impl Decide for Buffer {
    fn on_request(&self, view: &mut RequestView<'_, '_>) -> Result<Step, Reply> {
        if view.is_tunnel || view.request.framing().is_empty() {
            return Ok(Step::Pass);
        }
        Ok(Step::Whole(self.max_request_bytes))
    }

    fn on_body(&self, view: &mut RequestView<'_, '_>, body: Bytes) -> Result<Option<Bytes>, Reply> {
        // As Envoy: it is said how long the body is.
        let stated = view.request.framing().length().is_some();
        Ok((!stated).then_some(body))
    }
}
