"""From what is attached to the status of every resource.

Reasons and messages are the Gateway API's and kgateway's, so that tools which read them keep
working.
"""

from __future__ import annotations

from collections import defaultdict
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from kgw.api import Gateway, ResourceKey
from kgw.attach import (
    direct_responses,
    external,
    gateway_classes,
    listener_sets,
    static_backends,
    upstreams,
)
from kgw.attach.gateways import role_of
from kgw.attach.policy import target_reference
from kgw.attach.status import (
    CONTROLLER,
    ListenerStatus,
    Outcome,
    ParentStatus,
    Status,
)
from kgw.attach.waypoints import own_service

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from kgw.api import Opaque
    from kgw.attach.attachment import Attachment
    from kgw.attach.backend_config import BackendConfigState
    from kgw.attach.backend_tls import BackendTLSState
    from kgw.attach.backend_traffic import BackendTrafficState
    from kgw.attach.direct_responses import DirectResponseState
    from kgw.attach.extensions import ExtensionState
    from kgw.attach.external import ExternalState
    from kgw.attach.gateways import GatewayState
    from kgw.attach.index import Named
    from kgw.attach.listener_sets import ListenerSetState
    from kgw.attach.listeners import ListenerState
    from kgw.attach.parents import ParentState
    from kgw.attach.policy import PolicyState, Reference, Target
    from kgw.attach.routes import RouteState
    from kgw.attach.status import Condition
    from kgw.attach.streams import StreamState

#: Most entries that a policy's status may have.
MAX_ANCESTORS: Final = 16

#: Most entries that the status of a route or an XBackend may have.
MAX_PARENTS: Final = 32


#: The routes that are attached to each listener, by its id.
Attached = dict[str, set["ResourceKey"]]

#: The Gateways that send requests to each Service.
Users = dict["ResourceKey", set["Named"]]

_NONE: Final[Mapping[Reference, list[Target]]] = MappingProxyType({})


def statuses(
    attachment: Attachment, routes: Iterable[RouteState] | None = None
) -> dict[ResourceKey, Status]:
    """The status of every resource that has one, in the order of keys.

    Args:
        attachment: what is attached to what.
        routes: the HTTPRoutes that count, if not those that the attachment has by now.
    """
    states = list(attachment.routes.states.values() if routes is None else routes)
    attached: Attached = defaultdict(set)
    users = upstreams.users([*states, *attachment.streams.states], attachment.bindings)
    found: dict[ResourceKey, Status] = {}
    found |= gateway_classes.statuses(attachment.index)
    found |= attachment.meshes
    for route in states:
        found[route.route.key] = _route(route, attached)
    for stream in attachment.streams.states:
        found[stream.route.key] = _stream(stream, attached)
    for gateway in attachment.gateways.values():
        found[gateway.gateway.key] = _gateway(attachment, gateway, attached)
        for listener_set in gateway.sets:
            found[listener_set.listener_set.key] = _listener_set(listener_set, attached)
    found |= listener_sets.orphans(attachment.index)
    for policy in attachment.policies.states:
        found[policy.policy.key] = _policy(policy)
    for config in attachment.upstreams.config.states:
        found[config.policy.key] = _backend_config(config, users)
    for tls in attachment.upstreams.tls.states:
        found[tls.policy.key] = _backend_tls(tls, users)
    outside = external.users([*states, *attachment.streams.states])
    for destination in attachment.external.states.values():
        found[destination.backend.key] = _external(destination, outside)
    for backend in static_backends.resolve(attachment.index):
        generation = backend.backend.metadata.generation
        found[backend.backend.key] = Status((backend.accepted.condition("Accepted", generation),))
    for traffic in attachment.upstreams.traffic.states:
        found[traffic.policy.key] = _backend_traffic(traffic, users)
    answering = direct_responses.users(states)
    for named, response in attachment.direct_responses.states.items():
        found[response.response.key] = _direct_response(response, answering.get(named, ()))
    for extension in attachment.extensions.states.values():
        found[extension.extension.key] = _extension(extension)
    for refused in attachment.index.refused_gateways:
        conditions = _refused(attachment, refused)
        if conditions:
            found[refused.key] = Status(conditions)
    return dict(sorted(found.items()))


