"""Gateways that kgw serves, and what is wrong with their listeners.

A Gateway is served if its class is. The classes ``kgateway`` and ``kgateway-waypoint`` need no
GatewayClass object; other classes need one that names the controller.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final

from kgw.api.gateway import options
from kgw.api.gateway.gateway import PROXY
from kgw.api.gateway.references import GATEWAY_GROUP
from kgw.attach import certificates, conflicts, infrastructure, listener_sets, server_tls
from kgw.attach.listeners import listeners_of
from kgw.attach.status import CONTROLLER, Outcome
from kgw.diagnostics import Severity, suggest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kgw.api import Gateway
    from kgw.api.gateway.options import Chosen
    from kgw.attach.certificates import KeyPair
    from kgw.attach.index import Index, Named
    from kgw.attach.listener_sets import ListenerSetState
    from kgw.attach.listeners import ListenerState

#: Annotation of a class (or Gateway) that tells Istio how its waypoints take connections.
INBOUND_BINDING: Final = "ambient.istio.io/waypoint-inbound-binding"

#: Protocols of ordinary Gateways, with the kinds of routes that their listeners may have.
_KINDS: Final[dict[str, tuple[str, ...]]] = {
    "HTTP": ("HTTPRoute", "GRPCRoute"),
    "HTTPS": ("HTTPRoute", "GRPCRoute"),
    "TLS": ("TLSRoute",),
    "TCP": ("TCPRoute",),
    "UDP": ("UDPRoute",),
}

_RESOLVED: Final = Outcome(True, "ResolvedRefs", "Successfully resolved all references")


class Role(Enum):
    """What the Gateways of a class are for."""

    PROXY = "kgateway"
    WAYPOINT = "kgateway-waypoint"


@dataclass(slots=True, eq=False)
class GatewayState:
    """A Gateway that kgw serves."""

    gateway: Gateway
    role: Role
    #: Its own listeners, without those of ListenerSets.
    own: list[ListenerState]
    #: Its own listeners, then those of the ListenerSets that joined it, in order of precedence.
    listeners: list[ListenerState]
    #: The ListenerSets that want to join it, in order of precedence.
    sets: list[ListenerSetState] = field(default_factory=list)
    #: Why nothing of the Gateway can be served, if so.
    refusal: Outcome | None = None
    #: The addresses that it was given; none if addresses are not given to Gateways.
    addresses: tuple[str, ...] | None = None
    #: Why it does not have all the addresses that it asks for, if so.
    unplaced: Outcome | None = None
    #: The certificate that is shown to backends, and whether it can be.
    client_certificate: KeyPair | None = None
    resolved: Outcome = _RESOLVED
    _options: dict[tuple[str, ...], dict[str, Chosen]] = field(default_factory=dict)

    @property
    def named(self) -> Named:
        """Namespace and name."""
        return (self.gateway.namespace, self.gateway.name)

    @property
    def programmed(self) -> Outcome:
        """Whether its listeners are served, as far as they are valid."""
        if self.refusal is not None:
            return Outcome(False, "Invalid", self.refusal.message)
        return self.unplaced or Outcome(True, "Programmed", "Successfully programmed Gateway")

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
        own = [one.spec.name for one in self.own]
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
        own = listeners_of(gateway, gateway)
        states[named] = GatewayState(gateway, role, own, list(own))
    listener_sets.join(index, states)
    for state in states.values():
        _examine(index, state)
    return states


def _examine(index: Index, state: GatewayState) -> None:
    """Finds out what is wrong with a Gateway and its listeners."""
    gateway = state.gateway
    _protocols(index, state)
    conflicts.resolve(index, state.listeners)
    _kinds(index, state)
    _client_certificate(index, state)
    for listener in state.listeners:
        if listener.spec.protocol in conflicts.SHARING and listener.accepted.ok:
            server_tls.resolve(index, listener)
    conflicts.overlaps(state.listeners)
    if gateway.defects:
        state.refusal = Outcome(False, "InvalidParameters", _joined(gateway.defects))
        return
    state.refusal = infrastructure.refusal(index, gateway) or _unsupported_address(index, gateway)
    if state.refusal is not None:
        return
    if state.role is Role.WAYPOINT and state.proxy_listener is None:
        # The status says it in kgateway's words, in which a word is missing.
        message = f"Must contain at one listener with the protocol '{PROXY}'"
        state.refusal = Outcome(False, "ListenersNotValid", message)
        message = message.replace("at one", "at least one")
        index.report(gateway, "KGW412", Severity.ERROR, message, ("spec", "listeners"))
    elif not any(one.accepted.ok for one in state.own):
        state.refusal = Outcome(False, "ListenersNotValid", "No valid listeners")


def _unsupported_address(index: Index, gateway: Gateway) -> Outcome | None:
    """The refusal of a Gateway that asks for an address that is no IP address, if it does."""
    for number, one in enumerate(gateway.spec.addresses):
        if one.type != "IPAddress":
            message = f"addresses of type {one.type} are not supported"
            path = ("spec", "addresses", number, "type")
            index.report(gateway, "KGW417", Severity.ERROR, message, path, legal="IPAddress")
            return Outcome(False, "UnsupportedAddress", message)
    return None


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
                index.report(listener.owner, "KGW412", Severity.ERROR, message, path, legal=PROXY)
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
                listener.owner, "KGW503", Severity.ERROR, message, path, legal=legal, hint=hint
            )


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
            index.report(listener.owner, "KGW309", Severity.ERROR, message, path, legal=legal)


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
