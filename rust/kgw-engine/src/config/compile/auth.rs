//! What authentication has that outlives a configuration.

use std::sync::Arc;

use crate::filter::basic_auth::checks::PasswordChecks;
use crate::filter::ext_authz::cache::DecisionCaches;
use crate::filter::ext_authz::counts::CountsByName;

/// Threads that check passwords, decisions that are remembered, and what is counted by name.
#[derive(Debug)]
pub(super) struct Auth {
    pub(super) passwords: Arc<PasswordChecks>,
    pub(super) decisions: DecisionCaches,
    pub(super) counts: Arc<CountsByName>,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            passwords: Arc::new(PasswordChecks::new()),
            decisions: DecisionCaches::default(),
            counts: Arc::default(),
        }
    }
}
