"""API keys in Secrets: clients by their keys.

No message has a key: what is wrong is told with the names of clients and Secrets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kgw.api.kinds import KGATEWAY_GROUP

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kgw.api import Resource, Secret
    from kgw.api.kgateway.traffic.api_key_auth import APIKeyAuth
    from kgw.attach.index import Index


class ApiKeys(NamedTuple):
    """The keys of some Secrets."""

    #: Clients by keys.
    clients: dict[bytes, str]
    problems: list[str]


def secrets(index: Index, policy: Resource, auth: APIKeyAuth) -> list[Secret]:
    """The Secrets that a policy selects or refers to, as far as they are there.

    Those that it selects may be of other namespaces that a ReferenceGrant permits.
    """
    if auth.secret_ref is not None:
        named = (auth.secret_ref.namespace or policy.namespace, auth.secret_ref.name)
        found = index.secrets.get(named)
        return [] if found is None else [found]
    if auth.secret_selector is None:
        return []
    wanted = auth.secret_selector.match_labels.items()
    referrer = (KGATEWAY_GROUP, policy.kind, policy.namespace)
    return [
        secret
        for (namespace, name), secret in sorted(index.secrets.items())
        if wanted <= secret.metadata.labels.items()
        and (
            namespace == policy.namespace
            or index.granted(referrer, ("", "Secret", namespace, name))
        )
    ]


def read(found: Iterable[Secret]) -> ApiKeys:
    """The keys in Secrets. Empty values do not count, nor do line breaks behind a key."""
    clients: dict[bytes, str] = {}
    problems = []
    for secret in found:
        for client in sorted(secret.data.keys() | secret.string_data.keys()):
            key = (secret.read(client) or b"").rstrip(b"\r\n")
            if not key:
                continue
            other = clients.setdefault(key, client)
            if other != client:
                problems.append(
                    f"clients {other!r} and {client!r} have the same API key"
                    f" ({secret.namespace}/{secret.name})"
                )
    return ApiKeys(clients, problems)
