"""Which policies apply where, and which of several wins.

Policies of one kind on one target are ordered by the annotation ``kgateway.dev/policy-weight``
(higher first), then by age, then by ``namespace/name``; field by field the first one that sets it
wins. Between levels the more specific wins: a filter that refers to the policy, the rule, the
route, the listener, the Gateway. A policy that cannot be used as it is written takes its targets
out of service (500) rather than leave them unprotected.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from kgw.api import HTTPRoute, Opaque, TrafficPolicy
from kgw.api.gateway.references import GATEWAY_GROUP
from kgw.api.kgateway.targets import KGATEWAY_GROUP, PolicyTargetReference
from kgw.attach.status import Outcome
from kgw.diagnostics import Severity, suggest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kgw.api import Gateway, HTTPListenerPolicy, ListenerPolicy
    from kgw.api.kgateway.traffic_policy import LocalRateLimit
    from kgw.attach.gateways import GatewayState
    from kgw.attach.index import Index, Named
    from kgw.attach.routes import RouteState
    from kgw.source.memory import FieldPath

WEIGHT: Final = "kgateway.dev/policy-weight"

#: What a policy is attached to: kind, namespace, name and section.
Target = tuple[str, str, str, str]

_LOCAL: Final = "rateLimit.local"


@dataclass(slots=True, eq=False)
class PolicyState:
    """A policy, where it applies and what is wrong with it."""

    policy: TrafficPolicy | HTTPListenerPolicy | ListenerPolicy | Opaque
    errors: list[str] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    #: Gateways (or other objects, when there is none) whose traffic the policy governs.
    ancestors: dict[tuple[tuple[str, str], ...], None] = field(default_factory=dict)
    #: Targets that do not exist.
    missing: list[tuple[dict[str, Any], Outcome]] = field(default_factory=list)
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


@dataclass(frozen=True, slots=True)
class Limit:
    """The rate limit that holds at a place, and where it comes from."""

    policy: TrafficPolicy
    local: LocalRateLimit
    #: ``route`` for a bucket of each match, ``listener`` or ``gateway`` for shared ones.
    level: str


class Policies:
    """All policies by target."""

    def __init__(
        self,
        index: Index,
        gateways: dict[Named, GatewayState],
        routes: dict[Named, RouteState],
    ) -> None:
        self._index = index
        self._gateways = gateways
        self._routes = routes
        self._traffic: dict[Target, list[PolicyState]] = defaultdict(list)
        self._listener: dict[Target, list[PolicyState]] = defaultdict(list)
        self._by_name: dict[Named, PolicyState] = {}
        self.states: list[PolicyState] = []
        for policy in index.traffic_policies.values():
            state = self._state(policy)
            _percentages(index, state, policy)
            self._by_name[policy.namespace, policy.name] = state
            self._attach(state, self._traffic)
        for other in index.listener_policies:
            state = self._state(other)
            if other.kind == "HTTPListenerPolicy":
                _deprecated(index, other)
            self._attach(state, self._listener)
        for opaque in index.opaque:
            if opaque.refused and (opaque.key.group, opaque.kind) == (
                KGATEWAY_GROUP,
                "TrafficPolicy",
            ):
                self._refused(opaque)
        for slots in (self._traffic, self._listener):
            for states in slots.values():
                states.sort(key=PolicyState.order)
        self._effects()

    # === What applies ===

    def listener_settings(self, gateway: Named) -> list[PolicyState]:
        """The policies for the listeners of a Gateway, first wins."""
        return self._listener.get(("Gateway", *gateway, ""), [])

    def refer(self, name: str, route: Named) -> PolicyState | None:
        """The TrafficPolicy that a filter of a route refers to, which attaches it."""
        state = self._by_name.get((route[0], name))
        if state is not None:
            place = ("HTTPRoute", *route, "")
            if place not in state.targets:
                state.targets.append(place)
            state.effective = True
            self._ancestors(state, "HTTPRoute", route)
        return state

    def limit(
        self,
        gateway: Named,
        listener: str,
        route: Named | None = None,
        rule: str | None = None,
        referred: tuple[PolicyState, ...] = (),
    ) -> Limit | str | None:
        """The rate limit at a place, the reason why the place is broken, or neither."""
        levels: list[tuple[str, list[PolicyState]]] = [("route", list(referred))]
        if route is not None:
            if rule is not None:
                levels.append(("route", self._traffic.get(("HTTPRoute", *route, rule), [])))
            levels.append(("route", self._traffic.get(("HTTPRoute", *route, ""), [])))
        levels.append(("listener", self._traffic.get(("Gateway", *gateway, listener), [])))
        levels.append(("gateway", self._traffic.get(("Gateway", *gateway, ""), [])))
        found = None
        for level, states in levels:
            for state in states:
                if state.errors:
                    return f"{state.policy.key}: {state.accepted.message}"
                policy = state.policy
                if found is None and isinstance(policy, TrafficPolicy):
                    local = policy.local_rate_limit
                    if local is not None:
                        found = Limit(policy, local, level)
        return found

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

    # === Attachment ===

    def _state(self, policy: TrafficPolicy | HTTPListenerPolicy | ListenerPolicy) -> PolicyState:
        state = PolicyState(policy, [one.message for one in policy.defects])
        self.states.append(state)
        return state

    def _attach(self, state: PolicyState, slots: dict[Target, list[PolicyState]]) -> None:
        policy = state.policy
        assert not isinstance(policy, Opaque)
        for number, ref in enumerate(policy.spec.target_refs):
            self._target(state, ref, ("spec", "targetRefs", number), slots)
        for number, selector in enumerate(policy.spec.target_selectors):
            path = ("spec", "targetSelectors", number)
            named = self._selected(selector.kind, policy.namespace, selector.match_labels)
            if not named:
                self._index.report(
                    policy,
                    "KGW304",
                    Severity.WARNING,
                    f"no {selector.kind} in namespace {policy.namespace} has the labels",
                    path,
                )
            for name in named:
                ref = PolicyTargetReference(
                    group=selector.group,
                    kind=selector.kind,
                    name=name,
                    section_name=selector.section_name,
                )
                self._target(state, ref, path, slots)

    def _selected(self, kind: str, namespace: str, labels: dict[str, str]) -> list[str]:
        objects = self._objects().get(kind, {})
        return [
            name
            for (ns, name), one in objects.items()
            if ns == namespace
            and all(one.metadata.labels.get(key) == value for key, value in labels.items())
        ]

    def _objects(self) -> dict[str, Mapping[Named, Gateway | HTTPRoute]]:
        """The objects that can be targets, by kind."""
        return {"Gateway": self._index.gateways, "HTTPRoute": self._index.routes}

    def _target(
        self,
        state: PolicyState,
        ref: PolicyTargetReference,
        path: FieldPath,
        slots: dict[Target, list[PolicyState]],
    ) -> None:
        named = (state.policy.namespace, ref.name)
        if ref.group != GATEWAY_GROUP:
            self._missing(
                state,
                ref,
                (*path, "group"),
                f"{ref.kind} of group `{ref.group}` cannot be a target",
                legal=GATEWAY_GROUP,
                code="KGW309",
            )
            return
        known = self._objects()
        if ref.kind not in known:
            message = f"{ref.kind} is not supported as a target by this version of kgw"
            self._missing(
                state, ref, (*path, "kind"), message, legal="Gateway, HTTPRoute", code="KGW309"
            )
            return
        target = known[ref.kind].get(named)
        if target is None:
            near = suggest(ref.name, (one for ns, one in known[ref.kind] if ns == named[0]))
            message = f"{ref.kind} {'/'.join(named)} not found"
            self._missing(state, ref, (*path, "name"), message, near=near)
            return
        section = ref.section_name or ""
        if section:
            sections = _sections(target)
            if section not in sections:
                what = "listener" if ref.kind == "Gateway" else "rule"
                message = f"{ref.kind} {'/'.join(named)} has no {what} named {section}"
                self._missing(
                    state,
                    ref,
                    (*path, "sectionName"),
                    message,
                    near=suggest(section, sections),
                    legal=", ".join(sections) or None,
                    code="KGW303",
                )
                return
        if ref.kind == "Gateway" and named not in self._gateways:
            return  # another controller's
        place = (ref.kind, *named, section)
        if place in state.targets:
            return
        state.targets.append(place)
        slots[place].append(state)
        self._ancestors(state, ref.kind, named)

    def _ancestors(self, state: PolicyState, kind: str, named: Named) -> None:
        if kind == "Gateway":
            state.ancestors[_reference("Gateway", named)] = None
            return
        route = self._routes.get(named)
        found = False
        for parent in route.parents if route else ():
            if parent.gateway is not None:
                state.ancestors[_reference("Gateway", parent.gateway.named)] = None
                found = True
        if not found:
            state.ancestors[_reference(kind, named)] = None

    def _missing(
        self,
        state: PolicyState,
        ref: PolicyTargetReference,
        path: FieldPath,
        message: str,
        *,
        near: str | None = None,
        legal: str | None = None,
        code: str = "KGW302",
    ) -> None:
        self._index.report(
            state.policy,
            code,
            Severity.ERROR,
            message,
            path,
            legal=legal,
            hint=f"did you mean `{near}`?" if near else None,
        )
        entry = {
            "group": ref.group,
            "kind": ref.kind,
            "namespace": state.policy.namespace,
            "name": ref.name,
        }
        if ref.section_name:
            entry["sectionName"] = ref.section_name
        reason = "Invalid" if code == "KGW309" else "TargetNotFound"
        state.missing.append((entry, Outcome(False, reason, message)))

    def _refused(self, policy: Opaque) -> None:
        """Takes the targets of a policy that cannot be read out of service."""
        state = PolicyState(policy, ["the policy cannot be read"])
        self.states.append(state)
        spec = policy.spec if isinstance(policy.spec, dict) else {}
        refs = spec.get("targetRefs")
        for ref in refs if isinstance(refs, list) else ():
            if not isinstance(ref, dict) or ref.get("kind") not in ("Gateway", "HTTPRoute"):
                continue
            kind, name, section = ref["kind"], ref.get("name"), ref.get("sectionName") or ""
            if isinstance(name, str) and isinstance(section, str):
                state.targets.append((kind, policy.namespace, name, section))
                self._traffic[kind, policy.namespace, name, section].append(state)
                if kind == "HTTPRoute" or (policy.namespace, name) in self._gateways:
                    self._ancestors(state, kind, (policy.namespace, name))

    # === Effects ===

    def _effects(self) -> None:
        """Notes for each policy whether it has an effect, and whether alone."""
        for states in self._traffic.values():
            _contend([(state, _traffic_fields(state)) for state in states])
        for (_, namespace, name, _), states in self._listener.items():
            gateway = self._gateways[namespace, name]
            for port in {listener.spec.port for listener in gateway.listeners}:
                _contend([(state, settings_fields(state, port)) for state in states])
        for state in self.states:
            if state.targets and state.attached.reason == "Overridden":
                self._index.report(
                    state.policy,
                    "KGW411",
                    Severity.WARNING,
                    "the policy has no effect: older ones on the same target set the same fields",
                )


def settings_fields(state: PolicyState, port: int) -> dict[str, tuple[Any, FieldPath]]:
    """The fields that a listener policy sets for a port, with their places."""
    policy = state.policy
    if isinstance(policy, TrafficPolicy | Opaque):
        return {}
    settings, path = policy.settings(port)
    names = (
        "access_log",
        "idle_timeout",
        "stream_idle_timeout",
        "max_headers_count",
        "max_request_headers_kb",
        "server_name",
        "use_remote_address",
    )
    return {
        name: (value, (*path, type(settings).model_fields[name].alias or name))
        for name in names
        if (value := getattr(settings, name)) is not None
    }


def _traffic_fields(state: PolicyState) -> dict[str, Any]:
    policy = state.policy
    local = policy.local_rate_limit if isinstance(policy, TrafficPolicy) else None
    return {} if local is None else {_LOCAL: local}


def _contend(entrants: list[tuple[PolicyState, dict[str, Any]]]) -> None:
    """Gives each field to the first policy that sets it."""
    taken: set[str] = set()
    winners = []
    for state, fields in entrants:
        won = fields.keys() - taken
        taken |= won
        if won or not fields:
            state.effective = True
        if won:
            winners.append(state)
    if len(winners) > 1:
        for state in winners:
            state.shared = True


def _sections(target: Gateway | HTTPRoute) -> list[str]:
    """The names of a Gateway's listeners, or of a route's rules."""
    if isinstance(target, HTTPRoute):
        return [one.name for one in target.spec.rules if one.name]
    return [one.name for one in target.spec.listeners]


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


def _reference(kind: str, named: Named) -> tuple[tuple[str, str], ...]:
    namespace, name = named
    return (
        ("group", GATEWAY_GROUP),
        ("kind", kind),
        ("namespace", namespace),
        ("name", name),
    )
