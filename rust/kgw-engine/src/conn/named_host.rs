//! Requests that go to the host that they name.

use std::sync::Arc;

use super::Conn;
use crate::config::snapshot::Cluster;
use crate::pipeline::reply::Reply;
use crate::upstream::forward_proxy::Refused;

/// The field that says where a request was (RFC 8586).
const LOOP: &[u8] = b"cdn-loop";

/// The cluster of the host that a request names, if requests of `cluster` go there. A request that was here
/// before would come again, for ever.
pub(super) fn of_request<D>(
    conn: &Conn<D>,
    cluster: &Cluster,
) -> Result<Option<Arc<Cluster>>, Reply> {
    let Some(proxy) = &cluster.forward_proxy else {
        return Ok(None);
    };
    let token = proxy.forwarding().token();
    let mut places = conn.request.headers().get_all(LOOP);
    if places.any(|places| names(places, token.as_bytes())) {
        return Err(Reply::loop_detected());
    }
    let now = conn.worker.now();
    let found = proxy.cluster(cluster, conn.request.authority(), now);
    let found = found.map_err(|refused| match refused {
        Refused::NoName => Reply::no_healthy_upstream(),
        Refused::Full => Reply::too_many_hosts(),
    })?;
    Ok(Some(found))
}

/// States in a request where it was, if requests of `cluster` go to the hosts that they name.
pub(super) fn state<D>(conn: &mut Conn<D>, cluster: &Cluster) {
    if let Some(proxy) = &cluster.forward_proxy {
        let token = proxy.forwarding().token().as_bytes();
        conn.request.headers_mut().append(LOOP, token);
    }
}

/// Whether one of the places in a list, each with parameters, is this.
fn names(places: &[u8], token: &[u8]) -> bool {
    places.split(|byte| *byte == b',').any(|place| {
        let name = place.split(|byte| *byte == b';').next();
        name.is_some_and(|name| name.trim_ascii() == token)
    })
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn places_are_found_in_lists() {
        assert!(names(b"foo.example; a=1, kgw-1 ;b=2", b"kgw-1"));
        assert!(names(b"kgw-1", b"kgw-1"));
        assert!(!names(b"foo, kgw-11, x;kgw-1", b"kgw-1"));
        assert!(!names(b"", b"kgw-1"));
    }
}
