"""What is known of a document when its text was read is what the definitions say of its value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kgw._native import manifest, schema
from kgw.api import admission, parse
from kgw.source.memory import Origin, RawObject

MANIFESTS = [
    path
    for place in ("tests", "examples")
    for path in sorted(Path(place).rglob("*.y*ml"))
    if manifest.Text(path.read_bytes()).documents
]

ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: route}
spec:
  rules:
  - backendRefs: [{name: web, port: 80}]
"""


def is_wanted(value: Any) -> bool:
    """Whether an API server finds nothing wrong with an object."""
    if not isinstance(value, dict):
        return False
    api_version, kind = value.get("apiVersion"), value.get("kind")
    if not isinstance(api_version, str) or not isinstance(kind, str):
        return False
    group, _, version = api_version.rpartition("/")
    return not admission.violations(group, kind, version, value)


@pytest.mark.parametrize("path", MANIFESTS, ids=str)
def test_a_sound_document_is_one_in_which_nothing_is_wrong(path: Path) -> None:
    text = manifest.Text(path.read_bytes())
    for document in text.documents:
        if text.problems:
            assert not document.sound or is_wanted(document.value)
        else:
            assert document.sound == is_wanted(document.value)


def test_among_the_manifests_are_sound_ones_and_others() -> None:
    texts = [manifest.Text(path.read_bytes()) for path in MANIFESTS]
    assert {one.sound for text in texts for one in text.documents} == {False, True}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("name: route", "name: Route"),
        ("name: route", "name: route, labels: {a: '-'}"),
        ("port: 80", "port: 80000"),
        ("port: 80", "port: 18446744073709551615"),
        ("port: 80", "port: 80, prt: 81"),
        (", port: 80", ""),
        ("name: web", "name: 5"),
        ("spec:\n", "spec:\n  hostnames: [a.b, a.b, '*']\n"),
        ("kind: HTTPRoute", "kind: 5"),
    ],
)
def test_a_fault_of_any_kind_makes_a_document_unsound(before: str, after: str) -> None:
    [good] = manifest.Text(ROUTE.encode()).documents
    assert good.sound
    [bad] = manifest.Text(ROUTE.replace(before, after).encode()).documents
    assert not bad.sound
    assert not is_wanted(bad.value)


def test_a_text_that_is_read_again_knows_the_same() -> None:
    bad = ROUTE.replace("80", "80000")
    text = manifest.Text(f"{ROUTE}---{bad}".encode())
    again = manifest.Text(f"{ROUTE}---{bad}---{ROUTE}".encode(), text)
    assert [one.sound for one in text.documents] == [True, False]
    assert [one.sound for one in again.documents] == [True, False, True]
    # Documents of texts with mistakes are looked at when their values are.
    whole, _ = manifest.parse(ROUTE)
    assert [one.sound for one in whole] == [False]


def test_a_document_that_is_sound_is_not_validated_again(monkeypatch: pytest.MonkeyPatch) -> None:
    [document] = manifest.Text(ROUTE.encode()).documents
    raw = RawObject(document.value, Origin("file", positions=document), document)
    monkeypatch.setattr(admission, "violations", lambda *_: pytest.fail("it is validated"))
    resource, found = parse(raw)
    assert resource is not None
    assert found == []


def test_an_object_is_plain_if_it_has_no_other_fields_and_no_nulls() -> None:
    fields: dict[str, Any] = {"a": None, "b": {"c": None}}
    fields["b"]["again"] = fields["b"]
    plains: tuple[dict[Any, Any], ...] = (
        {},
        {"a": {"whatever": None}},
        {"b": {"c": 1}},
        {"b": [{"c": 1}, {}, 5]},
        {"b": {"again": {"again": {"c": 0}}}},
        {"b": "no mapping"},
    )
    for plain in plains:
        assert schema.is_plain(fields, plain)
    odds: tuple[dict[Any, Any], ...] = (
        {"a": None},
        {"d": 1},
        {5: 1},
        {"b": {"d": 1}},
        {"b": {"c": None}},
        {"b": [{"c": 1}, {"c": None}]},
        {"b": {"again": {"again": {"d": 0}}}},
    )
    for odd in odds:
        assert not schema.is_plain(fields, odd)


def test_what_is_nested_without_end_is_not_plain() -> None:
    fields: dict[str, Any] = {}
    fields["again"] = fields
    value: dict[str, Any] = {}
    value["again"] = value
    assert not schema.is_plain(fields, value)
