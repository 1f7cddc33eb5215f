"""Session persistence in the IR: of a rule, or of the Services that it sends requests to.

A session is of one rule, also if a policy of a Service asks for it, and has the rule's name as its
scope. So tokens of one rule say nothing to another, and what a token leads to is the same on every
replica.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kgw.api import ResourceKey, SessionPersistence
    from kgw.attach.index import AnyService


def sessions(
    own: SessionPersistence | None,
    scope: str,
    services: Sequence[AnyService | None],
    of: Callable[[AnyService], SessionPersistence | None],
    places_of_own: list[int] | None = None,
) -> list[dict[str, Any]]:
    """The sessions of a rule.

    Args:
        own: what the rule says, which goes before what policies say.
        scope: the rule's name: kind, namespace, name, and name or place of the rule.
        services: the Services of its backends; none for those that do not exist.
        of: what a policy says of a Service.
        places_of_own: which of the backends a session of the rule is of; by default all.
    """
    if own is not None:
        # Of all backends alike: a client stays with the one that it had, whatever the weights.
        every = list(range(len(services))) if places_of_own is None else places_of_own
        return [_session(own, scope, every)]
    places: dict[ResourceKey, list[int]] = {}
    said: dict[ResourceKey, SessionPersistence] = {}
    for place, service in enumerate(services):
        if service is None:
            continue
        session = of(service)
        if session is not None:
            places.setdefault(service.key, []).append(place)
            said[service.key] = session
    return [_session(session, f"{scope}|{key}", places[key]) for key, session in said.items()]


def _session(session: SessionPersistence, scope: str, backends: list[int]) -> dict[str, Any]:
    name = session.name or f"kgw-{hashlib.sha256(scope.encode()).hexdigest()[:12]}"
    token: dict[str, Any] = {"type": "header", "name": name}
    if session.type == "Cookie":
        token = {"type": "cookie", "name": name, "path": session.path}
        if session.is_permanent:
            token["permanent"] = True
    found: dict[str, Any] = {"scope": scope, "backends": backends, "token": token}
    if session.absolute_timeout:
        found["absolute_timeout_ms"] = int(session.absolute_timeout)
    return found
