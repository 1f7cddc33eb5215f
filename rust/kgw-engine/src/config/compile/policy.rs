//! What happens to the requests of routes: filters and an action, compiled once for all routes that
//! have the same.

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use kgw_route::Substitution;

use super::auth::Auth;
use super::bucket::Buckets;
use super::fallback::Fallbacks;
use super::keys::KeySources;
use crate::bridge::Bridge;
use crate::config::ir;
use crate::config::snapshot::{Action, Backend, Cluster, Forward, Mirror, OwnFilters, Policy};
use crate::filter::acl::Acl;
use crate::filter::api_key_auth::ApiKeyAuth;
use crate::filter::basic_auth::BasicAuth;
use crate::filter::buffer::Buffer;
use crate::filter::compression::{Compressor, Decompressor};
use crate::filter::cors::Cors;
use crate::filter::csrf::Csrf;
use crate::filter::ext_authz::ExtAuthz;
use crate::filter::ext_proc::ExtProc;
use crate::filter::fault::{Fault, SlowAnswers};
use crate::filter::global_rate_limit::GlobalRateLimit;
use crate::filter::header_mutation::HeaderMutation;
use crate::filter::jwt::{Jwt, Remote};
use crate::filter::local_rate_limit::LocalRateLimit;
use crate::filter::python::{self, Chain as PythonChain};
use crate::filter::rbac::Rbac;
use crate::filter::transformation::Transformation;
use crate::filter::{Decide, RequestFilter, Respond, ResponseFilter, Slot};
use crate::pipeline::direct::Direct;
use crate::pipeline::retry::Retry;
use crate::pipeline::session::Session;
use crate::telemetry::tracing::RouteTracing;

/// Policies by what they were compiled from.
#[derive(Debug, Default)]
pub(super) struct Policies {
    known: HashTable<Known>,
    hasher: RandomState,
    /// How many were left when unused ones were looked for last.
    kept: usize,
}

/// A policy and its origin.
#[derive(Clone, Debug)]
pub(super) struct Known {
    hash: u64,
    /// The scope, and filters and action as JSON, one behind the other.
    text: Box<str>,
    /// Of a policy that is of routes of one name alone, the length of this name.
    scope_len: Option<usize>,
    filters_len: usize,
    pub(super) policy: Arc<Policy>,
    /// Why the policy is one that answers 500.
    pub(super) problem: Option<Box<str>>,
}

/// What a policy is compiled from.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct Origin<'a> {
    /// The name of the routes, if the policy depends on it.
    scope: Option<&'a str>,
    /// JSON.
    filters: &'a str,
    /// JSON.
    action: &'a str,
}

impl<'a> Origin<'a> {
    /// What the policy of a route is compiled from: the name counts where there are filters in Python.
    pub(super) fn of(route: &'a ir::Route<'_>, bridge: Option<&Bridge>) -> Self {
        let filters = route.filters.map_or("[]", |filters| filters.get());
        let is_attached = |bridge: &Bridge| {
            let mut declarations = bridge.declarations().iter();
            declarations.any(|declared| declared.is_attached_to(&route.name))
        };
        let depends = filters.contains("\"python\"") || bridge.is_some_and(is_attached);
        Self {
            scope: depends.then_some(&*route.name),
            filters,
            action: route.action.get(),
        }
    }
}

impl Policies {
    pub(super) fn get(&self, origin: &Origin<'_>) -> Option<&Known> {
        let hash = self.hasher.hash_one(origin);
        self.known.find(hash, |known| known.origin() == *origin)
    }

    /// Adds one that is not known, or takes the place of the known one.
    pub(super) fn insert(&mut self, mut new: Known) {
        let origin = new.origin();
        let hash = self.hasher.hash_one(origin);
        let same = self.known.find_mut(hash, |known| known.origin() == origin);
        new.hash = hash;
        match same {
            Some(same) => *same = new,
            None => {
                self.known.insert_unique(hash, new, |known| known.hash);
            }
        }
    }

