//! Filters in Python, seen from here: whom to ask about which requests, and what happens without an
//! answer.

use std::fmt;
use std::sync::Arc;

use kgw_h1::Request;
use kgw_route::{Builder, PathMatch, RouteTable, Rule, StringMatch, ValueMatch};

use super::{RequestFilter, ResponseFilter, Slot};
use crate::bridge::Bridge;
use crate::config::ir::{self, OnError};
use crate::pipeline::route_view::RouteView;

/// The type of these filters in the IR.
const KIND: &str = "python";

/// The types of the filters that are in front of those that a route does not name, and of these
/// themselves.
pub(crate) const EARLIER: [&str; 11] = [
    "fault",
    "acl",
    "cors",
    "compression",
    "decompression",
    "oauth2",
    "basic_auth",
    "api_key_auth",
    "jwt_auth",
    "rbac",
    KIND,
];

/// A filter of one route that is asked through the [bridge](crate::bridge).
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(crate) struct PythonFilter {
    pub(crate) bridge: Arc<Bridge>,
    /// Its place among the bridge's filters.
    pub(crate) index: u16,
    pub(crate) name: Box<str>,
    /// The route's name.
    pub(crate) route: Arc<str>,
    /// Milliseconds.
    pub(crate) timeout_ms: u64,
    pub(crate) on_error: OnError,
    pub(crate) on_request: bool,
    pub(crate) on_response: bool,
    /// It sees bodies piece by piece.
    pub(crate) on_request_chunk: bool,
    pub(crate) on_response_chunk: bool,
    /// It decides about heads together with bodies.
    pub(crate) request_body: bool,
    pub(crate) response_body: bool,
    /// The longest body that it takes as a whole. Bytes.
    pub(crate) max_body: usize,
    predicate: Predicate,
}

/// The requests that a filter is asked about.
#[derive(Debug)]
struct Predicate {
    path_prefix: Option<Box<[u8]>>,
    methods: Box<[Box<[u8]>]>,
    headers: Box<[Header]>,
    /// All that is more than a comparison, as the rule of a table that has no other.
    rest: Option<Rest>,
}

/// A header field that must be there, of any value or of this one.
#[derive(Debug)]
struct Header {
    name: Box<[u8]>,
    value: Option<Box<[u8]>>,
}

/// What route tables look for.
struct Rest(RouteTable<()>);

impl fmt::Debug for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rest").finish_non_exhaustive()
    }
}

impl PythonFilter {
    /// Compiles a filter of the route called `route`: what `filter` leaves open is as the filter itself
    /// declares it.
    pub(crate) fn compile(
        filter: &ir::PythonFilter,
        route: &str,
        bridge: Option<&Arc<Bridge>>,
    ) -> Result<Self, String> {
        let name = &filter.filter;
        let found = bridge.and_then(|bridge| {
            let mut declarations = bridge.declarations().iter();
            let index = declarations.position(|declared| declared.name == *name)?;
            Some((bridge, index))
        });
        let Some((bridge, index)) = found else {
            return Err(format!("no Python filter {name:?} is registered"));
        };
        let declared = &bridge.declarations()[index];
        let asked = |phase| {
            let phases = filter.phases.as_deref();
            phases.is_none_or(|phases| phases.contains(&phase))
        };
        let timeout_ms = filter.timeout_ms.unwrap_or(declared.timeout_ms);
        if timeout_ms == 0 {
            return Err(format!("Python filter {name:?} has no time to decide"));
        }
        let predicate = filter.predicate.as_ref().unwrap_or(&declared.predicate);
        Ok(Self {
            bridge: Arc::clone(bridge),
            index: index as u16,
            name: name.as_str().into(),
            route: Arc::from(route),
            timeout_ms,
            on_error: filter.on_error.unwrap_or(declared.on_error),
            on_request: declared.on_request && asked(ir::FilterPhase::Request),
            on_response: declared.on_response && asked(ir::FilterPhase::Response),
            on_request_chunk: declared.on_request_chunk && asked(ir::FilterPhase::Request),
            on_response_chunk: declared.on_response_chunk && asked(ir::FilterPhase::Response),
            request_body: declared.request_body,
            response_body: declared.response_body,
            max_body: declared.max_body,
            predicate: Predicate::compile(predicate)?,
        })
    }

    /// Whether it has to do with requests.
    pub(crate) fn sees_requests(&self) -> bool {
        self.on_request || self.on_request_chunk
    }

    /// Whether it has to do with responses.
    pub(crate) fn sees_responses(&self) -> bool {
        self.on_response || self.on_response_chunk
    }

    /// Whether it sees the bodies of responses.
    pub(crate) fn sees_response_bodies(&self) -> bool {
        self.on_response_chunk || self.on_response && self.response_body
    }

    /// Whether it may be asked more than once about an exchange.
    pub(crate) fn has_sessions(&self) -> bool {
        self.on_request_chunk || self.on_response_chunk || self.on_request && self.on_response
    }

    /// Whether the filter is asked about a request.
    pub(crate) fn is_for(&self, request: &Request) -> bool {
        self.predicate.holds(request)
    }
}

