"""ListenerSet: which join a Gateway, who wins, and which routes each listener has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.conformance.infra import GROUP, INFRA, WEB, Infra, conditions, route
from tests.conformance.suite import conformance
from tests.translate.certificates import secret

if TYPE_CHECKING:
    from collections.abc import Iterable

ACCEPTED = {
    "Accepted": ("True", "Accepted"),
    "Programmed": ("True", "Programmed"),
    "ResolvedRefs": ("True", "ResolvedRefs"),
    "Conflicted": ("False", "NoConflicts"),
}


def gateway(name: str, *listeners: str, allowed: str = "All") -> str:
    selector = ""
    if allowed == "Selector":
        selector = ", selector: {matchLabels: {team: chosen}}"
    lines = "".join(f"  - {one}\n" for one in listeners)
    allows = ""
    if allowed:
        allows = f"  allowedListeners: {{namespaces: {{from: {allowed}{selector}}}}}\n"
    return f"""apiVersion: {GROUP}/v1
kind: Gateway
metadata: {{name: {name}, namespace: {INFRA}, generation: 1}}
spec:
  gatewayClassName: kgateway
{allows}  listeners:
{lines}"""


def listener_set(name: str, parent: str, *listeners: str, namespace: str = INFRA) -> str:
    lines = "".join(f"  - {one}\n" for one in listeners)
    return f"""apiVersion: {GROUP}/v1
