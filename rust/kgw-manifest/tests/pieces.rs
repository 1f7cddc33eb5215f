//! A text in pieces is the same as the whole one, whatever it was before.

use std::sync::Arc;

use kgw_manifest::{Limits, Member, Node, Parsed, Step, Text, Value, parse};
use proptest::prelude::*;

/// A document: its value with the place of every node, its index, and whether it was parsed alone.
type Seen = (String, usize);

fn describe(node: Node<'_>) -> String {
    match node.value() {
        Value::Sequence(items) => {
            let items: Vec<_> = items.into_iter().map(describe).collect();
            format!("[{}]", items.join(","))
        }
        Value::Mapping(entries) => {
            let entries: Vec<_> = entries
                .map(|(k, v)| format!("{k:?}:{}", describe(v)))
                .collect();
            format!("{{{}}}", entries.join(","))
        }
        scalar => format!("{scalar:?}"),
    }
}

/// The places of the root and of everything right under it.
fn places(
    document: &kgw_manifest::Document,
    source: &kgw_manifest::Source,
    lines_before: u32,
) -> String {
    let mut found = vec![document.locate(source, &[], false)];
    if let Value::Mapping(entries) = document.root().value() {
        for (key, _) in entries {
            for of_key in [true, false] {
                found.push(document.locate(source, &[Step::Key(key)], of_key));
            }
        }
    }
    let shown = found.into_iter().flatten().map(|place| {
        let line = place.line + lines_before;
        format!("{line}:{}-{}", place.column, place.end_column)
    });
    shown.collect::<Vec<_>>().join(" ")
}

fn whole(bytes: &[u8]) -> (Vec<Seen>, String) {
    let Parsed {
        source,
        documents,
        problems,
    } = parse(bytes, &Limits::default());
    let seen = documents.iter().map(|one| {
        let text = format!("{} {}", describe(one.root()), places(one, &source, 0));
        (text, one.index())
    });
    (seen.collect(), format!("{problems:?}"))
}

fn in_pieces(text: &mut Text<()>) -> (Vec<Seen>, String) {
    let parsed = text.take_whole();
    let members = text.members(parsed.as_ref());
    let seen = members.into_iter().map(|member| match member {
        Member::Piece {
            piece,
            document,
            stand,
        } => {
            let read = places(&document.document(), &piece.source, stand.line);
            document.forget();
            let document = document.document();
            let places = places(&document, &piece.source, stand.line);
            assert_eq!(places, read);
            let text = format!("{} {places}", describe(document.root()));
            (text, stand.index)
        }
        Member::Whole { source, document } => {
            let places = places(document, source, 0);
            let text = format!("{} {places}", describe(document.root()));
            (text, document.index())
        }
    });
    let seen = seen.collect();
    let problems = parsed
        .as_ref()
        .map_or_else(|| "[]".to_owned(), |it| format!("{:?}", it.problems));
    (seen, problems)
}

fn documents(text: &[u8], before: &Text<()>) -> (Text<()>, Vec<bool>) {
    let mut after = Text::read(text, Some(before), &Limits::default());
    let parsed = after.take_whole();
    let kept = after
        .members(parsed.as_ref())
        .iter()
        .map(|member| match member {
            Member::Piece { piece, .. } => before.members(None).iter().any(
                |other| matches!(other, Member::Piece { piece: one, .. } if Arc::ptr_eq(one, piece)),
            ),
            Member::Whole { .. } => false,
        })
        .collect();
    (after, kept)
}

#[test]
fn only_a_changed_document_is_parsed_again() {
    let first = Text::read(b"a: 1\n---\nb: 2\n---\nc: 3\n", None, &Limits::default());
    let (second, kept) = documents(b"a: 1\n---\nb: 4\n---\nc: 3\n", &first);
    assert_eq!(kept, [true, false, true]);
    let (third, kept) = documents(b"# new\n---\na: 1\n---\nb: 4\n---\nc: 3\n", &second);
    // The first one had no marker before it.
    assert_eq!(kept, [false, true, true]);
    let (_, kept) = documents(b"# new\n---\nb: 4\n---\na: 1\n---\nd: 4\n", &third);
    assert_eq!(kept, [true, true, false]);
}

