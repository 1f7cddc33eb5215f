"""What a text means, as plain Python data."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kgw._native import manifest
from kgw.diagnostics import CODES

SEED_MANIFESTS = sorted(Path("examples/waypoint").glob("*.yaml"))


def values(text: bytes | str) -> list[Any]:
    documents, problems = manifest.parse(text)
    assert [problem.message for problem in problems if not problem.warning] == []
    return [document.value for document in documents]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("80", 80),
        ('"80"', "80"),
        ("0644", 420),
        ("-1", -1),
        ("1.5", 1.5),
        ("1.0", 1),
        ("9223372036854775808", 2**63),
        ("18446744073709551616", 2.0**64),
        ("true", True),
        ("yes", True),
        ("off", False),
        ("'off'", "off"),
        ("~", None),
        ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z"),
        ("12:30:00", "12:30:00"),
        ("10.0.0.1", "10.0.0.1"),
        ("30s", "30s"),
        ("[1, a, {b: c}]", [1, "a", {"b": "c"}]),
        ("|\n  two\n  lines\n", "two\nlines\n"),
    ],
)
def test_a_value_has_the_type_that_an_api_server_sees(text: str, value: object) -> None:
    [document] = values(f"x: {text}\n")
    assert document == {"x": value}
    assert type(document["x"]) is type(value)


def test_text_and_bytes_are_the_same() -> None:
    assert values("é: 日\n") == values("é: 日\n".encode()) == [{"é": "日"}]


def test_other_types_are_refused() -> None:
    with pytest.raises(TypeError, match="bytes or str"):
        manifest.parse(1)  # type: ignore[arg-type]


def test_the_value_is_the_callers_own() -> None:
    documents, _ = manifest.parse("a: {b: 1}")
    documents[0].value["a"]["b"] = 2
    assert documents[0].value == {"a": {"b": 1}}
    assert documents[0].locate(("a", "b")) == (1, 8, 9)


def test_each_alias_is_a_copy() -> None:
    [value] = values("a: &x {m: [1]}\nb: *x\n")
    value["a"]["m"].append(2)
    assert value["b"] == {"m": [1]}


def test_documents_survive_the_parse_that_made_them() -> None:
    documents, _ = manifest.parse("a: 1\n---\nb: 2\n")
    last = documents.pop()
    del documents
    assert (last.index, last.value, last.locate(("b",)), last.line(3)) == (
        1,
        {"b": 2},
        (3, 4, 5),
        "b: 2",
    )


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=30,
)


@given(value=st.dictionaries(st.text(), JSON, max_size=5), indent=st.none() | st.integers(0, 4))
def test_what_json_writes_is_read_as_it_was(value: Any, indent: int | None) -> None:
    assert values(json.dumps(value, indent=indent)) == [value]


def paths(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Every path into a value."""
    found = [path]
    if isinstance(value, dict):
        for key, inner in value.items():
            found += paths(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            found += paths(inner, (*path, index))
    return found


@given(value=st.dictionaries(st.text(), JSON, max_size=5), indent=st.none() | st.integers(0, 4))
@settings(max_examples=50)
def test_every_value_has_a_place_that_shows_it(value: Any, indent: int | None) -> None:
    text = json.dumps(value, indent=indent)
    [document], _ = manifest.parse(text)
    for path in paths(value):
        inner: Any = value
        for step in path:
            inner = inner[step]
        place = document.locate(path)
        assert place is not None
        line, column, end = place
        shown = (document.line(line) or "")[column - 1 : end - 1]
        if isinstance(inner, dict | list):
            assert shown[0] in "[{"
        else:
            assert json.loads(shown) == inner


@pytest.mark.parametrize("path", [("b",), ("a", 1), ("a", -1), ("a", 2**70), (0,), ("a", "0")])
def test_what_does_not_exist_has_no_place(path: tuple[str | int, ...]) -> None:
    documents, _ = manifest.parse("a: [1]\n")
    assert documents[0].locate(path) is None


SYNTAX = [b"\t", b"\n", b": ", b"- ", b"'", b'"', b"{", b"]", b"&a ", b"*a", b"---\n", b"<<: "]


def test_mutated_manifests_are_answered() -> None:
    """2,000 damaged copies of real manifests: no crash, only documented problems."""
    chance = random.Random(15088)
    originals = [path.read_bytes() for path in SEED_MANIFESTS]
    assert originals
    problems_seen = 0
    for _ in range(2000):
        text = bytearray(chance.choice(originals))
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(text))
            match chance.randrange(4):
                case 0:
                    text[at] = chance.randrange(256)
                case 1:
                    del text[at : at + chance.randint(1, 20)]
                case 2:
                    text[at:at] = chance.choice(
                        [
                            b"\t",
                            b"\n",
                            b": ",
                            b"- ",
                            b"'",
                            b'"',
                            b"{",
                            b"]",
                            b"&a ",
                            b"*a",
                            b"---\n",
                        ]
                    )
                case _:
                    text[at:at] = text[chance.randrange(len(text)) :][: chance.randint(1, 40)]
        documents, problems = manifest.parse(bytes(text))
        for document in documents:
            for path in paths(document.value):
                assert document.locate(path) is not None
        for problem in problems:
            assert problem.code in CODES
            assert problem.locate(()) is not None
        problems_seen += len(problems)
    assert problems_seen > 500