kind: ListenerSet
metadata: {{name: {name}, namespace: {namespace}, generation: 1}}
spec:
  parentRef: {{group: {GROUP}, kind: Gateway, name: {parent}, namespace: {INFRA}}}
  listeners:
{lines}"""


def http(name: str, host: str = "", *, routes: str = "All") -> str:
    namespaces = f"{{from: {routes}}}"
    if routes == "Selector":
        namespaces = "{from: Selector, selector: {matchLabels: {allowed: ns}}}"
    return (
        f"{{name: {name}, port: 80, protocol: HTTP, hostname: {host or f'{name}.com'}, "
        f"allowedRoutes: {{namespaces: {namespaces}}}}}"
    )


def to(backend: str, path: str = "/") -> str:
    match = f"[{{path: {{type: PathPrefix, value: {path}}}}}]"
    refs = f"[{{name: {backend}, namespace: {INFRA}, port: 8080}}]"
    return f"- {{matches: {match}, backendRefs: {refs}}}"


def parent(
    name: str, section: str = "", *, kind: str = "ListenerSet", namespace: str = INFRA
) -> str:
    more = f", sectionName: {section}" if section else ""
    return f"{{group: {GROUP}, kind: {kind}, name: {name}, namespace: {namespace}{more}}}"


def namespace(name: str, labels: str = "{}") -> str:
    return f"{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}, labels: {labels}}}}}"


def attached(infra: Infra, gateway: str) -> int:
    """How many sets have joined a Gateway, which is accepted whatever these are."""
    assert conditions(infra.status("Gateway", gateway))["Accepted"] == ("True", "Accepted")
    found = infra.status("Gateway", gateway)["attachedListenerSets"]
    assert isinstance(found, int)
    return found


def joined(infra: Infra, name: str, namespace: str = INFRA) -> dict[str, tuple[str, str]]:
    status = infra.status("ListenerSet", name, namespace)
    assert {one["observedGeneration"] for one in status["conditions"]} == {1}
    return conditions(status)


def good(infra: Infra, name: str, namespace: str = INFRA) -> None:
    """A set that joined, all of whose listeners are served."""
    assert joined(infra, name, namespace) == {
        "Accepted": ("True", "Accepted"),
        "Programmed": ("True", "Programmed"),
    }
    for one in infra.status("ListenerSet", name, namespace)["listeners"]:
        assert conditions(one) == ACCEPTED
        assert {"group": GROUP, "kind": "HTTPRoute"} in one["supportedKinds"]


def refused(infra: Infra, name: str, namespace: str = INFRA) -> None:
    """A set that may not join."""
    assert joined(infra, name, namespace) == {
        "Accepted": ("False", "NotAllowed"),
        "Programmed": ("False", "NotAllowed"),
    }


def answers(infra: Infra, gateway: str, cases: Iterable[tuple[str, str, str | int]]) -> None:
    for host, path, expected in cases:
        reply = infra.request(gateway, path, host=host)
        assert reply.outcome == expected, (host, path)
        reply.passed(path, host)


# === Which may join ===


@pytest.fixture
def sets(infra: Infra) -> Infra:
    """Three sets that want to join the Gateway ``edge``, of its own namespace and of two others."""
    infra.write(
        "sets",
        "\n---\n".join(
            [
                namespace("chosen", "{team: chosen}"),
                namespace("other"),
                listener_set("near", "edge", http("near")),
                listener_set("far", "edge", http("far"), namespace="chosen"),
                listener_set("third", "edge", http("third"), namespace="other"),
            ]
        ),
    )
    return infra


@conformance("ListenerSetDefaultNotAllowed")
def test_ListenerSetDefaultNotAllowed(sets: Infra) -> None:
    sets.apply(gateway("edge", http("own"), allowed=""))
    for name, where in (("near", INFRA), ("far", "chosen"), ("third", "other")):
        refused(sets, name, where)
    assert attached(sets, "edge") == 0
    assert conditions(sets.status("Gateway", "edge"))["Accepted"][0] == "True"


@conformance("ListenerSetAllowedNamespaceNone")
def test_ListenerSetAllowedNamespaceNone(sets: Infra) -> None:
    sets.apply(gateway("edge", http("own"), allowed="None"))
    for name, where in (("near", INFRA), ("far", "chosen")):
        refused(sets, name, where)
    assert attached(sets, "edge") == 0


@conformance("ListenerSetAllowedNamespaceSame")
def test_ListenerSetAllowedNamespaceSame(sets: Infra) -> None:
    sets.apply(gateway("edge", http("own"), allowed="Same"))
    good(sets, "near")
    refused(sets, "far", "chosen")
    assert attached(sets, "edge") == 1
    assert conditions(sets.listener("edge", "own")) == ACCEPTED


@conformance("ListenerSetAllowedNamespaceSelector")
def test_ListenerSetAllowedNamespaceSelector(sets: Infra) -> None:
    sets.apply(gateway("edge", http("own"), allowed="Selector"))
    good(sets, "far", "chosen")
    refused(sets, "near")
    refused(sets, "third", "other")
    assert attached(sets, "edge") == 1


# === Routes ===


@conformance("ListenerSetHTTPRouting")
def test_ListenerSetHTTPRouting(infra: Infra) -> None:
    infra.apply(
        gateway("edge", http("gateway-1"), http("gateway-2")),
        listener_set("first", "edge", http("first-1"), http("first-2")),
        listener_set("second", "edge", http("second-1"), http("second-2")),
        route(
            to("infra-backend-v1", "/all"),
            parent("edge", kind="Gateway"),
            parent("first"),
            parent("second"),
            name="all",
        ),
        route(to("infra-backend-v2", "/gateway"), parent("edge", kind="Gateway"), name="gateway"),
        route(
            to("infra-backend-v3", "/section"),
            parent("edge", "gateway-1", kind="Gateway"),
            name="section",
        ),
        route(to("infra-backend-v2", "/first"), parent("first"), name="first"),
        route(to("infra-backend-v3", "/one"), parent("first", "first-1"), name="one"),
        route(to("infra-backend-v2", "/second"), parent("second"), name="second"),
    )
    infra.accepted("edge", "all", "gateway", "section")
    infra.accepted("first", "all", "first", "one", of="ListenerSet")
    infra.accepted("second", "all", "second", of="ListenerSet")
    assert attached(infra, "edge") == 2
    for name, numbers in (("first", [3, 2]), ("second", [2, 2])):
        good(infra, name)
        listeners = infra.status("ListenerSet", name)["listeners"]
        assert [one["attachedRoutes"] for one in listeners] == numbers

    hosts = ("gateway-1", "gateway-2", "first-1", "first-2", "second-1", "second-2")
    paths = {
        "/all": ("infra-backend-v1", hosts),
        "/gateway": ("infra-backend-v2", hosts[:2]),
        "/section": ("infra-backend-v3", hosts[:1]),
        "/first": ("infra-backend-v2", hosts[2:4]),
        "/one": ("infra-backend-v3", hosts[2:3]),
        "/second": ("infra-backend-v2", hosts[4:]),
    }
    answers(
        infra,
        "edge",
        [
            (f"{host}.com", path, backend if host in where else 404)
            for path, (backend, where) in paths.items()
            for host in hosts
        ],
    )


@conformance("ListenerSetAllowedRoutesNamespaces")
def test_ListenerSetAllowedRoutesNamespaces(infra: Infra) -> None:
    grants = "".join(
        f"  - {{group: {GROUP}, kind: HTTPRoute, namespace: {one}}}\n"
        for one in ("allowed", "not-allowed", "far")
    )
    infra.apply(
        gateway("edge", http("own")),
        listener_set(
            "near",
            "edge",
            http("all"),
            http("same", routes="Same"),
            http("selector", routes="Selector"),
        ),
        listener_set("cross", "edge", http("cross", routes="Same"), namespace="far"),
        namespace("allowed", "{allowed: ns}"),
        namespace("not-allowed"),
        namespace("far"),
        f"""
