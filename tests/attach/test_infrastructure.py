"""What is said about the objects that are made for a Gateway."""

from __future__ import annotations

import re

import pytest
from tests.translate.support import EDGE, codes, load, run, status

from kgw.api import Gateway
from kgw.attach.infrastructure import generated_metadata, short_name
from kgw.attach.waypoints import own_service

GATEWAY = "Gateway default/edge"


def edge(infrastructure: str, name: str = "edge") -> str:
    text = EDGE.partition("---")[0].replace("name: edge", f"name: {name}")
    return f"{text}  infrastructure: {infrastructure}\n"


def only(text: str) -> Gateway:
    parsed = load(text)
    assert not parsed.findings, parsed.findings
    (gateway,) = parsed.resources
    assert isinstance(gateway, Gateway)
    return gateway


def test_labels_and_annotations_are_those_of_the_gateway_and_its_name() -> None:
    made = generated_metadata(
        only(edge("{labels: {example.com/team: a}, annotations: {example.com/note: a b!}}"))
    )
    assert made.labels == {
        "example.com/team": "a",
        "gateway.networking.k8s.io/gateway-name": "edge",
        "gateway.networking.k8s.io/gateway-class-name": "kgateway",
    }
    assert made.annotations == {"example.com/note": "a b!"}


def test_nothing_overrides_what_objects_are_found_by() -> None:
    labels = "{labels: {gateway.networking.k8s.io/gateway-name: other}}"
    made = generated_metadata(only(edge(labels)))
    assert made.labels["gateway.networking.k8s.io/gateway-name"] == "edge"


def test_a_gateway_without_any_has_no_annotations() -> None:
    assert generated_metadata(only(EDGE.partition("---")[0])).annotations == {}


@pytest.mark.parametrize("length", [1, 62, 63, 64, 65, 200, 253])
def test_every_name_fits_into_a_label(length: int) -> None:
    name = ("ab.c-" * 51)[:length].rstrip("-.").ljust(length, "x")
    short = short_name(name)
    assert len(short) <= 63
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", short)
    assert (short == name) == (length <= 63)
    assert short_name(f"{name}x"[:253]) != short or length == 253


def test_the_service_of_a_gateway_with_a_long_name_is_known() -> None:
    name = "g" * 253
    found = run(
        edge("{}", name),
        f"""
apiVersion: v1
kind: Service
metadata: {{name: any}}
spec:
  clusterIP: 10.0.0.7
  selector: {{gateway.networking.k8s.io/gateway-name: {short_name(name)}}}
  ports: [{{name: http, port: 80}}]
""",
    )
    state = found.base.attachment.gateways["default", name]
    (service,) = found.base.attachment.index.services.values()
    assert own_service(state, service)


@pytest.mark.parametrize(
    "infrastructure",
    [
        "{labels: {-bad: a}}",
        "{labels: {a: -bad}}",
        f"{{labels: {{a: {'x' * 64}}}}}",
        f"{{annotations: {{{'x' * 64}: a}}}}",
        "{labels: {a: '1', b: '1', c: '1', d: '1', e: '1', f: '1', g: '1', h: '1', i: '1'}}",
        "{parametersRef: {kind: X, name: y}}",
    ],
)
def test_what_no_object_can_have_is_refused(infrastructure: str) -> None:
    assert [one for one in load(edge(infrastructure)).findings if one.severity == "error"]


PARAMETERS = "{group: gateway.kgateway.dev, kind: GatewayParameters, name: p}"
OBJECT = """
apiVersion: gateway.kgateway.dev/v1alpha1
kind: GatewayParameters
metadata: {name: p}
spec: {kube: {}}
"""


@pytest.mark.parametrize(
    ("ref", "code"),
    [
        ("{group: example.com, kind: Odd, name: p}", "KGW309"),
        ("{group: '', kind: ConfigMap, name: p}", "KGW309"),
        (PARAMETERS, "KGW314"),
    ],
)
def test_parameters_that_are_not_there_refuse_the_gateway(ref: str, code: str) -> None:
    found = run(edge(f"{{parametersRef: {ref}}}"))
    (accepted, programmed, _) = status(found, GATEWAY).conditions
    assert (accepted.status, accepted.reason) == ("False", "InvalidParameters")
    assert (programmed.status, programmed.reason) == ("False", "Invalid")
    assert found.ir["listeners"] == []
    assert codes(found) == [code]


def test_parameters_that_are_there_are_told_to_have_no_effect() -> None:
    found = run(edge(f"{{parametersRef: {PARAMETERS}}}"), OBJECT)
    (accepted, *_) = status(found, GATEWAY).conditions
    assert (accepted.status, accepted.reason) == ("True", "Accepted")
    assert codes(found) == ["KGW501"]