def _refused(attachment: Attachment, refused: Opaque) -> tuple[Condition, ...]:
    """The conditions of a Gateway or GatewayClass that is not valid, if it is kgw's."""
    spec = refused.spec if isinstance(refused.spec, dict) else {}
    why = attachment.index.refusal(refused.key) or ""
    generation = refused.metadata.generation
    match refused.kind:
        case "Gateway":
            name = spec.get("gatewayClassName")
            if not isinstance(name, str) or role_of(attachment.index, name) is None:
                return ()
            outcome = Outcome(False, "Invalid", why)
            return tuple(outcome.condition(one, generation) for one in ("Accepted", "Programmed"))
        case "ListenerSet":
            ref = spec.get("parentRef")
            ref = ref if isinstance(ref, dict) else {}
            named = (ref.get("namespace", refused.namespace), ref.get("name"))
            if named not in attachment.gateways:
                return ()
            outcome = Outcome(False, "Invalid", why)
            return tuple(outcome.condition(one, generation) for one in ("Accepted", "Programmed"))
        case "GatewayClass" if spec.get("controllerName") == CONTROLLER:
            outcome = Outcome(False, "InvalidParameters", why)
            return (outcome.condition("Accepted", generation),)
        case _:
            return ()


# === Gateways ===


def _gateway(attachment: Attachment, state: GatewayState, attached: Attached) -> Status:
    gateway = state.gateway
    generation = gateway.metadata.generation
    listeners = tuple(
        _listener(state, one, generation, len(attached.get(one.id, ()))) for one in state.own
    )
    broken = [one for one in state.own if not one.usable]
    unresolved = [one for one in state.own if not one.resolved.ok]
    programmed = state.programmed
    if state.refusal is not None:
        accepted = state.refusal
    else:
        accepted = Outcome(True, "Accepted", "Successfully accepted Gateway")
        if broken:
            message = "Some listeners are not programmed: " + "; ".join(
                f"{one.spec.name}: {one.programmed.message}" for one in broken
            )
            accepted = Outcome(True, "ListenersNotValid", message)
            if programmed.ok:
                programmed = Outcome(True, "Programmed", message)
    resolved = Outcome(True, "ResolvedRefs", "Successfully resolved all Gateway references")
    if unresolved:
        message = "One or more listeners have unresolved references"
        resolved = Outcome(False, "ListenersNotResolved", message)
    if not state.resolved.ok:
        resolved = state.resolved
    conditions = [
        accepted.condition("Accepted", generation),
        programmed.condition("Programmed", generation),
        resolved.condition("ResolvedRefs", generation),
    ]
    if gateway.spec.default_scope != "None":
        message = f"Gateway has default scope {gateway.spec.default_scope}"
        default = Outcome(True, "DefaultGateway", message)
        conditions.append(default.condition("DefaultGateway", generation))
    if any(one.tls is not None and one.tls.mode == "insecure_fallback" for one in state.listeners):
        message = "Gateway frontend validation is configured to allow insecure fallback"
        insecure = Outcome(True, "ConfigurationChanged", message)
        conditions.append(insecure.condition("InsecureFrontendValidationMode", generation))
    return Status(
        tuple(conditions),
        listeners,
        _addresses(attachment, state),
        attached_listener_sets=sum(one.accepted.ok for one in state.sets),
    )


def _listener_set(state: ListenerSetState, attached: Attached) -> Status:
    generation = state.listener_set.metadata.generation
    listeners = tuple(
        _listener(state.gateway, one, generation, len(attached.get(one.id, ())))
        for one in state.listeners
    )
    conditions = (
        state.accepted.condition("Accepted", generation),
        state.programmed.condition("Programmed", generation),
    )
    return Status(conditions, listeners)


def _addresses(attachment: Attachment, state: GatewayState) -> tuple[dict[str, str], ...]:
    """The addresses that the Gateway was given, else those by which its clients reach it.

    These are the virtual IPs of the Service that leads to the Gateway, as a controller finds them.
    """
    if state.addresses is not None:
        given = state.addresses if state.refusal is None else ()
        return tuple({"type": "IPAddress", "value": one} for one in given)
    service = attachment.index.services.get(state.named)
    if service is None or not own_service(state, service):
        return ()
    return tuple({"type": "IPAddress", "value": str(vip)} for vip in service.vips())


def _listener(
    state: GatewayState, listener: ListenerState, generation: int, routes: int
) -> ListenerStatus:
    programmed = listener.programmed
    if programmed.ok and state.refusal is not None:
        programmed = Outcome(False, "Invalid", state.refusal.message)
    elif programmed.ok and state.addresses == () and state.unplaced is not None:
        programmed = Outcome(False, "Pending", state.unplaced.message)
    conditions = [
        listener.accepted.condition("Accepted", generation),
        listener.conflicted.condition("Conflicted", generation),
        listener.resolved.condition("ResolvedRefs", generation),
        programmed.condition("Programmed", generation),
    ]
    if listener.overlap is not None:
        conditions.append(listener.overlap.condition("OverlappingTLSConfig", generation))
    return ListenerStatus(listener.spec.name, listener.supported_kinds, routes, tuple(conditions))


