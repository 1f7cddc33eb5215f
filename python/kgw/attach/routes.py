"""Which listeners and services an HTTPRoute is attached to.

A route that was refused is attached by what can be read of it, and answers 500 there. Were it left
out, a Service would fall back to its default route, without the limits of the route's policies.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

from kgw.api import remains
from kgw.attach import backends
from kgw.attach.parents import Parents, ParentState
from kgw.diagnostics import Severity

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from kgw.api import HTTPRoute
    from kgw.api.gateway.references import BackendRef
    from kgw.attach.backends import Backend
    from kgw.attach.gateways import GatewayState
    from kgw.attach.index import Index, Named
    from kgw.attach.status import Outcome
    from kgw.attach.waypoints import Binding
    from kgw.diagnostics import Finding
    from kgw.source.memory import FieldPath

_K = TypeVar("_K", bound="Hashable")

#: A port of a Service: namespace, name and number.
ServiceAddress = tuple[str, str, int]

#: How many resolved references are kept for other routes.
_MOST_RESOLVED: Final = 1_000


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
    #: What was found while it was attached and compiled.
    findings: list[Finding] = field(default_factory=list)

    def resolved(self, mesh: bool) -> Outcome:
        """Whether all references resolve, for a parent of the mesh or a Gateway."""
        return backends.resolved((one for rule in self.backends for one in rule), mesh)

    @property
    def listeners(self) -> dict[str, tuple[str, ...]]:
        """The listeners that it is attached to, by id, with the hosts that it has there.

        Two parentRefs may lead to one listener; the route is there once.
        """
        return {one.id: hosts for parent in self.parents for one, hosts in parent.listeners}

    @property
    def ports(self) -> set[ServiceAddress]:
        """The service ports that it is attached to."""
        return {
            (parent.service.namespace, parent.service.name, port)
            for parent in self.parents
            if parent.service is not None
            for port in parent.ports
        }

    @property
    def gateways(self) -> tuple[Named, ...]:
        """The Gateways that serve it, for each parent that has one."""
        return tuple(one.gateway.named for one in self.parents if one.gateway is not None)


class Routes:
    """All routes, and how many of them each listener and service port has."""

    def __init__(self, index: Index, parents: Parents) -> None:
        self._index = index
        self._parents = parents
        self.states: dict[Named, RouteState] = {}
        self.by_listener: Counter[str] = Counter()
        self.by_port: Counter[ServiceAddress] = Counter()
        # What references resolve to that routes of a namespace share.
        self._resolved: dict[tuple[str, int], Backend] = {}

    def renewed(self, index: Index, parents: Parents) -> Routes:
        """The same routes, to be changed; what they stand on is new, or equal for them."""
        new = Routes(index, parents)
        new.states = dict(self.states)
        new.by_listener, new.by_port = self.by_listener.copy(), self.by_port.copy()
        return new

    def attach(self, route: HTTPRoute) -> RouteState:
        """Finds out where a route belongs; it does not count there before it is put there."""
        index = self._index
        findings: list[Finding] = []
        with index.reporting_to(findings):
            refusal = index.refusal(route.key)
            refs = list(enumerate(route.spec.parent_refs))
            if refusal is not None:
                refs = remains.parents(index.refused[route.key])
            elif not refs and route.spec.use_default_gateways == "None":
                text = "the route has no parent, so it has no effect"
                index.report(route, "KGW305", Severity.WARNING, text, ("spec",))
            parents = [self._parents.resolve(route, ref, number) for number, ref in refs]
            parents += self._parents.defaults(route)
            found = self._backends(route)
            if any(parent.accepted.ok and not parent.mesh for parent in parents):
                backends.report_denials(index, route, found)
        return RouteState(route, parents, found, refusal=refusal, findings=findings)

    def put(self, named: Named, state: RouteState | None) -> None:
        """Puts a route in the place of the one that has its name, or takes that one away."""
        before = self.states.pop(named, None)
        if before is not None:
            _count(self.by_listener, before.listeners, -1)
            _count(self.by_port, before.ports, -1)
        if state is not None:
            self.states[named] = state
            _count(self.by_listener, state.listeners, 1)
            _count(self.by_port, state.ports, 1)

    def _backends(self, route: HTTPRoute) -> list[list[Backend]]:
        return [
            [
                self._backend(route, ref, ("spec", "rules", i, "backendRefs", j))
                for j, ref in enumerate(rule.backend_refs)
            ]
            for i, rule in enumerate(route.spec.rules)
        ]

    def _backend(self, route: HTTPRoute, ref: BackendRef, path: FieldPath) -> Backend:
        key = (route.namespace, id(ref))
        found = self._resolved.get(key)
        if found is None:
            found = backends.resolve(self._index, route, ref, path)
            # What is wrong is reported on each route. The reference is kept, and with it its id.
            if found.problem is None and found.denial is None:
                if len(self._resolved) >= _MOST_RESOLVED:
                    self._resolved.clear()
                self._resolved[key] = found
        return found


def resolve(
    index: Index,
    gateways: dict[Named, GatewayState],
    bindings: dict[Named, Binding],
) -> Routes:
    """Attaches all HTTPRoutes."""
    routes = Routes(index, Parents(index, gateways, bindings))
    for named, route in index.routes.items():
        routes.put(named, routes.attach(route))
    return routes


def _count(counter: Counter[_K], keys: Iterable[_K], by: int) -> None:
    """Counts keys; those that nothing is left of are not there."""
    for key in keys:
        number = counter[key] + by
        if number:
            counter[key] = number
        else:
            del counter[key]
