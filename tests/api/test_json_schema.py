"""The JSON Schema of manifests says of their form what kgw says."""

from __future__ import annotations

import ast
import textwrap
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from tests.translate.support import EDGE, EXAMPLES, MESH

from kgw.api import Opaque, Resource, descriptions, json_schema, parse
from kgw.api.base import Model, shape
from kgw.api.kinds import HOMES, KINDS
from kgw.source.files import parse_text

TESTS = Path(__file__).parents[1]

#: Findings about the form of an object: an unknown field, a missing one, a wrong type or value.
FORM = {"KGW203", "KGW204", "KGW205", "KGW206", "KGW207", "KGW210"}

#: What the schema does not say: rules of several fields, and the values of annotations and texts
#: with a grammar of their own.
BEYOND = {"KGW208"}


@cache
def every() -> Draft202012Validator:
    return Draft202012Validator(json_schema())


def objects(text: str) -> list[Any]:
    found, problems = parse_text(textwrap.dedent(text), "text")
    return [] if problems else found


@cache
def manifests() -> list[Any]:
    """The objects of all manifests that stand in the tests as they are."""
    texts = dict.fromkeys(
        node.value
        for path in sorted(TESTS.rglob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and "apiVersion:" in node.value
    )
    seed = [one.read_text() for one in sorted(EXAMPLES.glob("*.yaml"))]
    return [raw for text in (MESH, EDGE, *seed, *texts) for raw in objects(text)]


def models(model: type[Model]) -> set[type[Model]]:
    """A model and all that it is made of."""
    found: set[type[Model]] = set()
    left = [model]
    while left:
        one = left.pop()
        if one not in found:  # some have parts of their own kind
            found.add(one)
            left += [part for part in shape(one).values() if part is not None]
    return found


def test_the_schemas_are_valid() -> None:
    Draft202012Validator.check_schema(json_schema())
    for kind in HOMES:
        Draft202012Validator.check_schema(json_schema(kind))


def test_what_kgw_accepts_is_valid_and_what_it_does_not_is_not() -> None:
    seen = {True: 0, False: 0}
    for raw in manifests():
        resource, findings = parse(raw)
        codes = {one.code for one in findings}
        unknown = isinstance(resource, Opaque) and not codes & FORM
        if resource is None or codes & BEYOND or unknown:
            continue
        annotated = {one.path[:2] for one in findings} == {("metadata", "annotations")}
        well_formed = not codes & FORM or annotated
        wrong = [error.message for error in every().iter_errors(raw.object)]
        assert well_formed == (not wrong), (raw.object, wrong, findings)
        seen[well_formed] += 1
    assert seen[True] > 50
    assert seen[False] > 5


@pytest.mark.parametrize("kind", sorted(HOMES))
def test_the_schema_of_a_kind_says_what_the_one_of_all_says(kind: str) -> None:
    validator = Draft202012Validator(json_schema(kind))
    mine = [raw.object for raw in manifests() if parse(raw)[0].__class__.__name__ == kind]
    for value in mine:
        assert validator.is_valid(value) == every().is_valid(value)
    assert not validator.is_valid({"apiVersion": "v1", "kind": "Other", "metadata": {"name": "a"}})


ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: a}
spec: {parentRefs: [{name: edge}], rules: [RULE]}
"""


@pytest.mark.parametrize(
    ("rule", "valid"),
    [
        ("{}", True),
        ("{timeouts: {request: 1m30s}}", True),
        ("{timeouts: null, matches: [{path: {value: /a}, method: null}]}", True),
        ("{retry: {codes: [503], attempts: 3, backoff: 1s}}", True),
        ("{retry: {codes: [399]}}", False),
        ("{retry: {attempts: 0}}", False),
        ("{sessionPersistence: {cookie: {name: a}}}", True),
        ("{sessionPersistence: {cookie: {name: 'a b'}}}", False),
        ("{sessionPersistence: {header: {}}}", False),
        ("{filters: [{type: URLRewrite, urlRewrite: {hostname: a.b}}]}", True),
        ("{timeouts: {request: 90}}", False),
        ("{timeouts: {request: 90 s}}", False),
        ("{timeout: {request: 90s}}", False),
        ("{backend_refs: []}", False),
        ("{backendRefs: [{port: 80}]}", False),
        ("{backendRefs: [{name: a, port: '80'}]}", False),
        ("{backendRefs: [{name: a, port: 65536}]}", False),
        ("{matches: [{path: {type: Prefix}}]}", False),
        ("{matches: {}}", False),
        ("{name: Not-Lower}", False),
    ],
)
def test_of_a_rule(rule: str, valid: bool) -> None:
    (raw,) = objects(ROUTE.replace("RULE", rule))
    assert every().is_valid(raw.object) == valid


@pytest.mark.parametrize(
    ("value", "valid"),
    [
        ({"apiVersion": "apps/v1", "kind": "Deployment", "novel": 1}, True),
        ({"apiVersion": "networking.istio.io/v1", "kind": "Gateway", "spec": {"novel": 1}}, True),
        ({"apiVersion": "v1", "kind": "List", "items": []}, True),
        ({"kind": "Deployment"}, False),
        ({"apiVersion": "v1"}, False),
        ([], False),
        ({"apiVersion": "v2", "kind": "Service", "metadata": {"name": "a"}}, False),
        ({"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "v1"}]}, False),
        (
            {
                "apiVersion": "v1",
                "kind": "List",
                "items": [{"apiVersion": "v1", "kind": "Service", "metadata": {}}],
            },
            False,
        ),
        (
            {
                "apiVersion": "gateway.networking.k8s.io/v9",
                "kind": "HTTPRoute",
                "metadata": {"name": "a"},
            },
            False,
        ),
    ],
)
def test_kind_and_version_choose(value: Any, valid: bool) -> None:
    assert every().is_valid(value) == valid


@pytest.mark.parametrize(
    ("size", "valid"), [(65535, True), ("64Ki", True), ("64KB", False), (1, False)]
)
def test_a_quantity_is_a_number_or_a_text(size: object, valid: bool) -> None:
    policy = {
        "apiVersion": "gateway.kgateway.dev/v1alpha1",
        "kind": "HTTPListenerPolicy",
        "metadata": {"name": "a"},
        "spec": {"http2ProtocolOptions": {"initialStreamWindowSize": size}},
    }
    assert every().is_valid(policy) == valid


def test_an_editor_marks_what_is_not_supported() -> None:
    spec = json_schema("TrafficPolicy")["$defs"]["TrafficPolicySpec"]
    ai = spec["properties"]["ai"]
    assert ai["deprecated"] is True
    assert ai["description"] == ("Not supported by this version of kgw: an error of `kgw check`.")


def test_a_schema_names_its_kind_for_tools() -> None:
    assert json_schema("HTTPRoute")["x-kubernetes-group-version-kind"] == [
        {"group": "gateway.networking.k8s.io", "version": "v1", "kind": "HTTPRoute"},
        {"group": "gateway.networking.k8s.io", "version": "v1beta1", "kind": "HTTPRoute"},
    ]


def test_an_unknown_kind_has_no_schema() -> None:
    with pytest.raises(ValueError, match="no kind 'HttpRoute' is read; there are: Backend"):
        json_schema("HttpRoute")


@pytest.mark.parametrize("model", [*KINDS.values(), Opaque], ids=lambda one: one.__name__)
def test_every_field_of_every_model_has_a_description(model: type[Resource]) -> None:
    of_findings = {"refused", "scope"}  # are no fields of the object
    missing = {
        f"{part.__name__}.{name}"
        for part in models(model)
        for name in part.model_fields.keys() - descriptions.fields(part).keys() - of_findings
    }
    assert missing == set()


def test_descriptions_are_in_the_schema_by_the_names_of_manifests() -> None:
    spec = json_schema("Service")["$defs"]["ServiceSpec"]
    assert spec["description"] == "What the data plane needs of a Service."
    assert spec["properties"]["clusterIPs"]["description"].startswith("The virtual IPs")


def test_every_description_is_a_sentence_in_one_line() -> None:
    for model in KINDS.values():
        for part in models(model):
            for text in (descriptions.summary(part), *descriptions.fields(part).values()):
                assert text.endswith("."), (part, text)
                assert "\n" not in text
                assert "``" not in text
