"""What each policy sets, and who gets it when several set the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kgw.api import HTTPListenerPolicy, Opaque, TrafficPolicy, loaded
from kgw.api.kgateway.http_settings import HTTPSettings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kgw.api import Resource
    from kgw.attach.policy import PolicyState
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
    fields = {
        "rateLimit.local": policy.local_rate_limit,
        "timeouts.request": policy.request_timeout,
    }
    return {name: value for name, value in fields.items() if value is not None}


def contend(
    entrants: Iterable[tuple[PolicyState, dict[str, Any]]], settled: Iterable[str] = ()
) -> None:
    """Gives each field to the first policy that sets it.

    Args:
        entrants: the policies on one target, first wins, each with its fields.
        settled: fields that a policy of another kind has already.
    """
    taken = set(settled)
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
