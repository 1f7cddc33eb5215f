//! Any bytes are answered, and every place is in the text.
#![no_main]

use kgw_manifest::{Document, Limits, Node, Parsed, Step, Value, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let parsed = parse(
        bytes,
        &Limits {
            alias_nodes: 1000,
            ..Limits::default()
        },
    );
    for problem in &parsed.problems {
        assert!(problem.place.line as usize <= parsed.source.lines());
        assert!(problem.place.column <= problem.place.end_column);
        assert!(!problem.kind.to_string().is_empty());
    }
    for document in &parsed.documents {
        visit(&parsed, document, document.root(), &mut Vec::new());
    }
});

fn visit<'a>(parsed: &'a Parsed, document: &'a Document, node: Node<'a>, path: &mut Vec<Step<'a>>) {
    for key in [false, true] {
        let place = document
            .locate(&parsed.source, path, key)
            .expect("what exists has a place");
        let line = parsed
            .source
            .line(place.line as usize)
            .expect("a place is on a line");
        assert!(place.end_column as usize <= line.chars().count() + 1);
    }
    match node.value() {
        Value::Sequence(items) => {
            for (index, item) in items.into_iter().enumerate() {
                path.push(Step::Index(index));
                visit(parsed, document, item, path);
                path.pop();
            }
        }
        Value::Mapping(entries) => {
            for (key, value) in entries {
                path.push(Step::Key(key));
                visit(parsed, document, value, path);
                path.pop();
            }
        }
        Value::Float(value) => assert!(value.is_finite()),
        _ => {}
    }
}
