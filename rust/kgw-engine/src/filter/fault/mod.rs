//! Faults that are made on purpose (Envoy `fault`): which requests have which.
//!
//! Nothing here waits: `conn::faulting` does.

mod pace;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

pub(crate) use self::pace::Pace;
use super::{Respond, ResponseView, Step};
use crate::config::ir;
use crate::pipeline::reply::Reply;

/// The faults of a route.
#[derive(Debug)]
pub(crate) struct Fault {
    delay: Option<ir::FaultDelay>,
    abort: Option<ir::FaultAbort>,
    rate: Option<ir::FaultRate>,
    max_active: Option<u32>,
    active: Arc<AtomicU32>,
}

/// Counts a request with a fault until it is over.
#[derive(Debug)]
pub(crate) struct ActiveFault(Arc<AtomicU32>);

/// The side of it that slows answers down.
#[derive(Debug)]
pub(crate) struct SlowAnswers;

impl Fault {
    pub(crate) fn compile(fault: &ir::Fault) -> Result<Self, String> {
        if let Some(abort) = &fault.abort
            && !(200..600).contains(&abort.status)
        {
            return Err(format!("{} is not the status of an answer", abort.status));
        }
        if fault
            .response_rate
            .as_ref()
            .is_some_and(|rate| rate.kbits_per_second == 0)
        {
            return Err("answers that are never sent are no slow ones".to_owned());
        }
        Ok(Self {
            delay: fault.delay.clone(),
            abort: fault.abort.clone(),
            rate: fault.response_rate.clone(),
            max_active: fault.max_active,
            active: Arc::default(),
        })
    }

    /// Whether it has to do with answers.
    pub(crate) fn slows_answers(&self) -> bool {
        self.rate.is_some()
    }

    /// The delay of this request, if it has one. Milliseconds.
    pub(crate) fn delay_ms(&self) -> Option<u64> {
        let delay = self.delay.as_ref()?;
        is_chosen(delay.percent).then_some(delay.delay_ms)
    }

    /// What this request is answered with, if it is not to be forwarded.
    pub(crate) fn abort(&self) -> Option<Reply> {
        let abort = self.abort.as_ref()?;
        is_chosen(abort.percent).then(|| Reply::aborted(abort.status, abort.grpc_status))
    }

    /// How fast the answer to this request may be sent, if that is limited. Bytes a second.
    pub(crate) fn bytes_per_second(&self) -> Option<u64> {
        let rate = self.rate.as_ref()?;
        is_chosen(rate.percent).then(|| rate.kbits_per_second.saturating_mul(1024) / 8)
    }

    /// Counts one more request with a fault, if there may be one.
    pub(crate) fn begin(&self) -> Option<ActiveFault> {
        let most = self.max_active.unwrap_or(u32::MAX);
        let update = |active: u32| (active < most).then_some(active + 1);
        self.active
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, update)
            .ok()?;
        Some(ActiveFault(Arc::clone(&self.active)))
    }
}

impl Drop for ActiveFault {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Respond for SlowAnswers {
    fn on_response(&self, view: &mut ResponseView<'_, '_>) -> Result<Step, Reply> {
        let pace = view.exchange.pace().filter(|_| view.has_body);
        Ok(pace.map_or(Step::Pass, |bytes| Step::Pace(Pace::new(bytes, view.now))))
    }
}

fn is_chosen(percent: u8) -> bool {
    percent >= 100 || fastrand::u8(..100) < percent
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_are_active_than_may_be() {
        let fault = Fault::compile(&ir::Fault {
            max_active: Some(2),
            ..ir::Fault::default()
        });
        let fault = fault.unwrap();
        let (first, second) = (fault.begin(), fault.begin());
        assert!(first.is_some() && second.is_some());
        assert!(fault.begin().is_none());
        drop(first);
        assert!(fault.begin().is_some());
    }

    #[test]
    fn shares_are_of_a_hundred() {
        assert!((0..1_000).all(|_| is_chosen(100)));
        assert!(!(0..1_000).any(|_| is_chosen(0)));
        let half = (0..10_000).filter(|_| is_chosen(50)).count();
        assert!((4_000..6_000).contains(&half), "{half}");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let abort = |status| ir::Fault {
            abort: Some(ir::FaultAbort {
                status,
                grpc_status: None,
                percent: 1,
            }),
            ..ir::Fault::default()
        };
        assert!(Fault::compile(&abort(199)).is_err());
        assert!(Fault::compile(&abort(600)).is_err());
        assert!(Fault::compile(&abort(503)).is_ok());
    }
}
