//! What is wrong with a text, and what is left of it.
#![allow(missing_docs, clippy::format_collect, clippy::format_push_string)]

use kgw_manifest::{Document, Limits, Value, parse};

/// Every problem as `code line:column message`, and the indexes of the documents that are whole.
fn read(text: impl AsRef<[u8]>) -> (Vec<String>, Vec<usize>) {
    let parsed = parse(text.as_ref(), &Limits::default());
    let problem = |one: &kgw_manifest::Problem| {
        format!(
            "{} {}:{} {}",
            one.kind.code(),
            one.place.line,
            one.place.column,
            one.kind
        )
    };
    let whole = parsed
        .documents
        .iter()
        .map(|document| document.index())
        .collect();
    (parsed.problems.iter().map(problem).collect(), whole)
}

#[track_caller]
fn check(text: impl AsRef<[u8]>, problems: &[&str], whole: &[usize]) {
    assert_eq!(
        read(text),
        (
            problems.iter().map(ToString::to_string).collect(),
            whole.to_vec()
        )
    );
}

#[test]
fn a_key_given_twice_names_both_places() {
    check(
        "a: 1\n---\nb:\n  c: 1\n  c: 2\n  c: 3\nb: 4\n---\nd: 1\n",
        &[
            "KGW104 5:3 the key `c` is given twice, first on line 4",
            "KGW104 6:3 the key `c` is given twice, first on line 4",
            "KGW104 7:1 the key `b` is given twice, first on line 3",
        ],
        &[0, 2],
    );
}

#[test]
fn many_keys_are_still_compared() {
    let mut text: String = (0..100).map(|n| format!("k{n}: {n}\n")).collect();
    text += "k3: x\nk77: x\n";
    check(
        text,
        &[
            "KGW104 101:1 the key `k3` is given twice, first on line 4",
            "KGW104 102:1 the key `k77` is given twice, first on line 78",
        ],
        &[],
    );
}

#[test]
fn a_root_given_twice_may_lack_a_line_of_dashes() {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: a, name: b}\nspec: {kind: 1}\n";
    let parsed = parse(format!("{service}{service}").as_bytes(), &Limits::default());
    let hints: Vec<_> = parsed
        .problems
        .iter()
        .map(|one| (one.place.line, one.hint))
        .collect();
    let dashes = Some("is a `---` missing before this line?");
    assert_eq!(
        hints,
        [
            (3, None),
            (5, dashes),
            (6, dashes),
            (7, dashes),
            (7, None),
            (8, dashes),
        ]
    );
}

#[test]
fn what_never_gets_to_a_mapping_is_not_yaml() {
    for (text, problem) in [
        (
            "#!/bin/sh\nset -e\n# say it\necho hi\n",
            "KGW103 4:1 this is not YAML: did not find expected <document start>",
        ),
        (
            "hello world\nfoo bar: baz\n",
            "KGW103 2:8 this is not YAML: mapping values are not allowed in this context",
        ),
        (
            "`kgw` is a proxy\n",
            "KGW103 1:1 this is not YAML: unexpected character: ``'",
        ),
    ] {
        assert_eq!(read(text).0, [problem], "{text}");
    }
    // Where something was YAML, the rest of it is meant to be.
    let (problems, _) = read("a: 1\n---\n@\n");
    assert_eq!(problems, ["KGW103 3:1 unexpected character: `@'"]);
}

#[test]
fn syntax_errors_cost_one_document_each() {
    let (problems, whole) =
        read("a: [1\n---\nb: 1\n---\nc: \"x\n---\nd: 1\n---\ne:\n\tx: 1\n---\nf: 1\n");
    let places: Vec<_> = problems.iter().map(|one| &one[..11]).collect();
    assert_eq!(
        places,
        ["KGW103 1:4 ", "KGW103 5:4 ", "KGW103 10:2"],
        "{problems:?}"
    );
    assert_eq!(whole, [1, 3, 5]);
}

