//! `cargo bench -p kgw-manifest`: how long a file of 1,000 routes takes.

#![allow(clippy::format_collect)] // makes the input once, outside what is timed

use divan::Bencher;
use divan::counter::BytesCount;
use kgw_manifest::{Limits, parse};

fn main() {
    divan::main();
}

fn routes(number: usize) -> String {
    let route = |index: usize| {
        format!(
            "---\n\
             apiVersion: gateway.networking.k8s.io/v1\n\
             kind: HTTPRoute\n\
             metadata:\n  name: route-{index}\n  namespace: team-{}\n  labels: {{app: shop}}\n\
             spec:\n\
             \x20 parentRefs:\n  - name: gateway\n    group: gateway.networking.k8s.io\n    kind: Gateway\n\
             \x20 hostnames: [\"host-{index}.example.com\"]\n\
             \x20 rules:\n\
             \x20 - matches:\n    - path: {{type: PathPrefix, value: /api/{index}}}\n\
             \x20     headers:\n      - name: x-version\n        value: \"2\"\n\
             \x20   timeouts:\n      request: 30s\n\
             \x20   backendRefs:\n    - name: backend-{index}\n      port: 8080\n      weight: 90\n\
             \x20   - name: canary-{index}\n      port: 8080\n      weight: 10\n",
            index % 20
        )
    };
    (0..number).map(route).collect()
}

#[divan::bench]
fn thousand_routes(bencher: Bencher<'_, '_>) {
    let text = routes(1000);
    let limits = Limits::default();
    let parsed = parse(text.as_bytes(), &limits);
    assert_eq!((parsed.documents.len(), parsed.problems.len()), (1000, 0));
    bencher
        .counter(BytesCount::of_str(&text))
        .bench(|| parse(text.as_bytes(), &limits));
}
