"""Gateways: their listeners, certificates and addresses, and how many routes there are."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from tests.conformance.infra import APP, GROUP, INFRA, WEB, Infra, conditions, route
from tests.conformance.suite import conformance
from tests.translate.certificates import secret

from kgw.api import Gateway
from kgw.attach.infrastructure import generated_metadata
from kgw.translate import AddressPool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GOOD = {
    "Accepted": ("True", "Accepted"),
    "Programmed": ("True", "Programmed"),
    "ResolvedRefs": ("True", "ResolvedRefs"),
    "Conflicted": ("False", "NoConflicts"),
}

#: Addresses of loopback that no test of another process has.
NETWORK = f"127.{20 + os.getpid() % 40}.{os.getpid() // 40 % 250}"

RULE = "- backendRefs: [{name: infra-backend-v1, port: 8080}]"
CERTIFICATE = "{group: '', kind: Secret, name: certificate}"


def gateway(name: str, *listeners: str, generation: int = 1, more: str = "{}") -> str:
    lines = "".join(f"  - {one}\n" for one in listeners)
    extra = "" if more == "{}" else f"  {more}\n"
    return f"""apiVersion: {GROUP}/v1
kind: Gateway
metadata: {{name: {name}, namespace: {INFRA}, generation: {generation}}}
spec:
  gatewayClassName: kgateway
{extra}  listeners:
{lines}"""


def http(name: str = "http", port: int = 80, more: str = "") -> str:
    return (
        f"{{name: {name}, port: {port}, protocol: HTTP{more}, "
        "allowedRoutes: {namespaces: {from: All}}}"
    )


def https(name: str = "https", ref: str = CERTIFICATE, hostname: str = "secure.test.com") -> str:
    host = f"hostname: {hostname}, " if hostname else ""
    return (
        f"{{name: {name}, port: 443, protocol: HTTPS, {host}"
        f"tls: {{certificateRefs: [{ref}]}}, allowedRoutes: {{namespaces: {{from: All}}}}}}"
    )


def observed(infra: Infra, name: str) -> set[int]:
    """The generations that the conditions of a Gateway and of its listeners are about."""
    status = infra.status("Gateway", name)
    rows = [
        *status["conditions"],
        *(one for each in status["listeners"] for one in each["conditions"]),
    ]
    return {one["observedGeneration"] for one in rows}


def kinds(listener: dict[str, Any]) -> set[str]:
    return {one["kind"] for one in listener["supportedKinds"]}


# === Generations ===


@conformance("GatewayClassObservedGenerationBump")
def test_GatewayClassObservedGenerationBump(infra: Infra) -> None:
    def apply(generation: int, description: str) -> Any:
        infra.apply(f"""
