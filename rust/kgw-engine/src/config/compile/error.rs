//! What makes a configuration one that cannot be served.

use super::listener::MAX_HEAD_BYTES;
use crate::config::ir;

/// Why a configuration is refused as a whole.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// Two listeners of one id, or of one address.
    #[error("two listeners have the {what} {value}")]
    Duplicate {
        /// `id` or `address`.
        what: &'static str,
        /// The value.
        value: String,
    },
    /// The bytes are not the IR.
    #[error("the configuration is not in the form this engine reads: {0}")]
    Malformed(#[from] serde_json::Error),
    /// The filters or the action of a route are not the IR.
    #[error("route {id:?} is not in the form this engine reads: {error}")]
    MalformedRoute {
        /// The route's id.
        id: String,
        /// Why not, with a place in its filters or its action.
        error: serde_json::Error,
    },
    /// A listener or destination names a route table that is not there.
    #[error("{place} names route table {id:?}, which is not there")]
    NoRouteTable {
        /// The listener.
        place: String,
        /// The table's id.
        id: String,
    },
    /// A route table as a whole cannot be built: it is too large.
    #[error("route table {id:?}: {error}")]
    RouteTable {
        /// The table's id.
        id: String,
        /// Why not.
        error: Box<kgw_route::BuildError>,
    },
    /// A limit that would be none.
    #[error("{place}: {what} is {value}, more than {MAX_HEAD_BYTES}")]
    TooLarge {
        /// The listener.
        place: String,
        /// The option.
        what: &'static str,
        /// Its value.
        value: usize,
    },
    /// Changes to another generation than the newest one.
    #[error("stale base: the changes are to generation {base}, the newest one is {newest}")]
    StaleBase {
        /// What the changes are to.
        base: u64,
        /// The newest generation.
        newest: u64,
    },
    /// Another version of the IR.
    #[error(
        "the configuration has version {found}, this engine reads version {}",
        ir::VERSION
    )]
    Version {
        /// The version found.
        found: u32,
    },
}
