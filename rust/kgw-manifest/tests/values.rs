//! What a text means: JSON values, as the API server would see them.
#![allow(missing_docs, clippy::format_collect, clippy::format_push_string)]

use kgw_manifest::{Limits, Node, Parsed, Value, parse};
use proptest::prelude::*;
use serde_json::{Map, Number, json};

fn json(node: Node<'_>) -> serde_json::Value {
    match node.value() {
        Value::Null => serde_json::Value::Null,
        Value::Bool(value) => value.into(),
        Value::Int(value) => value.into(),
        Value::UInt(value) => value.into(),
        Value::Float(value) => Number::from_f64(value).map_or(json!("not finite"), Into::into),
        Value::String(value) => value.into(),
        Value::Sequence(items) => items.into_iter().map(json).collect(),
        Value::Mapping(entries) => {
            let members: Map<_, _> = entries.map(|(k, v)| (k.to_owned(), json(v))).collect();
            members.into()
        }
    }
}

fn read(text: &str) -> Parsed {
    parse(text.as_bytes(), &Limits::default())
}

#[track_caller]
fn check(text: &str, expected: &[serde_json::Value]) {
    let parsed = read(text);
    let errors: Vec<_> = parsed
        .problems
        .iter()
        .filter(|one| !one.kind.is_warning())
        .collect();
    assert!(errors.is_empty(), "{errors:?}");
    let values: Vec<_> = parsed
        .documents
        .iter()
        .map(|one| json(one.root()))
        .collect();
    assert_eq!(values, expected, "{text}");
}

#[test]
fn quotes_make_strings_and_their_absence_does_not() {
    check(
        "port: 80\nname: \"80\"\nmode: 0644\nflag: on\nquoted: 'on'\nratio: 0.5\nwhole: 2.0\nwhen: 2026-01-02\nnone:\n",
        &[json!({
            "port": 80, "name": "80", "mode": 420, "flag": true, "quoted": "on", "ratio": 0.5,
            "whole": 2, "when": "2026-01-02", "none": null,
        })],
    );
}

#[test]
fn block_scalars_keep_or_fold_their_lines() {
    check(
        "a: |\n  one\n  two\nb: >-\n  one\n  two\nc: |+\n  x\n\n",
        &[json!({"a": "one\ntwo\n", "b": "one two", "c": "x\n\n"})],
    );
}

#[test]
fn core_tags_decide_the_type() {
    check(
        "a: !!str 80\nb: !!int \"80\"\nc: !!float 1.5\nd: !!bool yes\ne: ! 5\nf: !!map {}\ng: !!seq []\nh: !!null ''\ni: !!float 3\n",
        &[json!({
            "a": "80", "b": 80, "c": 1.5, "d": true, "e": "5", "f": {}, "g": [], "h": null, "i": 3,
        })],
    );
}

#[test]
fn keys_become_strings_as_for_kubectl() {
    let text = "80: a\ntrue: b\nyes: c\n0x10: d\n'on': e\n";
    let parsed = read("80: a\n0x10: d\nyes: c\n'on': e\n");
    assert_eq!(
        json(parsed.documents[0].root()),
        json!({"80": "a", "16": "d", "true": "c", "on": "e"})
    );
    let warned: Vec<_> = parsed
        .problems
        .iter()
        .map(|one| (one.kind.code(), one.place.line))
        .collect();
    assert_eq!(warned, [("KGW108", 2), ("KGW108", 3)]);
    // `true` and `yes` are one key.
    assert_eq!(read(text).documents.len(), 0);
}

#[test]
fn aliases_and_merge_keys_are_resolved() {
    check(
        "base: &base {a: 1, b: 2}\nmore: &more {b: 3, c: 4}\n\
         one: *base\n\
         two:\n  <<: *base\n  b: 9\n\
         three:\n  <<: [*base, *more]\n\
         four: {<<: {x: 1}, z: 2}\n\
         five: {'<<': 1}\n\
         name: &n ollama\n*n : 1\n",
        &[json!({
            "base": {"a": 1, "b": 2}, "more": {"b": 3, "c": 4}, "one": {"a": 1, "b": 2},
            "two": {"a": 1, "b": 9}, "three": {"a": 1, "b": 2, "c": 4}, "four": {"x": 1, "z": 2},
            "five": {"<<": 1}, "name": "ollama", "ollama": 1,
        })],
    );
}

