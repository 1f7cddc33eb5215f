"""What routes see of everything else, as values that can be compared.

Where a face is the same before and after a change, so is what a route makes of it. A face may
differ without need, which costs time; it must never be the same where a route comes out otherwise.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kgw.api import ResourceKey
    from kgw.attach.external import External
    from kgw.attach.gateways import GatewayState
    from kgw.attach.index import Named
    from kgw.attach.policies import Policies
    from kgw.attach.policy import PolicyState, Target
    from kgw.attach.upstreams import Upstreams
    from kgw.attach.waypoints import Binding

#: What no route sees of a Gateway or listener: how TLS ends, and what is made of other members.
_UNSEEN: Final = frozenset(
    {"gateway", "own", "listeners", "sets", "addresses", "unplaced", "tls", "overlap", "_options"}
)

#: Members that are resources, or parts of them: these never change.
_RESOURCES: Final = frozenset({"owner", "spec"})

#: Anything that can be compared.
Face = object


def gateway(state: GatewayState) -> Face:
    """What routes see of a Gateway and its listeners, before anything else changes it."""
    listeners = tuple(tuple(_seen(one)) for one in state.listeners)
    sets = tuple((one.named, one.refusal) for one in state.sets)
    return (_Same(state.gateway), tuple(_seen(state)), listeners, sets)


def bindings(of: Mapping[ResourceKey, Binding]) -> dict[ResourceKey, Face]:
    """What routes see of the waypoints of Services."""
    return {
        key: (one.namespace, one.name, None if one.state is None else one.state.named)
        for key, one in of.items()
    }


def targets(policies: Policies) -> dict[Target, Face]:
    """What holds at each target of policies."""
    return {
        target: tuple(_policy(one) for one in states)
        for target, states in policies.by_target.items()
        if states
    }


def referred(policies: Policies) -> dict[Named, Face]:
    """What filters of routes may refer to, by name."""
    return {named: _policy(one) for named, one in policies.by_name.items()}


def upstreams(of: Upstreams) -> dict[ResourceKey, Face]:
    """What policies say about connections to each Service that they are about."""
    found: dict[ResourceKey, list[Face]] = {}
    for (service, port), tls in of.tls.slots.items():
        face = (port, _Same(tls.policy), tls.accepted, tls.tls)
        found.setdefault(service, []).append(face)
    for key, states in of.config.by_service.items():
        faces = ((*_policy(one), one.certificate, one.ca) for one in states)
        found.setdefault(key, []).extend(faces)
    for key, traffic in of.traffic.slots.items():
        found.setdefault(key, []).append(_Same(traffic.policy))
    return {service: tuple(every) for service, every in found.items()}


def external(of: External) -> dict[Named, Face]:
    """What routes see of XBackends."""
    return {named: (_Same(one.backend), *one.face) for named, one in of.states.items()}


def differing(before: Mapping[Any, Face], after: Mapping[Any, Face]) -> set[Any]:
    """The keys whose faces differ, or that only one of both has."""
    found = {key for key, face in after.items() if before.get(key) != face}
    return found | (before.keys() - after.keys())


class _Same:
    """An object that is equal to itself only, and stays while it is compared."""

    __slots__ = ("_one",)

    def __init__(self, one: object) -> None:
        self._one = one

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self._one is other._one

    def __hash__(self) -> int:
        return id(self._one)


def _policy(state: PolicyState) -> tuple[Face, ...]:
    return (_Same(state.policy), tuple(state.errors), tuple(state.reads))


def _seen(state: Any) -> Iterable[Face]:
    """The members that count; of resources and their parts, which never change, the identity."""
    for one in fields(state):
        if one.name not in _UNSEEN:
            value = getattr(state, one.name)
            yield _Same(value) if one.name in _RESOURCES else value