    /// Adds others, which win.
    pub(super) fn extend(&mut self, others: Self) {
        if self.known.is_empty() {
            *self = others;
        } else {
            others
                .known
                .into_iter()
                .for_each(|known| self.insert(known));
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Known> {
        self.known.iter()
    }

    /// Forgets what no route uses, once there is twice as much as last time.
    pub(super) fn forget_unused(&mut self) {
        if self.known.len() > 2 * self.kept + 64 {
            self.known
                .retain(|known| Arc::strong_count(&known.policy) > 1);
            self.kept = self.known.len();
        }
    }
}

impl Known {
    fn origin(&self) -> Origin<'_> {
        let (scope, texts) = self.text.split_at(self.scope_len.unwrap_or(0));
        let (filters, action) = texts.split_at(self.filters_len);
        Origin {
            scope: self.scope_len.map(|_| scope),
            filters,
            action,
        }
    }

    /// Whether any backend, or any service of a filter, is of a cluster of which `is` is true, or may be.
    pub(super) fn may_use(&self, is: impl Fn(&str) -> bool) -> bool {
        if self.problem.is_some() {
            return true;
        }
        self.policy.clusters().any(|cluster| is(&cluster.name))
    }
}

/// What policies are compiled with.
pub(super) struct PolicyCompiler<'a, C> {
    pub(super) buckets: &'a mut Buckets,
    pub(super) fallbacks: &'a mut Fallbacks,
    pub(super) keys: &'a mut KeySources,
    pub(super) auth: &'a mut Auth,
    /// Where filters in Python are asked.
    pub(super) bridge: Option<Arc<Bridge>>,
    /// The clusters by their ids.
    pub(super) cluster: C,
}