/// The Python filters of one route, as they are compiled.
#[derive(Debug)]
pub(crate) struct Chain<'a> {
    route: &'a str,
    bridge: Option<Arc<Bridge>>,
    filters: Vec<Arc<PythonFilter>>,
}

impl<'a> Chain<'a> {
    pub(crate) fn of(route: &'a str, bridge: Option<Arc<Bridge>>) -> Self {
        Self {
            route,
            bridge,
            filters: Vec::new(),
        }
    }

    /// Adds a filter that the route names, behind those of `requests`.
    pub(crate) fn add(
        &mut self,
        filter: &ir::PythonFilter,
        requests: &mut Vec<Slot<RequestFilter>>,
    ) -> Result<(), String> {
        let at = requests.len();
        self.insert(filter, requests, at)
    }

    /// Adds the filters that are attached to the route without being named by it: behind those it
    /// names, else in front of all.
    pub(crate) fn attach(&mut self, requests: &mut Vec<Slot<RequestFilter>>) -> Result<(), String> {
        let Some(bridge) = self.bridge.clone() else {
            return Ok(());
        };
        for declared in bridge.declarations() {
            let is_named = self.filters.iter().any(|one| *one.name == *declared.name);
            if is_named || !declared.is_attached_to(self.route) {
                continue;
            }
            let last = requests
                .iter()
                .rposition(|slot| EARLIER.contains(&slot.kind));
            let filter = ir::PythonFilter {
                filter: declared.name.clone(),
                ..ir::PythonFilter::default()
            };
            self.insert(&filter, requests, last.map_or(0, |last| last + 1))?;
        }
        Ok(())
    }

    fn insert(
        &mut self,
        filter: &ir::PythonFilter,
        requests: &mut Vec<Slot<RequestFilter>>,
        at: usize,
    ) -> Result<(), String> {
        let filter = Arc::new(PythonFilter::compile(
            filter,
            self.route,
            self.bridge.as_ref(),
        )?);
        if filter.sees_requests() {
            let slot = Slot {
                kind: KIND,
                filter: RequestFilter::Python(Arc::clone(&filter)),
                shadow: None,
            };
            requests.insert(at, slot);
        }
        self.filters.push(filter);
        Ok(())
    }

    /// Those that are asked about responses, in the order of the chain.
    pub(crate) fn responses(self) -> impl Iterator<Item = Slot<ResponseFilter>> {
        let filters = self.filters.into_iter();
        let filters = filters.filter(|filter| filter.sees_responses());
        filters.map(|filter| Slot {
            kind: KIND,
            filter: ResponseFilter::Python(filter),
            shadow: None,
        })
    }
}

impl Predicate {
    fn compile(predicate: &ir::Predicate) -> Result<Self, String> {
        let path_prefix = predicate.path_prefix.as_deref();
        for path in path_prefix.into_iter().chain(predicate.path.as_deref()) {
            if !path.starts_with('/') {
                return Err(format!("{path:?} is not a path"));
            }
        }
        let mut headers = Vec::new();
        for header in &predicate.headers {
            if !kgw_h1::is_valid_name(header.name.as_bytes()) {
                return Err(format!("{:?} is not a header field name", header.name));
            }
            let value = header.value.as_ref();
            headers.push(Header {
                name: header.name.as_bytes().into(),
                value: value.map(|value| value.as_bytes().into()),
            });
        }
        Ok(Self {
            // As in routes, the prefix is of whole segments.
            path_prefix: path_prefix.map(|prefix| prefix.trim_end_matches('/').as_bytes().into()),
            methods: predicate
                .methods
                .iter()
                .map(|method| method.as_bytes().into())
                .collect(),
            headers: headers.into_boxed_slice(),
            rest: Rest::compile(predicate)?,
        })
    }

    fn holds(&self, request: &Request) -> bool {
        let path = self.path_prefix.as_deref().is_none_or(|prefix| {
            let rest = request.path_only().strip_prefix(prefix);
            rest.is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
        });
        path && (self.methods.is_empty()
            || self.methods.iter().any(|one| **one == *request.method()))
            && self.headers.iter().all(|header| match &header.value {
                None => request.headers().contains(&header.name),
                Some(value) => {
                    let mut found = request.headers().get_all(&header.name);
                    found.any(|found| *found == **value)
                }
            })
            && self.rest.as_ref().is_none_or(|rest| {
                let view = RouteView::new(request);
                rest.0.find(&view).is_some()
            })
    }
}

