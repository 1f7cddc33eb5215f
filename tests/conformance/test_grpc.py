"""GRPCRoutes of Gateways."""

from __future__ import annotations

import textwrap
from collections import Counter
from typing import TYPE_CHECKING

import pytest
import trustme
from tests.conformance.calls import ECHO, backend, backends, call, channel
from tests.conformance.infra import INFRA, Infra, conditions, route
from tests.conformance.shares import expect_shares
from tests.conformance.suite import conformance
from tests.translate.certificates import config_map, issued

if TYPE_CHECKING:
    from collections.abc import Iterator

    import grpc


@pytest.fixture
def grpc_infra(infra: Infra) -> Iterator[Infra]:
    """The cluster with the suite's gRPC backends in it."""
    with backends(infra):
        yield infra


def to(number: int) -> str:
    return f"backendRefs: [{{name: grpc-infra-backend-v{number}, port: 8080}}]"


def accepted(infra: Infra, name: str, gateway: str = "same-namespace", **ref: str) -> None:
    """The route is accepted by the Gateway, which counts it."""
    infra.accepted(gateway, name, kind="GRPCRoute", sections=ref.values())
    assert infra.listener(gateway, ref.get("sectionName", "http"))["attachedRoutes"] == 1


def port(infra: Infra, gateway: str = "same-namespace") -> int:
    return infra.address(gateway)[1]


@conformance("GRPCExactMethodMatching")
def test_GRPCExactMethodMatching(grpc_infra: Infra) -> None:
    rules = "\n".join(
        f"- {{matches: [{{method: {{service: {ECHO}, method: {method}}}}}], {to(number)}}}"
        for method, number in (("Echo", 1), ("EchoTwo", 2))
    )
    grpc_infra.apply(route(rules, kind="GRPCRoute", name="exact-matching"))
    accepted(grpc_infra, "exact-matching")
    with channel(port(grpc_infra), "example.com") as opened:
        outcomes = [call(opened, method).outcome for method in ("Echo", "EchoTwo", "EchoThree")]
    assert outcomes == ["grpc-infra-backend-v1", "grpc-infra-backend-v2", "UNIMPLEMENTED"]


@conformance("GRPCRouteHeaderMatching")
def test_GRPCRouteHeaderMatching(grpc_infra: Infra) -> None:
    def match(**headers: str) -> str:
        several = ", ".join(f"{{name: {name}, value: {text}}}" for name, text in headers.items())
        return f"{{headers: [{several}]}}"

    rules = [
        ([match(version="one")], 1),
        ([match(version="two")], 2),
        ([match(version="two", color="orange")], 1),
        ([match(color="blue"), match(color="green")], 1),
        ([match(color="red"), match(color="yellow")], 2),
    ]
    text = "\n".join(f"- {{matches: [{', '.join(each)}], {to(number)}}}" for each, number in rules)
    grpc_infra.apply(route(text, kind="GRPCRoute", name="header-matching"))
    accepted(grpc_infra, "header-matching")
    one, two, none = "grpc-infra-backend-v1", "grpc-infra-backend-v2", "UNIMPLEMENTED"
    with channel(port(grpc_infra), "example.com") as opened:
        for metadata, outcome in [
            ({"Version": "one"}, one),
            ({"Version": "two"}, two),
            ({"Version": "two", "Color": "orange"}, one),
            # As many headers match in either rule; the first is served.
            ({"Version": "two", "Color": "blue"}, two),
            ({"Color": "orange"}, none),
            ({"Some-Other-Header": "one"}, none),
            ({"Color": "blue"}, one),
            ({"Color": "green"}, one),
            ({"Color": "red"}, two),
            ({"Color": "yellow"}, two),
            ({"Color": "purple"}, none),
        ]:
            assert call(opened, metadata=metadata).outcome == outcome, metadata