#[test]
fn a_stream_has_documents_and_some_are_empty() {
    check("", &[]);
    check("# nothing\n---\n---\n# still nothing\n...\n", &[]);
    check(
        "a: 1\n---\nb: 2\n...\nc: 3\n--- text\n",
        &[
            json!({"a": 1}),
            json!({"b": 2}),
            json!({"c": 3}),
            json!("text"),
        ],
    );
    check("%YAML 1.2\n---\na: 1\n", &[json!({"a": 1})]);
    check(
        "\u{feff}a: 1\r\nb:\r\n- 2\r\n",
        &[json!({"a": 1, "b": [2]})],
    );
    let indexes: Vec<_> = read("a: 1\n---\n---\nb: 2\n")
        .documents
        .iter()
        .map(|document| document.index())
        .collect();
    assert_eq!(indexes, [0, 2]);
}

#[test]
fn json_is_yaml() {
    check(
        "{\n\t\"a\": [1, -2.5e3, true, null, \"x\\u00e9\\ud83d\\ude00\\/\"],\n\t\"b\":{\"c\":\"\"}}\n",
        &[json!({"a": [1, -2500, true, null, "xé😀/"], "b": {"c": ""}})],
    );
}

#[test]
fn long_keys_are_keys() {
    let key = "k".repeat(10_000);
    check(&format!("{{\"{key}\": 1}}"), &[json!({ key: 1 })]);
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    // JSON escapes C0 characters; the others stand for themselves. DEL and C1 are refused.
    let text = || "[ -~\\t\\n\\r\u{a0}é日\u{2028}\u{feff}\u{1f600}]{0,12}";
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        (-1e9..1e9f64).prop_map(Into::into),
        text().prop_map(Into::into),
    ];
    leaf.prop_recursive(6, 60, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            prop::collection::btree_map(text(), inner, 0..6)
                .prop_map(|members| Map::from_iter(members).into()),
        ]
    })
}

proptest! {
    // No file of failures: what was found becomes a test of its own.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_json_writes_is_read_as_it_was(value in any_json(), pretty: bool) {
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
        let parsed = read(&text.expect("JSON can be written"));
        prop_assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
        let expected = if value.is_null() { vec![] } else { vec![value] };
        let values: Vec<_> = parsed.documents.iter().map(|one| json(one.root())).collect();
        // An explicit `null` is a document; nothing at all is none.
        if !(expected.is_empty() && values == [serde_json::Value::Null]) {
            prop_assert_eq!(values, expected);
        }
    }

    #[test]
    fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        parse(&bytes, &Limits::default());
    }

    #[test]
    fn any_soup_of_syntax_is_answered(
        parts in prop::collection::vec(prop::sample::select(SYNTAX), 0..40)
    ) {
        let text = parts.concat();
        let parsed = read(&text);
        for problem in &parsed.problems {
            prop_assert!(problem.place.line as usize <= parsed.source.lines());
        }
    }

    #[test]
    fn a_broken_document_costs_only_itself(
        parts in prop::collection::vec(prop::sample::select(SYNTAX), 0..20)
    ) {
        let text = format!("first: 1\n---\n{}\n---\nlast: 1\n", parts.concat());
        let parsed = read(&text);
        let values: Vec<_> = parsed.documents.iter().map(|one| json(one.root())).collect();
        prop_assert_eq!(values.first(), Some(&json!({"first": 1})), "{:?}", parsed.problems);
        prop_assert_eq!(values.last(), Some(&json!({"last": 1})), "{:?}", parsed.problems);
    }
}

const SYNTAX: &[&str] = &[
    "a", "b: ", "c:\n", "- ", "\n", "\n  ", "\n    ", "[", "]", "{", "}", ", ", "\"", "'", "&x ",
    "*x ", "<<: ", "? ", "| \n", ">-\n", "!!str ", "!t ", "%", "@", "`", "#", " # c\n", "\t", "1",
    "é", "\r\n", "\u{1b}", ": ", "---\n", "...\n", "~", "\\", "{{ x }}",
];
