"""The YAML that is written reads back equal, whoever reads it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from kgw._native import manifest
from kgw.api.yaml import document, documents

#: What is easily taken for something else, or ends a scalar.
ODD = [
    "", " ", "~", "null", "Null", "true", "yes", "No", "on", "y", "N", "0", "-1", "0644", "0o17",
    "0x1f", "1_000", "1e3", "1.5", ".5", ".inf", ".NaN", "1:30", "190:20:30", "2024-01-01",
    "2024-01-01T00:00:00Z", "=", "<<", "-", "- a", "? a", "a:", "a: b", ": a", "a #b", "#a", "a#b",
    "%REQ(:METHOD)%", "@a", "`a`", "!tag", "&anchor", "*alias", "[a]", "{a}", "a]", "'a'", '"a"',
    "|", ">", "---", "...", "--- a", "a\nb", "a\nb\n", "a\n\nb\n", "a\n\n", "\na", " a\nb", "a \nb",
    "a\n b", "a\n  b\nc\n", "a\n---\nb\n", "a\tb", "\ta", "a\r\nb", "a\r", "\x00", "\x1b", "\x7f",
    "\x85", "\xa0", "a\u2028b", "\ufeff", "\ufffe", "\U0001f600", "\u00e9", "a\x85\nb", "a\n#b\n",
    "a\n- b", "a\nb: c\n", "10.0.0.1", "10.0.0.0/8", "180s", "1m30s", "80", "a b", "a  b", "a ",
    "/a:b",
]  # fmt: skip

texts = st.sampled_from(ODD) | st.text(st.characters(exclude_categories=["Cs"]))
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


def read(text: str) -> list[Any]:
    """What kgw's own parser makes of a text."""
    found, problems = manifest.parse(text)
    assert problems == []
    return [one.value for one in found]


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal, with types and order: 1 is not True.

    It is 1.0, as in JSON: kgw's parser has whole numbers without a fraction.
    """
    if type(one) is not type(other) and {type(one), type(other)} != {int, float}:
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@given(values)
@example({"a": [[], {}, [[1, [2]], {"b": {"c": "x\ny\n"}}]], "d": [{"e": "x\ny"}, "x\ny\n", None]})
def test_every_value_reads_back_equal(value: Any) -> None:
    text = document(value)
    assert same(yaml.safe_load(text), value)
    assert same(read(text), [value])


@pytest.mark.parametrize("text", ODD)
def test_every_odd_text_reads_back_as_key_and_value(text: str) -> None:
    value = {text: [text, {text: text}]}
    assert same(yaml.safe_load(document(value)), value)
    assert same(read(document(value)), [value])


@given(st.lists(st.dictionaries(texts, scalars, min_size=1, max_size=2), max_size=3))
def test_so_does_every_stream(several: list[Any]) -> None:
    text = documents(several)
    assert same(list(yaml.safe_load_all(text)) if several else [], several)
    assert same(read(text), several)


def test_what_is_written_is_what_people_write() -> None:
    value = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "metadata": {"name": "a", "labels": {"kubernetes.io/service-name": "a"}, "annotations": {}},
        "spec": {
            "hostnames": ["*.example.org", "example.org"],
            "rules": [{"matches": [{"path": {"type": "Exact", "value": "/a"}}], "weight": 1}],
            "ip": "10.0.0.1",
            "timeout": "180s",
            "version": "1.1",
            "on": "off",
            "text": "a\nb\n",
            "format": "%REQ(:METHOD)% done\n",
            "empty": [],
        },
    }
    assert document(value) == (
        "apiVersion: gateway.networking.k8s.io/v1\n"
        "metadata:\n"
        "  name: a\n"
        "  labels:\n"
        "    kubernetes.io/service-name: a\n"
        "  annotations: {}\n"
        "spec:\n"
        "  hostnames:\n"
        '  - "*.example.org"\n'
        "  - example.org\n"
        "  rules:\n"
        "  - matches:\n"
        "    - path:\n"
        "        type: Exact\n"
        "        value: /a\n"
        "    weight: 1\n"
        "  ip: 10.0.0.1\n"
        "  timeout: 180s\n"
        '  version: "1.1"\n'
        '  "on": "off"\n'
        "  text: |\n"
        "    a\n"
        "    b\n"
        '  format: "%REQ(:METHOD)% done\\n"\n'
        "  empty: []\n"
    )


def test_a_key_may_be_longer_than_a_parser_looks_ahead() -> None:
    long: dict[str, Any] = {"k" * 3000: {"a": ["b"]}, "l" * 3000: ["b"], "m" * 3000: "n"}
    value = long | {"inner": long, "listed": [long, [long]]}
    assert same(yaml.safe_load(document(value)), value)
    assert same(read(document(value)), [value])


def test_numbers_that_are_none_are_written_as_yaml_has_them() -> None:
    found = yaml.safe_load(document([math.nan, math.inf, -math.inf]))
    assert math.isnan(found[0])
    assert found[1:] == [math.inf, -math.inf]


@pytest.mark.parametrize("value", [{1: "a"}, {"a": object()}, [b"a"], {"a": {2, 3}}])
def test_what_yaml_does_not_have_is_a_type_error(value: Any) -> None:
    with pytest.raises(TypeError):
        document(value)
