//! What it takes to evaluate a condition on a request's attributes.

use divan::{Bencher, black_box};
use kgw_cel::{Attributes, Cel, Cost, Fields, Names, Program, Root};

fn main() {
    divan::main();
}

const ROOTS: [Root; 2] = [
    Root {
        name: "request",
        fields: Fields::Named(&[("method", 0), ("path", 1)]),
    },
    Root {
        name: "metadata",
        fields: Fields::Whole(2),
    },
];

struct Request {
    metadata: serde_json::Value,
}

impl Attributes for Request {
    fn attribute(&self, number: u16) -> Option<Cel<'_>> {
        Some(match number {
            0 => Cel::borrowed("GET"),
            1 => Cel::borrowed("/v1/things/12?a=b"),
            _ => Cel::of_json(&self.metadata),
        })
    }
}

#[divan::bench(args = [
    "request.method == 'GET'",
    "request.path.startsWith('/v1/') && request.method in ['GET', 'HEAD']",
    "metadata['jwt']['payload'].groups.exists(group, group == 'admins')",
    "request.path.matches('^/v1/[a-z]+/[0-9]+')",
])]
fn condition(bencher: Bencher<'_, '_>, text: &str) {
    let program = Program::compile(text, Names::Attributes(&ROOTS)).expect("an expression");
    let request = Request {
        metadata: serde_json::json!({"jwt": {"payload": {"groups": ["users", "admins"]}}}),
    };
    assert_eq!(
        program.holds(&request, &mut Cost::new(1000, 1000)),
        Ok(true)
    );
    bencher.bench_local(|| program.holds(black_box(&request), &mut Cost::new(1000, 1000)));
}