apiVersion: {GROUP}/v1
kind: ReferenceGrant
metadata: {{name: services, namespace: {INFRA}}}
spec:
  from:
{grants}
  to: [{{group: "", kind: Service}}]
""",
        route(to("infra-backend-v1", "/near"), parent("near"), name="near"),
        route(to("infra-backend-v2", "/a"), parent("near"), name="a", namespace="allowed"),
        route(to("infra-backend-v3", "/b"), parent("near"), name="b", namespace="not-allowed"),
        route(
            to("infra-backend-v1", "/set"),
            parent("cross", namespace="far"),
            name="set",
            namespace="far",
        ),
        route(to("infra-backend-v2", "/gateway"), parent("cross", namespace="far"), name="gateway"),
    )
    assert attached(infra, "edge") == 2
    good(infra, "near")
    good(infra, "cross", "far")
    for name, where in (("near", INFRA), ("a", "allowed"), ("b", "not-allowed")):
        infra.accepted("near", name, of="ListenerSet", namespace=where)
    infra.accepted("cross", "set", of="ListenerSet", namespace="far", at="far")
    found = infra.parent("HTTPRoute", "gateway", name="cross")
    assert conditions(found)["Accepted"] == ("False", "NotAllowedByListeners")
    counts = {
        one["name"]: one["attachedRoutes"]
        for name, where in (("near", INFRA), ("cross", "far"))
        for one in infra.status("ListenerSet", name, where)["listeners"]
    }
    assert counts == {"all": 3, "same": 1, "selector": 1, "cross": 1}
    answers(
        infra,
        "edge",
        [
            ("all.com", "/near", "infra-backend-v1"),
            ("all.com", "/a", "infra-backend-v2"),
            ("all.com", "/b", "infra-backend-v3"),
            ("same.com", "/near", "infra-backend-v1"),
            ("same.com", "/a", 404),
            ("same.com", "/b", 404),
            ("selector.com", "/near", 404),
            ("selector.com", "/a", "infra-backend-v2"),
            ("selector.com", "/b", 404),
            ("cross.com", "/set", "infra-backend-v1"),
            ("cross.com", "/gateway", 404),
        ],
    )


@conformance("ListenerSetAllowedRoutesSupportedKinds")
def test_ListenerSetAllowedRoutesSupportedKinds(infra: Infra) -> None:
    infra.apply(
        gateway("edge", http("own")),
        listener_set(
            "odd",
            "edge",
            "{name: tls, port: 443, protocol: TLS, hostname: tls.com, tls: {mode: Passthrough}, "
            "allowedRoutes: {namespaces: {from: All}, kinds: [{kind: HTTPRoute}]}}",
        ),
    )
    assert conditions(infra.status("Gateway", "edge"))["Accepted"][0] == "True"
    found = infra.listener("odd", "tls", kind="ListenerSet")
    assert conditions(found)["ResolvedRefs"] == ("False", "InvalidRouteKinds")
    assert found["supportedKinds"] == []


@conformance("ListenerSetDualParentRefIndependence")
def test_ListenerSetDualParentRefIndependence(infra: Infra) -> None:
    infra.apply(
        gateway("edge", http("gw", routes="Same"), allowed="Same"),
        listener_set("team", "edge", http("set", routes="Same")),
        route(
            to("infra-backend-v1", "/both"),
            parent("edge", kind="Gateway"),
            parent("team"),
            name="both",
        ),
        route(
            to("infra-backend-v2", "/one"),
            parent("edge", "set", kind="Gateway"),
            parent("team", "set"),
            name="one",
        ),
    )
    assert attached(infra, "edge") == 1
    listener = infra.listener("team", "set", kind="ListenerSet")
    assert (listener["attachedRoutes"], conditions(listener)) == (2, ACCEPTED)
    for kind, name in (("Gateway", "edge"), ("ListenerSet", "team")):
        found = infra.parent("HTTPRoute", "both", kind=kind, name=name)
        assert conditions(found)["Accepted"] == ("True", "Accepted")
    found = infra.parent("HTTPRoute", "one", kind="Gateway")
    assert conditions(found)["Accepted"] == ("False", "NoMatchingParent")
    found = infra.parent("HTTPRoute", "one", kind="ListenerSet")
    assert conditions(found)["Accepted"] == ("True", "Accepted")
    answers(
        infra,
        "edge",
        [
            ("gw.com", "/both", "infra-backend-v1"),
            ("set.com", "/both", "infra-backend-v1"),
            ("set.com", "/one", "infra-backend-v2"),
            ("gw.com", "/one", 404),
        ],
    )


@conformance("ListenerSetGatewayParentSectionNameNotFound")
def test_ListenerSetGatewayParentSectionNameNotFound(infra: Infra) -> None:
    infra.apply(
        gateway("edge", http("gw", routes="Same"), allowed="Same"),
        listener_set("team", "edge", http("set", routes="Same")),
        route(to("infra-backend-v1", "/good"), parent("team", "set"), name="good"),
        route(to("infra-backend-v2", "/bad"), parent("edge", "set", kind="Gateway"), name="bad"),
    )
    assert attached(infra, "edge") == 1
    found = infra.parent("HTTPRoute", "good", kind="ListenerSet")
    assert conditions(found)["Accepted"] == ("True", "Accepted")
    found = infra.parent("HTTPRoute", "bad", kind="Gateway")
    assert conditions(found)["Accepted"] == ("False", "NoMatchingParent")
    answers(infra, "edge", [("set.com", "/good", "infra-backend-v1"), ("gw.com", "/bad", 404)])


@conformance("ListenerSetRouteStatusScopedToParentRef")
def test_ListenerSetRouteStatusScopedToParentRef(infra: Infra) -> None:
    infra.apply(
        gateway("edge", http("gw", routes="Same"), allowed="Same"),
        listener_set("team", "edge", http("set", routes="Same")),
        route(to("infra-backend-v1", "/gw"), parent("edge", kind="Gateway"), name="gw"),
        route(to("infra-backend-v2", "/set"), parent("team"), name="set"),
    )
    assert attached(infra, "edge") == 1
    assert infra.listener("team", "set", kind="ListenerSet")["attachedRoutes"] == 1
    assert infra.listener("edge", "gw")["attachedRoutes"] == 1
    for name, kind, of in (("gw", "Gateway", "edge"), ("set", "ListenerSet", "team")):
        (found,) = infra.status("HTTPRoute", name)["parents"]
        ref = {"group": GROUP, "kind": kind, "name": of, "namespace": INFRA}
        assert found["parentRef"] == ref
        assert found["controllerName"] == "kgateway.dev/kgateway"
        assert conditions(found)["Accepted"] == ("True", "Accepted")


# === Conflicts ===


def lost(reason: str) -> dict[str, tuple[str, str]]:
    return {
        "Accepted": ("False", reason),
        "Programmed": ("False", reason),
        "Conflicted": ("True", reason),
        "ResolvedRefs": ("True", "ResolvedRefs"),
    }


def conflicting(infra: Infra, reason: str, clash: str) -> None:
    """A Gateway and four sets, two of which have nothing that others do not have.

    Args:
        infra: the cluster.
        reason: that of the listeners that lose.
        clash: such a listener, with a name and host to be filled in.
    """

    def loser(name: str) -> str:
        return clash.format(name=name, host=f"{name}.com")

    infra.apply(
        gateway("edge", http("own"), http("of-gateway"), allowed="Same"),
        listener_set("a-1", "edge", http("a"), loser("of-gateway"), http("of-set")),
        listener_set("a-2", "edge", loser("of-gateway")),
        listener_set("b-1", "edge", http("b"), loser("of-set")),
        listener_set("b-2", "edge", loser("of-set")),
    )
    assert conditions(infra.status("Gateway", "edge"))["Accepted"] == ("True", "Accepted")
    for name in ("own", "of-gateway"):
        assert conditions(infra.listener("edge", name)) == ACCEPTED
    assert attached(infra, "edge") == 2
    for name, own, loses, wins in (
        ("a-1", "a", "of-gateway", "of-set"),
        ("b-1", "b", "of-set", None),
    ):
        assert joined(infra, name)["Accepted"][0] == "True"
        assert joined(infra, name)["Programmed"] == ("True", "Programmed")
        assert conditions(infra.listener(name, own, kind="ListenerSet")) == ACCEPTED
        assert conditions(infra.listener(name, loses, kind="ListenerSet")) == lost(reason)
        if wins is not None:
            assert conditions(infra.listener(name, wins, kind="ListenerSet")) == ACCEPTED
    for name, loses in (("a-2", "of-gateway"), ("b-2", "of-set")):
        assert joined(infra, name) == {
            "Accepted": ("False", "ListenersNotValid"),
            "Programmed": ("False", "ListenersNotValid"),
        }
        assert conditions(infra.listener(name, loses, kind="ListenerSet")) == lost(reason)


@conformance("ListenerSetHostnameConflict")
def test_ListenerSetHostnameConflict(infra: Infra) -> None:
    conflicting(
        infra, "HostnameConflict", "{{name: {name}, port: 80, protocol: HTTP, hostname: {host}}}"
    )


@conformance("ListenerSetProtocolConflict")
def test_ListenerSetProtocolConflict(infra: Infra) -> None:
    conflicting(infra, "ProtocolConflict", "{{name: {name}, port: 80, protocol: TCP}}")


# === References ===


@conformance("ListenerSetReferenceGrant")
def test_ListenerSetReferenceGrant(infra: Infra) -> None:
    def https(name: str) -> str:
        ref = f"{{group: '', kind: Secret, name: certificate, namespace: {WEB}}}"
        return (
            f"{{name: {name}, port: 443, protocol: HTTPS, hostname: {name}.com, "
            f"tls: {{certificateRefs: [{ref}]}}}}"
        )

    def grant(name: str, kind: str) -> str:
        return f"""apiVersion: {GROUP}/v1
