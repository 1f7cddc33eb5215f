//! What a render takes: a plain text, one field, and a JSON body.

use std::sync::Arc;

use divan::{Bencher, black_box};
use kgw_template::{Context, Facts, Template};

fn main() {
    divan::main();
}

#[derive(Debug)]
struct Request;

impl Facts for Request {
    fn header(&self, name: &str) -> Option<String> {
        (name == "x-user").then(|| "ann".to_owned())
    }

    fn request_header(&self, name: &str) -> Option<String> {
        self.header(name)
    }

    fn metadata(&self, _: &str) -> Option<serde_json::Value> {
        None
    }
}

const BODY: &str = r#"{"model":"llama3","stream":false,"messages":[{"role":"user","content":"why is the sky blue?"}]}"#;

#[divan::bench(args = ["ann", r#"{{ header("x-user") }}"#, r#"{{ header("x-user") | upper }}-{{ substring(header("x-user"), 0, 1) }}"#])]
fn of_fields(bencher: Bencher<'_, '_>, text: &str) {
    let template = Template::compile(text).expect("a template");
    let context = Context::new(Arc::new(Request));
    bencher.bench_local(|| {
        template
            .render(black_box(&context))
            .expect("text")
            .into_owned()
    });
}

#[divan::bench(args = ["{{ model }}", r#"{"model": {{ model | tojson }}, "messages": {{ messages | tojson }}}"#])]
fn of_json(bencher: Bencher<'_, '_>, text: &str) {
    let template = Template::compile(text).expect("a template");
    bencher.bench_local(|| {
        let context = Context::with_json(Arc::new(Request), black_box(BODY)).expect("JSON");
        template.render(&context).expect("text").into_owned()
    });
}
