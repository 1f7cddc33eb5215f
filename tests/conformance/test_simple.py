"""The simplest of all: one Gateway, one route, one backend."""

from __future__ import annotations

from tests.conformance.infra import Infra, route
from tests.conformance.suite import conformance


@conformance("HTTPRouteSimpleSameNamespace")
def test_HTTPRouteSimpleSameNamespace(infra: Infra) -> None:
    infra.apply(route("- backendRefs: [{name: infra-backend-v1, port: 8080}]"))

    infra.accepted("same-namespace", "route")
    reply = infra.request("same-namespace")
    assert reply.backend == "infra-backend-v1"
    reply.passed("/", "example.com")
