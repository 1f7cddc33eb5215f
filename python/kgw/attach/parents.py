"""What the parentRefs of a route lead to.

A parent is a Gateway or a ListenerSet, whose listeners decide by name, port, kind, namespace and
hostname; or a Service or ServiceImport of the mesh (GAMMA), for which the route replaces the
default one. A route of the Service's namespace (a producer's) does so for all clients, one of
another namespace (a consumer's) for the clients of its own. Hostnames of requests do not count for
a Service: the connection's destination has chosen it already.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from kgw.api import ResourceKey, loaded
from kgw.api.gateway.references import GATEWAY_GROUP, ParentReference
from kgw.attach import hostnames, protocols
from kgw.attach.frontends import ServiceAddress
from kgw.attach.index import REQUEST_KINDS, SERVICE_KINDS
from kgw.attach.status import Outcome
from kgw.diagnostics import Severity, suggest

if TYPE_CHECKING:
    from typing import TypeAlias

    from kgw.api import TCPRoute, TLSRoute, UDPRoute
    from kgw.attach.gateways import GatewayState
    from kgw.attach.index import Index, MeshService, Named, RequestRoute
    from kgw.attach.listeners import ListenerState
    from kgw.attach.waypoints import Binding

    Route: TypeAlias = RequestRoute | TLSRoute | TCPRoute | UDPRoute

ACCEPTED = Outcome(True, "Accepted", "Successfully accepted Route")


#: Kinds of parents whose routes need no ReferenceGrant for their backends (GEP-1294).
_OF_THE_MESH: Final = frozenset(kind for _, kind in SERVICE_KINDS)


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
    service: MeshService | None = None
    ports: tuple[int, ...] = ()
    #: The namespace of the clients that a route of a Service is for; empty for all.
    clients: str = ""
    #: Whether the parent belongs to another controller, which writes the status.
    foreign: bool = False

    @property
    def mesh(self) -> bool:
        """Whether the parent is a Service of the mesh, be it served by a waypoint or not."""
        return self.ref.kind in _OF_THE_MESH

    def addresses(self) -> tuple[ServiceAddress, ...]:
        """The ports of the parent Service, as the route's clients see them."""
        if self.service is None:
            return ()
        key = self.service.key
        return tuple(ServiceAddress(key, port, self.clients) for port in self.ports)


