"""Every field of kgateway's kinds has a test, or is listed with the reason why not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.kgateway.fields import (
    accepts,
    among,
    canonical,
    claims,
    exceptions,
    recorded,
    since,
)
from tests.kgateway.page import PAGE, page

from kgw import api
from kgw.api.base import Model, shape
from kgw.api.kgateway.http_listener_policy import HTTPListenerPolicySpec
from kgw.api.kgateway.http_settings import HTTPSettings
from kgw.api.kgateway.listener_policy import DefaultListenerConfig, ListenerConfig
from kgw.api.kinds import KGATEWAY_GROUP, KINDS
from kgw.source.memory import RawObject

if TYPE_CHECKING:
    from collections.abc import Iterator

FIELDS = sorted({canonical(one) for one in since()})
KINDS_OF_FIELDS = sorted({one.partition(".")[0] for one in since()})


def test_every_kind_is_listed_with_its_fields() -> None:
    ours = {kind for group, kind in KINDS if group == KGATEWAY_GROUP}
    assert set(KINDS_OF_FIELDS) == ours
    assert len(since()) > 850


def test_what_is_taken_for_the_same_has_the_same_model() -> None:
    assert issubclass(HTTPListenerPolicySpec, HTTPSettings)
    assert shape(DefaultListenerConfig)["httpSettings"] is HTTPSettings
    assert issubclass(DefaultListenerConfig, ListenerConfig)


def test_every_field_is_in_one_place() -> None:
    lists = exceptions()
    wrong: dict[str, list[str]] = {}
    for field in FIELDS:
        places = [one.module for one in claims() if one.covers(field)][:1]
        places += [name for name, listed in lists.items() if among(field, listed)]
        if len(places) != 1:
            wrong[field] = places
    assert wrong == {}, "tests/kgateway/README.md says what to do"


def test_a_field_is_not_yet_there_exactly_if_no_model_accepts_it() -> None:
    lists = exceptions()
    unknown = {one for one in FIELDS if not accepts(one) and not among(one, lists["outside"])}
    assert unknown == {one for one in FIELDS if among(one, lists["not_yet"])}


def test_every_line_of_the_lists_is_a_field() -> None:
    for listed in exceptions().values():
        assert set(listed) <= set(FIELDS)
    for one in claims():
        assert {*one.fields, *one.without} <= since().keys(), one.module


@pytest.mark.parametrize("kind", sorted(exceptions()["not_yet"]))
def test_what_is_not_yet_there_is_a_finding(kind: str) -> None:
    name, *path = kind.split(".")
    value: Any = {}
    for step in reversed(path):
        value = {step: value}
    if name == "BackendConfigPolicy" and "tls" in path:
        value["spec"]["tls"]["wellKnownCACertificates"] = "System"
    parsed, findings = api.parse(RawObject(manifest(name, value)))
    assert parsed is not None
    codes = {(one.code, ".".join(map(str, one.path))) for one in findings}
    assert ("KGW501", ".".join(path)) in codes


def manifest(kind: str, value: dict[str, Any]) -> dict[str, Any]:
    """An object of a kind of kgateway's."""
    version = f"{KGATEWAY_GROUP}/v1alpha1"
    return {"apiVersion": version, "kind": kind, "metadata": {"name": "a"}, **value}


def places(model: type[Model], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The ways to all objects inside one of a model; what is a part of itself is entered once."""
    for name, part in shape(model).items():
        if part is not None and name not in path and name != "metadata":
            yield (*path, name)
            yield from places(part, (*path, name))


@pytest.mark.parametrize("kind", KINDS_OF_FIELDS)
def test_an_unknown_field_never_passes_silently(kind: str) -> None:
    model = KINDS[KGATEWAY_GROUP, kind]
    seen = 0
    for path in places(model):
        value: Any = {"noSuchField": 1}
        for step in reversed(path):
            value = {step: value}
        _, findings = api.parse(RawObject(manifest(kind, value)))
        about = {
            ".".join(str(step) for step in one.path if isinstance(step, str)) for one in findings
        }
        # A list in whose place there is an object is an error itself.
        assert any(".".join((*path, "noSuchField")).startswith(one) for one in about if one), path
        seen += 1
    assert seen >= 2


def test_a_claim_is_compared_with_what_is_read() -> None:
    with recorded() as seen:
        api.parse(RawObject(manifest("DirectResponse", {"spec": {"status": 503}})))
        api.parse(RawObject(manifest("DirectResponse", {"spec": {"status": 1, "body": "a"}})))
    assert seen == {"DirectResponse", "DirectResponse.spec", "DirectResponse.spec.status"}


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "`make compatibility` writes it"
