//! Where a field stands: line, column and the text that is marked.
#![allow(missing_docs, clippy::format_collect, clippy::format_push_string)]

use kgw_manifest::{Limits, Parsed, Step, parse};

/// Reads `a.b[0]` as a path.
fn steps(path: &str) -> Vec<Step<'_>> {
    path.split(['.', '[', ']'])
        .filter(|part| !part.is_empty())
        .map(|part| part.parse().map_or(Step::Key(part), Step::Index))
        .collect()
}

fn read(text: &str) -> Parsed {
    let parsed = parse(text.as_bytes(), &Limits::default());
    assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
    parsed
}

/// `line:column marked text` of a node in the last document.
fn marked(parsed: &Parsed, path: &str, key: bool) -> Option<String> {
    let document = parsed.documents.last().expect("a document");
    let place = document.locate(&parsed.source, &steps(path), key)?;
    let line = parsed
        .source
        .line(place.line as usize)
        .expect("a line of the text");
    let text: String = (1..)
        .zip(line.chars())
        .filter(|(column, _)| (place.column..place.end_column).contains(column))
        .map(|(_, character)| character)
        .collect();
    Some(format!("{}:{} {text}", place.line, place.column))
}

#[track_caller]
fn check(text: &str, cases: &[(&str, &str, &str)]) {
    let parsed = read(text);
    for (path, value, key) in cases {
        assert_eq!(
            marked(&parsed, path, false).as_deref(),
            Some(*value),
            "value of {path:?}"
        );
        assert_eq!(
            marked(&parsed, path, true).as_deref(),
            Some(*key),
            "key of {path:?}"
        );
    }
}

#[test]
fn block_collections_are_shown_by_their_key() {
    check(
        "spec:\n  rules:\n  - matches:\n    - path: x\n  - - a\n    - b\n",
        &[
            ("", "1:1 spec", "1:1 spec"),
            ("spec", "1:1 spec", "1:1 spec"),
            ("spec.rules", "2:3 rules", "2:3 rules"),
            ("spec.rules[0]", "3:5 matches", "3:5 matches"),
            ("spec.rules[0].matches[0]", "4:7 path", "4:7 path"),
            ("spec.rules[0].matches[0].path", "4:13 x", "4:7 path"),
            ("spec.rules[1]", "5:5 -", "5:5 -"),
            ("spec.rules[1][1]", "6:7 b", "6:7 b"),
        ],
    );
}

#[test]
fn flow_collections_are_marked_to_the_end_of_the_line() {
    check(
        "a: {b: [1,\n  2], \"c\": d}\n",
        &[
            ("a", "1:4 {b: [1,", "1:1 a"),
            ("a.b", "1:8 [1,", "1:5 b"),
            ("a.b[1]", "2:3 2", "2:3 2"),
            ("a.c", "2:12 d", "2:7 \"c\""),
        ],
    );
}

#[test]
fn scalars_are_marked_with_their_quotes() {
    check(
        "a: 'it''s'\nb: \"x\\ty\" # note\nc: plain text   # note\nd: two\n  lines\n",
        &[
            ("a", "1:4 'it''s'", "1:1 a"),
            ("b", "2:4 \"x\\ty\"", "2:1 b"),
            ("c", "3:4 plain text", "3:1 c"),
            ("d", "4:4 two", "4:1 d"),
        ],
    );
}

#[test]
fn block_scalars_are_marked_at_their_first_line() {
    check(
        "a: |\n  one\n  two\nb: >-\n  x\n",
        &[("a", "2:3 one", "1:1 a"), ("b", "5:3 x", "4:1 b")],
    );
}

#[test]
fn nothing_is_shown_by_its_key() {
    check(
        "a:\nb: {c: }\n",
        &[("a", "1:1 a", "1:1 a"), ("b.c", "2:5 c", "2:5 c")],
    );
}

#[test]
fn an_alias_is_itself_and_its_inside_is_at_the_anchor() {
    check(
        "a: &x\n  b: 1\nc: *x\nd:\n  <<: *x\n  e: 2\nf: &y 5\n",
        &[
            ("a", "1:1 a", "1:1 a"),
            ("c", "3:4 *x", "3:1 c"),
            ("c.b", "2:6 1", "2:3 b"),
            ("d.b", "2:6 1", "2:3 b"),
            ("d.e", "6:6 2", "6:3 e"),
            ("f", "7:7 5", "7:1 f"),
        ],
    );
}

#[test]
fn lines_count_through_all_documents_and_line_breaks() {
    check(
        "# head\r\na: 1\r\n---\r\n# c\r\nb:\r\n- 2\r\n",
        &[("b[0]", "6:3 2", "6:3 2")],
    );
}

#[test]
fn columns_count_characters_whatever_their_width() {
    check(
        "é日😀: \"ü\"\nk: {é: 1, b: 2}\n",
        &[
            ("é日😀", "1:6 \"ü\"", "1:1 é日😀"),
            ("k.b", "2:14 2", "2:11 b"),
        ],
    );
}

#[test]
fn a_byte_order_mark_has_no_column() {
    check("\u{feff}a: 1\n", &[("a", "1:4 1", "1:1 a")]);
}

#[test]
fn tabs_are_one_column() {
    check("{\n\t\"a\":\t1\n}\n", &[("a", "2:7 1", "2:2 \"a\"")]);
}

#[test]
fn explicit_keys_have_places() {
    check("? key\n: value\n", &[("key", "2:3 value", "1:3 key")]);
}

#[test]
fn what_does_not_exist_has_no_place() {
    let parsed = read("a: [1]\n");
    for path in ["b", "a[1]", "a.b", "a[0].c"] {
        assert_eq!(marked(&parsed, path, false), None, "{path}");
    }
}
