//! What a lookup reads of a request.

/// A request as the route table sees it; implemented over whatever the caller has parsed.
///
/// Lookups are generic over it, so an implementation over borrowed head bytes costs nothing.
pub trait Request {
    /// The value of `Host` or `:authority`, as received: port, case and trailing dot are the table's
    /// concern. Empty when the request has none, which only `*` matches.
    fn host(&self) -> &[u8];

    /// The path without query, normalised if the listener normalises.
    fn path(&self) -> &[u8];

    /// What follows the first `?`, if there is one.
    fn query(&self) -> Option<&[u8]>;

    /// The method; methods are case-sensitive (RFC 9110 §9.1).
    fn method(&self) -> &[u8];

    /// Whether `matches` holds for any field value of the header `name` (given in lower case), one
    /// call per field line, values without the white space around them (RFC 9110 §5.5).
    ///
    /// Lines of a repeated header are never joined: Envoy matches if any of them does.
    fn any_header(&self, name: &[u8], matches: impl FnMut(&[u8]) -> bool) -> bool;
}

impl<R: Request> Request for &R {
    fn host(&self) -> &[u8] {
        (**self).host()
    }

    fn path(&self) -> &[u8] {
        (**self).path()
    }

    fn query(&self) -> Option<&[u8]> {
        (**self).query()
    }

    fn method(&self) -> &[u8] {
        (**self).method()
    }

    fn any_header(&self, name: &[u8], matches: impl FnMut(&[u8]) -> bool) -> bool {
        (**self).any_header(name, matches)
    }
}
