"""Which listeners and services an HTTPRoute is attached to.

A route that was refused is attached by what can be read of it, and answers 500 there. Were it left
out, a Service would fall back to its default route, without the limits of the route's policies.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kgw.api import remains
from kgw.attach import backends
from kgw.attach.parents import Parents, ParentState
from kgw.diagnostics import Severity

if TYPE_CHECKING:
    from kgw.api import HTTPRoute, Service
    from kgw.attach.backends import Backend
    from kgw.attach.gateways import GatewayState
    from kgw.attach.index import Index, Named
    from kgw.attach.status import Outcome
    from kgw.attach.waypoints import Binding


@dataclass(slots=True, eq=False)
class RouteState:
    """An HTTPRoute, where it is attached and what its backends are."""

    route: HTTPRoute
    parents: list[ParentState]
    #: The backends of each rule.
    backends: list[list[Backend]]
    #: Faults of the route's own rules: `(rule, what was done, why)`; the rest is served.
    faults: dict[tuple[int, str, str], None] = field(default_factory=dict)
    #: Rules that a broken policy has replaced by an error: `(rule, why)`.
    replaced: dict[tuple[int, str], None] = field(default_factory=dict)
    #: Why the route was refused, if so: what can be read of it is answered 500.
    refusal: str | None = None

    def resolved(self, mesh: bool) -> Outcome:
        """Whether all references resolve, for a parent of the mesh or a Gateway."""
        return backends.resolved((one for rule in self.backends for one in rule), mesh)


@dataclass(slots=True)
class Routes:
    """All routes, and those of each listener and service port."""

    states: dict[Named, RouteState]
    by_listener: dict[str, list[tuple[RouteState, tuple[str, ...]]]]
    by_service: dict[tuple[str, str, int], list[RouteState]]


def resolve(
    index: Index,
    gateways: dict[Named, GatewayState],
    bindings: dict[Named, Binding],
) -> Routes:
    """Attaches all HTTPRoutes."""
    routes = Routes({}, defaultdict(list), defaultdict(list))
    resolver = Parents(index, gateways, bindings)
    for named, route in index.routes.items():
        refusal = index.refusal(route.key)
        refs = list(enumerate(route.spec.parent_refs))
        if refusal is not None:
            refs = remains.parents(index.refused[route.key])
        elif not refs:
            index.report(
                route,
                "KGW305",
                Severity.WARNING,
                "the route has no parent, so it has no effect",
                ("spec",),
            )
        parents = [resolver.resolve(route, ref, number) for number, ref in refs]
        state = RouteState(route, parents, _backends(index, route), refusal=refusal)
        routes.states[named] = state
        if any(parent.accepted.ok and not parent.mesh for parent in parents):
            backends.report_denials(index, route, state.backends)
        # Two parentRefs may lead to one listener or port; the route is there once.
        listeners = {one.id: hosts for parent in parents for one, hosts in parent.listeners}
        for ident, hosts in listeners.items():
            routes.by_listener[ident].append((state, hosts))
        ports = {
            (*_named(parent.service), port)
            for parent in parents
            if parent.service is not None
            for port in parent.ports
        }
        for port in sorted(ports):
            routes.by_service[port].append(state)
    return routes


def _backends(index: Index, route: HTTPRoute) -> list[list[Backend]]:
    return [
        [
            backends.resolve(index, route, ref, ("spec", "rules", i, "backendRefs", j))
            for j, ref in enumerate(rule.backend_refs)
        ]
        for i, rule in enumerate(route.spec.rules)
    ]


def _named(service: Service) -> Named:
    return (service.namespace, service.name)