@conformance("GRPCRouteListenerHostnameMatching")
def test_GRPCRouteListenerHostnameMatching(grpc_infra: Infra) -> None:
    name = "grpcroute-listener-hostname-matching"
    hostnames = ["bar.com", "foo.bar.com", "*.bar.com", "*.foo.com"]
    listeners = ",\n".join(
        f'{{name: listener-{number}, port: 80, protocol: HTTP, hostname: "{host}"}}'
        for number, host in enumerate(hostnames, 1)
    )
    gateway = f"""
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: {name}, namespace: gateway-conformance-infra}}
spec:
  gatewayClassName: kgateway
  listeners: [{textwrap.indent(listeners, "    ")}]
"""

    def parent(number: int) -> str:
        return (
            f"{{name: {name}, namespace: gateway-conformance-infra, "
            f"sectionName: listener-{number}}}"
        )

    grpc_infra.apply(
        gateway,
        route(f"- {to(1)}", parent(1), kind="GRPCRoute", name="backend-v1"),
        route(f"- {to(2)}", parent(2), kind="GRPCRoute", name="backend-v2"),
        route(f"- {to(3)}", parent(3), parent(4), kind="GRPCRoute", name="backend-v3"),
    )
    for number, own in enumerate(["backend-v1", "backend-v2", "backend-v3", "backend-v3"], 1):
        accepted(grpc_infra, own, name, sectionName=f"listener-{number}")
    at = port(grpc_infra, name)
    for host, outcome in [
        ("bar.com", "grpc-infra-backend-v1"),
        ("foo.bar.com", "grpc-infra-backend-v2"),
        ("baz.bar.com", "grpc-infra-backend-v3"),
        ("boo.bar.com", "grpc-infra-backend-v3"),
        ("multiple.prefixes.bar.com", "grpc-infra-backend-v3"),
        ("multiple.prefixes.foo.com", "grpc-infra-backend-v3"),
        ("foo.com", "UNIMPLEMENTED"),
        ("no.matching.host", "UNIMPLEMENTED"),
    ]:
        with channel(at, host) as opened:
            assert call(opened).outcome == outcome, host


@conformance("GRPCRouteNamedRule")
def test_GRPCRouteNamedRule(grpc_infra: Infra) -> None:
    def rule(name: str, method: str, number: int) -> str:
        match = f"matches: [{{method: {{service: {ECHO}, method: {method}}}}}]"
        return f"- {{{name}{match}, {to(number)}}}"

    rules = [rule("name: named-rule, ", "Echo", 1), rule("", "EchoTwo", 2)]
    grpc_infra.apply(route("\n".join(rules), kind="GRPCRoute", name="named-rules"))
    accepted(grpc_infra, "named-rules")
    with channel(port(grpc_infra), "example.com") as opened:
        assert call(opened, "Echo").outcome == "grpc-infra-backend-v1"
        assert call(opened, "EchoTwo").outcome == "grpc-infra-backend-v2"


@conformance("GRPCRouteRequestHeaderModifier")
def test_GRPCRouteRequestHeaderModifier(grpc_infra: Infra) -> None:
    """The suite looks at codes and backends alone; here metadata counts as well."""

    def rule(method: str, number: int, modifier: str) -> str:
        return f"""
- matches: [{{method: {{service: {ECHO}, method: {method}}}}}]
  filters:
  - type: RequestHeaderModifier
    requestHeaderModifier: {modifier}
  {to(number)}
"""

    def edit(name: str, value: str) -> str:
        return f"{{name: {name}, value: {value}}}"

    several = f"""
      set: [{edit("X-Header-Set-1", "header-set-1")}, {edit("X-Header-Set-2", "header-set-2")}]
      add: [{edit("X-Header-Add-1", "header-add-1")}, {edit("X-Header-Add-2", "header-add-2")}]
      remove: [X-Header-Remove-1, X-Header-Remove-2]
"""
    rules = [
        rule("Echo", 1, f"{{set: [{edit('X-Header-Set', 'set-overwrites-values')}]}}"),
        # The same calls as the first one's, which is served.
        rule("Echo", 1, f"{{add: [{edit('X-Header-Add', 'add-appends-values')}]}}"),
        rule("EchoTwo", 2, several),
        rule("EchoThree", 1, f"{{add: [{edit('X-Add', 'new')}], remove: [X-Remove]}}"),
    ]
    grpc_infra.apply(route("".join(rules), kind="GRPCRoute", name="header-modifier"))
    accepted(grpc_infra, "header-modifier")
    with channel(port(grpc_infra), ECHO) as opened:
        answer = call(opened, metadata={"Some-Other-Header": "stays"})
        assert answer.outcome == "grpc-infra-backend-v1"
        assert answer.received("X-Header-Set") == "set-overwrites-values"
        assert answer.received("Some-Other-Header") == "stays"
        assert answer.received("X-Header-Add") is None
        answer = call(opened, metadata={"X-Header-Set": "is-overwritten"})
        assert answer.received("X-Header-Set") == "set-overwrites-values"
        given = {
            "X-Header-Set-2": "set-header-2",
            "X-Header-Add-2": "add-header-2",
            "X-Header-Remove-2": "removed",
            "Some-Other-Header": "stays",
        }
        answer = call(opened, "EchoTwo", given)
        assert answer.outcome == "grpc-infra-backend-v2"
        for name, value in [
            ("X-Header-Set-1", "header-set-1"),
            ("X-Header-Set-2", "header-set-2"),
            ("X-Header-Add-1", "header-add-1"),
            ("X-Header-Add-2", "add-header-2,header-add-2"),
            ("X-Header-Remove-2", None),
            ("Some-Other-Header", "stays"),
        ]:
            assert answer.received(name) == value, name
        answer = call(opened, "EchoThree", {"x-add": "old", "x-remove": "removed"})
        assert (answer.received("x-add"), answer.received("x-remove")) == ("old,new", None)