apiVersion: {GROUP}/v1
kind: GatewayClass
metadata: {{name: bumped, generation: {generation}}}
spec: {{controllerName: kgateway.dev/kgateway, description: {description}}}
""")
        return infra.status("GatewayClass", "bumped", "")

    before = apply(1, "old")
    assert conditions(before)["Accepted"] == ("True", "Accepted")
    assert conditions(before)["SupportedVersion"] == ("True", "SupportedVersion")
    assert {one["observedGeneration"] for one in before["conditions"]} == {1}
    names = [one["name"] for one in before["supportedFeatures"]]
    assert names == sorted(names)
    assert {"Gateway", "HTTPRoute", "ListenerSet", "ReferenceGrant"} <= set(names)
    after = apply(2, "new")
    assert {one["observedGeneration"] for one in after["conditions"]} == {2}


@conformance("GatewayObservedGenerationBump")
def test_GatewayObservedGenerationBump(infra: Infra) -> None:
    infra.apply(gateway("bumped", http(more=", hostname: bar.com")))
    assert observed(infra, "bumped") == {1}
    infra.apply(
        gateway(
            "bumped",
            http(more=", hostname: bar.com"),
            http("added", more=", hostname: foo.com"),
            generation=2,
        )
    )
    assert observed(infra, "bumped") == {2}
    found = conditions(infra.status("Gateway", "bumped"))
    assert found["Accepted"] == ("True", "Accepted")
    assert found["Programmed"] == ("True", "Programmed")


# === Listeners ===


@conformance("GatewayListenerUnsupportedProtocol")
def test_GatewayListenerUnsupportedProtocol(infra: Infra) -> None:
    odd = "{name: odd, port: 8080, protocol: INVALID}"
    infra.apply(gateway("only", odd), gateway("both", http(), odd))
    assert conditions(infra.status("Gateway", "only"))["Accepted"] == ("False", "ListenersNotValid")
    for name in ("only", "both"):
        found = infra.listener(name, "odd")
        assert conditions(found)["Accepted"] == ("False", "UnsupportedProtocol")
        assert found["supportedKinds"] == []
        assert found["attachedRoutes"] == 0
    assert conditions(infra.status("Gateway", "both"))["Accepted"] == ("True", "ListenersNotValid")
    assert conditions(infra.status("Gateway", "both"))["Programmed"] == ("True", "Programmed")
    assert conditions(infra.listener("both", "http"))["Accepted"] == ("True", "Accepted")
    assert "HTTPRoute" in kinds(infra.listener("both", "http"))


@conformance("GatewayInvalidRouteKind")
def test_GatewayInvalidRouteKind(infra: Infra) -> None:
    def listener(given: str) -> str:
        return f"{{name: http, port: 80, protocol: HTTP, allowedRoutes: {{kinds: {given}}}}}"

    infra.apply(
        gateway("only", listener("[{kind: InvalidRoute}]")),
        gateway("both", listener("[{kind: InvalidRoute}, {kind: HTTPRoute}]")),
    )
    for name, expected in (("only", set[str]()), ("both", {"HTTPRoute"})):
        found = infra.listener(name, "http")
        assert conditions(found)["ResolvedRefs"] == ("False", "InvalidRouteKinds")
        assert kinds(found) == expected
        assert found["attachedRoutes"] == 0


@conformance("GatewayInvalidTLSConfiguration")
def test_GatewayInvalidTLSConfiguration(infra: Infra) -> None:
    broken = {
        "missing": "{group: '', kind: Secret, name: nobody}",
        "group": "{group: wrong.example, kind: Secret, name: certificate}",
        "kind": "{group: '', kind: WrongKind, name: certificate}",
        "malformed": "{group: '', kind: Secret, name: malformed}",
    }
    infra.apply(
        *(gateway(name, https(ref=ref, hostname="")) for name, ref in broken.items()),
        secret("certificate", "secure.test.com", namespace=INFRA),
        secret("malformed", namespace=INFRA, chain="Hello world\n", key="Hello world\n"),
    )
    for name in broken:
        found = infra.listener(name, "https")
        assert conditions(found)["ResolvedRefs"] == ("False", "InvalidCertificateRef"), name
        assert conditions(found)["Programmed"][0] == "False"
        assert "HTTPRoute" in kinds(found)
        assert found["attachedRoutes"] == 0


@conformance("GatewayModifyListeners")
def test_GatewayModifyListeners(infra: Infra) -> None:
    def apply(listeners: dict[str, list[str]], generation: int) -> None:
        infra.apply(
            *(gateway(name, *own, generation=generation) for name, own in listeners.items()),
            *(route(RULE, name, name=f"of-{name}") for name in listeners),
            secret("certificate", "secure.test.com", namespace=INFRA),
        )

    apply({"add": [https()], "remove": [https(), http()]}, 1)
    for name in ("add", "remove"):
        assert infra.listener(name, "https")["attachedRoutes"] == 1
    data = http(more=", hostname: data.test.com")
    apply({"add": [https(), data], "remove": [http()]}, 2)
    for name, left in (("add", ["https", "http"]), ("remove", ["http"])):
        status = infra.status("Gateway", name)
        assert [one["name"] for one in status["listeners"]] == left
        for one in status["listeners"]:
            assert conditions(one) == GOOD
            assert one["attachedRoutes"] == 1
            assert "HTTPRoute" in kinds(one)
        assert observed(infra, name) == {2}
        infra.accepted(name, f"of-{name}")
        assert conditions(infra.status("Gateway", name))["Accepted"][0] == "True"
        assert conditions(infra.status("Gateway", name))["Programmed"][0] == "True"
        assert infra.request(name, host="data.test.com").backend == "infra-backend-v1"


# === Routes ===


SELECTED = (
    "allowedRoutes: {kinds: [{kind: HTTPRoute}], namespaces: {from: Selector, "
    f"selector: {{matchLabels: {{kubernetes.io/metadata.name: {INFRA}}}}}}}}}"
)


@conformance("GatewayWithAttachedRoutes")
def test_GatewayWithAttachedRoutes(infra: Infra) -> None:
    infra.apply(
        gateway("one", f"{{name: http, port: 80, protocol: HTTP, {SELECTED}}}"),
        gateway(
            "two",
            f"{{name: http, port: 80, protocol: HTTP, hostname: foo.example.com, {SELECTED}}}",
        ),
        gateway(
            "unresolved",
            "{name: tls, port: 443, protocol: HTTPS, tls: {certificateRefs: "
            f"[{{group: '', kind: Secret, name: nobody}}]}}, {SELECTED}}}",
        ),
        route(RULE, "one", name="route-1"),
        route(RULE, "two", name="route-2"),
        route(RULE, "two", name="route-3"),
        route(RULE, "two", name="not-accepted", hostnames=["not-accepted.test.com"]),
        route(
            "- backendRefs: [{name: does-not-exist, port: 8080}]",
            "{name: unresolved, sectionName: tls}",
            name="route-4",
        ),
    )
    for name, count in (("one", 1), ("two", 2)):
        found = infra.listener(name, "http")
        assert found["attachedRoutes"] == count
        assert conditions(found) == GOOD
        assert kinds(found) == {"HTTPRoute"}
    found = infra.parent("HTTPRoute", "not-accepted", name="two")
    assert conditions(found)["Accepted"] == ("False", "NoMatchingListenerHostname")

    found = infra.listener("unresolved", "tls")
    assert found["attachedRoutes"] == 1
    assert kinds(found) == {"HTTPRoute"}
    assert conditions(found)["Programmed"][0] == "False"
    assert conditions(found)["ResolvedRefs"][0] == "False"
    parent = infra.parent("HTTPRoute", "route-4", name="unresolved")
    assert conditions(parent)["Accepted"] == ("True", "Accepted")
    assert conditions(parent)["ResolvedRefs"][0] == "False"

    # Routes that go are not counted any more.
    infra.apply(gateway("one", f"{{name: http, port: 80, protocol: HTTP, {SELECTED}}}"))
    assert infra.listener("one", "http")["attachedRoutes"] == 0


@conformance("GatewayWithAttachedRoutesWithPort8080")
def test_GatewayWithAttachedRoutesWithPort8080(infra: Infra) -> None:
    infra.apply(
        gateway("edge", http("unattached", 8080), http()),
        route(RULE, "{name: edge, sectionName: http}"),
    )
    counts = {one["name"]: one for one in infra.status("Gateway", "edge")["listeners"]}
    assert {name: one["attachedRoutes"] for name, one in counts.items()} == {
        "unattached": 0,
        "http": 1,
    }
    for one in counts.values():
        assert conditions(one) == GOOD
    assert infra.request("edge").backend == "infra-backend-v1"
    assert infra.request("edge", port=8080).status == 404


@conformance("GatewayHTTPListenerIsolation")
def test_GatewayHTTPListenerIsolation(infra: Infra) -> None:
    names = {
        "empty": "",
        "wildcard": "*.example.com",
        "narrow": "*.foo.example.com",
        "exact": "abc.foo.example.com",
    }
    hosts = {
        "bar.com": "empty",
        "bar.example.com": "wildcard",
        "bar.foo.example.com": "narrow",
        "abc.foo.example.com": "exact",
    }
    listeners = [
        http(name, more=f", hostname: '{host}'" if host else "") for name, host in names.items()
    ]

    def check(hostnames: dict[str, list[str]]) -> None:
        infra.apply(
            gateway("isolated", *listeners),
            *(
                route(
                    f"- matches: [{{path: {{type: PathPrefix, value: /{name}}}}}]\n"
                    "  backendRefs: [{name: infra-backend-v1, port: 8080}]",
                    f"{{name: isolated, sectionName: {name}}}",
                    name=name,
                    hostnames=hostnames.get(name, ()),
                )
                for name in names
            ),
        )
        infra.accepted("isolated", *names)
        for host, owner in hosts.items():
            for name in names:
                expected = "infra-backend-v1" if name == owner else 404
                outcome = infra.request("isolated", f"/{name}", host=host).outcome
                assert outcome == expected, (host, name)

    check({})
    # Routes that name hosts of other listeners, too, do not get what is those listeners'.
    check(
        {
            "empty": ["bar.com", "*.example.com", "*.foo.example.com", "abc.foo.example.com"],
            "wildcard": ["bar.com", "*.example.com", "*.foo.example.com", "abc.foo.example.com"],
            "narrow": ["bar.com", "*.example.com", "*.foo.example.com", "abc.foo.example.com"],
            "exact": ["bar.com", "*.example.com", "*.foo.example.com", "abc.foo.example.com"],
        }
    )


# === Certificates in other namespaces ===


FAR = f"{{group: '', kind: Secret, name: certificate, namespace: {WEB}}}"


def grant(name: str, namespace: str = WEB, **other: str) -> str:
    """A grant for Gateways to refer to the certificate, or a nearly right one."""
    given = {
        "from_group": GROUP,
        "from_kind": "Gateway",
        "from_namespace": INFRA,
        "to_group": "''",
        "to_kind": "Secret",
        "to_name": "certificate",
    } | other
    to_name = f", name: {given['to_name']}" if given["to_name"] else ""
    return f"""apiVersion: {GROUP}/v1
