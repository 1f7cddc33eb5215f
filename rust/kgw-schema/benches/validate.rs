//! What it takes to validate an object.

use divan::{Bencher, black_box};
use kgw_schema::{Channel, Schema, Value, Write, crd};

fn main() {
    divan::main();
}

fn schema() -> &'static Schema {
    crd("gateway.networking.k8s.io", "HTTPRoute")
        .and_then(|crd| crd.schema("v1", Channel::Experimental))
        .expect("HTTPRoute")
}

fn route(rules: usize) -> Value<'static> {
    let rules: Vec<_> = (0..rules)
        .map(|number| {
            serde_json::json!({
                "matches": [{"path": {"type": "PathPrefix", "value": format!("/p{number}")}}],
                "filters": [{
                    "type": "RequestHeaderModifier",
                    "requestHeaderModifier": {"set": [{"name": "x", "value": "y"}]},
                }],
                "backendRefs": [{"name": "service", "port": 80}],
            })
        })
        .collect();
    let route = serde_json::json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "route"},
        "spec": {"parentRefs": [{"name": "gateway"}], "hostnames": ["a.example"], "rules": rules},
    });
    Value::from(&route)
}

#[divan::bench(args = [1, 10])]
fn http_route(bencher: Bencher<'_, '_>, rules: usize) {
    let (schema, route) = (schema(), route(rules));
    assert!(
        schema
            .validate(route.clone(), None, Write::Object)
            .is_empty()
    );
    bencher.bench_local(|| schema.validate(black_box(route.borrowed()), None, Write::Object));
}
