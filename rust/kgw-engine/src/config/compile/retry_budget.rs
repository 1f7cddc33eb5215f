//! Retry budgets by their identity.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use kgw_limit::RetryBudget;

use crate::config::ir;

/// Retry budgets by id and amounts: what was counted outlives changes of anything else, and clusters of
/// one service share it. A budget is forgotten when it is out of use: one that comes back begins anew.
#[derive(Debug, Default)]
pub(super) struct RetryBudgets {
    known: HashMap<Key, Arc<RetryBudget>>,
}

type Key = (String, u8, u64, u64, u64);

impl RetryBudgets {
    pub(super) fn budget(&mut self, budget: &ir::RetryBudget) -> Arc<RetryBudget> {
        let &ir::RetryBudget {
            percent,
            interval_ms,
            min_retries,
            min_interval_ms,
            ..
        } = budget;
        let id = budget.id.clone();
        let key = (id, percent, interval_ms, min_retries, min_interval_ms);
        let made = self.known.entry(key).or_insert_with(|| {
            Arc::new(RetryBudget::new(
                percent,
                Duration::from_millis(interval_ms),
                min_retries,
                Duration::from_millis(min_interval_ms),
            ))
        });
        Arc::clone(made)
    }

    /// Forgets what is out of use.
    pub(super) fn forget_unused(&mut self) {
        self.known.retain(|_, budget| Arc::strong_count(budget) > 1);
    }
}
