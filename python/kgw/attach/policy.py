"""One policy: where it applies, what is wrong with it, and what its status says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from kgw.api.base import kubernetes_name
from kgw.api.kinds import GATEWAY_GROUP
from kgw.attach.status import Outcome

if TYPE_CHECKING:
    from collections.abc import Collection

    from kgw.api import (
        BackendConfigPolicy,
        HTTPListenerPolicy,
        ListenerPolicy,
        Opaque,
        Resource,
        TrafficPolicy,
    )
    from kgw.attach.backends import Backend

WEIGHT: Final = "kgateway.dev/policy-weight"

SHADOW: Final = "kgw.dev/shadow"
"""The annotation of policies that are tried out: ``true``, or the fields that are."""


def weight(resource: Resource) -> int:
    """What an object's annotation says of its place among others; the greatest comes first."""
    try:
        return int(resource.metadata.annotations.get(WEIGHT, "0"))
    except ValueError:
        return 0


#: What a policy is attached to: kind, namespace, name and section.
Target = tuple[str, str, str, str]

#: A reference in a status: its members, in their order.
Reference = tuple[tuple[str, str], ...]


def reference(kind: str, named: tuple[str, str], section: str = "") -> Reference:
    """A reference to an object of the Gateway API, or of the core, or to a part of one."""
    namespace, name = named
    group = "" if kind == "Service" else GATEWAY_GROUP
    found: Reference = (
        ("group", group),
        ("kind", kind),
        ("namespace", namespace),
        ("name", name),
    )
    return (*found, ("sectionName", section)) if section else found


def target_reference(target: Target) -> Reference:
    """A reference to a target."""
    kind, namespace, name, section = target
    return reference(kind, (namespace, name), section)


@dataclass(slots=True, eq=False)
class PolicyState:
    """A policy, where it applies and what is wrong with it."""

    policy: TrafficPolicy | HTTPListenerPolicy | ListenerPolicy | BackendConfigPolicy | Opaque
    errors: list[str] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    #: Gateways (or other objects, when there is none) whose traffic the policy governs, with those
    #: of its targets that are theirs.
    ancestors: dict[Reference, list[Target]] = field(default_factory=dict)
    #: Targets that do not exist.
    missing: list[tuple[dict[str, Any], Outcome]] = field(default_factory=list)
    #: The fields that a TrafficPolicy sets, by the names that they are merged under.
    fields: dict[str, Any] = field(default_factory=dict)
    #: What it was checked with: Secrets, extensions and the like. It is checked anew, and comes out
    #: otherwise, when these are other objects.
    reads: list[object] = field(default_factory=list, repr=False)
    #: Certificate authorities of clients that a listener policy asks for, as PEM.
    authorities: str = field(default="", repr=False)
    #: What the references of its logs and tracing lead to, by identity: equal ones may be several.
    log_backends: dict[int, Backend] = field(default_factory=dict, repr=False)
    #: Targets on which the policy set a field, and those on which others did as well.
    effective: set[Target] = field(default_factory=set)
    shared: set[Target] = field(default_factory=set)

    def order(self) -> tuple[int, tuple[int, int, str]]:
        """The sort key among policies on one target."""
        return (-weight(self.policy), self.policy.age())

    def is_in_shadow(self, name: str) -> bool:
        """Whether a field is tried out only.

        Args:
            name: the field, ``rate_limit.local`` for a member that is merged by itself.
        """
        text = self.policy.metadata.annotations.get(SHADOW, "").strip()
        if text in ("", "false"):
            return False
        top, _, _ = name.partition(".")
        wanted = {one.strip() for one in text.split(",")}
        return text == "true" or kubernetes_name(top) in wanted

    @property
    def accepted(self) -> Outcome:
        """Whether the policy is valid."""
        if self.errors:
            return Outcome(False, "Invalid", "; ".join(self.errors))
        return Outcome(True, "Valid", "Policy accepted")

    @property
    def attached(self) -> Outcome:
        """Whether the policy has an effect on any of its targets."""
        return self.attached_to(self.targets)

    def attached_to(self, targets: Collection[Target]) -> Outcome:
        """Whether the policy has an effect on any of some targets."""
        if self.errors or not targets:
            return Outcome(False, "Pending", "")
        if self.effective.isdisjoint(targets):
            message = "Overridden due to conflict with higher priority policy in target(s)"
            return Outcome(False, "Overridden", message)
        if not self.shared.isdisjoint(targets):
            message = "Merged with other policies in target(s) and attached"
            return Outcome(True, "Merged", message)
        return Outcome(True, "Attached", "Attached to all targets")

    def overridden(self, targets: Collection[Target]) -> list[Target]:
        """Those of some targets that the policy has no effect on, while it has on others."""
        without = [one for one in targets if one not in self.effective]
        return [] if self.errors or len(without) == len(targets) else without