impl<C: Fn(&str) -> Option<Arc<Cluster>>> PolicyCompiler<'_, C> {
    /// Compiles a policy.
    pub(super) fn compile(&mut self, origin: &Origin<'_>) -> Result<Known, serde_json::Error> {
        let filters: Vec<ir::Filter> = serde_json::from_str(origin.filters)?;
        let action: ir::Action = serde_json::from_str(origin.action)?;
        let scope = origin.scope.unwrap_or_default();
        let (policy, problem) = match self.policy(origin.scope, &filters, &action) {
            Ok(policy) => (policy, None),
            Err(problem) => (broken(), Some(problem.into())),
        };
        Ok(Known {
            hash: 0,
            text: [scope, origin.filters, origin.action].concat().into(),
            scope_len: origin.scope.map(str::len),
            filters_len: origin.filters.len(),
            policy: Arc::new(policy),
            problem,
        })
    }

    /// Compiles a policy anew, with other clusters.
    pub(super) fn again(&mut self, known: &Known) -> Result<Known, serde_json::Error> {
        self.compile(&known.origin())
    }

    fn policy(
        &mut self,
        scope: Option<&str>,
        filters: &[ir::Filter],
        action: &ir::Action,
    ) -> Result<Policy, String> {
        let mut chain = Chain::new(scope.unwrap_or_default(), self.bridge.clone());
        for filter in filters {
            self.add(&mut chain, filter, None)?;
        }
        if scope.is_some() {
            chain.python.attach(&mut chain.requests)?;
        }
        let action = self.action(action, &chain.mirrors)?;
        Ok(chain.policy(action))
    }

    /// Adds a filter to a chain; with `shadow`, the name of its policy, it is tried out only.
    fn add<'f>(
        &mut self,
        chain: &mut Chain<'f>,
        filter: &'f ir::Filter,
        shadow: Option<&str>,
    ) -> Result<(), String> {
        let mut slots = Slots {
            chain,
            kind: filter.kind(),
            shadow,
        };
        match filter {
            ir::Filter::Shadow { policy, filter } => {
                if shadow.is_some() {
                    return Err("a filter in shadow is in no other shadow".to_owned());
                }
                return self.add(chain, filter, Some(policy));
            }
            ir::Filter::LocalRateLimit(limit) => {
                let limit = LocalRateLimit::compile(limit, |id, size| {
                    let bucket = self.buckets.bucket(id, size);
                    bucket.map_err(|error| error.to_string())
                })?;
                slots.request(RequestFilter::LocalRateLimit(limit));
            }
            ir::Filter::ExtAuthz(filter) => {
                let cluster = filter.cluster.as_deref();
                let cluster = cluster.map(|id| self.cluster(id)).transpose()?;
                let Auth {
                    decisions, counts, ..
                } = &mut *self.auth;
                let filter = ExtAuthz::compile(filter, cluster, decisions, counts)?;
                let filter = Box::new(filter);
                slots.request(RequestFilter::ExtAuthz(filter));
            }
            ir::Filter::ExtProc(filter) => {
                let cluster = filter.cluster.as_deref();
                let cluster = cluster.map(|id| self.cluster(id)).transpose()?;
                slots.process(Arc::new(ExtProc::compile(filter, cluster)?));
            }
            ir::Filter::Fault(fault) => {
                let fault = Fault::compile(fault)?;
                if fault.slows_answers() {
                    slots.respond(Arc::new(SlowAnswers));
                }
                slots.request(RequestFilter::Fault(Box::new(fault)));
            }
            ir::Filter::GlobalRateLimit(filter) => {
                let cluster = filter.service.cluster();
                let cluster = cluster.map(|id| self.cluster(id)).transpose()?;
                let buckets = |id, limit| self.fallbacks.buckets(id, limit);
                let filter = Box::new(GlobalRateLimit::compile(filter, cluster, buckets)?);
                slots.request(RequestFilter::GlobalRateLimit(filter));
            }
            ir::Filter::JwtAuth(jwt) => {
                let remote = |settings: &ir::RemoteKeys| {
                    let cluster = settings.cluster.as_deref();
                    Ok(Remote {
                        cluster: cluster.map(|id| self.cluster(id)).transpose()?,
                        keys: self.keys.keys(settings),
                    })
                };
                let filter = Box::new(Jwt::compile(jwt, shadow.is_some(), remote)?);
                slots.request(RequestFilter::Jwt(filter));
            }
            ir::Filter::Rbac(rbac) => slots.decide(Rbac::compile(rbac, shadow.is_some())?),
            ir::Filter::Compression(codings) => {
                slots.respond(Arc::new(Compressor::compile(codings)?));
            }
            ir::Filter::Decompression(codings) => slots.decide(Decompressor::compile(codings)?),
            ir::Filter::Buffer(buffer) => slots.decide(Buffer::compile(buffer)?),
            ir::Filter::Transformation(transformation) => {
                let Transformation { request, response } = Transformation::compile(transformation)?;
                if let Some(request) = request {
                    slots.decide(request);
                }
                if let Some(response) = response {
                    slots.respond(Arc::new(response));
                }
            }
            ir::Filter::Acl(acl) => slots.decide(Acl::compile(acl)?),
            ir::Filter::BasicAuth(auth) => {
                let filter = BasicAuth::compile(auth, &self.auth.passwords)?;
                slots.request(RequestFilter::BasicAuth(Box::new(filter)));
            }
            ir::Filter::ApiKeyAuth(auth) => slots.decide(ApiKeyAuth::compile(auth)?),
            ir::Filter::Csrf(csrf) => slots.decide(Csrf::compile(csrf)?),
            ir::Filter::RequestHeaders(mutation) => {
                let mutation = HeaderMutation::compile(mutation)?;
                slots.request(RequestFilter::Headers(mutation));
            }
            ir::Filter::Redirect(_) | ir::Filter::Rewrite(_) => {
                return Err("a redirect or rewrite can be a backend's own only".to_owned());
            }
            // The others refuse nothing, and change nothing either.
            _ if shadow.is_some() => {}
            ir::Filter::ResponseHeaders(mutation) => {
                chain
                    .response_headers
                    .push(HeaderMutation::compile(mutation)?);
            }
            ir::Filter::GrpcWeb => chain.grpc_web = true,
            ir::Filter::Tracing(tracing) => {
                chain.tracing = Some(Box::new(RouteTracing::compile(tracing)));
            }
            ir::Filter::Cors(filter) => {
                let cors = Box::new(Cors::compile(filter)?);
                slots.request(RequestFilter::Cors(cors));
            }
            ir::Filter::Mirror(mirror) => chain.mirrors.push(mirror),
            ir::Filter::Python(filter) => chain.python.add(filter, &mut chain.requests)?,
        }
        Ok(())
    }

    fn action(&self, action: &ir::Action, mirrors: &[&ir::Mirror]) -> Result<Action, String> {
        match action {
            ir::Action::Forward {
                backends,
                request_timeout_ms,
                backend_request_timeout_ms,
                retry,
                sessions,
                rewrite,
                path_regex,
                auto_host_rewrite,
                stream_idle_timeout_ms,
                upgrades,
                unresolved_status,
            } => {
                if !(400..600).contains(unresolved_status) {
                    return Err(format!("{unresolved_status} is not the status of an error"));
                }
                check_target(rewrite.hostname.as_deref(), rewrite.path.as_ref())?;
                let retry = retry
                    .as_ref()
                    .map(|retry| Retry::compile(retry, *backend_request_timeout_ms))
                    .transpose()?;
                // Of the only attempt, the smaller one holds for all.
                let of_attempt = match retry {
                    Some(_) => 0,
                    None => *backend_request_timeout_ms,
                };
                let timeout_ms = [*request_timeout_ms, of_attempt]
                    .into_iter()
                    .filter(|&milliseconds| milliseconds > 0)
                    .min()
                    .unwrap_or(0);
                let backends = backends
                    .iter()
                    .map(|backend| self.backend(backend, timeout_ms))
                    .collect::<Result<Box<[_]>, _>>()?;
                let sessions = sessions
                    .iter()
                    .map(|session| Session::compile(session, &backends))
                    .collect::<Result<Box<[_]>, _>>()?;
                Ok(Action::Forward(Forward {
                    total_weight: backends
                        .iter()
                        .map(|backend| u64::from(backend.weight))
                        .sum(),
                    backends,
                    timeout_ms,
                    retry: retry.map(Box::new),
                    sessions,
                    rewrite: rewrite.clone(),
                    path_regex: path_regex
                        .as_ref()
                        .map(|one| Substitution::new(&one.pattern, &one.substitution).map(Box::new))
                        .transpose()
                        .map_err(|error| error.to_string())?,
                    auto_host_rewrite: *auto_host_rewrite,
                    stream_idle_timeout_ms: *stream_idle_timeout_ms,
                    upgrades: upgrades.clone().into_boxed_slice(),
                    unresolved_status: *unresolved_status,
                    mirrors: self.mirrors(mirrors, timeout_ms)?,
                }))
            }
            ir::Action::Redirect(redirect) => {
                check_redirect(redirect)?;
                Ok(Action::Redirect(redirect.clone()))
            }
            ir::Action::Direct {
                status,
                body,
                format,
            } => Direct::compile(*status, body, format.as_deref()).map(Action::Direct),
        }
    }

    fn backend(&self, backend: &ir::Backend, timeout_ms: u64) -> Result<Backend, String> {
        let cluster = backend.cluster.as_deref();
        let cluster = cluster.map(|id| self.cluster(id)).transpose()?;
        let mut request_headers = Vec::new();
        let mut response_headers = Vec::new();
        let mut own = OwnFilters::default();
        let mut mirrors = Vec::new();
        for filter in &backend.filters {
            match filter {
                ir::Filter::RequestHeaders(mutation) => {
                    request_headers.push(HeaderMutation::compile(mutation)?);
                }
                ir::Filter::ResponseHeaders(mutation) => {
                    response_headers.push(HeaderMutation::compile(mutation)?);
                }
                ir::Filter::Cors(filter) => own.cors = Some(Box::new(Cors::compile(filter)?)),
                ir::Filter::Mirror(mirror) => mirrors.push(mirror),
                ir::Filter::Redirect(redirect) => {
                    check_redirect(redirect)?;
                    own.redirect = Some(redirect.clone());
                }
                ir::Filter::Rewrite(rewrite) => {
                    check_target(rewrite.hostname.as_deref(), rewrite.path.as_ref())?;
                    own.rewrite = rewrite.clone();
                }
                other => return Err(format!("{} cannot be a backend's own", other.kind())),
            }
        }
        own.mirrors = self.mirrors(&mirrors, timeout_ms)?;
        let has_own = own.cors.is_some()
            || own.redirect.is_some()
            || own.rewrite != ir::Rewrite::default()
            || !own.mirrors.is_empty();
        Ok(Backend {
            cluster,
            weight: backend.weight,
            request_headers: request_headers.into_boxed_slice(),
            response_headers: response_headers.into_boxed_slice(),
            own: has_own.then(|| Box::new(own)),
        })
    }

    /// The mirrors of requests that may take `timeout_ms`, each of which may take as long.
    fn mirrors(
        &self,
        mirrors: &[&ir::Mirror],
        timeout_ms: u64,
    ) -> Result<Box<[Arc<Mirror>]>, String> {
        let mirrors = mirrors.iter().map(|mirror| {
            if mirror.denominator == 0 {
                return Err("the share of a mirror has a denominator of 0".to_owned());
            }
            check_target(mirror.hostname.as_deref(), None)?;
            Ok(Arc::new(Mirror {
                hostname: mirror.hostname.as_deref().map(Box::from),
                append_shadow: mirror.append_shadow,
                cluster: self.cluster(&mirror.cluster)?,
                numerator: mirror.numerator,
                denominator: mirror.denominator,
                forward: Forward::of_copy(timeout_ms),
            }))
        });
        mirrors.collect()
    }

    fn cluster(&self, id: &str) -> Result<Arc<Cluster>, String> {
        (self.cluster)(id).ok_or_else(|| format!("no cluster {id:?}"))
    }
}

