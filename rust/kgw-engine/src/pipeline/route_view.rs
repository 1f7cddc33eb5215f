//! A request as the route table sees it.

use kgw_h1::Request;

/// Borrows what routing needs of a request.
#[derive(Debug)]
pub(crate) struct RouteView<'a> {
    request: &'a Request,
    path: &'a [u8],
    query: Option<&'a [u8]>,
}

impl<'a> RouteView<'a> {
    pub(crate) fn new(request: &'a Request) -> Self {
        let (path, query) = match request.path() {
            // The target of a CONNECT has no path. Rules for all paths are for it too.
            b"" => (&b"/"[..], None),
            path => kgw_h1::split_path_and_query(path),
        };
        Self {
            request,
            path,
            query,
        }
    }
}

impl kgw_route::Request for RouteView<'_> {
    fn host(&self) -> &[u8] {
        self.request.authority()
    }

    fn path(&self) -> &[u8] {
        self.path
    }

    fn query(&self) -> Option<&[u8]> {
        self.query
    }

    fn method(&self) -> &[u8] {
        self.request.method()
    }

    fn any_header(&self, name: &[u8], mut matches: impl FnMut(&[u8]) -> bool) -> bool {
        // Routes of gRPC calls ask so for a method of any service.
        if name == b":path" {
            return matches(self.path);
        }
        self.request.headers().get_all(name).any(matches)
    }
}