# === Routes ===


def _route(state: RouteState, attached: Attached) -> Status:
    parents = []
    for parent in state.parents:
        if parent.foreign:
            continue
        if state.refusal is not None:
            parents.append(_refused_route(state, parent, state.refusal))
            continue
        accepted = _accepted(state, parent)
        if accepted.ok:
            _count(state, parent, attached)
        generation = state.route.metadata.generation
        conditions = [
            accepted.condition("Accepted", generation),
            state.resolved(parent.mesh).condition("ResolvedRefs", generation),
        ]
        if accepted.ok and state.faults:
            partial = Outcome(True, "UnsupportedValue", _faults(state))
            conditions.append(partial.condition("PartiallyInvalid", generation))
        if parent.accepted.ok:
            conditions.append(_programmed(state).condition("kgateway.dev/Programmed", generation))
        parents.append(ParentStatus(parent.ref.as_stored(), tuple(conditions)))
    # An API server refuses more; default Gateways come after what the route names itself.
    return Status(parents=tuple(parents[:MAX_PARENTS]))


def _stream(state: StreamState, attached: Attached) -> Status:
    parents = []
    for parent in state.parents:
        if parent.foreign:
            continue
        if state.refusal is not None:
            parents.append(_refused_route(state, parent, state.refusal))
            continue
        if parent.accepted.ok:
            _count(state, parent, attached)
        generation = state.route.metadata.generation
        conditions = (
            parent.accepted.condition("Accepted", generation),
            state.resolved(parent.mesh).condition("ResolvedRefs", generation),
        )
        parents.append(ParentStatus(parent.ref.as_stored(), conditions))
    return Status(parents=tuple(parents[:MAX_PARENTS]))


def _refused_route(state: RouteState | StreamState, parent: ParentState, why: str) -> ParentStatus:
    """A route that is not valid: where it is attached, its requests are answered 500."""
    generation = state.route.metadata.generation
    accepted = Outcome(False, "UnsupportedValue", why) if parent.accepted.ok else parent.accepted
    conditions = [accepted.condition("Accepted", generation)]
    if parent.accepted.ok:
        replaced = Outcome(False, "RouteRuleReplaced", why)
        conditions.append(replaced.condition("kgateway.dev/Programmed", generation))
    return ParentStatus(parent.ref.as_stored(), tuple(conditions))


def _accepted(state: RouteState, parent: ParentState) -> Outcome:
    """A route none of whose rules can be used is not accepted."""
    faulty = {rule for rule, _, _ in state.faults}
    if parent.accepted.ok and len(faulty) == len(state.route.spec.rules):
        return Outcome(False, "UnsupportedValue", _faults(state))
    return parent.accepted


def _count(state: RouteState | StreamState, parent: ParentState, attached: Attached) -> None:
    """Counts the route in ``attachedRoutes``; a service's routes count for its waypoint."""
    for listener, _ in parent.listeners:
        attached[listener.id].add(state.route.key)
    if parent.mesh and parent.gateway is not None and parent.gateway.proxy_listener is not None:
        attached[parent.gateway.proxy_listener.id].add(state.route.key)


def _faults(state: RouteState) -> str:
    return "; ".join(f"{action} Rule ({rule}): {why}" for rule, action, why in sorted(state.faults))


def _programmed(state: RouteState) -> Outcome:
    problems = sorted({*state.faults, *((rule, "Replaced", why) for rule, why in state.replaced)})
    if not problems:
        return Outcome(True, "Programmed", "Successfully programmed Route")
    replaced = any(action == "Replaced" for _, action, _ in problems)
    reason = "RouteRuleReplaced" if replaced else "RouteRuleDropped"
    message = "; ".join(f"{action} Rule ({rule}): {why}" for rule, action, why in problems)
    return Outcome(False, reason, message)


# === Policies ===