/// A chain of filters as it is compiled.
struct Chain<'f> {
    requests: Vec<Slot<RequestFilter>>,
    /// In the order of the chain.
    responses: Vec<Slot<ResponseFilter>>,
    response_headers: Vec<HeaderMutation>,
    grpc_web: bool,
    tracing: Option<Box<RouteTracing>>,
    mirrors: Vec<&'f ir::Mirror>,
    python: PythonChain<'f>,
}

/// Where the filters that one of the IR comes to are put.
struct Slots<'c, 'f> {
    chain: &'c mut Chain<'f>,
    kind: &'static str,
    shadow: Option<&'c str>,
}

impl<'f> Chain<'f> {
    fn new(scope: &'f str, bridge: Option<Arc<Bridge>>) -> Self {
        Self {
            requests: Vec::new(),
            responses: Vec::new(),
            response_headers: Vec::new(),
            grpc_web: false,
            tracing: None,
            mirrors: Vec::new(),
            python: PythonChain::of(scope, bridge),
        }
    }

    fn policy(self, action: Action) -> Policy {
        let has_cors = self
            .requests
            .iter()
            .any(|slot| matches!(slot.filter, RequestFilter::Cors(_)));
        let mut filters = self.requests.iter();
        let has_filters_after_router = filters.any(|slot| slot.filter.is_after_router());
        // The last of the chain first. Those in Python have their place behind a few.
        let is_outer = |slot: &Slot<ResponseFilter>| python::EARLIER.contains(&slot.kind);
        let (outer, inner): (Vec<_>, Vec<_>) = self.responses.into_iter().partition(is_outer);
        let all = outer
            .into_iter()
            .chain(self.python.responses())
            .chain(inner);
        let mut responses: Vec<_> = all.collect();
        responses.reverse();
        Policy {
            request_filters: self.requests.into_boxed_slice(),
            response_headers: self.response_headers.into_boxed_slice(),
            response_filters: responses.into_boxed_slice(),
            grpc_web: self.grpc_web,
            tracing: self.tracing,
            has_cors,
            has_filters_after_router,
            action,
        }
    }
}