#[test]
fn a_line_of_dashes_begins_anew_whatever_precedes_it() {
    // Each is one broken document between two whole ones.
    for broken in [
        "...\n%\n",
        "...\n%YAML\n",
        "...\n%YAML 2.0\n",
        "...\n%YAML 1.2\n%YAML 1.2\n",
        "...\n%TAG ! \n",
        "...\n%TAG !x! tag:x,2000:\n%TAG !x! tag:x,2000:\n",
        "b: 1\n%\n  c\n",
        "[b]\n%\n",
        "b: 1\n... c\n",
        "b: 1\n...c: [\n",
        "@\n",
        "- |\n  ---\n\t- @\n- ---\n- [\n",
        "b: |\n ---\n ...\nc\nd: 1\n",
        "b: \"\n ---\n",
        "b: [\n ---\n",
        "---b\nc: [\n",
    ] {
        let text = format!("first: 1\n---\n{broken}---\nlast: 1\n");
        let parsed = parse(text.as_bytes(), &Limits::default());
        let keys = |document: &Document| match document.root().value() {
            Value::Mapping(entries) => entries.map(|(key, _)| key.to_owned()).collect(),
            _ => Vec::new(),
        };
        let keys: Vec<_> = parsed.documents.iter().flat_map(|one| keys(one)).collect();
        assert_eq!(keys, ["first", "last"], "{text}{:?}", parsed.problems);
        assert_eq!(parsed.problems.len(), 1, "{text}{:?}", parsed.problems);
    }
    // An error on the line of the dashes is in the document that they begin.
    check(
        "a: 1\n--- @\n---\nb: 1\n--- [\n--- {}\n",
        &[
            "KGW103 2:5 unexpected character: `@'",
            "KGW103 5:5 unclosed bracket '['",
        ],
        &[0, 2, 4],
    );
    // After an end of a document, none needs to be begun.
    check(
        "a: [\n...\nb: 1\n... # end\nc: ]\n...\n%YAML 1.2\n---\nd: 1\n",
        &[
            "KGW103 1:4 unclosed bracket '['",
            "KGW103 5:4 misplaced bracket",
        ],
        &[1, 3],
    );
    check(
        "%\n---\na: 1\n",
        &["KGW103 1:2 while scanning a directive, could not find expected directive name"],
        &[0],
    );
}

#[test]
fn aliases_need_an_anchor_before_them_in_the_document() {
    check(
        "a: &x 1\n---\nb: *x\n---\nc: &y [*y]\n",
        &[
            "KGW105 3:4 the alias `*x` names no anchor of this document",
            "KGW105 5:8 an alias stands within the node that it names",
        ],
        &[0],
    );
}

#[test]
fn aliases_do_not_multiply_without_bound() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..30 {
        let before = level - 1;
        let list = vec![format!("*a{before}"); 10].join(", ");
        text += &format!("a{level}: &a{level} [{list}]\n");
    }
    let (problems, whole) = read(text + "---\nok: 1\n");
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].starts_with("KGW106 "), "{problems:?}");
    assert_eq!(whole, [1]);
    // A large text behind few aliases is as bad as many values.
    let (problems, _) = read(format!(
        "a: &a {}\nb: [{}]\n",
        "x".repeat(100_000),
        "*a, ".repeat(100)
    ));
    assert!(problems[0].starts_with("KGW106 "), "{problems:?}");
    // Merge keys expand aliases too.
    let mut text = "a0: &a0 {k0: 1, j0: 1}\n".to_owned();
    for level in 1..40 {
        let before = level - 1;
        text += &format!(
            "a{level}: &a{level} {{<<: *a{before}, k{level}: *a{before}, j{level}: *a{before}}}\n"
        );
    }
    let (problems, _) = read(text);
    assert!(problems[0].starts_with("KGW106 "), "{problems:?}");
}

#[test]
fn nesting_is_bounded_with_aliases_followed() {
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    check(deep(100), &[], &[0]);
    check(
        deep(101),
        &["KGW106 1:101 nested deeper than 100 levels"],
        &[],
    );
    let block: String = (0..101)
        .map(|level| format!("{}a:\n", " ".repeat(level)))
        .collect();
    let (problems, _) = read(block);
    assert!(problems[0].contains("nested deeper"), "{problems:?}");
    let (problems, whole) = read(format!(
        "a: &a {}\nb: {}*a{}\n",
        deep(60),
        "[".repeat(60),
        "]".repeat(60)
    ));
    assert_eq!(problems, ["KGW106 2:64 nested deeper than 100 levels"]);
    assert_eq!(whole, [0; 0]);
}

