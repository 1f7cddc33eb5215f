"""Which listeners and services an HTTPRoute is attached to.

A parent is a Gateway, whose listeners decide by name, port, kind, namespace and hostname; or a
Service of the mesh (GAMMA), for which the route replaces the default one. Hostnames of a route do
not count for a Service: the connection's destination has chosen it already.

A route that was refused is attached by what can be read of it, and answers 500 there. Were it left
out, a Service would fall back to its default route, without the limits of the route's policies.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kgw.api import remains
from kgw.api.gateway.references import GATEWAY_GROUP
from kgw.attach import backends, hostnames
from kgw.attach.status import Outcome
from kgw.diagnostics import Severity, suggest

if TYPE_CHECKING:
    from kgw.api import HTTPRoute, Service
    from kgw.api.gateway.references import ParentReference
    from kgw.attach.backends import Backend
    from kgw.attach.gateways import GatewayState, ListenerState
    from kgw.attach.index import Index, Named
    from kgw.attach.waypoints import Binding

_ACCEPTED = Outcome(True, "Accepted", "Successfully accepted Route")
_RESOLVED = Outcome(True, "ResolvedRefs", "Successfully resolved all references")
_REASONS = (
    "InvalidKind",
    "RefNotPermitted",
    "BackendNotFound",
    "UnsupportedProtocol",
    "UnsupportedValue",
)


@dataclass(slots=True, eq=False)
class ParentState:
    """One parent of a route."""

    ref: ParentReference
    accepted: Outcome
    #: The Gateway that serves the route: the parent, or the waypoint of the parent Service.
    gateway: GatewayState | None = None
    #: The listeners, with the hosts that the route has there.
    listeners: list[tuple[ListenerState, tuple[str, ...]]] = field(default_factory=list)
    #: The parent Service and its ports.
    service: Service | None = None
    ports: tuple[int, ...] = ()
    #: Whether the parent belongs to another controller, which writes the status.
    foreign: bool = False

    @property
    def mesh(self) -> bool:
        """Whether the parent is a Service."""
        return self.service is not None


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
        failures = [
            failure
            for rule in self.backends
            for backend in rule
            if (failure := backend.failure(mesh)) is not None
        ]
        if not failures:
            return _RESOLVED
        return min(failures, key=lambda one: _REASONS.index(one.reason))


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
    resolver = _Resolver(index, gateways, bindings)
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
        parents = [resolver.parent(route, ref, number) for number, ref in refs]
        state = RouteState(route, parents, _backends(index, route), refusal=refusal)
        routes.states[named] = state
        if any(parent.accepted.ok and not parent.mesh for parent in parents):
            _denials(index, state)
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


def _denials(index: Index, state: RouteState) -> None:
    """Reports references that a route of a Gateway may not make."""
    for i, rule in enumerate(state.backends):
        for j, backend in enumerate(rule):
            if backend.denial is not None:
                path = ("spec", "rules", i, "backendRefs", j, "namespace")
                text = backend.denial.message
                index.report(state.route, "KGW308", Severity.ERROR, text, path)


def _named(service: Service) -> Named:
    return (service.namespace, service.name)


class _Resolver:
    """Resolves parentRefs, reporting on the route what is wrong with them."""

    def __init__(
        self,
        index: Index,
        gateways: dict[Named, GatewayState],
        bindings: dict[Named, Binding],
    ) -> None:
        self.index = index
        self.gateways = gateways
        self.bindings = bindings

    def parent(self, route: HTTPRoute, ref: ParentReference, number: int) -> ParentState:
        namespace = ref.namespace or route.namespace
        if (ref.group, ref.kind) == (GATEWAY_GROUP, "Gateway"):
            return self.gateway(route, ref, number, (namespace, ref.name))
        if (ref.group, ref.kind) in (("", "Service"), ("core", "Service")):
            return self.service(route, ref, number, (namespace, ref.name))
        message = f"{ref.group}/{ref.kind} is not a kind of parent that kgw serves"
        return self.refused(
            route,
            ref,
            (number, "kind"),
            ("KGW309", "NoMatchingParent", message),
            legal='Gateway, or Service with `group: ""`',
            hint='write `group: ""`' if ref.kind == "Service" else None,
        )

    def refused(
        self,
        route: HTTPRoute,
        ref: ParentReference,
        at: tuple[str | int, ...],
        why: tuple[str, str, str],
        *,
        severity: Severity = Severity.ERROR,
        legal: str | None = None,
        hint: str | None = None,
    ) -> ParentState:
        """A parent that the route is not attached to; `why` is code, reason and message."""
        code, reason, message = why
        path = ("spec", "parentRefs", *at)
        self.index.report(route, code, severity, message, path, legal=legal, hint=hint)
        return ParentState(ref, Outcome(False, reason, message))

    def gateway(
        self, route: HTTPRoute, ref: ParentReference, number: int, named: Named
    ) -> ParentState:
        name = "/".join(named)
        state = self.gateways.get(named)
        if state is None:
            if named in self.index.gateways:
                return ParentState(ref, Outcome(False, "Pending", ""), foreign=True)
            near = None
            if not self.index.is_refused("Gateway", named):
                near = suggest(ref.name, (one for ns, one in self.index.gateways if ns == named[0]))
            return self.refused(
                route,
                ref,
                (number, "name"),
                ("KGW305", "NoMatchingParent", self.index.absence("Gateway", named)),
                hint=f"did you mean `{near}`?" if near else None,
            )
        listeners = [
            one
            for one in state.listeners
            if ref.section_name in (None, one.spec.name)
            and ref.port in (None, one.spec.port)
            and not one.foreign
        ]
        if not listeners:
            field = "sectionName" if ref.section_name else "port"
            wanted = f"named {ref.section_name}" if ref.section_name else f"on port {ref.port}"
            return self.refused(
                route,
                ref,
                (number, field),
                ("KGW306", "NoMatchingParent", f"Gateway {name} has no listener {wanted}"),
                legal=", ".join(
                    f"{one.spec.name} (port {one.spec.port})" for one in state.listeners
                ),
            )
        allowed = [
            one
            for one in listeners
            if one.supported_kinds and one.allows_namespace(self.index, route.namespace)
        ]
        if not allowed:
            message = (
                f"no listener of Gateway {name} allows HTTPRoutes of namespace {route.namespace}"
            )
            return self.refused(route, ref, (number,), ("KGW401", "NotAllowedByListeners", message))
        attached = [
            (one, hosts)
            for one in allowed
            if (hosts := hostnames.intersection(one.hostname, route.spec.hostnames))
        ]
        if not attached:
            have = ", ".join(sorted({one.hostname for one in allowed}))
            message = f"no hostname of the route is one of a listener of Gateway {name} ({have})"
            why = ("KGW402", "NoMatchingListenerHostname", message)
            return self.refused(route, ref, (number,), why)
        return ParentState(ref, _ACCEPTED, state, attached)

    def service(
        self, route: HTTPRoute, ref: ParentReference, number: int, named: Named
    ) -> ParentState:
        name = "/".join(named)
        service = self.index.services.get(named)
        if named[0] != route.namespace:
            message = (
                f"a route for Service {name} in another namespace holds for the clients of its own "
                "namespace only, which this version cannot tell apart"
            )
            return self.refused(
                route, ref, (number, "namespace"), ("KGW505", "UnsupportedValue", message)
            )
        if service is None:
            near = suggest(ref.name, (one for ns, one in self.index.services if ns == named[0]))
            return self.refused(
                route,
                ref,
                (number, "name"),
                ("KGW305", "NoMatchingParent", f"Service {name} not found"),
                hint=f"did you mean `{near}`?" if near else None,
            )
        if not service.vips():
            message = f"Service {name} has no virtual IP, so no waypoint serves it"
            return self.refused(
                route, ref, (number, "name"), ("KGW410", "UnsupportedValue", message)
            )
        ports = tuple(
            one.port
            for one in service.spec.ports
            if one.protocol == "TCP"
            and ref.port in (None, one.port)
            and ref.section_name in (None, one.name)
        )
        if not ports:
            field = "port" if ref.port else "sectionName"
            message = (
                f"Service {name} has no TCP port {ref.port or ref.section_name or ''}".rstrip()
            )
            return self.refused(
                route,
                ref,
                (number, field),
                ("KGW306", "NoMatchingParent", message),
                legal=", ".join(f"{one.port}" for one in service.spec.ports) or None,
            )
        binding = self.bindings.get(named)
        if binding is None:
            message = f"Service {name} is not served by a waypoint"
            return self.refused(
                route,
                ref,
                (number,),
                ("KGW410", "Pending", message),
                severity=Severity.WARNING,
                hint="label the Service or its namespace with `istio.io/use-waypoint`",
            )
        if binding.state is None:
            return ParentState(ref, Outcome(False, "Pending", ""), foreign=True)
        if route.spec.hostnames:
            self.index.report(
                route,
                "KGW403",
                Severity.WARNING,
                f"hostnames have no effect for the parent Service {name}",
                ("spec", "hostnames"),
            )
        return ParentState(ref, _ACCEPTED, binding.state, [], service, ports)
