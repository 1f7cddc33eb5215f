"""Listeners, of Gateways and of the ListenerSets that join them, and what is wrong with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kgw.api.gateway.references import GATEWAY_GROUP
from kgw.attach.hostnames import ANY
from kgw.attach.status import Outcome

if TYPE_CHECKING:
    from kgw.api import Gateway, ListenerSet
    from kgw.api.gateway.gateway import Listener
    from kgw.attach.index import Index
    from kgw.attach.server_tls import ServerTLS

_ACCEPTED: Final = Outcome(True, "Accepted", "Successfully accepted Listener")
_NO_CONFLICTS: Final = Outcome(
    False, "NoConflicts", "Successfully verified that Listener has no conflicts"
)
_RESOLVED: Final = Outcome(True, "ResolvedRefs", "Successfully resolved all references")


@dataclass(slots=True, eq=False)
class ListenerState:
    """A listener and the answers about it."""

    gateway: Gateway
    #: The object that the listener stands in: the Gateway, or a ListenerSet that joined it.
    owner: Gateway | ListenerSet
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
    #: The HTTPS listeners of its port that a client may take for this one, and why, if so.
    overlap: Outcome | None = None
    #: Whether the listener is for others (Istio reads it) and nothing is to be bound.
    foreign: bool = False
    #: Whether a listener with precedence has what it asks for: then it has no effect on the port.
    displaced: bool = False

    @property
    def section(self) -> str:
        """The name among all listeners of the Gateway.

        That of a ListenerSet's is ``namespace/set/listener``, which no listener can be called.
        """
        if self.owner is self.gateway:
            return self.spec.name
        return f"{self.owner.namespace}/{self.owner.name}/{self.spec.name}"

    @property
    def id(self) -> str:
        """``namespace/gateway/listener``; of a ListenerSet's, with the `section` at the end."""
        return f"{self.gateway.namespace}/{self.gateway.name}/{self.section}"

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
        if self.conflicted.ok:
            return Outcome(False, self.conflicted.reason, self.conflicted.message)
        fault = self.fault if self.accepted.ok and self.fault is not None else self.accepted
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
                return namespace == self.owner.namespace
            case "Selector":
                labels = index.namespace_labels(namespace)
                return allowed.selector is not None and allowed.selector.matches(labels)
            case _:
                return False


def listeners_of(gateway: Gateway, owner: Gateway | ListenerSet) -> list[ListenerState]:
    """The listeners that an object adds to a Gateway."""
    return [
        ListenerState(gateway, owner, number, spec)
        for number, spec in enumerate(owner.spec.listeners)
    ]
