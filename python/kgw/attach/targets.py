"""From the ``targetRefs`` and ``targetSelectors`` of policies to what they apply to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kgw.api import Gateway, Opaque, ResourceKey, loaded, remains
from kgw.api.gateway.references import GATEWAY_GROUP
from kgw.api.kgateway.targets import PolicyTargetReference
from kgw.attach.index import REQUEST_KINDS
from kgw.attach.policy import reference
from kgw.attach.status import Outcome
from kgw.diagnostics import Severity, suggest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kgw.api import ListenerSet
    from kgw.attach.gateways import GatewayState
    from kgw.attach.index import Index, Named, RequestRoute
    from kgw.attach.policy import PolicyState, Reference, Target
    from kgw.attach.routes import RouteState
    from kgw.source.memory import FieldPath


#: In place of a namespace: all of them.
EVERYWHERE: Final = ""


class Targets:
    """Finds the targets of policies, reporting on the policy what is wrong with them."""

    def __init__(
        self,
        index: Index,
        gateways: dict[Named, GatewayState],
        routes: dict[ResourceKey, RouteState],
    ) -> None:
        self._index = index
        self._gateways = gateways
        self._routes = routes
        #: The objects that can be targets, by kind.
        self._objects: dict[str, Mapping[Named, Gateway | RequestRoute | ListenerSet]] = {
            "Gateway": index.gateways,
            "ListenerSet": index.listener_sets,
            **index.routes,
        }
        self._sets = {one.named: one for state in gateways.values() for one in state.sets}
        #: What policies see of routes: those that they name, whether there are or not, and the
        #: kinds and namespaces in which they look for labels, or for a name that one may have
        #: meant.
        self.routes_named: set[ResourceKey] = set()
        self.routes_selected: set[tuple[str, str]] = set()
        self.routes_missed: set[tuple[str, str]] = set()

    def attach(self, state: PolicyState, slots: dict[Target, list[PolicyState]]) -> None:
        """Puts a policy at its targets; of a refused one at those that can still be read."""
        policy = state.policy
        assert not isinstance(policy, loaded.BackendConfigPolicy)  # `kgw.attach.backend_config`
        if isinstance(policy, Opaque):
            refs, selectors = remains.targets(policy), remains.selectors(policy)
        else:
            refs = list(enumerate(policy.spec.target_refs))
            selectors = list(enumerate(policy.spec.target_selectors))
        for number, ref in refs:
            self._target(state, ref, ("spec", "targetRefs", number), slots)
        for number, selector in selectors:
            path = ("spec", "targetSelectors", number)
            found = self._selected(selector.kind, policy.namespace, selector.match_labels)
            if not found:
                everywhere = policy.namespace == self._index.options.global_namespace
                where = "" if everywhere else f" in namespace {policy.namespace}"
                message = f"no {selector.kind}{where} has the labels"
                self._index.report(policy, "KGW304", Severity.WARNING, message, path)
            for namespace, name in found:
                ref = PolicyTargetReference(
                    group=selector.group,
                    kind=selector.kind,
                    name=name,
                    section_name=selector.section_name,
                )
                self._target(state, ref, path, slots, namespace)

    def sees(self, before: RouteState | None, after: RouteState | None) -> bool:
        """Whether policies see the difference between two routes of one name."""
        state = before or after
        if state is None or _face(before) == _face(after):
            return False
        key = state.route.key
        where = (key.kind, key.namespace)
        appears = before is None or after is None
        return (
            key in self.routes_named
            or where in self.routes_selected
            or (key.kind, EVERYWHERE) in self.routes_selected
            or (appears and where in self.routes_missed)
        )

    def refer(self, state: PolicyState, route: ResourceKey) -> Target:
        """Puts a policy at a route, a filter of which refers to it; returns where that is."""
        place: Target = (route.kind, route.namespace, route.name, "")
        self._put(state, place)
        return place

    def _put(self, state: PolicyState, place: Target) -> None:
        """Notes that a policy is attached to a target."""
        if place not in state.targets:
            state.targets.append(place)
        kind, *named, _ = place
        for ref in self._ancestors(kind, (named[0], named[1])):
            own = state.ancestors.setdefault(ref, [])
            if place not in own:
                own.append(place)

    def _selected(self, kind: str, namespace: str, labels: dict[str, str]) -> list[Named]:
        """The objects with labels: of the namespace, or of all if its policies are global."""
        everywhere = namespace == self._index.options.global_namespace
        if kind in REQUEST_KINDS:
            self.routes_selected.add((kind, EVERYWHERE if everywhere else namespace))
        return [
            named
            for named, one in self._objects.get(kind, {}).items()
            if (everywhere or named[0] == namespace)
            and all(one.metadata.labels.get(key) == value for key, value in labels.items())
        ]

    def _target(
        self,
        state: PolicyState,
        ref: PolicyTargetReference,
        path: FieldPath,
        slots: dict[Target, list[PolicyState]],
        namespace: str | None = None,
    ) -> None:
        named = (namespace or state.policy.namespace, ref.name)
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
        known = self._objects
        if ref.kind not in known:
            message = f"{ref.kind} is not supported as a target by this version of kgw"
            self._missing(
                state, ref, (*path, "kind"), message, legal=", ".join(known), code="KGW309"
            )
            return
        target = known[ref.kind].get(named)
        if ref.kind in REQUEST_KINDS:
            self.routes_named.add(ResourceKey(GATEWAY_GROUP, ref.kind, *named))
            if target is None:
                self.routes_missed.add((ref.kind, named[0]))
        if target is None:
            near = None
            if not self._index.is_refused(ref.kind, named):
                near = suggest(ref.name, (one for ns, one in known[ref.kind] if ns == named[0]))
            message = self._index.absence(ref.kind, named)
            self._missing(state, ref, (*path, "name"), message, near=near)
            return
        section = ref.section_name or ""
        if section:
            sections = _sections(target)
            if section not in sections:
                what = "rule" if ref.kind == "HTTPRoute" else "listener"
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
        if ref.kind == "ListenerSet" and named not in self._sets:
            return  # of another controller's Gateway
        place = (ref.kind, *named, section)
        if place in state.targets:
            return
        self._put(state, place)
        slots[place].append(state)

    def _ancestors(self, kind: str, named: Named) -> Iterable[Reference]:
        """What the status of a policy with a target is about: the Gateways and ListenerSets whose
        traffic it governs, else the target."""
        if kind in REQUEST_KINDS:
            route = self._routes.get(ResourceKey(GATEWAY_GROUP, kind, *named))
            if route is not None and route.ancestors:
                return [reference(*one) for one in route.ancestors]
        return [reference(kind, named)]

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
        outcome = Outcome(False, reason, message)
        state.missing.append((entry, state.accepted if state.errors else outcome))


def _face(state: RouteState | None) -> tuple[object, ...] | None:
    """What a policy sees of a route that it is attached to."""
    if state is None:
        return None
    labels = state.route.metadata.labels
    return (sorted(labels.items()), _sections(state.route), state.ancestors, state.refusal)


def listener_targets(gateway: Named, section: str) -> list[Target]:
    """What policies for a listener of a Gateway are attached to, the most specific first.

    Args:
        gateway: the Gateway.
        section: the listener's `section`, which says whether it is a ListenerSet's.
    """
    *owner, name = section.split("/")
    if not owner:
        return [("Gateway", *gateway, name)]
    namespace, of = owner
    return [("ListenerSet", namespace, of, name), ("ListenerSet", namespace, of, "")]


def _sections(target: Gateway | RequestRoute | ListenerSet) -> list[str]:
    """The names of listeners, or of a route's rules."""
    if isinstance(target, (Gateway, loaded.ListenerSet)):
        return [one.name for one in target.spec.listeners]
    return [one.name for one in target.spec.rules if one.name]