#[test]
fn size_is_bounded() {
    let limits = Limits {
        bytes: 10,
        ..Limits::default()
    };
    let parsed = parse(b"a: 1234567890\n", &limits);
    assert_eq!(
        parsed.problems[0].kind.to_string(),
        "the text has 14 bytes; 10 is the limit"
    );
    assert!(parsed.documents.is_empty());
}

#[test]
fn keys_must_be_strings_or_become_some() {
    check(
        "1.5: a\n~: b\n: c\n[x]: d\n? {x: 1}\n: e\n",
        &[
            "KGW107 1:1 a key must be a string, not a floating point number",
            "KGW107 2:1 a key must be a string, not null",
            "KGW107 3:1 a key must be a string, not null",
            "KGW107 4:1 a key must be a string, not a sequence",
            "KGW107 5:3 a key must be a string, not a mapping",
        ],
        &[],
    );
}

#[test]
fn what_json_does_not_have_is_refused() {
    check(
        "a: .inf\nb: !Ref x\nc: !!binary AAAA\nd: !!int x\ne: !!set {}\nf: !!float .nan\n",
        &[
            "KGW109 1:4 `.inf` has no JSON form",
            "KGW109 2:4 the tag `!Ref` has no meaning in a manifest",
            "KGW109 3:4 the tag `!!binary` has no meaning in a manifest",
            "KGW109 4:10 `x` is not an integer, as its tag says",
            "KGW109 5:4 the tag `!!set` has no meaning in a manifest",
            "KGW109 6:12 `.nan` is not a finite number, as its tag says",
        ],
        &[],
    );
}

#[test]
fn merge_keys_merge_mappings_only() {
    check(
        "a:\n  <<: 1\n---\nb:\n  <<: [{}, x]\n---\nc: &c {}\nd: {<<: *c, <<: *c}\n",
        &[
            "KGW109 2:7 `<<` merges mappings, not a scalar",
            "KGW109 5:12 `<<` merges mappings, not a scalar",
            "KGW104 8:13 the key `<<` is given twice, first on line 8",
        ],
        &[],
    );
}

#[test]
fn bytes_that_are_no_text_cost_their_document() {
    check(
        b"a: 1\n---\nb: \xff\xfe\n---\nc: \x1b[0m\n---\nd: 1\x00\n---\ne: 1\n",
        &[
            "KGW102 3:4 the text is not UTF-8: byte 0xff",
            "KGW102 3:5 the text is not UTF-8: byte 0xfe",
            "KGW103 5:4 control character U+001B",
            "KGW103 7:5 control character U+0000",
        ],
        &[0, 4],
    );
    check(
        b"\xff\xfea\0",
        &["KGW102 1:1 the text is UTF-16, not UTF-8"],
        &[],
    );
    let (problems, whole) = read(vec![0x80; 10_000]);
    assert_eq!((problems.len(), whole.len()), (1, 0));
}

#[test]
fn problems_are_bounded() {
    let (problems, whole) = read(format!("{}---\nok: 1\n", "a: 1\n".repeat(1000)));
    assert_eq!(problems.len(), 20);
    assert_eq!(whole, [1]);
    // Warnings do not make a document unusable, however many there are.
    let keys: String = (0..1000).map(|n| format!("0x{n:x}: 1\n")).collect();
    assert_eq!(read(keys).1, [0]);
}

#[test]
fn hints_say_what_usually_helps() {
    let hint = |text: &str| {
        parse(text.as_bytes(), &Limits::default()).problems[0]
            .hint
            .unwrap_or("none")
    };
    assert!(
        hint("a:\n\tb: 1\n").contains("not tabs"),
        "{}",
        hint("a:\n\tb: 1\n")
    );
    assert!(hint("a: {{ .Values.x }}\n").contains("template"));
    assert!(hint("a: b: c\n").contains("quote"));
    assert!(hint("a: @x\n").contains("quote"));
    assert!(hint("{\"a\": 1}\n{\"b\": 2}\n").contains("`---`"));
    assert!(hint("a: 1\n b: 2\n").contains("indentation"));
}