kind: ReferenceGrant
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  from:
  - group: {given["from_group"]}
    kind: {given["from_kind"]}
    namespace: {given["from_namespace"]}
  to: [{{group: {given["to_group"]}, kind: {given["to_kind"]}{to_name}}}]
"""


def referring(infra: Infra, *grants: str) -> dict[str, tuple[str, str]]:
    """The conditions of a listener with a certificate of another namespace."""
    infra.apply(
        gateway("far", https(ref=FAR, hostname="")),
        secret("certificate", "secure.test.com", namespace=WEB),
        *grants,
    )
    found = infra.listener("far", "https")
    assert "HTTPRoute" in kinds(found)
    assert found["attachedRoutes"] == 0
    return conditions(found)


@conformance("GatewaySecretMissingReferenceGrant")
def test_GatewaySecretMissingReferenceGrant(infra: Infra) -> None:
    assert referring(infra)["ResolvedRefs"] == ("False", "RefNotPermitted")


@conformance("GatewaySecretInvalidReferenceGrant")
def test_GatewaySecretInvalidReferenceGrant(infra: Infra) -> None:
    wrong = [
        grant("namespace", APP),
        grant("from-group", from_group="not.the.group"),
        grant("from-kind", from_kind="HTTPRoute"),
        grant("from-namespace", from_namespace="not-the-namespace"),
        grant("to-group", to_group="not.the.group"),
        grant("to-kind", to_kind="Service"),
        grant("to-name", to_name="not-the-certificate"),
    ]
    assert referring(infra, *wrong)["ResolvedRefs"] == ("False", "RefNotPermitted")


@conformance("GatewaySecretReferenceGrantAllInNamespace")
def test_GatewaySecretReferenceGrantAllInNamespace(infra: Infra) -> None:
    assert referring(infra, grant("all", to_name="")) == GOOD


@conformance("GatewaySecretReferenceGrantSpecific")
def test_GatewaySecretReferenceGrantSpecific(infra: Infra) -> None:
    assert referring(infra, grant("one")) == GOOD


# === Addresses and infrastructure ===


@pytest.fixture
def pooled(tmp_path: Path) -> Iterator[Infra]:
    """A cluster whose Gateways have addresses of their own."""
    pool = AddressPool(f"{NETWORK}.0/24")
    with Infra(tmp_path / "pooled", pool=pool) as infra:
        yield infra


@conformance("GatewayStaticAddresses")
def test_GatewayStaticAddresses(pooled: Infra) -> None:
    odd = "{type: test/fake-invalid-type, value: fake}"
    unusable, usable = "{value: 192.0.2.1}", f"{{value: {NETWORK}.9}}"

    def apply(*addresses: str, generation: int) -> dict[str, tuple[str, str]]:
        more = f"addresses: [{', '.join(addresses)}]"
        pooled.apply(
            gateway("static", http(port=8080), generation=generation, more=more),
            route(RULE, "static"),
        )
        assert observed(pooled, "static") == {generation}
        return conditions(pooled.status("Gateway", "static"))

    assert apply(odd, unusable, usable, generation=1)["Accepted"] == ("False", "UnsupportedAddress")
    found = apply(unusable, usable, generation=2)
    assert found["Accepted"] == ("True", "Accepted")
    assert found["Programmed"] == ("False", "AddressNotUsable")
    found = apply(usable, generation=3)
    assert found["Accepted"] == ("True", "Accepted")
    assert found["Programmed"] == ("True", "Programmed")
    status = pooled.status("Gateway", "static")
    assert status["addresses"] == [{"type": "IPAddress", "value": f"{NETWORK}.9"}]
    pooled.accepted("static", "route")
    assert "HTTPRoute" in kinds(pooled.listener("static", "http"))
    assert pooled.request("static", port=8080).backend == "infra-backend-v1"


@conformance("GatewayOptionalAddressValue")
def test_GatewayOptionalAddressValue(pooled: Infra) -> None:
    pooled.apply(
        gateway("any", http(port=8080), more="addresses: [{type: IPAddress}]"), route(RULE, "any")
    )
    pooled.accepted("any", "route")
    assert conditions(pooled.status("Gateway", "any"))["Programmed"] == ("True", "Programmed")
    (address,) = pooled.status("Gateway", "any")["addresses"]
    assert address["type"] == "IPAddress"
    assert address["value"].startswith(f"{NETWORK}.")
    assert pooled.request("any", port=8080).backend == "infra-backend-v1"


@conformance("GatewayInfrastructure")
def test_GatewayInfrastructure(infra: Infra) -> None:
    infra.apply(
        gateway(
            "labelled",
            http(port=8080),
            more="infrastructure: {annotations: {key1: value1}, labels: {key2: value2}}",
        )
    )
    assert conditions(infra.status("Gateway", "labelled"))["Accepted"][0] == "True"
    assert conditions(infra.status("Gateway", "labelled"))["Programmed"][0] == "True"
    # Nothing is made without a cluster; this is what everything has that a controller makes.
    (found,) = [
        one for one in infra.config.resources if isinstance(one, Gateway) and one.name == "labelled"
    ]
    made = generated_metadata(found)
    assert made.labels["gateway.networking.k8s.io/gateway-name"] == "labelled"
    assert made.labels["key2"] == "value2"
    assert made.annotations["key1"] == "value1"


@conformance("GatewayInvalidParametersRef")
def test_GatewayInvalidParametersRef(infra: Infra) -> None:
    ref = "{group: example.com, kind: DoesNotExist, name: nothing}"
    infra.apply(gateway("odd", http(), more=f"infrastructure: {{parametersRef: {ref}}}"))
    found = conditions(infra.status("Gateway", "odd"))
    assert found["Accepted"] == ("False", "InvalidParameters")


@conformance("GatewayNameMaximumLength")
def test_GatewayNameMaximumLength(infra: Infra) -> None:
    name = "gateway-name-maximum-length-".ljust(253, "a")
    infra.apply(gateway(name, http()), route(RULE, name))
    assert observed(infra, name) == {1}
    assert conditions(infra.status("Gateway", name))["Programmed"] == ("True", "Programmed")
    assert infra.request(name).backend == "infra-backend-v1"
    (found,) = [one for one in infra.config.resources if one.name == name]
    assert isinstance(found, Gateway)
    assert all(len(one) <= 63 for one in generated_metadata(found).labels.values())
