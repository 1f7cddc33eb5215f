"""Gateways that kgw serves, and what is wrong with their listeners.

A Gateway is served if its class is. The classes ``kgateway`` and ``kgateway-waypoint`` need no
GatewayClass object; other classes need one that names the controller.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final

from kgw.api.gateway import options
from kgw.api.gateway.gateway import PROXY
from kgw.api.gateway.references import GATEWAY_GROUP
from kgw.attach import certificates, hostnames, server_tls
from kgw.attach.hostnames import ANY
from kgw.attach.status import CONTROLLER, Outcome
from kgw.diagnostics import Severity, suggest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kgw.api import Gateway
    from kgw.api.gateway.gateway import Listener
    from kgw.api.gateway.options import Chosen
    from kgw.attach.certificates import KeyPair
    from kgw.attach.index import Index, Named
    from kgw.attach.server_tls import ServerTLS

#: Annotation of a class (or Gateway) that tells Istio how its waypoints take connections.
INBOUND_BINDING: Final = "ambient.istio.io/waypoint-inbound-binding"

#: Protocols of ordinary Gateways, with the kinds of routes that their listeners may have.
_KINDS: Final[dict[str, tuple[str, ...]]] = {
    "HTTP": ("HTTPRoute",),
    "HTTPS": ("HTTPRoute",),
    "TLS": ("TLSRoute",),
    "TCP": ("TCPRoute",),
}

#: Protocols of which a port may have several: the server name tells whose a connection is.
_SHARING: Final = frozenset({"HTTPS", "TLS"})

_ACCEPTED: Final = Outcome(True, "Accepted", "Successfully accepted Listener")
_NO_CONFLICTS: Final = Outcome(
    False, "NoConflicts", "Successfully verified that Listener has no conflicts"
)
_RESOLVED: Final = Outcome(True, "ResolvedRefs", "Successfully resolved all references")


class Role(Enum):
    """What the Gateways of a class are for."""

    PROXY = "kgateway"
    WAYPOINT = "kgateway-waypoint"


@dataclass(slots=True, eq=False)
class ListenerState:
    """A listener and the answers about it."""

    gateway: Gateway
    index: int
    spec: Listener
    #: The kinds of routes that may be attached.
    kinds: tuple[str, ...] = ()
    accepted: Outcome = _ACCEPTED
    conflicted: Outcome = _NO_CONFLICTS
    resolved: Outcome = _RESOLVED
    #: How TLS ends, where it does.
    tls: ServerTLS | None = None
    #: Why an accepted listener is not served, if so: its certificates cannot be used.
    fault: Outcome | None = None
    #: The listeners of its port with hostnames that overlap with its own, in an HTTPS listener.
    overlaps: list[str] = field(default_factory=list)
    #: Whether the listener is for others (Istio reads it) and nothing is to be bound.
    foreign: bool = False

    @property
    def id(self) -> str:
        """``namespace/gateway/listener``."""
        return f"{self.gateway.namespace}/{self.gateway.name}/{self.spec.name}"

    @property
    def hostname(self) -> str:
        """The hostname, ``*`` for any."""
        return self.spec.hostname or ANY

    @property
    def usable(self) -> bool:
        """Whether connections can be served."""
        return self.accepted.ok and not self.conflicted.ok and self.fault is None

    @property
    def programmed(self) -> Outcome:
        """Whether connections are served."""
        if self.usable:
            return Outcome(True, "Programmed", "Successfully programmed Listener")
        fault = self.conflicted if self.conflicted.ok else self.accepted
        if fault.ok and self.fault is not None and not self.conflicted.ok:
            fault = self.fault
        return Outcome(False, "Invalid", fault.message)

    @property
    def supported_kinds(self) -> tuple[dict[str, str], ...]:
        """The kinds of routes that may be attached, as a status has them."""
        return tuple({"group": GATEWAY_GROUP, "kind": kind} for kind in self.kinds)

    @property
    def passes_through(self) -> bool:
        """Whether TLS connections are passed on without being ended."""
        tls = self.spec.tls
        return self.spec.protocol == "TLS" and tls is not None and tls.mode == "Passthrough"

    def allows_kind(self, kind: str) -> bool:
        """Whether routes of a kind may be attached."""
        return kind in self.kinds

    def allows_namespace(self, index: Index, namespace: str) -> bool:
        """Whether ``allowedRoutes.namespaces`` includes a namespace."""
        allowed = self.spec.allowed_routes.namespaces
        match allowed.from_:
            case "All":
                return True
            case "Same":
                return namespace == self.gateway.namespace
            case "Selector":
                labels = index.namespace_labels(namespace)
                return allowed.selector is not None and allowed.selector.matches(labels)
            case _:
                return False


@dataclass(slots=True, eq=False)
class GatewayState:
    """A Gateway that kgw serves."""

    gateway: Gateway
    role: Role
    listeners: list[ListenerState]
    #: Why nothing of the Gateway can be served, if so.
    refusal: Outcome | None = None
    #: The certificate that is shown to backends, and whether it can be.
    client_certificate: KeyPair | None = None
    resolved: Outcome = _RESOLVED
    _options: dict[tuple[str, ...], dict[str, Chosen]] = field(default_factory=dict)

    @property
    def named(self) -> Named:
        """Namespace and name."""
        return (self.gateway.namespace, self.gateway.name)

    @property
    def proxy_listener(self) -> ListenerState | None:
        """The listener of a waypoint: its first of protocol ``istio.io/PROXY``."""
        if self.role is not Role.WAYPOINT:
            return None
        proxies = (one for one in self.listeners if one.spec.protocol == PROXY)
        return next((one for one in proxies if one.usable), None)

    def options(self, listeners: Iterable[str]) -> dict[str, Chosen]:
        """The options of listeners that share a port, by name; the first that has one counts."""
        names = tuple(listeners)
        if (known := self._options.get(names)) is not None:
            return known
        own = [one.spec.name for one in self.listeners]
        every = options.chosen(self.gateway.metadata.annotations, own)
        found: dict[str, Chosen] = {}
        for place in (*names, ""):
            for (name, listener), one in every.items():
                if listener == place:
                    found.setdefault(name, one)
        self._options[names] = dict(sorted(found.items()))
        return self._options[names]


def role_of(index: Index, class_name: str) -> Role | None:
    """What a class is for, if kgw serves it."""
    known = next((role for role in Role if role.value == class_name), None)
    declared = index.classes.get(class_name)
    if declared is None:
        return known
    if declared.spec.controller_name != CONTROLLER:
        return None
    binding = declared.metadata.annotations.get(INBOUND_BINDING, "")
    if known is None and binding.partition("/")[0] == "PROXY":
        return Role.WAYPOINT
    return known or Role.PROXY


def resolve(index: Index) -> dict[Named, GatewayState]:
    """The served Gateways with their listeners checked."""
    states = {}
    for named, gateway in index.gateways.items():
        name = gateway.spec.gateway_class_name
        role = role_of(index, name)
        if role is None:
            near = suggest(name, [one.value for one in Role]) if name not in index.classes else None
            index.report(
                gateway,
                "KGW310",
                Severity.WARNING,
                f"class `{name}` is not served by kgw; the Gateway is left to others",
                ("spec", "gatewayClassName"),
                legal=", ".join(one.value for one in Role),
                hint=f"did you mean `{near}`?" if near else None,
            )
            continue
        listeners = [
            ListenerState(gateway, number, spec)
            for number, spec in enumerate(gateway.spec.listeners)
        ]
        state = states[named] = GatewayState(gateway, role, listeners)
        _protocols(index, state)
        _conflicts(index, state)
        _kinds(index, state)
        _client_certificate(index, state)
        for listener in listeners:
            if listener.spec.protocol in _SHARING and listener.accepted.ok:
                server_tls.resolve(index, listener)
        if gateway.defects:
            state.refusal = Outcome(False, "InvalidParameters", _joined(gateway.defects))
        elif role is Role.WAYPOINT and state.proxy_listener is None:
            # The status says it in kgateway's words, in which a word is missing.
            message = f"Must contain at one listener with the protocol '{PROXY}'"
            state.refusal = Outcome(False, "ListenersNotValid", message)
            message = message.replace("at one", "at least one")
            index.report(gateway, "KGW412", Severity.ERROR, message, ("spec", "listeners"))
        elif not any(one.accepted.ok for one in listeners):
            state.refusal = Outcome(False, "ListenersNotValid", "No valid listeners")
    return states


def _joined(findings: tuple[object, ...]) -> str:
    return "; ".join(str(getattr(one, "message", one)) for one in findings)


def _protocols(index: Index, state: GatewayState) -> None:
    first_proxy = True
    for listener in state.listeners:
        protocol = listener.spec.protocol
        path = ("spec", "listeners", listener.index, "protocol")
        if state.role is Role.WAYPOINT:
            listener.kinds = _KINDS["HTTP"]
            if protocol == PROXY and first_proxy:
                first_proxy = False
            elif protocol == "HBONE" and listener.spec.port == 15008:
                # Istio 1.25 reads `allowedRoutes` only here; the mesh serves the port itself.
                listener.foreign = True
            else:
                message = f"Only a '{PROXY}' listener is allowed for kgateway-waypoint Gateways."
                listener.accepted = Outcome(False, "Invalid", message)
                listener.kinds = ()
                index.report(state.gateway, "KGW412", Severity.ERROR, message, path, legal=PROXY)
        elif protocol in _KINDS:
            listener.kinds = _KINDS[protocol]
            if protocol == "TLS" and not listener.passes_through:
                # kgateway: without TLS, what is inside is a TCP connection.
                listener.kinds += _KINDS["TCP"]
        else:
            message = f"Protocol {protocol} is unsupported."
            listener.accepted = Outcome(False, "UnsupportedProtocol", message)
            legal = ", ".join(_KINDS)
            # Names are compared as they are written: `https` would be somebody's own protocol.
            near = {kind.lower(): kind for kind in _KINDS}.get(protocol.lower())
            hint = f"did you mean `{near}`?" if near else None
            index.report(
                state.gateway, "KGW503", Severity.ERROR, message, path, legal=legal, hint=hint
            )


def _conflicts(index: Index, state: GatewayState) -> None:
    """Listeners of one port must be told apart; among those that cannot be, none wins.

    Those of TLS are told apart by the server name, all others by nothing.
    """
    ports: dict[int, list[ListenerState]] = defaultdict(list)
    for listener in state.listeners:
        ports[listener.spec.port].append(listener)
    for port, listeners in ports.items():
        if len({_SHARING if (p := one.spec.protocol) in _SHARING else p for one in listeners}) < 2:
            if listeners[0].spec.protocol in _SHARING:
                _hostname_conflicts(index, state, listeners)
            continue
        message = (
            "Found conflicting protocols on listeners, a single port can only contain listeners "
            "with compatible protocols"
        )
        for listener in listeners:
            listener.conflicted = Outcome(True, "ProtocolConflict", message)
            if listener.accepted.ok:
                listener.accepted = Outcome(False, "ProtocolConflict", message)
            path = ("spec", "listeners", listener.index, "protocol")
            text = f"{message} (port {port})"
            index.report(state.gateway, "KGW404", Severity.ERROR, text, path)


def _hostname_conflicts(index: Index, state: GatewayState, listeners: list[ListenerState]) -> None:
    """Listeners of TLS that share a port must have different hostnames."""
    for listener in listeners:
        others = [one for one in listeners if one is not listener]
        path = ("spec", "listeners", listener.index)
        if any(one.hostname == listener.hostname for one in others):
            message = (
                "Found conflicting hostnames on listeners, all listeners on a single port must "
                "have unique hostnames"
            )
            listener.conflicted = Outcome(True, "HostnameConflict", message)
            if listener.accepted.ok:
                listener.accepted = Outcome(False, "HostnameConflict", message)
            text = f"{message} (hostname {listener.hostname}, port {listener.spec.port})"
            index.report(state.gateway, "KGW404", Severity.ERROR, text, path)
        elif listener.spec.protocol == "HTTPS":
            listener.overlaps = [
                one.spec.name
                for one in others
                if one.spec.protocol == "HTTPS"
                and hostnames.intersect(one.hostname, listener.hostname) is not None
            ]


def _kinds(index: Index, state: GatewayState) -> None:
    """``allowedRoutes.kinds`` names kinds of routes that the protocol supports."""
    for listener in state.listeners:
        given = listener.spec.allowed_routes.kinds
        possible = listener.kinds
        if not given or not possible:
            continue
        known = [one for one in given if one.group == GATEWAY_GROUP and one.kind in possible]
        wrong = [one for one in given if one not in known]
        listener.kinds = tuple(dict.fromkeys(one.kind for one in known))
        if wrong:
            names = ", ".join(f"{one.group}/{one.kind}" for one in wrong)
            message = f"Found invalid route kinds: [{names}]"
            listener.resolved = Outcome(False, "InvalidRouteKinds", message)
            path = ("spec", "listeners", listener.index, "allowedRoutes", "kinds")
            legal = ", ".join(possible)
            index.report(state.gateway, "KGW309", Severity.ERROR, message, path, legal=legal)


def _client_certificate(index: Index, state: GatewayState) -> None:
    """The certificate that ``spec.tls.backend`` refers to."""
    tls = state.gateway.spec.tls
    ref = tls.backend.client_certificate_ref if tls and tls.backend else None
    if ref is None:
        return
    path = ("spec", "tls", "backend", "clientCertificateRef")
    reason = "InvalidClientCertificateRef"
    found = certificates.key_pair(index, state.gateway, ref, path, reason=reason)
    if isinstance(found, Outcome):
        state.resolved = found
    else:
        state.client_certificate = found
