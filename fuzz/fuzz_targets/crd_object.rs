//! Any object is answered by every definition, in bounded time, and every path leads into the object.
#![no_main]

use std::time::{Duration, Instant};

use kgw_schema::{Channel, Fault, NameForm, Step, Value, Write, crds, metadata};
use libfuzzer_sys::fuzz_target;

/// Far above what the budget of all rules takes, and the checks of an object of this size.
const LONGEST: Duration = Duration::from_secs(20);

fuzz_target!(|bytes: &[u8]| {
    let [which, json @ ..] = bytes else { return };
    let Ok(json) = serde_json::from_slice::<serde_json::Value>(json) else {
        return;
    };
    let object = Value::from(&json);
    let crd = &crds()[usize::from(*which) % crds().len()];
    let began = Instant::now();
    for channel in [Channel::Standard, Channel::Experimental] {
        for version in crd.versions(channel) {
            let schema = crd.schema(version, channel).expect("it is served");
            for (before, write) in [
                (None, Write::Object),
                (Some(object.clone()), Write::Object),
                (Some(object.clone()), Write::Status),
            ] {
                for violation in schema.validate(object.clone(), before, write) {
                    assert!(!violation.to_string().is_empty());
                    // What defaults have filled in is not there to be led to.
                    if let Fault::Unknown { .. } = violation.fault {
                        let mut at = &object;
                        for step in &violation.path {
                            at = match (step, at) {
                                (Step::Key(key), at) => at.field(key).expect("a key"),
                                (Step::Index(index), Value::List(items)) => &items[*index],
                                _ => panic!("a path leads elsewhere"),
                            };
                        }
                    }
                }
            }
        }
    }
    for form in [NameForm::Subdomain, NameForm::Label] {
        for violation in metadata(&object, form) {
            assert!(!violation.to_string().is_empty());
        }
    }
    assert!(began.elapsed() < LONGEST);
});
