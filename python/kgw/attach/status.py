"""Statuses: what a controller would write to each resource, computed without a cluster."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

#: The controller name in statuses. It is kgateway's: kgw takes its place for the same classes.
CONTROLLER: Final = "kgateway.dev/kgateway"


class Outcome(NamedTuple):
    """How one question about a resource was answered; becomes a condition."""

    ok: bool
    reason: str
    message: str

    def condition(self, kind: str, generation: int) -> Condition:
        """The condition of a type."""
        return Condition(kind, "True" if self.ok else "False", *self[1:], generation)


@dataclass(frozen=True, slots=True)
class Condition:
    """A Kubernetes condition; the transition time is the writer's business."""

    type: str
    status: str
    reason: str
    message: str
    observed_generation: int

    def to_json(self) -> dict[str, Any]:
        """The condition as Kubernetes writes it."""
        return {
            "type": self.type,
            "status": self.status,
            "reason": self.reason,
            "message": self.message,
            "observedGeneration": self.observed_generation,
        }


@dataclass(frozen=True, slots=True)
class ListenerStatus:
    """One listener of a Gateway or ListenerSet."""

    name: str
    supported_kinds: tuple[dict[str, str], ...]
    attached_routes: int
    conditions: tuple[Condition, ...]

    def to_json(self) -> dict[str, Any]:
        """The entry as Kubernetes writes it."""
        return {
            "name": self.name,
            "supportedKinds": [dict(kind) for kind in self.supported_kinds],
            "attachedRoutes": self.attached_routes,
            "conditions": [one.to_json() for one in self.conditions],
        }


@dataclass(frozen=True, slots=True)
class ParentStatus:
    """One parent of a route, or one ancestor of a policy."""

    ref: dict[str, Any]
    conditions: tuple[Condition, ...]

    def to_json(self, name: str) -> dict[str, Any]:
        """The entry as Kubernetes writes it; ``name`` is ``parentRef`` or ``ancestorRef``."""
        return {
            name: self.ref,
            "controllerName": CONTROLLER,
            "conditions": [one.to_json() for one in self.conditions],
        }


@dataclass(frozen=True, slots=True)
class Status:
    """The status of a resource; which members it has depends on the kind."""

    conditions: tuple[Condition, ...] = ()
    listeners: tuple[ListenerStatus, ...] = ()
    addresses: tuple[dict[str, str], ...] = ()
    parents: tuple[ParentStatus, ...] = ()
    ancestors: tuple[ParentStatus, ...] = field(default=())
    #: How many ListenerSets have joined; of Gateways only.
    attached_listener_sets: int | None = None
    #: Names of features; of GatewayClasses and meshes only.
    supported_features: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The status as Kubernetes writes it, without empty members."""
        members: dict[str, Any] = {
            "addresses": [dict(one) for one in self.addresses],
            "attachedListenerSets": self.attached_listener_sets,
            "conditions": [one.to_json() for one in self.conditions],
            "listeners": [one.to_json() for one in self.listeners],
            "parents": [one.to_json("parentRef") for one in self.parents],
            "ancestors": [one.to_json("ancestorRef") for one in self.ancestors],
            "supportedFeatures": [{"name": one} for one in self.supported_features],
        }
        return {name: value for name, value in members.items() if value not in (None, [])}

    def all_conditions(self) -> list[tuple[str, Condition]]:
        """Every condition with what it is about: empty, a listener, a parent or an ancestor."""
        rows = [("", one) for one in self.conditions]
        rows += [(f"listener {e.name}", one) for e in self.listeners for one in e.conditions]
        for entry in (*self.parents, *self.ancestors):
            rows += [(reference(entry.ref), one) for one in entry.conditions]
        return rows


def reference(ref: dict[str, Any]) -> str:
    """A reference for people: ``Gateway infra/edge/http``."""
    parts = (ref.get("namespace"), ref["name"], ref.get("sectionName"))
    return f"{ref.get('kind', 'Gateway')} " + "/".join(part for part in parts if part)
