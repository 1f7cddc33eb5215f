"""Which listeners and services TCPRoutes, TLSRoutes and UDPRoutes are attached to.

A connection, or a session of datagrams, has one route only: of several for the same the oldest is
served, and on a Service a route of requests goes before a TLSRoute, and that before a TCPRoute
(GEP-1294), among those that are for the same clients. A route that was refused is attached by what
can be read of it; connections there are closed, and datagrams dropped.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from kgw.api import loaded, remains
from kgw.attach import backends, hostnames
from kgw.attach.parents import Parents, ParentState, asks_for_default
from kgw.attach.status import Outcome
from kgw.diagnostics import Severity

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from typing import TypeAlias

    from kgw.api import ResourceKey, TCPRoute, TLSRoute, UDPRoute
    from kgw.attach.backends import Backend
    from kgw.attach.frontends import ServiceAddress
    from kgw.attach.gateways import GatewayState
    from kgw.attach.index import Index, Named
    from kgw.attach.routes import Routes, RouteState
    from kgw.attach.waypoints import Binding

    StreamRoute: TypeAlias = TCPRoute | TLSRoute | UDPRoute


@dataclass(slots=True, eq=False)
class StreamState:
    """A TCPRoute, TLSRoute or UDPRoute, where it is attached and what its backends are."""

    #: Nothing hands on connections to it.
    through: ClassVar[tuple[RouteState, ...]] = ()
    route: StreamRoute
    parents: list[ParentState]
    #: Those of the one rule that is served.
    backends: list[list[Backend]]
    #: Why the route was refused, if so: what it is about is closed.
    refusal: str | None = None

    @property
    def name(self) -> str:
        """``namespace/name/rule``; the rule's name, else its place."""
        rule = self.route.spec.rules[0].name or "0"
        return f"{self.route.namespace}/{self.route.name}/{rule}"

    @property
    def server_names(self) -> tuple[str, ...]:
        """The server names that it is for, where no listener has one."""
        if isinstance(self.route, (loaded.TCPRoute, loaded.UDPRoute)):
            return (hostnames.ANY,)
        return hostnames.intersection(hostnames.ANY, self.route.spec.hostnames)

    @property
    def all_backends(self) -> Sequence[Backend]:
        """All that it sends connections to."""
        return self.backends[0]

    def resolved(self, mesh: bool) -> Outcome:
        """Whether all references resolve, for a parent of the mesh or a Gateway."""
        return backends.resolved(self.backends[0], mesh)


@dataclass(slots=True)
class Streams:
    """All routes of connections and datagrams; those of a listener or service port by age."""

    states: list[StreamState]
    by_listener: dict[str, list[tuple[StreamState, tuple[str, ...]]]]
    by_service: dict[ServiceAddress, list[StreamState]]


def resolve(
    index: Index,
    gateways: dict[Named, GatewayState],
    bindings: dict[ResourceKey, Binding],
    routes: Routes,
) -> Streams:
    """Attaches all routes of connections and datagrams."""
    streams = Streams([], defaultdict(list), defaultdict(list))
    resolver = Parents(index, gateways, bindings)
    tls: set[ServiceAddress] = set()
    for route in sorted(index.stream_routes, key=lambda one: one.kind == "TCPRoute"):
        refusal = index.refusal(route.key)
        refs = list(enumerate(route.spec.parent_refs))
        if refusal is not None:
            refs = remains.parents(index.refused[route.key])
        elif not refs and not asks_for_default(route):
            text = "the route has no parent, so it has no effect"
            index.report(route, "KGW305", Severity.WARNING, text, ("spec",))
        found = [
            _precede(index, routes, tls, route, resolver.resolve(route, ref, number), number)
            for number, ref in refs
        ]
        found += resolver.defaults(route)
        state = StreamState(route, found, [_backends(index, route)], refusal)
        streams.states.append(state)
        if any(one.accepted.ok and not one.mesh for one in found):
            backends.report_denials(index, route, state.backends)
        listeners = {one.id: hosts for parent in found for one, hosts in parent.listeners}
        for ident, hosts in listeners.items():
            streams.by_listener[ident].append((state, hosts))
        ports = {address for parent in found for address in parent.addresses()}
        tls |= ports if route.kind == "TLSRoute" else set()
        for port in sorted(ports):
            streams.by_service[port].append(state)
    _idle(index, streams)
    return streams


def _backends(index: Index, route: StreamRoute) -> list[Backend]:
    """The backends of the first rule: nothing tells a connection of it from one of the next."""
    for number in range(1, len(route.spec.rules)):
        text = "the rule has no effect: all connections are the first rule's"
        index.report(route, "KGW420", Severity.WARNING, text, ("spec", "rules", number))
    return [
        backends.resolve(index, route, ref, ("spec", "rules", 0, "backendRefs", number))
        for number, ref in enumerate(route.spec.rules[0].backend_refs)
    ]


def _precede(
    index: Index,
    routes: Routes,
    tls: Collection[ServiceAddress],
    route: StreamRoute,
    parent: ParentState,
    number: int,
) -> ParentState:
    """Takes a parent's ports that routes with precedence have from a route of connections."""
    taken = {one.port: "a route of requests" for one in parent.addresses() if one in routes.by_port}
    if route.kind == "TCPRoute":
        others = {one.port: "a TLSRoute" for one in parent.addresses() if one in tls}
        taken = others | taken
    if not taken or parent.service is None:
        return parent
    parent.ports = tuple(port for port in parent.ports if port not in taken)
    key = parent.service.key
    if not parent.ports:
        message = f"{next(iter(taken.values()))} has precedence on {key}"
        path = ("spec", "parentRefs", number)
        index.report(route, "KGW420", Severity.WARNING, message, path)
        parent.accepted = Outcome(False, "Conflicted", message)
    return parent


def _idle(index: Index, streams: Streams) -> None:
    """Reports the routes that others leave nothing to."""
    served: set[StreamState] = set()
    rivals: dict[StreamState, str] = {}
    services = [
        [(one, one.server_names) for one in states] for states in streams.by_service.values()
    ]
    for attached in (*streams.by_listener.values(), *services):
        owners: dict[tuple[str, str], StreamState] = {}
        for state, hosts in attached:
            for host in hosts:
                owner = owners.setdefault((state.route.kind, host), state)
                served.add(owner)
                if owner is not state:
                    rivals[state] = str(owner.route.key)
    for state, rival in rivals.items():
        if state not in served:
            text = f"the route has no effect: {rival} goes first, by age or name, for the same"
            text += " connections"
            index.report(state.route, "KGW420", Severity.WARNING, text, ("spec", "parentRefs"))
