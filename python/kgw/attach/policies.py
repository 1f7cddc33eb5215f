"""Which policies apply where, and which of several wins.

Policies of one kind on one target are ordered by the annotation ``kgateway.dev/policy-weight``
(higher first), then by age, then by ``namespace/name``; field by field the first one that sets it
wins. Of those of one object the more specific wins: a filter that refers to the policy, the rule,
the route; the listener, the ListenerSet or Gateway. Between objects (the route, the ListenerSet,
the Gateway) an annotation of the upper one says who wins (`kgw.attach.inheritance`). A
TrafficPolicy that cannot be used as it is written takes its targets out of service (500) rather
than leave them unprotected; a listener policy that cannot has no effect.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from kgw.api import Opaque, ResourceKey, TrafficPolicy, loaded
from kgw.api.gateway.references import GATEWAY_GROUP
from kgw.api.kgateway.targets import KGATEWAY_GROUP
from kgw.attach import access_logs, certificates, inheritance, local_replies
from kgw.attach.checking import Checking
from kgw.attach.effective import NOTHING, Effective, Level, fields, merged
from kgw.attach.effects import contend, settings_fields, traffic_fields
from kgw.attach.fields import modifier_fault
from kgw.attach.index import REQUEST_KINDS
from kgw.attach.options import DEEP
from kgw.attach.policy import PolicyState
from kgw.attach.status import Outcome
from kgw.attach.targets import Targets, listener_targets
from kgw.diagnostics import Severity

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kgw.api import HTTPListenerPolicy, ListenerPolicy
    from kgw.attach.extensions import Extensions
    from kgw.attach.gateways import GatewayState
    from kgw.attach.index import Index, Named
    from kgw.attach.inheritance import Strategy
    from kgw.attach.policy import Target
    from kgw.attach.routes import RouteState

_LISTENER_KINDS: Final = ("HTTPListenerPolicy", "ListenerPolicy")

#: What routes and Gateways can merge deeply, as it is written.
_OF_LEVELS: Final = DEEP.keys() - {"acl"}


class Via(NamedTuple):
    """A rule that hands on requests to routes below it."""

    route: ResourceKey
    #: Its name, if it has one.
    rule: str | None
    #: Policies that its filters refer to.
    referred: tuple[PolicyState, ...] = ()


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
    #: The rules that handed on requests to this one, the nearest first.
    via: tuple[Via, ...] = ()


class Policies:
    """All policies by target."""

    def __init__(
        self,
        index: Index,
        gateways: dict[Named, GatewayState],
        routes: dict[ResourceKey, RouteState],
        extensions: Extensions,
    ) -> None:
        self._index = index
        self._gateways = gateways
        self._routes = routes
        self.targets: Targets = Targets(index, gateways, routes)
        #: TrafficPolicies by what they are attached to, the first one first.
        self.by_target: dict[Target, list[PolicyState]] = defaultdict(list)
        self._listener: dict[Target, list[PolicyState]] = defaultdict(list)
        #: TrafficPolicies by name: filters of routes refer to them.
        self.by_name: dict[Named, PolicyState] = {}
        self.states: list[PolicyState] = []
        for policy in index.traffic_policies.values():
            state = self._state(policy)
            state.fields = fields(policy)
            if not state.errors:
                Checking(index, extensions, state).run()
            self.targets.attach(state, self.by_target)
        for other in index.listener_policies:
            state = self._state(other)
            if other.kind == "HTTPListenerPolicy":
                _deprecated(index, other)
            access_logs.check(index, state, other)
            local_replies.check(index, state, other)
            _authorities(index, state, other)
            _early_headers(index, state, other)
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
        self._deep: frozenset[str] = index.options.deep
        #: How Gateways and ListenerSets hand down their policies.
        self._strategies: dict[Target, Strategy] = {}
        for named, gateway in gateways.items():
            self._strategies["Gateway", *named, ""] = inheritance.of(index, gateway.gateway)
            for one in gateway.sets:
                strategy = inheritance.of(index, one.listener_set)
                self._strategies["ListenerSet", *one.named, ""] = strategy
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
        """Notes for each policy on which targets it has an effect, and whether alone."""
        deep = self._index.options.deep_merge
        for target, states in self.by_target.items():
            contend([(state, traffic_fields(state)) for state in states], [target], deep=deep)
        self._displace()
        for named, gateway in self._gateways.items():
            for port in {one.spec.port for one in gateway.listeners}:
                names = [one.section for one in gateway.listeners if one.spec.port == port]
                targets = [one for name in names for one in listener_targets(named, name)]
                targets.append(("Gateway", *named, ""))
                states = self.listener_settings(named, names)
                contend([(state, settings_fields(state, port)) for state in states], targets)
        for state in self.states:
            if state.targets and state.attached.reason == "Overridden":
                self._index.report(
                    state.policy,
                    "KGW411",
                    Severity.WARNING,
                    "the policy has no effect: older ones on the same target set the same fields",
                )

    def _displace(self) -> None:
        """Notes which policies of routes have no effect since those of all their Gateways go first,
        and which of both have one together."""
        for target, states in self.by_target.items():
            route = self._routes.get(ResourceKey(GATEWAY_GROUP, *target[:3]))
            if target[0] not in REQUEST_KINDS or route is None or not route.gateways:
                continue
            for state in states:
                if target in state.effective:
                    self._displace_on(state, target, route.gateways)

    def _displace_on(self, state: PolicyState, target: Target, gateways: Iterable[Named]) -> None:
        own = traffic_fields(state)
        left = set()
        for named in gateways:
            whole: Target = ("Gateway", *named, "")
            strategy = self._strategies[whole]
            above = {
                name: one
                for one in self.by_target.get(whole, ())
                for name in traffic_fields(one)
                if whole in one.effective
            }
            together = own.keys() & above.keys() & _OF_LEVELS if strategy.deep else set()
            left |= own.keys() - (above.keys() if strategy.prefer_parent else set()) | together
            for name in together:
                state.shared.add(target)
                above[name].shared.add(whole)
        if own and not left:
            state.effective.discard(target)
            state.shared.discard(target)

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
            state.effective.add(self.targets.refer(state, route))
        return state

    def named(self, name: str, route: ResourceKey) -> PolicyState | None:
        """The TrafficPolicy that a filter of a route names, without attaching it."""
        return self.by_name.get((route.namespace, name))

    def traffic(self, place: Place) -> list[PolicyState]:
        """The TrafficPolicies that count at a place, the most specific first."""
        return [state for level in self._levels(place) for _, state in level.policies]

    def effective(self, place: Place) -> Effective | str:
        """What policies come to at a place, or why the place answers 500."""
        levels = self._levels(place)
        if not levels:
            return NOTHING
        for level in levels:
            for _, state in level.policies:
                if state.errors:
                    return f"{state.policy.key}: {state.accepted.message}"
        return merged(levels, self._deep)

    def valid(self, place: Place) -> Effective:
        """What the valid ones of the policies at a place come to."""
        return merged(self._levels(place), self._deep)

    def _levels(self, place: Place) -> list[Level]:
        """The policies that count at a place by what they are attached to, the most specific first.

        Objects without policies are left out.
        """
        levels = []
        if place.route is not None:
            own = self._of_route(place.route, place.rule, place.referred)
            levels.append(Level([("route", one) for one in own]))
        for above in place.via:
            own = self._of_route(above.route, above.rule, above.referred)
            parent = self._index.route(above.route)
            strategy = inheritance.DEFAULT if parent is None else inheritance.strategy(parent)
            levels.append(Level([("route", one) for one in own], strategy))
        targets = listener_targets(place.gateway, place.listener)
        listener = [("listener", one) for each in targets for one in self.by_target.get(each, ())]
        whole: Target = ("Gateway", *place.gateway, "")
        gateway = [("gateway", one) for one in self.by_target.get(whole, ())]
        # The Gateway's own listeners are a part of it.
        if targets[-1][:3] == whole[:3]:
            gateway = [*listener, *gateway]
        else:
            levels.append(Level(listener, self._strategies[targets[-1]]))
        levels.append(Level(gateway, self._strategies[whole]))
        return [one for one in levels if one.policies]

    def _of_route(
        self, route: ResourceKey, rule: str | None, referred: Iterable[PolicyState]
    ) -> list[PolicyState]:
        """The policies of a rule of a route, the most specific first."""
        _, kind, namespace, name = route
        found = list(referred)
        if rule is not None:
            found += self.by_target.get((kind, namespace, name, rule), ())
        return [*found, *self.by_target.get((kind, namespace, name, ""), ())]

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


def _deprecated(index: Index, policy: HTTPListenerPolicy | ListenerPolicy) -> None:
    index.report(
        policy,
        "KGW601",
        Severity.INFO,
        "HTTPListenerPolicy has a successor, ListenerPolicy; kgateway 2.5 removes the old kind",
        ("kind",),
        hint="write `kind: ListenerPolicy` and move the settings to `spec.default.httpSettings`",
    )


def _early_headers(
    index: Index, state: PolicyState, policy: HTTPListenerPolicy | ListenerPolicy
) -> None:
    """Fields that nothing may change."""
    for settings, path in policy.every_settings():
        modifier = settings.early_request_header_modifier
        wrong = None if modifier is None else modifier_fault(modifier)
        if wrong is not None:
            place = (*path, "earlyRequestHeaderModifier")
            index.report(policy, "KGW407", Severity.ERROR, wrong, place)
            state.errors.append(wrong)


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
