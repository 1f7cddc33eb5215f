"""XBackendTrafficPolicies: which one holds for a Service, and what it comes to.

Of several on one Service the oldest holds, and the others are in conflict with it. One that cannot
be used has no effect: neither retries without a budget nor requests without a session let anybody
in who should not be.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kgw.api import Opaque, ResourceKey, remains
from kgw.api.kinds import X_GATEWAY_GROUP
from kgw.attach.index import SERVICE_KINDS
from kgw.attach.status import Outcome
from kgw.diagnostics import Severity, suggest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kgw.api import SessionPersistence, XBackendTrafficPolicy
    from kgw.attach.index import AnyService, Index
    from kgw.source.memory import FieldPath

_ACCEPTED = Outcome(True, "Accepted", "Policy accepted")


@dataclass(slots=True, eq=False)
class BackendTrafficState:
    """A policy, where it holds and what is wrong with it."""

    policy: XBackendTrafficPolicy | Opaque
    accepted: Outcome = _ACCEPTED
    #: The Services that it is for.
    services: list[ResourceKey] = field(default_factory=list)
    #: Those that an older policy holds for.
    lost: list[ResourceKey] = field(default_factory=list)
    #: Targets that do not exist: the reference and why.
    missing: list[tuple[dict[str, Any], Outcome]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class RetryBudget:
    """How many of the requests to a Service may be retries."""

    #: Whose requests are counted.
    service: ResourceKey
    percent: int
    interval_ms: int
    min_retries: int
    min_interval_ms: int


class BackendTraffic:
    """All XBackendTrafficPolicies by Service."""

    def __init__(self, index: Index) -> None:
        self._index = index
        #: The policy that holds for each Service.
        self.slots: dict[ResourceKey, BackendTrafficState] = {}
        self.states: list[BackendTrafficState] = []
        refused = [
            one
            for key, one in index.refused.items()
            if (key.group, key.kind) == (X_GATEWAY_GROUP, "XBackendTrafficPolicy")
        ]
        policies: list[XBackendTrafficPolicy | Opaque] = [
            *index.backend_traffic_policies.values(),
            *refused,
        ]
        for policy in sorted(policies, key=lambda one: one.age()):
            self._add(policy)
        held = (state.policy for state in self.slots.values())
        #: Whether any Service has sessions.
        self.has_sessions: bool = any(
            not isinstance(one, Opaque) and one.spec.session_persistence is not None for one in held
        )

    def session(self, service: AnyService) -> SessionPersistence | None:
        """The sessions of a Service, if a policy asks for them."""
        policy = self._policy(service)
        return None if policy is None else policy.spec.session_persistence

    def retry_budget(self, service: AnyService) -> RetryBudget | None:
        """The budget of a Service, if a policy sets one."""
        policy = self._policy(service)
        constraint = None if policy is None else policy.spec.retry_constraint
        if constraint is None:
            return None
        return RetryBudget(
            service.key,
            constraint.budget.percent,
            constraint.budget.interval,
            constraint.min_retry_rate.count,
            constraint.min_retry_rate.interval,
        )

    def _policy(self, service: AnyService) -> XBackendTrafficPolicy | None:
        state = self.slots.get(service.key)
        return None if state is None or isinstance(state.policy, Opaque) else state.policy

    def _add(self, policy: XBackendTrafficPolicy | Opaque) -> None:
        state = BackendTrafficState(policy)
        self.states.append(state)
        if isinstance(policy, Opaque):
            why = self._index.refusal(policy.key) or ""
            state.accepted = Outcome(False, "Invalid", why)
        for path, key, ref in _targets(policy):
            problem = self._problem(policy, path, key)
            if problem is not None:
                state.missing.append((ref, problem))
                continue
            if isinstance(policy, Opaque):
                # It has no effect that another would be in conflict with.
                state.services.append(key)
                continue
            holder = self.slots.setdefault(key, state)
            if holder is state:
                state.services.append(key)
                continue
            state.lost.append(key)
            self._index.report(
                policy,
                "KGW411",
                Severity.WARNING,
                f"the policy has no effect on this target: {holder.policy.key} goes first, "
                "by age or name",
                path,
            )
        if state.lost and not state.services and state.accepted.ok:
            message = "Policy conflicts with higher priority policy"
            state.accepted = Outcome(False, "Conflicted", message)

    def _problem(
        self,
        policy: XBackendTrafficPolicy | Opaque,
        path: FieldPath,
        key: ResourceKey,
    ) -> Outcome | None:
        """Why there is no such target, if so."""
        group, kind, namespace, name = key
        if (group, kind) not in SERVICE_KINDS:
            message = f"{group}/{kind} is not a kind of backend"
            place = (*path, "kind")
            self._index.report(
                policy, "KGW309", Severity.ERROR, message, place, legal='Service with `group: ""`'
            )
            return Outcome(False, "Invalid", message)
        if self._index.service(key) is not None:
            return None
        message = f"{kind} {namespace}/{name} not found"
        known = [one for where, one in self._index.named(kind) if where == namespace]
        near = suggest(name, known)
        hint = f"did you mean `{near}`?" if near else None
        place = (*path, "name")
        self._index.report(policy, "KGW302", Severity.ERROR, message, place, hint=hint)
        return Outcome(False, "TargetNotFound", message)


def _targets(
    policy: XBackendTrafficPolicy | Opaque,
) -> Iterator[tuple[FieldPath, ResourceKey, dict[str, Any]]]:
    """Targets with their places and how a status refers to them."""
    refs = (
        remains.targets(policy)
        if isinstance(policy, Opaque)
        else enumerate(policy.spec.target_refs)
    )
    for number, one in refs:
        ref = {
            "group": one.group,
            "kind": one.kind,
            "namespace": policy.namespace,
            "name": one.name,
        }
        key = ResourceKey(one.group, one.kind, policy.namespace, one.name)
        yield ("spec", "targetRefs", number), key, ref
