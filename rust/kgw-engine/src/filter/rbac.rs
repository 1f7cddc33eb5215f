//! Allowing and refusing requests by conditions (Envoy `rbac` with a CEL matcher).
//!
//! The conditions are alternatives. As in Envoy one that has no value (a header field is missing, a type
//! does not fit) does not hold. One that was stopped because it took too long, which Envoy does not have,
//! refuses the request whatever the action: long input is not to get around what forbids it.

use super::{Decide, RequestView, Step};
use crate::cel::{Condition, Moment, View};
use crate::config::ir::{self, RbacAction};
use crate::pipeline::reply::Reply;
use crate::telemetry::access_log::Record;

/// Conditions, and what they mean.
#[derive(Debug)]
pub(crate) struct Rbac {
    action: RbacAction,
    conditions: Box<[Condition]>,
    /// It is tried out only, and counted apart.
    is_in_shadow: bool,
}

impl Rbac {
    pub(crate) fn compile(rbac: &ir::Rbac, is_in_shadow: bool) -> Result<Self, String> {
        let conditions = rbac.conditions.iter().map(|text| {
            let condition = Condition::compile(text, Moment::Request);
            condition.map_err(|error| format!("`{text}`: {error}"))
        });
        let conditions = conditions.collect::<Result<Box<[_]>, _>>()?;
        if conditions.is_empty() {
            return Err("a policy about access has a condition at least".to_owned());
        }
        Ok(Self {
            action: rbac.action,
            conditions,
            is_in_shadow,
        })
    }

    fn allows(&self, view: &View<'_>) -> bool {
        for condition in &self.conditions {
            match condition.holds(view) {
                Ok(true) => return self.action == RbacAction::Allow,
                Err(failure) if failure.is_final() => return false,
                Ok(false) | Err(_) => {}
            }
        }
        self.action == RbacAction::Deny
    }
}

impl Decide for Rbac {
    fn on_request(&self, view: &mut RequestView<'_, '_>) -> Result<Step, Reply> {
        let record: Record<'_> = view.record();
        let allowed = self.allows(&View::new(&record, view.noted()));
        let stats = view.worker.stats();
        let counter = match (allowed, self.is_in_shadow) {
            (true, false) => &stats.rbac_allowed,
            (false, false) => &stats.rbac_denied,
            (true, true) => &stats.rbac_shadow_allowed,
            (false, true) => &stats.rbac_shadow_denied,
        };
        counter.increment();
        if allowed {
            Ok(Step::Pass)
        } else {
            Err(Reply::access_denied())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cel::Noted;

    fn rbac(action: RbacAction, conditions: &[&str]) -> Rbac {
        let conditions = conditions.iter().map(|&text| text.to_owned()).collect();
        Rbac::compile(&ir::Rbac { action, conditions }, false).expect("conditions")
    }

    fn allows(rbac: &Rbac, path: &[u8], fields: &[(&str, &[u8])]) -> bool {
        let mut record = Record::new();
        record.request.path = Some(path);
        record.request.headers = Some(&fields);
        rbac.allows(&View::new(&record, Noted::Logged(None)))
    }

    #[test]
    fn conditions_are_alternatives() {
        let rbac = rbac(
            RbacAction::Allow,
            &[
                "request.headers['x-role'] == 'admin'",
                "request.path.startsWith('/public')",
            ],
        );
        assert!(allows(&rbac, b"/", &[("x-role", b"admin")]));
        assert!(allows(&rbac, b"/public", &[]));
        assert!(!allows(&rbac, b"/", &[("x-role", b"user")]));
        assert!(!allows(&rbac, b"/", &[]));
    }

    #[test]
    fn what_does_not_match_a_denial_passes() {
        let rbac = rbac(
            RbacAction::Deny,
            &[
                "request.headers['x-role'] == 'admin'",
                "request.path == '/no'",
            ],
        );
        assert!(!allows(&rbac, b"/", &[("x-role", b"admin")]));
        assert!(!allows(&rbac, b"/no", &[]));
        assert!(allows(&rbac, b"/", &[]));
    }

    #[test]
    fn a_condition_that_takes_too_long_refuses() {
        let text = "request.headers['x'].split('').map(a, request.headers['x'].split('').map(b, a + b)) == []";
        let long = [b'x'; 2000];
        for action in [RbacAction::Allow, RbacAction::Deny] {
            let rbac = rbac(action, &[text]);
            assert!(!allows(&rbac, b"/", &[("x", &long)]));
        }
        assert!(allows(
            &rbac(RbacAction::Deny, &[text]),
            b"/",
            &[("x", b"xx")]
        ));
    }

    #[test]
    fn what_is_no_condition_is_refused() {
        for text in [
            "",
            "request.path",
            "'a'",
            "requst.path == 'a'",
            "response.code == 200",
            "1 +",
        ] {
            let conditions = vec![text.to_owned()];
            let action = RbacAction::Allow;
            let compiled = Rbac::compile(&ir::Rbac { action, conditions }, false);
            // Of a field it is known only when it is there.
            assert_eq!(compiled.is_ok(), text == "request.path", "{text}");
        }
        let conditions = Vec::new();
        let action = RbacAction::Deny;
        assert!(Rbac::compile(&ir::Rbac { action, conditions }, false).is_err());
    }
}