kind: ReferenceGrant
metadata: {{name: {name}, namespace: {WEB}}}
spec:
  from: [{{group: {GROUP}, kind: {kind}, namespace: {INFRA}}}]
  to: [{{group: "", kind: Secret}}]
"""

    infra.apply(
        gateway("edge", https("own")),
        listener_set("granted", "edge", https("granted")),
        listener_set("denied", "edge", https("denied"), namespace="far"),
        namespace("far"),
        secret("certificate", "own.com", namespace=WEB),
        grant("gateways", "Gateway"),
        grant("sets", "ListenerSet"),
    )
    assert conditions(infra.status("Gateway", "edge"))["Accepted"][0] == "True"
    assert joined(infra, "granted")["Accepted"][0] == "True"
    assert joined(infra, "granted")["Programmed"][0] == "True"
    found = infra.listener("granted", "granted", kind="ListenerSet")
    assert conditions(found)["ResolvedRefs"][0] == "True"
    assert joined(infra, "denied", "far") == {
        "Accepted": ("False", "ListenersNotValid"),
        "Programmed": ("False", "ListenersNotValid"),
    }
    (found,) = infra.status("ListenerSet", "denied", "far")["listeners"]
    assert conditions(found)["ResolvedRefs"] == ("False", "RefNotPermitted")

    # The grant of Gateways is not the sets'.
    infra.apply(
        gateway("edge", https("own")),
        listener_set("granted", "edge", https("granted")),
        secret("certificate", "own.com", namespace=WEB),
        grant("gateways", "Gateway"),
    )
    found = infra.listener("granted", "granted", kind="ListenerSet")
    assert conditions(found)["ResolvedRefs"] == ("False", "RefNotPermitted")
    assert conditions(infra.listener("edge", "own"))["ResolvedRefs"][0] == "True"
