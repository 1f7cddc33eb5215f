"""What each policy sets, and who gets it when several set the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from kgw.api import HTTPListenerPolicy, Opaque, TrafficPolicy, loaded
from kgw.api.base import kubernetes_name
from kgw.api.kgateway.http_settings import HTTPSettings

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from kgw.api import Resource
    from kgw.attach.policy import PolicyState, Target
    from kgw.source.memory import FieldPath


def settings_fields(state: PolicyState, port: int) -> dict[str, tuple[Any, FieldPath]]:
    """The fields that a listener policy sets for a port, with their places.

    A policy that is not valid sets none: it may not displace a valid one.
    """
    policy = state.policy
    if state.errors or not isinstance(policy, (HTTPListenerPolicy, loaded.ListenerPolicy)):
        return {}
    found = {}
    for part, path in policy.parts(port):
        model = HTTPSettings if isinstance(part, HTTPSettings) else type(part)
        for name, field in model.model_fields.items():
            value = getattr(part, name)
            if value is not None and name != "http_settings":
                found[name] = (value, (*path, field.alias or name))
    return found


def authenticates(policy: Resource) -> bool:
    """Whether a listener policy, valid or not, asks for client certificates."""
    if isinstance(policy, loaded.ListenerPolicy):
        return policy.validation is not None
    if not isinstance(policy, Opaque) or not isinstance(policy.spec, dict):
        return False
    default = policy.spec.get("default")
    return isinstance(default, dict) and default.get("clientCertificateValidation") is not None


def traffic_fields(state: PolicyState) -> dict[str, Any]:
    """The fields that a TrafficPolicy sets; none if it is not valid."""
    policy = state.policy
    if state.errors or not isinstance(policy, TrafficPolicy):
        return {}
    found = {}
    for name, value in state.fields.items():
        # What is tried out displaces nothing, and is displaced by nothing else.
        shadow = _SHADOW if state.is_in_shadow(name) else ""
        found[f"{shadow}{written(name)}"] = value
    return found


def written(name: str) -> str:
    """The name of a field of a TrafficPolicy, which is the model's, as it is written."""
    return ".".join(kubernetes_name(part) for part in name.split("."))


def contend(
    entrants: Iterable[tuple[PolicyState, dict[str, Any]]],
    targets: Collection[Target],
    *,
    settled: Iterable[str] = (),
    deep: Collection[str] = (),
) -> None:
    """Gives each field to the first policy that sets it.

    Args:
        entrants: the policies on one target, first wins, each with its fields.
        targets: the target; where several have their settings in common, all of them.
        settled: fields that a policy of another kind has already.
        deep: fields that all have that set them.
    """
    taken = set(settled)
    winners = []
    for state, fields in entrants:
        won = {name for name in fields if name not in taken or unshadowed(name) in deep}
        taken |= won
        own = [one for one in state.targets if one in targets]
        if won or not fields:
            state.effective.update(own)
        if won:
            winners.append((state, own))
    if len(winners) > 1:
        for state, own in winners:
            state.shared.update(own)


_SHADOW: Final = "shadow "


def unshadowed(name: str) -> str:
    """The name of a field, whether it is tried out or not."""
    return name.removeprefix(_SHADOW)
