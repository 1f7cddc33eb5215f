//! A message for tests.

use std::sync::Arc;

use kgw_template::Facts;

#[derive(Debug)]
pub(crate) struct Request;

pub(crate) const FIELDS: [(&str, &str); 4] = [
    (":path", "/a?b=c"),
    ("x-user", "ann"),
    ("x-many", "1, 2"),
    ("cookie", "a=1; session=x=y; a=2"),
];

impl Request {
    pub(crate) fn shared() -> Arc<dyn Facts> {
        Arc::new(Self)
    }
}

impl Facts for Request {
    fn header(&self, name: &str) -> Option<String> {
        let found = FIELDS.iter().find(|(known, _)| *known == name)?;
        Some(found.1.to_owned())
    }

    fn request_header(&self, name: &str) -> Option<String> {
        if name == "x-user" {
            return Some("ann of the request".to_owned());
        }
        self.header(name)
    }

    fn metadata(&self, namespace: &str) -> Option<serde_json::Value> {
        let noted = serde_json::json!({"user": "bob", "claims": {"sub": "s"}});
        (namespace == "ns").then_some(noted)
    }
}
