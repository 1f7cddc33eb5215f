"""Which policies apply where, and which of several wins.

Policies of one kind on one target are ordered by the annotation ``kgateway.dev/policy-weight``
(higher first), then by age, then by ``namespace/name``; field by field the first one that sets it
wins. Between levels the more specific wins: a filter that refers to the policy, the rule, the
route, the listener, its ListenerSet, the Gateway. A TrafficPolicy that cannot be used as it is
written takes its targets out of service (500) rather than leave them unprotected; a listener policy
that cannot has no effect.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kgw.api import Opaque, TrafficPolicy, loaded
from kgw.api.kgateway.targets import KGATEWAY_GROUP
from kgw.attach import certificates, native
from kgw.attach.effects import contend, settings_fields, traffic_fields
from kgw.attach.policy import PolicyState
from kgw.attach.status import Outcome
from kgw.attach.targets import Targets, listener_targets
from kgw.diagnostics import Severity

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kgw.api import HTTPListenerPolicy, ListenerPolicy, ResourceKey
    from kgw.api.kgateway.traffic_policy import LocalRateLimit
    from kgw.attach.gateways import GatewayState
    from kgw.attach.index import Index, Named
    from kgw.attach.policy import Target
    from kgw.attach.routes import RouteState

_LISTENER_KINDS: Final = ("HTTPListenerPolicy", "ListenerPolicy")


@dataclass(frozen=True, slots=True)
class Limit:
    """The rate limit that holds at a place, and where it comes from."""

    policy: TrafficPolicy
    local: LocalRateLimit
    #: ``route`` for a bucket of each match, ``listener`` or ``gateway`` for shared ones.
    level: str


@dataclass(frozen=True, slots=True)
class Place:
    """Where requests are served: what policies can be attached to there."""

    gateway: Named
    #: The listener's `section`.
    listener: str
    route: ResourceKey | None = None
    #: The rule's name, if it has one.
    rule: str | None = None
    #: Policies that a filter of the rule refers to.
    referred: tuple[PolicyState, ...] = ()


class Policies:
    """All policies by target."""

    def __init__(
        self,
        index: Index,
        gateways: dict[Named, GatewayState],
        routes: dict[ResourceKey, RouteState],
    ) -> None:
        self._index = index
        self._gateways = gateways
        self.targets: Targets = Targets(index, gateways, routes)
        #: TrafficPolicies by what they are attached to, the first one first.
        self.by_target: dict[Target, list[PolicyState]] = defaultdict(list)
        self._listener: dict[Target, list[PolicyState]] = defaultdict(list)
        #: TrafficPolicies by name: filters of routes refer to them.
        self.by_name: dict[Named, PolicyState] = {}
        self.states: list[PolicyState] = []
        for policy in index.traffic_policies.values():
            state = self._state(policy)
            _percentages(index, state, policy)
            self.targets.attach(state, self.by_target)
        for other in index.listener_policies:
            state = self._state(other)
            if other.kind == "HTTPListenerPolicy":
                _deprecated(index, other)
            _access_logs(index, state, other)
            _authorities(index, state, other)
            self.targets.attach(state, self._listener)
        for key, refused in index.refused.items():
            if key.group != KGATEWAY_GROUP:
                continue
            if key.kind == "TrafficPolicy":
                self.targets.attach(self._state(refused), self.by_target)
            elif key.kind in _LISTENER_KINDS:
                self.targets.attach(self._state(refused), self._listener)
        for slots in (self.by_target, self._listener):
            for states in slots.values():
                states.sort(key=PolicyState.order)
        self._effects()

    def _state(
        self, policy: TrafficPolicy | HTTPListenerPolicy | ListenerPolicy | Opaque
    ) -> PolicyState:
        refusal = self._index.refusal(policy.key)
        errors = [one.message for one in policy.defects] if refusal is None else [refusal]
        state = PolicyState(policy, errors)
        self.states.append(state)
        if policy.kind == "TrafficPolicy":
            self.by_name[policy.namespace, policy.name] = state
        return state

    def _effects(self) -> None:
        """Notes for each policy whether it has an effect, and whether alone."""
        for states in self.by_target.values():
            contend([(state, traffic_fields(state)) for state in states])
        for named, gateway in self._gateways.items():
            for port in {one.spec.port for one in gateway.listeners}:
                names = [one.section for one in gateway.listeners if one.spec.port == port]
                states = self.listener_settings(named, names)
                contend([(state, settings_fields(state, port)) for state in states])
        for state in self.states:
            if state.targets and state.attached.reason == "Overridden":
                self._index.report(
                    state.policy,
                    "KGW411",
                    Severity.WARNING,
                    "the policy has no effect: older ones on the same target set the same fields",
                )

    # === What applies ===

    def listener_settings(self, gateway: Named, listeners: Iterable[str]) -> list[PolicyState]:
        """The policies for the listeners that share a port of a Gateway, first wins.

        They share their connections' settings too, so what one of them has is for all.
        """
        own = [
            state
            for name in listeners
            for target in listener_targets(gateway, name)
            for state in self._listener.get(target, ())
        ]
        own.sort(key=PolicyState.order)
        return [*own, *self._listener.get(("Gateway", *gateway, ""), ())]

    def refer(self, name: str, route: ResourceKey) -> PolicyState | None:
        """The TrafficPolicy that a filter of a route refers to, which attaches it."""
        state = self.named(name, route)
        if state is not None:
            self.targets.refer(state, route)
            state.effective = True
        return state

    def named(self, name: str, route: ResourceKey) -> PolicyState | None:
        """The TrafficPolicy that a filter of a route names, without attaching it."""
        return self.by_name.get((route.namespace, name))

    def traffic(self, place: Place) -> list[PolicyState]:
        """The TrafficPolicies that count at a place, the most specific first."""
        return [state for _, states in self._levels(place) for state in states]

    def limit(self, place: Place) -> Limit | str | None:
        """The rate limit at a place, the reason why the place is broken, or neither."""
        found = None
        for level, states in self._levels(place):
            for state in states:
                if state.errors:
                    return f"{state.policy.key}: {state.accepted.message}"
                policy = state.policy
                if found is None and isinstance(policy, TrafficPolicy):
                    local = policy.local_rate_limit
                    if local is not None:
                        found = Limit(policy, local, level)
        return found

    def request_timeout(self, place: Place) -> int | None:
        """The time-out of requests at a place that is not broken. Milliseconds; 0 is none."""
        policies = (state.policy for _, states in self._levels(place) for state in states)
        given = (one.request_timeout for one in policies if isinstance(one, TrafficPolicy))
        return next((one for one in given if one is not None), None)

    def _levels(self, place: Place) -> list[tuple[str, list[PolicyState]]]:
        """The policies that count at a place, the most specific first."""
        levels: list[tuple[str, list[PolicyState]]] = [("route", list(place.referred))]
        if place.route is not None:
            _, kind, namespace, name = place.route
            if place.rule is not None:
                own = self.by_target.get((kind, namespace, name, place.rule), [])
                levels.append(("route", own))
            levels.append(("route", self.by_target.get((kind, namespace, name, ""), [])))
        targets = listener_targets(place.gateway, place.listener)
        levels += [("listener", self.by_target.get(target, [])) for target in targets]
        levels.append(("gateway", self.by_target.get(("Gateway", *place.gateway, ""), [])))
        return levels

    def report_idle(self) -> None:
        """Reports the policies that name no target and that no filter refers to."""
        for state in self.states:
            spec = state.policy.spec
            if isinstance(state.policy, Opaque) or state.targets:
                continue
            if not spec.target_refs and not spec.target_selectors:
                self._index.report(
                    state.policy,
                    "KGW304",
                    Severity.WARNING,
                    "the policy has no target, so it has no effect",
                    ("spec",),
                    hint="name the target in `targetRefs`",
                )


def _percentages(index: Index, state: PolicyState, policy: TrafficPolicy) -> None:
    """Shares of requests other than none and all are not supported yet."""
    local = policy.local_rate_limit
    for name, alias in (
        ("percent_enabled", "percentEnabled"),
        ("percent_enforced", "percentEnforced"),
    ):
        value = getattr(local, name, 100)
        if value not in (0, 100):
            finding = index.report(
                policy,
                "KGW501",
                Severity.ERROR,
                f"`{alias}` other than 0 and 100 is not supported by this version of kgw",
                ("spec", "rateLimit", "local", alias),
                legal="0, 100",
            )
            state.errors.append(finding.message)


def _deprecated(index: Index, policy: HTTPListenerPolicy | ListenerPolicy) -> None:
    index.report(
        policy,
        "KGW601",
        Severity.INFO,
        "HTTPListenerPolicy has a successor, ListenerPolicy; kgateway 2.5 removes the old kind",
        ("kind",),
        hint="write `kind: ListenerPolicy` and move the settings to `spec.default.httpSettings`",
    )


def _access_logs(
    index: Index, state: PolicyState, policy: HTTPListenerPolicy | ListenerPolicy
) -> None:
    """Formats that the data plane cannot write, wherever in the policy they stand."""
    for settings, path in policy.every_settings():
        for number, log in enumerate(settings.access_log or ()):
            problem = None if log.file_sink is None else native.log_error(log.file_sink)
            if problem is None:
                continue
            where, why = problem
            place = (*path, "accessLog", number, "fileSink", *where)
            message = f"access log format cannot be used: {why}"
            index.report(policy, "KGW408", Severity.ERROR, message, place)
            if message not in state.errors:
                state.errors.append(message)


def _authorities(
    index: Index, state: PolicyState, policy: HTTPListenerPolicy | ListenerPolicy
) -> None:
    """The authorities of the client certificates that a policy asks for; one is enough."""
    if not isinstance(policy, loaded.ListenerPolicy) or policy.validation is None:
        return
    path = ("spec", "default", "clientCertificateValidation", "caCertificateRefs")
    found = [
        certificates.authorities(index, policy, ref, (*path, number))
        for number, ref in enumerate(policy.validation.ca_certificate_refs)
    ]
    state.authorities = "\n".join(one for one in found if isinstance(one, str))
    if not state.authorities:
        state.errors += [one.message for one in found if isinstance(one, Outcome)]