#[test]
fn a_broken_document_does_not_take_its_neighbours_down() {
    let first = Text::read(b"a: 1\n---\nb: 2\n---\nc: 3\n", None, &Limits::default());
    let (second, kept) = documents(b"a: 1\n---\nb: [\n---\nc: 3\n", &first);
    assert_eq!(kept, [true, true]);
    let (_, kept) = documents(b"a: 1\n---\nb: 2\n---\nc: 3\n", &second);
    assert_eq!(kept, [true, false, true]);
}

#[test]
fn a_text_that_cannot_be_taken_apart_is_not_forgotten() {
    let text = b"a: 1\n---\nb: 2\n";
    let first: Text<()> = Text::read(text, None, &Limits::default());
    let second = Text::read(b"%YAML 1.2\n---\nb: 2\n", Some(&first), &Limits::default());
    let third = Text::read(text, Some(&second), &Limits::default());
    assert_ne!(first.digest(), second.digest());
    assert_eq!(first.digest(), third.digest());
    for (one, other) in first.members(None).iter().zip(third.members(None)) {
        let (Member::Piece { piece: one, .. }, Member::Piece { piece: other, .. }) = (one, other)
        else {
            panic!("not in pieces");
        };
        assert!(Arc::ptr_eq(one, other));
    }
}

#[test]
fn documents_that_say_the_same_are_two() {
    let text = b"a: 1\n---\nb: 2\n---\nb: 2\n---\nc: 3\n";
    let first = Text::read(b"---\nb: 2\n---\nc: 3\n", None, &Limits::default());
    let (second, kept) = documents(text, &first);
    assert_eq!(kept, [false, false, true, true]);
    let (_, kept) = documents(text, &second);
    assert_eq!(kept, [true; 4]);
}

/// Lines that are likely to mean something to one another.
fn line() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        8 => prop_oneof![
            Just("---"), Just("a: 1"), Just("b: [x, y]"), Just("c:"), Just("  d: e"), Just("- 1"),
            Just(""), Just("# comment"), Just("--- # comment"), Just("--- {a: b}"), Just("---x"),
        ],
        2 => prop_oneof![
            Just("a: &x 1"), Just("b: *x"), Just("y: 1"), Just("t: |"), Just("  ---"), Just("f: 'open"),
            Just("g: ["), Just("a: 1"), Just("\"k\": {"), Just("}"), Just("--- |"), Just("é: ü"),
            Just("word"), Just("<<: {z: 1}"), Just("on: off"), Just("a: !tag 1"), Just("]"),
        ],
        1 => prop_oneof![
            Just("..."), Just("%YAML 1.2"), Just("... # end"), Just("\u{feff}---"), Just("\u{1}"),
            Just("%TAG ! x"), Just("---\r"), Just("a: 2\r"),
        ],
    ]
}

fn text() -> impl Strategy<Value = Vec<&'static str>> {
    proptest::collection::vec(line(), 0..14)
}

/// An edit: from which line on, how many go, and what comes in their place.
fn edit() -> impl Strategy<Value = (usize, usize, Vec<&'static str>)> {
    (
        0..14usize,
        0..3usize,
        proptest::collection::vec(line(), 0..3),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn in_pieces_a_text_is_the_same(
        lines in text(),
        edits in proptest::collection::vec(edit(), 0..5),
        last in any::<bool>(),
    ) {
        let mut lines = lines;
        let mut before: Option<Text<()>> = None;
        for (from, gone, new) in std::iter::once((0, 0, Vec::new())).chain(edits) {
            let from = from.min(lines.len());
            let to = (from + gone).min(lines.len());
            lines.splice(from..to, new);
            let mut bytes = lines.join("\n");
            if last {
                bytes.push('\n');
            }
            let mut after = Text::read(bytes.as_bytes(), before.as_ref(), &Limits::default());
            prop_assert_eq!(in_pieces(&mut after), whole(bytes.as_bytes()), "{:?}", bytes);
            before = Some(after);
        }
    }
}
