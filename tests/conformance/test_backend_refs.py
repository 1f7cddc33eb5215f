"""Which backends get requests, and what becomes of those that cannot."""

from __future__ import annotations

from tests.conformance import rules
from tests.conformance.infra import APP, GROUP, INFRA, WEB, Infra, conditions, route
from tests.conformance.shares import expect_shares
from tests.conformance.suite import conformance

GRANT = """
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  from: [{{group: {group}, kind: {kind}, namespace: {source}}}]
  to: [{{group: "{to_group}", kind: {to_kind}, name: {to}}}]
"""


def grant(
    name: str = "reference-grant",
    namespace: str = WEB,
    *,
    group: str = GROUP,
    kind: str = "HTTPRoute",
    source: str = INFRA,
    to_group: str = "",
    to_kind: str = "Service",
    to: str = "web-backend",
) -> str:
    return GRANT.format(
        name=name,
        namespace=namespace,
        group=group,
        kind=kind,
        source=source,
        to_group=to_group,
        to_kind=to_kind,
        to=to,
    )


def resolved(infra: Infra) -> tuple[str, str]:
    """Status and reason of the route's ResolvedRefs; it must be accepted."""
    infra.accepted("same-namespace", "route", resolved=False)
    found = conditions(infra.parent("HTTPRoute", "route", name="same-namespace"))
    return found["ResolvedRefs"]


ABROAD = rules.text(rules.rule(to=rules.backend("web-backend", namespace=WEB)))


@conformance("HTTPRouteWeight")
def test_HTTPRouteWeight(infra: Infra) -> None:
    weights = {"infra-backend-v1": 70, "infra-backend-v2": 30, "infra-backend-v3": 0}
    refs = [rules.backend(name, weight=weight) for name, weight in weights.items()]
    infra.apply(route(rules.text(rules.rule(to=refs))))

    assert resolved(infra) == ("True", "ResolvedRefs")
    expected = {name: weight / 100 for name, weight in weights.items()}
    expect_shares(lambda: infra.shares("same-namespace", 500), expected)


@conformance("HTTPRouteNoBackendRefs")
def test_HTTPRouteNoBackendRefs(infra: Infra) -> None:
    omitted = rules.rule("/omitted-no-forward", exact=True)
    del omitted["backendRefs"]
    infra.apply(
        route(
            rules.text(
                omitted,
                rules.rule("/empty-no-forward", exact=True, to=[]),
                rules.rule("/"),
            )
        )
    )

    assert resolved(infra) == ("True", "ResolvedRefs")
    assert infra.request("same-namespace", "/forward").backend == "infra-backend-v1"
    assert infra.request("same-namespace", "/omitted-no-forward").status == 500
    assert infra.request("same-namespace", "/empty-no-forward").status == 500


@conformance("HTTPRouteInvalidBackendRefUnknownKind")
def test_HTTPRouteInvalidBackendRefUnknownKind(infra: Infra) -> None:
    unknown = rules.backend(group="unknownkind.example.com", kind="NonExistent")
    infra.apply(route(rules.text(rules.rule(to=unknown))))

    assert resolved(infra) == ("False", "InvalidKind")
    assert infra.request("same-namespace", "/v2").status == 500


@conformance("HTTPRouteInvalidNonExistentBackendRef")
def test_HTTPRouteInvalidNonExistentBackendRef(infra: Infra) -> None:
    infra.apply(route(rules.text(rules.rule(to=rules.backend("nonexistent", namespace=INFRA)))))

    assert resolved(infra) == ("False", "BackendNotFound")
    assert infra.request("same-namespace").status == 500


@conformance("HTTPRouteInvalidCrossNamespaceBackendRef")
def test_HTTPRouteInvalidCrossNamespaceBackendRef(infra: Infra) -> None:
    infra.apply(route(ABROAD))

    assert resolved(infra) == ("False", "RefNotPermitted")
    assert infra.request("same-namespace").status == 500


@conformance("HTTPRouteInvalidReferenceGrant")
def test_HTTPRouteInvalidReferenceGrant(infra: Infra) -> None:
    infra.apply(
        grant("wrong-namespace", INFRA),
        grant("wrong-from-group", group="not-the-group"),
        grant("wrong-from-kind", kind="Gateway"),
        grant("wrong-from-namespace", source="not-the-namespace"),
        grant("wrong-to-group", to_group="not-the-group"),
        grant("wrong-to-kind", to_kind="Secret"),
        grant("wrong-to-name", to="not-the-service"),
        route(ABROAD),
    )

    assert resolved(infra) == ("False", "RefNotPermitted")
    assert infra.request("same-namespace").status == 500
    assert not infra.requests[f"{WEB}/web-backend"]


@conformance("HTTPRoutePartiallyInvalidViaInvalidReferenceGrant")
def test_HTTPRoutePartiallyInvalidViaInvalidReferenceGrant(infra: Infra) -> None:
    infra.apply(
        grant(namespace=APP, to="app-backend-v1"),
        route(
            rules.text(
                rules.rule("/v2", to=rules.backend("app-backend-v2", namespace=APP)),
                rules.rule(to=rules.backend("app-backend-v1", namespace=APP)),
            )
        ),
    )

    assert resolved(infra) == ("False", "RefNotPermitted")
    assert infra.request("same-namespace", "/v2").status == 500
    assert infra.request("same-namespace", "/").backend == "app-backend-v1"


@conformance("HTTPRouteReferenceGrant")
def test_HTTPRouteReferenceGrant(infra: Infra) -> None:
    infra.apply(grant(), name="grant")
    infra.apply(route(ABROAD))

    assert resolved(infra) == ("True", "ResolvedRefs")
    assert infra.request("same-namespace").backend == "web-backend"

    infra.delete("grant")
    assert infra.request("same-namespace").status == 500
    assert resolved(infra) == ("False", "RefNotPermitted")
