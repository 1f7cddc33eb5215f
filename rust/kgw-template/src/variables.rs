//! The variables of the process that templates may read.
//!
//! kgateway's templates read all of them. Whoever may write a policy may then read the passwords that a proxy
//! was started with, so here it is those that name the place a proxy runs at, and those that whoever starts
//! the proxy adds.

use std::collections::HashMap;
use std::env;
use std::sync::OnceLock;

/// The variable with the names, separated by commas, of further variables that templates may read. A `*` at
/// the end of a name stands for anything.
const LIST: &str = "KGW_TEMPLATE_ENV";

/// What may always be read: what Kubernetes' downward API is used for, by the names that are usual.
const PLACE: [&str; 9] = [
    "CLUSTER_NAME",
    "HOSTNAME",
    "INSTANCE_IP",
    "NODE_NAME",
    "POD_IP",
    "POD_NAME",
    "POD_NAMESPACE",
    "REGION",
    "ZONE",
];

/// Returns the variables of the process that templates may read, as they were when the first template asked.
pub(crate) fn allowed() -> &'static HashMap<String, String> {
    static ALLOWED: OnceLock<HashMap<String, String>> = OnceLock::new();
    ALLOWED.get_or_init(|| {
        let list = env::var(LIST).unwrap_or_default();
        let texts = env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        pick(texts, &list)
    })
}

/// Returns the names of the variables of this process that templates may read, in order.
pub fn process_variables() -> Vec<&'static str> {
    let mut names: Vec<_> = allowed().keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

/// Returns whether templates may read a variable, with this list of further names.
fn may_read(name: &str, list: &str) -> bool {
    PLACE.contains(&name)
        || list
            .split(',')
            .map(str::trim)
            .any(|pattern| match pattern.strip_suffix('*') {
                Some(prefix) => name.starts_with(prefix),
                None => name == pattern,
            })
}

fn pick(variables: impl Iterator<Item = (String, String)>, list: &str) -> HashMap<String, String> {
    variables.filter(|(name, _)| may_read(name, list)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_read_by_permission_only() {
        for (name, list, may) in [
            ("POD_NAME", "", true),
            ("REDIS_PASSWORD", "", false),
            ("TEAM", "COLOR, TEAM", true),
            ("TEAMS", "COLOR,TEAM", false),
            ("APP_COLOR", "APP_*", true),
            ("REDIS_PASSWORD", "APP_*", false),
            ("REDIS_PASSWORD", "*", true),
        ] {
            assert_eq!(may_read(name, list), may, "{name} with {list:?}");
        }
    }

    #[test]
    fn what_is_not_listed_is_not_even_kept() {
        let all = [("ZONE", "a"), ("TOKEN", "secret")];
        let all = all.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let kept = pick(all.into_iter(), "");
        assert_eq!(
            kept.into_iter().collect::<Vec<_>>(),
            [("ZONE".to_owned(), "a".to_owned())]
        );
    }
}
