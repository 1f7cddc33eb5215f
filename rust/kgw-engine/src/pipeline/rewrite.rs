//! `URLRewrite`, and the path replacement that it shares with `RequestRedirect`.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use kgw_h1::Request;
use kgw_route::Substitution;

use crate::config::ir::{PathRewrite, Rewrite};
use crate::config::snapshot::{Cluster, Forward};
use crate::upstream::dns::Host;

/// Gives a request the host and path that its rule says, or its backend does. What they were is stated
/// in `x-envoy-original-host` and `x-envoy-original-path`, as Envoy does.
pub(crate) fn rewrite(
    request: &mut Request,
    rule: &Forward,
    backend: Option<&Rewrite>,
    cluster: &Cluster,
) {
    let path = backend.and_then(|own| own.path.as_ref());
    let path = match (path.or(rule.rewrite.path.as_ref()), &rule.path_regex) {
        (Some(path), _) => Some(rewritten_path(path, request.path())),
        (None, Some(substitution)) => substituted_path(substitution, request.path()),
        (None, None) => None,
    };
    if let Some(path) = path {
        let original = request.path().to_vec();
        request
            .headers_mut()
            .set(b"x-envoy-original-path", &original);
        request.set_path(&path);
    }
    let hostname = backend.and_then(|own| own.hostname.as_deref());
    let hostname = hostname.or(rule.rewrite.hostname.as_deref());
    let of_endpoint = cluster.host.as_ref().filter(|_| rule.auto_host_rewrite);
    let hostname = hostname.or(of_endpoint.and_then(|host| host.only_name()));
    if let Some(hostname) = hostname {
        state_host(request);
        request.set_authority(hostname.as_bytes());
    }
}

/// Whether requests get the name of the endpoint that they go to: the rule says so, nothing says otherwise, and
/// the endpoints of the cluster do not have one name.
pub(crate) fn is_named_by_endpoint(
    rule: &Forward,
    backend: Option<&Rewrite>,
    cluster: &Cluster,
) -> bool {
    let several = |host: &Arc<Host>| host.only_name().is_none();
    let is_given = |rewrite: &Rewrite| rewrite.hostname.is_some();
    rule.auto_host_rewrite
        && cluster.host.as_ref().is_some_and(several)
        && !is_given(&rule.rewrite)
        && !backend.is_some_and(is_given)
}

/// Gives a request the name of the endpoint that it goes to next, which is its address where it was given as
/// one, as in Envoy. The `first` time, it is stated what was asked for.
pub(crate) fn name_by_endpoint(
    request: &mut Request,
    cluster: &Cluster,
    endpoint: SocketAddr,
    first: bool,
) {
    if first {
        state_host(request);
    }
    let name = cluster
        .host
        .as_ref()
        .and_then(|host| host.name_of(endpoint));
    let host = match (name, endpoint.ip()) {
        (Some(name), _) => Cow::Borrowed(name),
        (None, IpAddr::V4(address)) => Cow::Owned(address.to_string()),
        (None, IpAddr::V6(address)) => Cow::Owned(format!("[{address}]")),
    };
    request.set_authority(host.as_bytes());
}

fn state_host(request: &mut Request) {
    let original = request.authority().to_vec();
    request
        .headers_mut()
        .set(b"x-envoy-original-host", &original);
}

/// Returns the path with query in which the matches of an expression are replaced; none if there are none,
/// or if what comes of it is no path.
fn substituted_path(substitution: &Substitution, path: &[u8]) -> Option<Vec<u8>> {
    let query_at = memchr::memchr(b'?', path).unwrap_or(path.len());
    let (path, query) = path.split_at(query_at);
    let mut out = substitution.apply(path)?;
    if !out.starts_with(b"/") {
        out.insert(0, b'/');
    }
    out.extend_from_slice(query);
    let is_path = out
        .iter()
        .all(|byte| (0x21..0x7f).contains(byte) && *byte != b'#');
    is_path.then_some(out)
}

/// Returns the path with query that `rewrite` makes of `path` (with query).
///
/// `ReplacePrefixMatch` follows the table in the Gateway API's `HTTPPathModifier`: whole segments are
/// replaced, a trailing slash of prefix or replacement does not matter, the result is never empty.
pub(crate) fn rewritten_path(rewrite: &PathRewrite, path: &[u8]) -> Vec<u8> {
    let query_at = memchr::memchr(b'?', path).unwrap_or(path.len());
    let (path, query) = path.split_at(query_at);
    let mut out = Vec::with_capacity(path.len() + query.len() + 16);
    match rewrite {
        PathRewrite::Full(full) => out.extend_from_slice(full.as_bytes()),
        PathRewrite::Prefix { from, to } => {
            let from = from.trim_end_matches('/').as_bytes();
            let rest = path.strip_prefix(from).unwrap_or(path);
            out.extend_from_slice(to.trim_end_matches('/').as_bytes());
            if !rest.is_empty() && !rest.starts_with(b"/") {
                out.push(b'/');
            }
            out.extend_from_slice(rest);
        }
    }
    if !out.starts_with(b"/") {
        out.insert(0, b'/');
    }
    out.extend_from_slice(query);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(from: &str, to: &str, path: &str) -> String {
        let rewrite = PathRewrite::Prefix {
            from: from.to_owned(),
            to: to.to_owned(),
        };
        String::from_utf8(rewritten_path(&rewrite, path.as_bytes())).unwrap()
    }

    #[test]
    fn prefixes_are_replaced_as_the_gateway_api_tabulates() {
        for (path, from, to, expected) in [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
            ("/foo/bar", "/", "/xyz", "/xyz/foo/bar"),
        ] {
            assert_eq!(prefix(from, to, path), expected, "{path}: {from} -> {to}");
        }
    }

    #[test]
    fn the_query_survives() {
        assert_eq!(prefix("/foo", "/", "/foo?a=/foo"), "/?a=/foo");
        assert_eq!(
            rewritten_path(&PathRewrite::Full("/one".to_owned()), b"/a/b?x=1"),
            b"/one?x=1"
        );
    }
}
