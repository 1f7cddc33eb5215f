//! Transformations: what templates make of a request and of its response (kgateway `transformation`).
//!
//! Which templates look at the body is known when the configuration is compiled. Where none does, and none
//! makes a body, the message passes with its head changed, and nothing of the body is held back. A body that
//! is a stream of events goes through a template event by event.
//!
//! All templates see the message as it came: the head is looked at first, and changed when all are rendered.

mod compiled;
mod message;
mod stream;

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use kgw_template::{Context, Facts};

use super::{Decide, RequestView, Respond, ResponseView, Step};
use crate::config::ir;
use crate::pipeline::reply::Reply;
use crate::runtime::Worker;
use compiled::{Changes, Compiled, Look};
use message::{Direction, Head, Snapshot};
use stream::Events;

/// The two halves of a transformation.
#[derive(Debug)]
pub(crate) struct Transformation {
    pub(crate) request: Option<RequestTransformation>,
    pub(crate) response: Option<ResponseTransformation>,
}

/// What is made of requests.
#[derive(Debug)]
pub(crate) struct RequestTransformation(Arc<Compiled>);

/// What is made of responses.
#[derive(Debug)]
pub(crate) struct ResponseTransformation(Arc<Compiled>);

/// How a transformation goes about a message.
enum Way {
    /// Of the head alone. Variables of bodies may still be asked for, and are answered 400 where there
    /// could have been a body.
    Head,
    /// By the whole body.
    Whole(usize),
    /// Event by event.
    Events,
}

impl Transformation {
    /// Compiles all templates.
    pub(crate) fn compile(ir: &ir::Transformation) -> Result<Self, String> {
        let compile = |half: &Option<ir::MessageTransformation>, direction| {
            let compiled = half.as_ref().map(|half| Compiled::compile(half, direction));
            compiled.transpose().map(|compiled| {
                let compiled = compiled.filter(|compiled| !compiled.is_empty());
                compiled.map(Arc::new)
            })
        };
        Ok(Self {
            request: compile(&ir.request, Direction::Request)?.map(RequestTransformation),
            response: compile(&ir.response, Direction::Response)?.map(ResponseTransformation),
        })
    }
}

// === impl RequestTransformation ===

impl Decide for RequestTransformation {
    fn on_request(&self, view: &mut RequestView<'_, '_>) -> Result<Step, Reply> {
        // As kgateway: what follows is not a body.
        let is_upgrade = view.is_tunnel || view.request.upgrade().is_some();
        match self.0.way(is_upgrade, view.request.headers())? {
            Way::Whole(most) => Ok(Step::Whole(most)),
            Way::Head => {
                let facts = self.facts(view);
                self.apply(view, &Context::new(facts), Look::Head)?;
                Ok(Step::Pass)
            }
            Way::Events => {
                let facts = self.facts(view);
                self.apply(view, &Context::new(Arc::clone(&facts)), Look::Past)?;
                let events = Events::new(&self.0, facts, Rc::clone(view.worker));
                Ok(events.map_or(Step::Pass, |events| Step::Stage(Box::new(events))))
            }
        }
    }

    fn on_body(&self, view: &mut RequestView<'_, '_>, body: Bytes) -> Result<Option<Bytes>, Reply> {
        let context = self.0.context(self.facts(view), body)?;
        self.apply(view, &context, Look::Into)
    }
}

impl RequestTransformation {
    fn facts(&self, view: &RequestView<'_, '_>) -> Arc<dyn Facts> {
        if !self.0.asks {
            return Snapshot::nothing();
        }
        let metadata = self.0.reads_metadata.then(|| view.exchange.metadata());
        Arc::new(Snapshot {
            request: Head::of_request(view.request),
            response: None,
            metadata: metadata.flatten().unwrap_or_default(),
        })
    }

    /// Changes the head, and returns the body, if there is to be another.
    fn apply(
        &self,
        view: &mut RequestView<'_, '_>,
        context: &Context,
        look: Look,
    ) -> Result<Option<Bytes>, Reply> {
        let changes = rendered(&self.0, context, look, view.worker)?;
        changes.apply_to(view.request);
        for (namespace, key, value) in changes.metadata {
            view.exchange.note(namespace.to_owned(), key, value.into());
        }
        Ok(changes.body)
    }
}

// === impl ResponseTransformation ===

impl Respond for ResponseTransformation {
    fn on_response(&self, view: &mut ResponseView<'_, '_>) -> Result<Step, Reply> {
        let is_upgrade = view.request.upgrade().is_some() || *view.status == 101;
        match self.0.way(is_upgrade, view.headers)? {
            Way::Whole(most) if view.has_body => Ok(Step::Whole(most)),
            Way::Events if view.has_body => {
                let facts = self.facts(view);
                self.apply(view, &Context::new(Arc::clone(&facts)), Look::Past)?;
                let events = Events::new(&self.0, facts, Rc::clone(view.worker));
                Ok(events.map_or(Step::Pass, |events| Step::Stage(Box::new(events))))
            }
            way => {
                // A response that cannot have a body is none with a body that is not as it should be.
                let look = match way {
                    Way::Head => Look::Head,
                    Way::Whole(_) | Way::Events => Look::Past,
                };
                let facts = self.facts(view);
                self.apply(view, &Context::new(facts), look)?;
                Ok(Step::Pass)
            }
        }
    }

    fn on_body(
        &self,
        view: &mut ResponseView<'_, '_>,
        body: Bytes,
    ) -> Result<Option<Bytes>, Reply> {
        let context = self.0.context(self.facts(view), body)?;
        self.apply(view, &context, Look::Into)
    }
}

impl ResponseTransformation {
    fn facts(&self, view: &ResponseView<'_, '_>) -> Arc<dyn Facts> {
        if !self.0.asks {
            return Snapshot::nothing();
        }
        let metadata = self.0.reads_metadata.then(|| view.exchange.metadata());
        Arc::new(Snapshot {
            request: Head::of_request(view.request),
            response: Some(Head::of_response(*view.status, view.headers)),
            metadata: metadata.flatten().unwrap_or_default(),
        })
    }

    fn apply(
        &self,
        view: &mut ResponseView<'_, '_>,
        context: &Context,
        look: Look,
    ) -> Result<Option<Bytes>, Reply> {
        let changes = rendered(&self.0, context, look, view.worker)?;
        changes.apply_to_response(view.status, view.headers);
        for (namespace, key, value) in changes.metadata {
            view.exchange.note(namespace.to_owned(), key, value.into());
        }
        Ok(changes.body)
    }
}

/// Renders all templates, and counts those that fail.
fn rendered<'t>(
    compiled: &'t Compiled,
    context: &Context,
    look: Look,
    worker: &Worker,
) -> Result<Changes<'t>, Reply> {
    let changes = compiled.render(context, look)?;
    worker
        .stats()
        .transformation_template_failed
        .add(changes.failed);
    Ok(changes)
}
