"""What definitions refuse, as findings: one for each fault, at its place, for every kind."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from tests.translate.support import load

from kgw.api import HTTPRoute, Opaque, parse
from kgw.api.admission import channel_findings
from kgw.source.memory import RawObject

if TYPE_CHECKING:
    from pathlib import Path

    from kgw.diagnostics import Finding


def head(kind: str, version: str = "gateway.networking.k8s.io/v1") -> str:
    return f"apiVersion: {version}\nkind: {kind}\n"


def errors(text: str) -> list[Finding]:
    return [one for one in load(text).findings if str(one.severity) == "error"]


def marked(finding: Finding) -> str:
    """What a finding points at."""
    location = finding.location
    assert location is not None
    assert finding.source is not None
    line = finding.source.line(location.line)
    assert line is not None
    return line[location.column - 1 : location.end_column - 1]


def test_a_rule_points_at_the_field_that_the_model_knows_to_be_at_fault() -> None:
    (found,) = errors(
        head("Gateway") + "metadata: {name: edge}\n"
        "spec:\n"
        "  gatewayClassName: kgateway\n"
        "  listeners:\n"
        "  - {name: tls, port: 443, protocol: TLS, hostname: one.example}\n"
    )
    assert (found.code, found.message) == ("KGW208", "tls mode must be set for protocol TLS")
    assert found.resource == "Gateway default/edge"
    assert (found.field, marked(found)) == ("spec.listeners[0].protocol", "TLS")


def test_a_rule_points_at_what_it_is_about() -> None:
    (found,) = errors(
        head("HTTPRoute") + "metadata: {name: sticky}\n"
        "spec:\n"
        "  rules:\n"
        "  - sessionPersistence:\n"
        "      cookieConfig: {lifetimeType: Permanent}\n"
    )
    assert found.message == (
        "AbsoluteTimeout must be specified when cookie lifetimeType is Permanent"
    )
    # A model may know the field within.
    assert found.path[:4] == ("spec", "rules", 0, "sessionPersistence")
    assert found.location is not None
    assert found.location.line in {6, 7}


def test_a_rule_without_a_result_refuses_in_its_words() -> None:
    (found,) = errors(
        head("Gateway") + "metadata: {name: edge}\n"
        "spec:\n"
        "  gatewayClassName: kgateway\n"
        "  listeners: [{name: tls, port: 443, protocol: HTTPS, tls: {}}]\n"
    )
    assert found.message == "certificateRefs or options must be specified when mode is Terminate"


def test_an_item_that_is_there_twice_is_one_finding_at_the_second() -> None:
    (found,) = errors(
        head("ListenerSet") + "metadata: {name: more}\n"
        "spec:\n"
        "  parentRef: {name: edge}\n"
        "  listeners:\n"
        "  - {name: one, port: 1, protocol: HTTP}\n"
        "  - {name: one, port: 2, protocol: HTTP}\n"
    )
    assert found.message == "Listener name must be unique within the Gateway"
    assert found.path[:3] == ("spec", "listeners", 1)


@pytest.mark.parametrize(
    ("spec", "code", "field"),
    [
        ("{}", "KGW204", "spec"),
        ("{controllerName: 1}", "KGW205", "spec.controllerName"),
        ("{controllerName: one}", "KGW207", "spec.controllerName"),
        ("{controllerName: a.b/c, parametersRef: {group: g, kind: K}}", "KGW204", "parametersRef"),
        ("{controllerName: a.b/c, description: x}", None, ""),
        ("[]", "KGW205", "spec"),
    ],
)
def test_a_kind_that_nothing_else_is_known_of_is_checked(
    spec: str, code: str | None, field: str
) -> None:
    version = "gateway.networking.x-k8s.io/v1alpha1"
    text = head("XMesh", version) + f"metadata: {{name: mesh}}\nspec: {spec}\n"
    found = [one for one in errors(text) if one.code < "KGW209"]
    assert [one.code for one in found] == ([code] if code else [])
    assert all(one.field.endswith(field) for one in found)


def test_what_is_refused_has_no_effect_and_takes_nothing_with_it() -> None:
    parsed = load(
        head("HTTPRoute") + "metadata: {name: bad}\n"
        "spec: {rules: [{sessionPersistence: {type: Header, cookieConfig: {}}}]}\n"
        "---\n" + head("HTTPRoute") + "metadata: {name: good}\nspec: {}\n"
    )
    refused, taken = parsed.resources
    assert isinstance(refused, Opaque)
    assert refused.refused
    assert isinstance(taken, HTTPRoute)


@pytest.mark.parametrize(
    ("metadata", "field", "mark"),
    [
        ("labels: {_a: b}", 'metadata.labels["_a"]', "_a"),
        ("labels: {a/b/c: d}", 'metadata.labels["a/b/c"]', "a/b/c"),
        ("labels: {a: b c}", "metadata.labels.a", "b c"),
        ("labels: {a: 1}", "metadata.labels.a", "1"),
        ("annotations: {a b: c}", 'metadata.annotations["a b"]', "a b"),
        ("annotations: {a: [b]}", "metadata.annotations.a", "[b]"),
        ("namespace: a.b", "metadata.namespace", "a.b"),
        ("finalizers: [/]", "metadata.finalizers[0]", "/"),
    ],
)
@pytest.mark.parametrize("kind", ["HTTPRoute", "XMesh", "ConfigMap"])
def test_metadata_is_checked(kind: str, metadata: str, field: str, mark: str) -> None:
    version = {"XMesh": "gateway.networking.x-k8s.io/v1alpha1", "ConfigMap": "v1"}.get(kind)
    text = head(kind, version) if version else head(kind)
    text += f"metadata: {{name: a, {metadata}}}\n"
    text += "spec: {controllerName: a.b/c}\n" if kind == "XMesh" else ""
    text += "spec: {}\n" if kind == "HTTPRoute" else ""
    (found,) = errors(text)
    assert found.code in {"KGW205", "KGW207"}
    assert found.field.replace("metadata.labels._a", 'metadata.labels["_a"]') == field
    assert marked(found) == mark


def test_names_that_become_parts_of_others_are_labels() -> None:
    for kind, name, good in [
        ("Service", "a.b", False),
        ("Namespace", "a.b", False),
        ("Service", "a-b", True),
        ("ConfigMap", "a.b", True),
    ]:
        spec = "spec: {ports: [{port: 80}]}\n" if kind == "Service" else ""
        found = errors(head(kind, "v1") + f"metadata: {{name: {name}}}\n" + spec)
        assert (found == []) is good


def test_objects_made_in_python_are_checked_in_the_same_way() -> None:
    value = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "TLSRoute",
        "metadata": {"name": "one"},
        "spec": {"hostnames": ["10.0.0.1"], "rules": [{"backendRefs": [{"name": "a", "port": 1}]}]},
    }
    _, found = parse(RawObject(value))
    assert [one.message for one in found] == ["Hostnames cannot contain an IP"]


def test_values_that_are_not_json_are_for_the_model_to_refuse() -> None:
    value = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "one"},
        "spec": {"hostnames": [object()]},
    }
    _, found = parse(RawObject(value))
    assert [one.code for one in found] == ["KGW205"]


@pytest.mark.parametrize(
    ("rule", "found"),
    [
        ("{retry: {attempts: 2}}", [("KGW212", "spec.rules[0].retry")]),
        (
            "{filters: [{type: ExternalAuth, externalAuth: "
            "{protocol: HTTP, http: {}, backendRef: {name: a, port: 1}}}]}",
            [
                ("KGW206", "spec.rules[0].filters[0].type"),
                ("KGW212", "spec.rules[0].filters[0].externalAuth"),
            ],
        ),
        ("{timeouts: {request: 1s}}", []),
        ("{unheard: of}", []),
    ],
)
def test_the_standard_channel_has_less(rule: str, found: list[tuple[str, str]]) -> None:
    text = head("HTTPRoute") + f"metadata: {{name: one}}\nspec: {{rules: [{rule}]}}\n"
    extra = channel_findings(load(text).resources)
    assert sorted((one.code, one.field) for one in extra) == found


def test_the_standard_channel_has_fewer_kinds_and_versions(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        head("XMesh", "gateway.networking.x-k8s.io/v1alpha1")
        + "metadata: {name: one}\nspec: {controllerName: a.b/c}\n"
        "---\n" + head("TCPRoute", "gateway.networking.k8s.io/v1alpha2") + "metadata: {name: two}\n"
        "spec: {rules: [{backendRefs: [{name: a, port: 1}]}]}\n"
    )
    command = [sys.executable, "-m", "kgw", "check", "-f", str(tmp_path), "-o", "json", "--channel"]
    ran = [
        subprocess.run([*command, channel], stdout=subprocess.PIPE, check=False, text=True)
        for channel in ("experimental", "standard")
    ]
    codes = [[one["code"] for one in json.loads(one.stdout)["findings"]] for one in ran]
    assert [found.count("KGW212") for found in codes] == [0, 2]
    assert ran[1].returncode == 1
