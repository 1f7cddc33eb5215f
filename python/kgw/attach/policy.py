"""One policy: where it applies, what is wrong with it, and what its status says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from kgw.attach.status import Outcome

if TYPE_CHECKING:
    from kgw.api import (
        BackendConfigPolicy,
        HTTPListenerPolicy,
        ListenerPolicy,
        Opaque,
        TrafficPolicy,
    )

WEIGHT: Final = "kgateway.dev/policy-weight"

#: What a policy is attached to: kind, namespace, name and section.
Target = tuple[str, str, str, str]


@dataclass(slots=True, eq=False)
class PolicyState:
    """A policy, where it applies and what is wrong with it."""

    policy: TrafficPolicy | HTTPListenerPolicy | ListenerPolicy | BackendConfigPolicy | Opaque
    errors: list[str] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    #: Gateways (or other objects, when there is none) whose traffic the policy governs.
    ancestors: dict[tuple[tuple[str, str], ...], None] = field(default_factory=dict)
    #: Targets that do not exist.
    missing: list[tuple[dict[str, Any], Outcome]] = field(default_factory=list)
    #: Certificate authorities of clients that a listener policy asks for, as PEM.
    authorities: str = field(default="", repr=False)
    #: Targets on which the policy set a field, and those on which others did as well.
    effective: bool = False
    shared: bool = False

    def order(self) -> tuple[int, tuple[int, int, str]]:
        """The sort key among policies on one target."""
        text = self.policy.metadata.annotations.get(WEIGHT, "0")
        try:
            weight = int(text)
        except ValueError:
            weight = 0
        return (-weight, self.policy.age())

    @property
    def accepted(self) -> Outcome:
        """Whether the policy is valid."""
        if self.errors:
            return Outcome(False, "Invalid", "; ".join(self.errors))
        return Outcome(True, "Valid", "Policy accepted")

    @property
    def attached(self) -> Outcome:
        """Whether the policy has an effect."""
        if self.errors or not self.targets:
            return Outcome(False, "Pending", "")
        if not self.effective:
            message = "Overridden due to conflict with higher priority policy in target(s)"
            return Outcome(False, "Overridden", message)
        if self.shared:
            message = "Merged with other policies in target(s) and attached"
            return Outcome(True, "Merged", message)
        return Outcome(True, "Attached", "Attached to all targets")