impl Rest {
    /// Compiles what of a predicate is more than a comparison, if there is any.
    fn compile(predicate: &ir::Predicate) -> Result<Option<Self>, String> {
        let matched = |one: &ir::ValuePredicate| ValueMatch {
            name: one.name.clone(),
            value: match (&one.value, &one.regex) {
                (_, Some(regex)) => StringMatch::Regex(regex.clone()),
                (Some(value), None) => StringMatch::Exact(value.clone()),
                (None, None) => StringMatch::Present,
            },
        };
        let paths = [
            predicate.path.clone().map(PathMatch::Exact),
            predicate.path_regex.clone().map(PathMatch::Regex),
        ];
        let mut paths: Vec<PathMatch> = paths.into_iter().flatten().collect();
        if paths.len() > 1 {
            return Err("a path is compared with one pattern".to_owned());
        }
        let path = paths.pop();
        let regexes = predicate.headers.iter().filter(|one| one.regex.is_some());
        let headers: Vec<ValueMatch> = regexes.map(matched).collect();
        let query: Vec<ValueMatch> = predicate.query.iter().map(matched).collect();
        if path.is_none() && headers.is_empty() && query.is_empty() && predicate.hosts.is_empty() {
            return Ok(None);
        }
        let rule = Rule {
            headers,
            query,
            ..Rule::new(path.unwrap_or_else(|| PathMatch::Prefix("/".to_owned())))
        };
        let any = ["*".to_owned()];
        let hosts: &[String] = match &*predicate.hosts {
            [] => &any,
            hosts => hosts,
        };
        let mut builder = Builder::new();
        for host in hosts {
            let added = builder.add(host, rule.clone(), ());
            added.map_err(|error| error.to_string())?;
        }
        let table = builder.build().map_err(|error| error.to_string())?;
        Ok(Some(Self(table)))
    }
}

#[cfg(test)]
mod tests {
    use kgw_h1::Limits;

    use super::*;

    fn request(line: &str, fields: &str) -> Request {
        let mut request = Request::new();
        let bytes = format!("{line} HTTP/1.1\r\nhost: a\r\n{fields}\r\n");
        let limits = Limits {
            max_head_bytes: 4096,
            max_fields: 100,
        };
        request.parse(bytes.as_bytes(), &limits).unwrap();
        request
    }

    #[test]
    fn predicates() {
        for (predicate, line, fields, expected) in [
            ("{}", "GET /", "", true),
            (r#"{"path_prefix": "/"}"#, "GET /x", "", true),
            (r#"{"path_prefix": "/a"}"#, "GET /a?b", "", true),
            (r#"{"path_prefix": "/a/"}"#, "GET /a/b", "", true),
            (r#"{"path_prefix": "/a"}"#, "GET /ab", "", false),
            (r#"{"methods": ["GET", "PUT"]}"#, "PUT /", "", true),
            (r#"{"methods": ["GET", "PUT"]}"#, "POST /", "", false),
            (
                r#"{"headers": [{"name": "X-A"}]}"#,
                "GET /",
                "x-a: 1\r\n",
                true,
            ),
            (
                r#"{"headers": [{"name": "x-a"}]}"#,
                "GET /",
                "x-b: 1\r\n",
                false,
            ),
            (
                r#"{"headers": [{"name": "x-a", "value": "2"}]}"#,
                "GET /",
                "x-a: 1\r\nX-A: 2\r\n",
                true,
            ),
            (
                r#"{"headers": [{"name": "x-a", "value": "2"}, {"name": "x-b"}]}"#,
                "GET /",
                "x-a: 2\r\n",
                false,
            ),
            (
                r#"{"headers": [{"name": "x-a", "regex": "[0-9]+"}]}"#,
                "GET /",
                "x-a: a\r\nx-a: 12\r\n",
                true,
            ),
            (
                r#"{"headers": [{"name": "x-a", "regex": "[0-9]+"}]}"#,
                "GET /",
                "x-a: 12a\r\n",
                false,
            ),
            (r#"{"path": "/a"}"#, "GET /a?b", "", true),
            (r#"{"path": "/a"}"#, "GET /a/", "", false),
            (r#"{"path_regex": "/[ab]+"}"#, "GET /ab", "", true),
            (r#"{"path_regex": "/[ab]+"}"#, "GET /abc", "", false),
            (
                r#"{"path_prefix": "/a", "path_regex": ".*/b"}"#,
                "GET /c/b",
                "",
                false,
            ),
            (r#"{"hosts": ["*.b", "a"]}"#, "GET /", "", true),
            (r#"{"hosts": ["b"]}"#, "GET /", "", false),
            (
                r#"{"query": [{"name": "q", "value": "1"}]}"#,
                "GET /?q=1",
                "",
                true,
            ),
            (r#"{"query": [{"name": "q"}]}"#, "GET /?r", "", false),
            (
                r#"{"query": [{"name": "q", "regex": "1+"}]}"#,
                "GET /?q=11",
                "",
                true,
            ),
        ] {
            let compiled = Predicate::compile(&serde_json::from_str(predicate).unwrap()).unwrap();
            assert_eq!(
                compiled.holds(&request(line, fields)),
                expected,
                "{predicate} {line}"
            );
        }
        for bad in [
            r#"{"path_prefix": "a"}"#,
            r#"{"path": "a"}"#,
            r#"{"path": "/a", "path_regex": "/a"}"#,
            r#"{"path_regex": "/("}"#,
            r#"{"hosts": ["a b"]}"#,
            r#"{"headers": [{"name": "a b"}]}"#,
            r#"{"headers": [{"name": "a", "regex": "("}]}"#,
        ] {
            assert!(Predicate::compile(&serde_json::from_str(bad).unwrap()).is_err());
        }
    }
}