def _policy(state: PolicyState, more: Mapping[Reference, list[Target]] = _NONE) -> Status:
    """An entry for each ancestor; of targets that the policy has no effect on, and of those that
    there are not, for each of these."""
    generation = state.policy.metadata.generation
    accepted = state.accepted.condition("Accepted", generation)
    entries: dict[Reference, ParentStatus] = {}

    def put(ref: Reference, attached: Outcome) -> None:
        conditions = (accepted, attached.condition("Attached", generation))
        entries.setdefault(ref, ParentStatus(dict(ref), conditions))

    ancestors = {**state.ancestors, **more}
    for ref, targets in ancestors.items():
        put(ref, state.attached_to(targets))
    for targets in ancestors.values():
        for one in state.overridden(targets):
            put(target_reference(one), state.attached_to([one]))
    found = list(entries.values())
    for missing, outcome in state.missing:
        pending = Outcome(False, "Pending", "")
        entry = (
            outcome.condition("Accepted", generation),
            pending.condition("Attached", generation),
        )
        found.append(ParentStatus(missing, entry))
    return Status(ancestors=tuple(found[:MAX_ANCESTORS]))


def _backend_config(state: BackendConfigState, users: Users) -> Status:
    refs: dict[Reference, list[Target]] = {}
    for key in state.services:
        for ref in _service_ancestors(key, users):
            refs.setdefault(ref, []).append((key.kind, key.namespace, key.name, ""))
    return _policy(state, refs)


def _backend_tls(state: BackendTLSState, users: Users) -> Status:
    generation = state.policy.metadata.generation
    resolved = state.resolved.condition("ResolvedRefs", generation)
    ancestors = dict.fromkeys(
        ref
        for service, _ in (*state.targets, *state.lost)
        for ref in _service_ancestors(service, users)
    )
    entries = [
        ParentStatus(dict(ref), (state.accepted.condition("Accepted", generation), resolved))
        for ref in ancestors
    ]
    for missing, outcome in state.missing:
        accepted = outcome if state.accepted.ok else state.accepted
        entries.append(
            ParentStatus(missing, (accepted.condition("Accepted", generation), resolved))
        )
    return Status(ancestors=tuple(entries[:MAX_ANCESTORS]))


def _direct_response(state: DirectResponseState, gateways: Collection[Named]) -> Status:
    """The status of a DirectResponse: an ancestor for each Gateway that gives it."""
    generation = state.response.metadata.generation
    conditions = (
        state.accepted.condition("Accepted", generation),
        state.attached.condition("Attached", generation),
    )
    ancestors = [
        ParentStatus(
            {"group": Gateway.group, "kind": "Gateway", "namespace": namespace, "name": name},
            conditions,
        )
        for namespace, name in sorted(gateways)
    ]
    return Status(ancestors=tuple(ancestors[:MAX_ANCESTORS]))


def _extension(state: ExtensionState) -> Status:
    accepted = Outcome(True, "Accepted", "GatewayExtension accepted")
    if state.errors:
        accepted = Outcome(False, "Invalid", "; ".join(state.errors))
    return Status((accepted.condition("Accepted", state.extension.metadata.generation),))


def _external(state: ExternalState, users: Mapping[Named, Collection[Named]]) -> Status:
    """The status of an XBackend: a parent for each Gateway that sends requests there."""
    generation = state.backend.metadata.generation
    conditions = (
        state.accepted.condition("Accepted", generation),
        state.resolved.condition("ResolvedRefs", generation),
    )
    gateways = sorted(users.get((state.backend.namespace, state.backend.name), ()))
    parents = [
        ParentStatus(
            {"group": Gateway.group, "kind": "Gateway", "namespace": namespace, "name": name},
            conditions,
        )
        for namespace, name in gateways
    ]
    return Status(parents=tuple(parents[:MAX_PARENTS]))


def _backend_traffic(state: BackendTrafficState, users: Users) -> Status:
    generation = state.policy.metadata.generation
    ancestors = dict.fromkeys(
        ref
        for service in (*state.services, *state.lost)
        for ref in _service_ancestors(service, users)
    )
    accepted = (state.accepted.condition("Accepted", generation),)
    entries = [ParentStatus(dict(ref), accepted) for ref in ancestors]
    for missing, outcome in state.missing:
        why = outcome if state.accepted.ok else state.accepted
        entries.append(ParentStatus(missing, (why.condition("Accepted", generation),)))
    return Status(ancestors=tuple(entries[:MAX_ANCESTORS]))


def _service_ancestors(service: ResourceKey, users: Users) -> list[Reference]:
    """What a policy about a Service has as ancestors: Gateways, or itself if none uses it."""
    own = sorted(users.get(service, ()))
    rows = [(Gateway.group, "Gateway", *named) for named in own] or [service]
    return [
        (("group", group), ("kind", kind), ("namespace", namespace), ("name", name))
        for group, kind, namespace, name in rows
    ]
