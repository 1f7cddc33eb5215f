"""Which listeners and services HTTPRoutes and GRPCRoutes are attached to.

A route that was refused is attached by what can be read of it, and answers 500 there. Were it left
out, a Service would fall back to its default route, without the limits of the route's policies.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

from kgw.api import remains
from kgw.attach import backends, rivals
from kgw.attach.index import REQUEST_KINDS
from kgw.attach.parents import Parents, ParentState, asks_for_default
from kgw.diagnostics import Severity

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence

    from kgw.api import ResourceKey
    from kgw.api.gateway.backend_object import BackendObjectReference
    from kgw.api.gateway.filters import Filter
    from kgw.api.gateway.grpc_route import GRPCBackendRef, GRPCFilter, GRPCRule
    from kgw.api.gateway.http_route import Rule
    from kgw.api.gateway.references import BackendRef, HTTPBackendRef
    from kgw.attach.backends import Backend
    from kgw.attach.frontends import ServiceAddress
    from kgw.attach.gateways import GatewayState
    from kgw.attach.index import Index, Named, RequestRoute
    from kgw.attach.status import Outcome
    from kgw.attach.waypoints import Binding
    from kgw.diagnostics import Finding
    from kgw.source.memory import FieldPath

_K = TypeVar("_K", bound="Hashable")

#: Where a route can be attached: a listener by its id, or a port of a Service.
Place: TypeAlias = "str | ServiceAddress"

#: How many resolved references are kept for other routes.
_MOST_RESOLVED: Final = 1 << 14


@dataclass(slots=True, eq=False)
class RouteState:
    """A route of requests, where it is attached and what its backends are."""

    route: RequestRoute
    parents: list[ParentState]
    #: The backends of each rule.
    backends: list[list[Backend]]
    #: The backends that filters refer to, by the place of the filter.
    filter_backends: dict[FieldPath, Backend] = field(default_factory=dict)
    #: Faults of the route's own rules: `(rule, what was done, why)`; the rest is served.
    faults: dict[tuple[int, str, str], None] = field(default_factory=dict)
    #: Rules that a broken policy has replaced by an error: `(rule, why)`.
    replaced: dict[tuple[int, str], None] = field(default_factory=dict)
    #: Where it is attached, apart from what routes of another kind may be in the way.
    claims: tuple[Place, ...] = ()
    #: Why the route was refused, if so: what can be read of it is answered 500.
    refusal: str | None = None
    #: What was found while it was attached and compiled.
    findings: list[Finding] = field(default_factory=list)
    #: The attached routes that hand on requests to it, over however many levels.
    through: list[RouteState] = field(default_factory=list)

    @property
    def rules(self) -> Sequence[Rule | GRPCRule]:
        """The rules of the route."""
        return self.route.spec.rules

    def resolved(self, mesh: bool) -> Outcome:
        """Whether all references resolve, for a parent of the mesh or a Gateway."""
        return backends.resolved(self.all_backends, mesh)

    @property
    def all_backends(self) -> Iterator[Backend]:
        """The backends of its rules, and those that their filters refer to."""
        for rule in self.backends:
            yield from rule
        yield from self.filter_backends.values()

    @property
    def listeners(self) -> dict[str, tuple[str, ...]]:
        """The listeners that it is attached to, by id, with the hosts that it has there.

        Two parentRefs may lead to one listener; the route is there once.
        """
        return {one.id: hosts for parent in self.parents for one, hosts in parent.listeners}

    @property
    def ports(self) -> set[ServiceAddress]:
        """The service ports that it is attached to."""
        return {address for parent in self.parents for address in parent.addresses()}

    @property
    def gateways(self) -> tuple[Named, ...]:
        """The Gateways that serve it, for each parent that has one."""
        own = [one.gateway.named for one in self.parents if one.gateway is not None]
        return tuple(
            dict.fromkeys([*own, *(named for one in self.through for named in one.gateways)])
        )

    @property
    def delegates(self) -> bool:
        """Whether it hands on requests to other routes, or names one that is to do so."""
        return any(one.delegates for rule in self.backends for one in rule) or any(
            one.ref.kind == "HTTPRoute" for one in self.parents
        )

    @property
    def ancestors(self) -> tuple[tuple[str, Named], ...]:
        """What it is attached to, as policies see it: Gateways and ListenerSets, by kind and name.

        For a Service it is its waypoint.
        """
        found: dict[tuple[str, Named], None] = {}
        for one in self.parents:
            if one.gateway is None:
                continue
            if one.ref.kind == "ListenerSet":
                named = (one.ref.namespace or self.route.namespace, one.ref.name)
                found["ListenerSet", named] = None
            else:
                found["Gateway", one.gateway.named] = None
        for root in self.through:
            found |= dict.fromkeys(root.ancestors)
        return tuple(found)


class Routes:
    """All routes, and how many of them each listener and service port has."""

    def __init__(self, index: Index, parents: Parents) -> None:
        self._index = index
        self._parents = parents
        self.states: dict[ResourceKey, RouteState] = {}
        self.by_listener: Counter[str] = Counter()
        self.by_port: Counter[ServiceAddress] = Counter()
        #: How many hand on requests to others, or name one that is to do so.
        self.delegating: int = 0
        #: How many routes of a kind would be at a place if there were none of another kind.
        self._claims: Counter[tuple[str, Place]] = Counter()
        # What references resolve to that routes of a namespace share.
        self._resolved: dict[tuple[str, str, int], Backend] = {}

    def renewed(self, index: Index, parents: Parents) -> Routes:
        """The same routes, to be changed; what they stand on is new, or equal for them."""
        new = Routes(index, parents)
        new.states = dict(self.states)
        new.by_listener, new.by_port = self.by_listener.copy(), self.by_port.copy()
        new._claims = self._claims.copy()
        new.delegating = self.delegating
        return new

    def attach(self, route: RequestRoute) -> RouteState:
        """Finds out where a route belongs; it does not count there before it is put there.

        It may have to leave places to routes of another kind: `settle`.
        """
        index = self._index
        findings: list[Finding] = []
        with index.reporting_to(findings):
            refusal = index.refusal(route.key)
            refs = list(enumerate(route.spec.parent_refs))
            if refusal is not None:
                refs = remains.parents(index.refused[route.key])
            elif not refs and not asks_for_default(route):
                text = "the route has no parent, so it has no effect"
                index.report(route, "KGW305", Severity.WARNING, text, ("spec",))
            parents = [self._parents.resolve(route, ref, number) for number, ref in refs]
            parents += self._parents.defaults(route)
            found, named = self._backends(route), self._filter_backends(route)
            if any(parent.accepted.ok and not parent.mesh for parent in parents):
                backends.report_denials(index, route, found)
                backends.report_filter_denials(index, route, named)
        state = RouteState(route, parents, found, named, refusal=refusal, findings=findings)
        state.claims = (*state.listeners, *state.ports)
        return state

    def put(self, key: ResourceKey, state: RouteState | None) -> None:
        """Puts a route in the place of the one that has its key, or takes that one away."""
        before = self.states.pop(key, None)
        if before is not None:
            self.delegating -= before.delegates
            _count(self.by_listener, before.listeners, -1)
            _count(self.by_port, before.ports, -1)
            _count(self._claims, ((key.kind, one) for one in before.claims), -1)
        if state is not None:
            self.states[key] = state
            self.delegating += state.delegates
            _count(self.by_listener, state.listeners, 1)
            _count(self.by_port, state.ports, 1)
            _count(self._claims, ((key.kind, one) for one in state.claims), 1)

    def contested(self, places: Iterable[Place] | None = None) -> frozenset[Place]:
        """The places, of some or of all, that routes of several kinds are for."""
        if places is None:
            places = {place for _, place in self._claims}
        return frozenset(
            one for one in places if sum((kind, one) in self._claims for kind in REQUEST_KINDS) > 1
        )

    def claiming(self, places: Collection[Place]) -> set[ResourceKey]:
        """The routes that are for any of some places."""
        return {
            key for key, state in self.states.items() if any(one in places for one in state.claims)
        }

    def settle(self) -> None:
        """Decides which routes are served where there are some of several kinds.

        All of these have been attached anew, and nothing was decided among them before.
        """
        contested = self.contested()
        if not contested:
            return
        states = [self.states[key] for key in self.claiming(contested)]
        for state in states:
            self.put(state.route.key, None)
        rivals.settle(self._index, states, contested)
        for state in states:
            self.put(state.route.key, state)
        self.states = dict(sorted(self.states.items()))

    def _backends(self, route: RequestRoute) -> list[list[Backend]]:
        rules: Sequence[Rule | GRPCRule] = route.spec.rules
        return [
            [
                self._backend(route, ref, ("spec", "rules", i, "backendRefs", j))
                for j, ref in enumerate(rule.backend_refs)
            ]
            for i, rule in enumerate(rules)
        ]

    def _filter_backends(self, route: RequestRoute) -> dict[FieldPath, Backend]:
        return {
            path: backends.resolve(self._index, route, ref, (*path, *where))
            for path, one in filters_of(route)
            for where, ref in filter_refs(one)
        }

    def _backend(self, route: RequestRoute, ref: BackendRef, path: FieldPath) -> Backend:
        # A grant is for one kind of route.
        key = (route.kind, route.namespace, id(ref))
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
    bindings: dict[ResourceKey, Binding],
) -> Routes:
    """Attaches all routes of requests."""
    routes = Routes(index, Parents(index, gateways, bindings))
    for own in index.routes.values():
        for route in own.values():
            routes.put(route.key, routes.attach(route))
    routes.settle()
    return routes


def filters_of(route: RequestRoute) -> Iterator[tuple[FieldPath, Filter | GRPCFilter]]:
    """The filters of a route and of its backends, with their places."""
    rules: Sequence[Rule | GRPCRule] = route.spec.rules
    for i, rule in enumerate(rules):
        of_rule: Sequence[Filter | GRPCFilter] = rule.filters
        for k, one in enumerate(of_rule):
            yield ("spec", "rules", i, "filters", k), one
        refs: Sequence[HTTPBackendRef | GRPCBackendRef] = rule.backend_refs
        for j, ref in enumerate(refs):
            own: Sequence[Filter | GRPCFilter] = ref.filters
            for k, one in enumerate(own):
                yield ("spec", "rules", i, "backendRefs", j, "filters", k), one


def filter_refs(one: Filter | GRPCFilter) -> Iterator[tuple[FieldPath, BackendObjectReference]]:
    """What a filter sends requests to, with its place in the filter; one reference at most."""
    if one.request_mirror is not None:
        yield ("requestMirror", "backendRef"), one.request_mirror.backend_ref
    if one.external_auth is not None:
        yield ("externalAuth", "backendRef"), one.external_auth.backend_ref


def _count(counter: Counter[_K], keys: Iterable[_K], by: int) -> None:
    """Counts keys; those that nothing is left of are not there."""
    for key in keys:
        number = counter[key] + by
        if number:
            counter[key] = number
        else:
            del counter[key]