class Parents:
    """Resolves parentRefs, reporting on the route what is wrong with them."""

    def __init__(
        self,
        index: Index,
        gateways: dict[Named, GatewayState],
        bindings: dict[ResourceKey, Binding],
    ) -> None:
        self._index = index
        self._gateways = gateways
        self._bindings = bindings
        self._sets = {one.named: one for state in gateways.values() for one in state.sets}

    def resolve(self, route: Route, ref: ParentReference, number: int) -> ParentState:
        """What a parentRef, the `number`-th of a route, leads to."""
        namespace = ref.namespace or route.namespace
        if (ref.group, ref.kind) == (GATEWAY_GROUP, "Gateway"):
            return self._gateway(route, ref, number, (namespace, ref.name))
        if (ref.group, ref.kind) == (GATEWAY_GROUP, "ListenerSet"):
            return self._listener_set(route, ref, number, (namespace, ref.name))
        if route.kind == "HTTPRoute" and (ref.group, ref.kind) == (GATEWAY_GROUP, "HTTPRoute"):
            return ParentState(ref, Outcome(False, "Pending", ""))  # `kgw.attach.delegation`
        group = "" if ref.group == "core" else ref.group
        if (group, ref.kind) in SERVICE_KINDS:
            key = ResourceKey(group, ref.kind, namespace, ref.name)
            return self._service(route, ref, number, key)
        message = f"{ref.group}/{ref.kind} is not a kind of parent that kgw serves"
        return self._refused(
            route,
            ref,
            (number, "kind"),
            ("KGW309", "NoMatchingParent", message),
            legal='Gateway, ListenerSet, Service with `group: ""`, ServiceImport',
            hint='write `group: ""`' if ref.kind == "Service" else None,
        )

    def defaults(self, route: Route) -> list[ParentState]:
        """The default Gateways that a route is attached to because it asks for them (GEP-3793).

        Those that do not allow the route say nothing about it.
        """
        if not asks_for_default(route):
            return []
        named = {
            (ref.namespace or route.namespace, ref.name)
            for ref in route.spec.parent_refs
            if (ref.group, ref.kind) == (GATEWAY_GROUP, "Gateway")
            and ref.section_name is None
            and ref.port is None
        }
        found = []
        for namespace, name in sorted(self._gateways.keys() - named):
            if self._gateways[namespace, name].gateway.spec.default_scope != "All":
                continue
            ref = ParentReference(
                group=GATEWAY_GROUP, kind="Gateway", namespace=namespace, name=name
            )
            with self._index.reporting_to([]):
                parent = self.resolve(route, ref, 0)
            if parent.accepted.ok:
                parent.accepted = Outcome(True, "Accepted", "Route is bound to default Gateway")
                found.append(parent)
        if not found and not route.spec.parent_refs:
            message = "no default Gateway takes the route, so it has no effect"
            path = ("spec", "useDefaultGateways")
            self._index.report(route, "KGW305", Severity.WARNING, message, path)
        return found

    def _refused(
        self,
        route: Route,
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
        self._index.report(route, code, severity, message, path, legal=legal, hint=hint)
        return ParentState(ref, Outcome(False, reason, message))

    def _gateway(
        self, route: Route, ref: ParentReference, number: int, named: Named
    ) -> ParentState:
        name = "/".join(named)
        state = self._gateways.get(named)
        if state is None:
            if named in self._index.gateways:
                return ParentState(ref, Outcome(False, "Pending", ""), foreign=True)
            near = None
            if not self._index.is_refused("Gateway", named):
                near = suggest(
                    ref.name, (one for ns, one in self._index.gateways if ns == named[0])
                )
            return self._refused(
                route,
                ref,
                (number, "name"),
                ("KGW305", "NoMatchingParent", self._index.absence("Gateway", named)),
                hint=f"did you mean `{near}`?" if near else None,
            )
        return self._attached(route, ref, number, f"Gateway {name}", (state, state.own))

    def _listener_set(
        self, route: Route, ref: ParentReference, number: int, named: Named
    ) -> ParentState:
        name = "/".join(named)
        state = self._sets.get(named)
        if state is None:
            listener_set = self._index.listener_sets.get(named)
            if listener_set is None:
                message, hint = self._index.absence("ListenerSet", named), None
                if not self._index.is_refused("ListenerSet", named):
                    known = (one for ns, one in self._index.listener_sets if ns == named[0])
                    near = suggest(ref.name, known)
                    hint = f"did you mean `{near}`?" if near else None
                why = ("KGW305", "NoMatchingParent", message)
                return self._refused(route, ref, (number, "name"), why, hint=hint)
            parent = listener_set.spec.parent_ref
            if (parent.namespace or named[0], parent.name) in self._index.gateways:
                return ParentState(ref, Outcome(False, "Pending", ""), foreign=True)
            why = ("KGW305", "NoMatchingParent", f"ListenerSet {name} has no Gateway")
            return self._refused(route, ref, (number, "name"), why)
        if state.refusal is not None:
            message = f"ListenerSet {name} is not accepted: {state.refusal.message}"
            why = ("KGW305", "NoMatchingParent", message)
            return self._refused(route, ref, (number, "name"), why)
        parts = (state.gateway, state.listeners)
        return self._attached(route, ref, number, f"ListenerSet {name}", parts)

    def _attached(
        self,
        route: Route,
        ref: ParentReference,
        number: int,
        name: str,
        parts: tuple[GatewayState, list[ListenerState]],
    ) -> ParentState:
        """The listeners of an object that a route is attached to."""
        state, every = parts
        listeners = [
            one
            for one in every
            if ref.section_name in (None, one.spec.name)
            and ref.port in (None, one.spec.port)
            and not one.foreign
        ]
        if not listeners:
            field = "sectionName" if ref.section_name else "port"
            wanted = [f"named {ref.section_name}"] if ref.section_name else []
            wanted += [f"on port {ref.port}"] if ref.port else []
            return self._refused(
                route,
                ref,
                (number, field),
                ("KGW306", "NoMatchingParent", f"{name} has no listener {' '.join(wanted)}"),
                legal=", ".join(f"{one.spec.name} (port {one.spec.port})" for one in every),
            )
        allowed = [
            one
            for one in listeners
            if one.allows_kind(route.kind) and one.allows_namespace(self._index, route.namespace)
        ]
        if not allowed:
            message = f"no listener of {name} allows {route.kind}s of namespace {route.namespace}"
            return self._refused(
                route, ref, (number,), ("KGW401", "NotAllowedByListeners", message)
            )
        own = _hostnames(route)
        attached = [
            (one, hosts) for one in allowed if (hosts := hostnames.intersection(one.hostname, own))
        ]
        if not attached:
            have = ", ".join(sorted({one.hostname for one in allowed}))
            message = f"no hostname of the route is one of a listener of {name} ({have})"
            why = ("KGW402", "NoMatchingListenerHostname", message)
            return self._refused(route, ref, (number,), why)
        return ParentState(ref, ACCEPTED, state, attached)

    def _service(
        self, route: Route, ref: ParentReference, number: int, key: ResourceKey
    ) -> ParentState:
        kind, name = key.kind, f"{key.kind} {key.namespace}/{key.name}"
        service = self._index.service(key)
        if isinstance(route, loaded.UDPRoute):
            message = "a UDPRoute cannot have a Service as its parent: waypoints carry no datagrams"
            return self._refused(
                route,
                ref,
                (number, "kind"),
                ("KGW309", "UnsupportedValue", message),
                legal="Gateway",
            )
        if service is None:
            known = self._index.named(kind)
            near = suggest(ref.name, (one for ns, one in known if ns == key.namespace))
            return self._refused(
                route,
                ref,
                (number, "name"),
                ("KGW305", "NoMatchingParent", f"{name} not found"),
                hint=f"did you mean `{near}`?" if near else None,
            )
        if not service.vips():
            message = f"{name} has no virtual IP, so no waypoint serves it"
            return self._refused(
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
            message = f"{name} has no TCP port {ref.port or ref.section_name or ''}".rstrip()
            return self._refused(
                route,
                ref,
                (number, field),
                ("KGW306", "NoMatchingParent", message),
                legal=", ".join(f"{one.port}" for one in service.spec.ports) or None,
            )
        if route.kind in REQUEST_KINDS:
            carrying = (service.port(port) for port in ports)
            ports = tuple(one.port for one in carrying if one and protocols.of(one).http)
            if not ports:
                message = f"no port of {name} that the route is for carries HTTP"
                why = ("KGW421", "NotAllowedByListeners", message)
                return self._refused(route, ref, (number,), why)
        binding = self._bindings.get(key)
        if binding is None:
            return self._refused(
                route,
                ref,
                (number,),
                ("KGW410", "Pending", f"{name} is not served by a waypoint"),
                severity=Severity.WARNING,
                hint=f"label the {kind} or its namespace with `istio.io/use-waypoint`",
            )
        if binding.state is None:
            return ParentState(ref, Outcome(False, "Pending", ""), foreign=True)
        if route.kind in REQUEST_KINDS and _hostnames(route):
            self._index.report(
                route,
                "KGW403",
                Severity.WARNING,
                f"hostnames have no effect for the parent {name}",
                ("spec", "hostnames"),
            )
        clients = "" if route.namespace == service.namespace else route.namespace
        return ParentState(ref, ACCEPTED, binding.state, [], service, ports, clients)


def asks_for_default(route: Route) -> bool:
    """Whether a route is to be attached to default Gateways."""
    # Not every kind of route has the field, which is experimental.
    return getattr(route.spec, "use_default_gateways", "None") == "All"


def _hostnames(route: Route) -> tuple[str, ...]:
    if isinstance(route, (loaded.TCPRoute, loaded.UDPRoute)):
        return ()
    return route.spec.hostnames
