"""The simplest of all: one Gateway, one route, one backend."""

from __future__ import annotations

from tests.conformance.infra import Infra, conditions, route
from tests.conformance.suite import conformance


@conformance("HTTPRouteSimpleSameNamespace")
def test_HTTPRouteSimpleSameNamespace(infra: Infra) -> None:
    infra.apply(route("- backendRefs: [{name: infra-backend-v1, port: 8080}]"))

    assert infra.request("same-namespace").backend == "infra-backend-v1"
    parent = infra.parent("HTTPRoute", "route", name="same-namespace")
    assert conditions(parent)["Accepted"] == ("True", "Accepted")
    assert conditions(parent)["ResolvedRefs"] == ("True", "ResolvedRefs")
    assert {one["observedGeneration"] for one in parent["conditions"]} == {1}
