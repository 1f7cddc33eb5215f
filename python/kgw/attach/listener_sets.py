"""ListenerSets: which join the Gateway that they name, and what their status says.

A Gateway has those whose namespace its ``allowedListeners`` includes, the oldest first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kgw.api.gateway.references import GATEWAY_GROUP
from kgw.attach.listeners import listeners_of
from kgw.attach.status import Outcome, Status
from kgw.diagnostics import Severity, suggest

if TYPE_CHECKING:
    from kgw.api import Gateway, ListenerSet, ResourceKey
    from kgw.attach.gateways import GatewayState
    from kgw.attach.index import Index, Named
    from kgw.attach.listeners import ListenerState


@dataclass(slots=True, eq=False)
class ListenerSetState:
    """A ListenerSet of a Gateway that kgw serves."""

    listener_set: ListenerSet
    gateway: GatewayState
    #: Its listeners; none if it may not join the Gateway.
    listeners: list[ListenerState] = field(default_factory=list)
    #: Why it may not join the Gateway, if so.
    refusal: Outcome | None = None

    @property
    def named(self) -> Named:
        """Namespace and name."""
        return (self.listener_set.namespace, self.listener_set.name)

    @property
    def accepted(self) -> Outcome:
        """Whether any of its listeners can be served."""
        if self.refusal is not None:
            return self.refusal
        if self.gateway.refusal is not None:
            return Outcome(False, "ParentNotAccepted", "The parent Gateway is not accepted")
        broken = [one for one in self.listeners if not one.usable]
        if not broken:
            return Outcome(True, "Accepted", "Successfully accepted ListenerSet")
        message = "Some listeners are not programmed: " + "; ".join(
            f"{one.spec.name}: {one.programmed.message}" for one in broken
        )
        return Outcome(len(broken) < len(self.listeners), "ListenersNotValid", message)

    @property
    def programmed(self) -> Outcome:
        """Whether those of its listeners that can be served are."""
        accepted = self.accepted
        if accepted.reason == "ParentNotAccepted" or self.gateway.unplaced is not None:
            return Outcome(False, "ParentNotProgrammed", "The parent Gateway is not programmed")
        if not accepted.ok:
            return accepted
        return Outcome(True, "Programmed", "Successfully programmed ListenerSet")


def join(index: Index, gateways: dict[Named, GatewayState]) -> None:
    """Adds the listeners of ListenerSets to their Gateways."""
    for one in sorted(index.listener_sets.values(), key=lambda one: one.age()):
        ref = one.spec.parent_ref
        named = (ref.namespace or one.namespace, ref.name)
        if (ref.group, ref.kind) != (GATEWAY_GROUP, "Gateway"):
            message = f"{ref.group}/{ref.kind} is not a kind of parent that kgw serves"
            path = ("spec", "parentRef", "kind")
            index.report(one, "KGW309", Severity.ERROR, message, path, legal="Gateway")
            continue
        gateway = gateways.get(named)
        if gateway is None:
            if named not in index.gateways:
                _missing(index, one, named)
            continue
        state = ListenerSetState(one, gateway)
        gateway.sets.append(state)
        if _allowed(index, gateway.gateway, one.namespace):
            state.listeners = listeners_of(gateway.gateway, one)
            gateway.listeners += state.listeners
            continue
        message = f"Gateway {'/'.join(named)} allows no ListenerSets of namespace {one.namespace}"
        state.refusal = Outcome(False, "NotAllowed", message)
        index.report(one, "KGW418", Severity.ERROR, message, ("spec", "parentRef"))


def orphans(index: Index) -> dict[ResourceKey, Status]:
    """The statuses of ListenerSets whose Gateway does not exist.

    No controller would write one; here nobody else does, and routes of the set refer to it.
    """
    found = {}
    for one in index.listener_sets.values():
        ref = one.spec.parent_ref
        named = (ref.namespace or one.namespace, ref.name)
        if (ref.group, ref.kind) != (GATEWAY_GROUP, "Gateway") or named in index.gateways:
            continue
        generation, why = one.metadata.generation, index.absence("Gateway", named)
        accepted = Outcome(False, "ParentNotAccepted", why).condition("Accepted", generation)
        programmed = Outcome(False, "ParentNotProgrammed", why).condition("Programmed", generation)
        found[one.key] = Status((accepted, programmed))
    return found


def _missing(index: Index, one: ListenerSet, named: Named) -> None:
    near = None
    if not index.is_refused("Gateway", named):
        near = suggest(named[1], (name for ns, name in index.gateways if ns == named[0]))
    index.report(
        one,
        "KGW305",
        Severity.ERROR,
        index.absence("Gateway", named),
        ("spec", "parentRef", "name"),
        hint=f"did you mean `{near}`?" if near else None,
    )


def _allowed(index: Index, gateway: Gateway, namespace: str) -> bool:
    """Whether ``allowedListeners.namespaces`` includes a namespace."""
    allowed = gateway.spec.allowed_listeners.namespaces
    match allowed.from_:
        case "All":
            return True
        case "Same":
            return namespace == gateway.namespace
        case "Selector":
            labels = index.namespace_labels(namespace)
            return allowed.selector is not None and allowed.selector.matches(labels)
        case _:
            return False