impl Slots<'_, '_> {
    fn decide(&mut self, filter: impl Decide + 'static) {
        self.request(RequestFilter::Native(Box::new(filter)));
    }

    fn respond(&mut self, filter: Arc<dyn Respond>) {
        let slot = self.slot(ResponseFilter::Native(filter));
        self.chain.responses.push(slot);
    }

    /// A service that processes requests and answers. In shadow it is asked about requests alone.
    fn process(&mut self, filter: Arc<ExtProc>) {
        if self.shadow.is_none() {
            let slot = self.slot(ResponseFilter::ExtProc(Arc::clone(&filter)));
            self.chain.responses.push(slot);
        }
        self.request(RequestFilter::ExtProc(filter));
    }

    fn request(&mut self, filter: RequestFilter) {
        let slot = self.slot(filter);
        self.chain.requests.push(slot);
    }

    fn slot<F>(&self, filter: F) -> Slot<F> {
        Slot {
            kind: self.kind,
            filter,
            shadow: self.shadow.map(Box::from),
        }
    }
}

/// What answers in place of a policy that cannot be compiled; the text is kgateway's.
pub(super) fn broken() -> Policy {
    let body = "invalid route configuration detected and replaced with a direct response.";
    Policy {
        request_filters: Box::default(),
        response_headers: Box::default(),
        response_filters: Box::default(),
        grpc_web: false,
        tracing: None,
        has_cors: false,
        has_filters_after_router: false,
        action: Action::Direct(Direct::new(500, body.to_owned())),
    }
}

fn check_redirect(redirect: &ir::Redirect) -> Result<(), String> {
    check_target(redirect.hostname.as_deref(), redirect.path.as_ref())?;
    if let Some(scheme) = &redirect.scheme
        && !["http", "https"].contains(&scheme.as_str())
    {
        return Err(format!("{scheme:?} is not a scheme to redirect to"));
    }
    if !(300..400).contains(&redirect.status) {
        let status = redirect.status;
        return Err(format!("{status} is not the status of a redirect"));
    }
    Ok(())
}

fn check_target(hostname: Option<&str>, path: Option<&ir::PathRewrite>) -> Result<(), String> {
    if let Some(hostname) = hostname
        && !kgw_h1::is_valid_authority(hostname.as_bytes())
    {
        return Err(format!("{hostname:?} is not a host"));
    }
    path.map_or(Ok(()), check_path)
}

fn check_path(rewrite: &ir::PathRewrite) -> Result<(), String> {
    let path = match rewrite {
        ir::PathRewrite::Full(path) | ir::PathRewrite::Prefix { to: path, .. } => path,
    };
    if path
        .bytes()
        .all(|byte| (0x21..0x7f).contains(&byte) && byte != b'#')
    {
        Ok(())
    } else {
        Err(format!("{path:?} is not a path"))
    }
}