@conformance("BackendTLSPolicyGRPCRoute")
def test_BackendTLSPolicyGRPCRoute(infra: Infra) -> None:
    """Of the backend's policies one is right, one asks for another name, one trusts others."""
    kept = {
        "grpc-test": ("abc.example.com", "right"),
        "grpc-host-mismatch-test": ("mismatch.example.com", "right"),
        "grpc-cert-mismatch-test": ("abc.example.com", "wrong"),
    }
    policies = [
        f"""
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {{name: {name}, namespace: gateway-conformance-infra}}
spec:
  targetRefs: [{{group: "", kind: Service, name: {name}, sectionName: main}}]
  validation:
    caCertificateRefs: [{{group: "", kind: ConfigMap, name: {authority}}}]
    hostname: {hostname}
"""
        for name, (hostname, authority) in kept.items()
    ]

    def rule(method: str, service: str) -> str:
        match = f"matches: [{{method: {{service: {ECHO}, method: {method}}}}}]"
        return f"- {{{match}, backendRefs: [{{name: {service}, port: 443}}]}}"

    others = trustme.CA(organization_name="others").cert_pem.bytes().decode()
    rules = [rule("Echo", "grpc-test"), rule("EchoTwo", "grpc-host-mismatch-test")]
    with backend("grpc-infra-backend-v1", issued("abc.example.com")) as address:
        for number, name in enumerate(kept):
            ip = f"10.96.4.{number + 1}"
            infra.endpoints(name, INFRA, [address], port=443, cluster_ip=ip)
        infra.apply(
            config_map("right", namespace=INFRA),
            config_map("wrong", namespace=INFRA, text=others),
            *policies,
            route("\n".join(rules), kind="GRPCRoute", name="good", hostnames=["abc.example.com"]),
            route(
                rule("Echo", "grpc-cert-mismatch-test"),
                kind="GRPCRoute",
                name="cert-mismatch",
                hostnames=["cert-mismatch.example.com"],
            ),
        )
        for name in kept:
            (ancestor,) = infra.status("BackendTLSPolicy", name)["ancestors"]
            assert ancestor["ancestorRef"]["name"] == "same-namespace"
            assert conditions(ancestor)["Accepted"] == ("True", "Accepted")
            assert conditions(ancestor)["ResolvedRefs"] == ("True", "ResolvedRefs")
        with channel(port(infra), "abc.example.com") as opened:
            assert call(opened).outcome == "grpc-infra-backend-v1"
            assert call(opened, "EchoTwo").outcome == "UNAVAILABLE"
        with channel(port(infra), "cert-mismatch.example.com") as opened:
            assert call(opened).outcome == "UNAVAILABLE"


@conformance("GRPCRouteWeight")
def test_GRPCRouteWeight(grpc_infra: Infra) -> None:
    weights = {1: 70, 2: 30, 3: 0}
    refs = ", ".join(
        f"{{name: grpc-infra-backend-v{number}, port: 8080, weight: {weight}}}"
        for number, weight in weights.items()
    )
    grpc_infra.apply(route(f"- backendRefs: [{refs}]", kind="GRPCRoute", name="weighted"))
    accepted(grpc_infra, "weighted")

    def sample(opened: grpc.Channel) -> Counter[str]:
        return Counter(call(opened).outcome for _ in range(500))

    expected = {f"grpc-infra-backend-v{number}": one / 100 for number, one in weights.items()}
    with channel(port(grpc_infra), "example.com") as opened:
        expect_shares(lambda: sample(opened), expected)
