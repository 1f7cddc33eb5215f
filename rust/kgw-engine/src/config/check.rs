//! Whether parts of a configuration can be used, for those who write it. Each is the JSON of the IR.

use serde::de::DeserializeOwned;

use crate::pipeline::local_reply::LocalReplies;
use crate::telemetry::access_log::Filter;

/// Looks at an [`AccessLogFilter`](super::ir::AccessLogFilter).
///
/// # Errors
/// What is wrong with it.
pub fn access_log_filter(filter: &str) -> Result<(), String> {
    let filter = parse(filter)?;
    Filter::compile(&filter)
        .map(drop)
        .map_err(|error| error.to_string())
}

/// Looks at [`LocalReplies`](super::ir::LocalReplies).
///
/// # Errors
/// What is wrong with them.
pub fn local_replies(replies: &str) -> Result<(), String> {
    LocalReplies::compile(&parse(replies)?).map(drop)
}

fn parse<T: DeserializeOwned>(json: &str) -> Result<T, String> {
    serde_json::from_str(json).map_err(|error| error.to_string())
}
