//! Doors for the micro benches, to what a worker does for each request. Built for them alone.

use std::fmt;
use std::rc::Rc;

use kgw_h1::Request;

use crate::config::snapshot::{Route, Routes, Traffic};
use crate::pipeline::route_view::RouteView;
use crate::runtime::{Engine, EngineError, Worker};

/// A worker that serves nobody.
pub struct BenchWorker {
    worker: Rc<Worker>,
}

/// The filters of a route.
pub struct FilterChain {
    worker: Rc<Worker>,
    route: Route,
}

impl BenchWorker {
    /// A worker beside those of an engine, which must be running.
    pub fn new(engine: &Engine) -> Result<Self, EngineError> {
        Ok(Self {
            worker: Rc::new(Worker::new(0, engine.shared()?)),
        })
    }

    /// The generation of the newest snapshot, found as each request finds it.
    pub fn generation(&self) -> u64 {
        self.worker.snapshot().generation
    }

    /// The filters of the route that a request has on a listener; none without a route, or on a
    /// listener of something else than plain HTTP.
    pub fn filter_chain(&self, listener: &str, request: &Request) -> Option<FilterChain> {
        let snapshot = self.worker.snapshot();
        let Traffic::Http(routes) = &snapshot.listeners.get(listener)?.traffic else {
            return None;
        };
        let route = find(routes, request)?.clone();
        let worker = Rc::clone(&self.worker);
        Some(FilterChain { worker, route })
    }
}

impl FilterChain {
    /// Whether the filters let a request pass, which they may change.
    pub fn run(&self, request: &mut Request) -> bool {
        let now = self.worker.now();
        let mut filters = self.route.request_filters.iter();
        filters.all(|slot| slot.filter.on_head(request, now, None).is_ok())
    }
}

impl fmt::Debug for BenchWorker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BenchWorker").finish_non_exhaustive()
    }
}

impl fmt::Debug for FilterChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FilterChain").finish_non_exhaustive()
    }
}

fn find<'a>(routes: &'a Routes, request: &Request) -> Option<&'a Route> {
    let found = routes.table.find(&RouteView::new(request))?;
    Some(found.value)
}
