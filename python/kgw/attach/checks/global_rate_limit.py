"""Global rate limits: who keeps them, and whether that can be reached and knows the limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from kgw.api.kgateway.extension.rate_limit import RedisServer
    from kgw.api.kgateway.traffic.global_rate_limit import Descriptor, GlobalRateLimit
    from kgw.attach.checking import Checking
    from kgw.attach.extensions import ExtensionState
    from kgw.source.memory import FieldPath

#: The keys of a Secret.
PASSWORD: Final = "password"
USERNAME: Final = "username"


def check(checking: Checking, value: GlobalRateLimit, path: FieldPath) -> None:
    """Checks a global rate limit."""
    ref = value.extension_ref
    place = (*path, "extensionRef")
    found = checking.extension(ref.name, "rate_limit", place, ref.namespace)
    if found is None:
        return
    provider = found.extension.spec.rate_limit
    assert provider is not None  # that is what was looked for
    if provider.redis is not None:
        _secret(checking, found, provider.redis, (*place, "name"))
        _limits(checking, value, provider.redis, path)


def _secret(
    checking: Checking, found: ExtensionState, server: RedisServer, path: FieldPath
) -> None:
    """Checks what a proxy logs in with: a Secret of the extension's namespace."""
    if server.secret_ref is None:
        return
    named = (found.extension.namespace, server.secret_ref.name)
    secret = checking.index.secrets.get(named)
    if secret is None:
        message = f"Secret {'/'.join(named)}, which {found.extension.key} refers to, not found"
        checking.fail("KGW312", message, path)
        return
    checking.read(secret)
    for key in (PASSWORD, USERNAME):
        content = secret.read(key)
        if content is None and key == USERNAME:
            continue
        if content is None:
            message = f"Secret {'/'.join(named)} has no key {key}"
            checking.fail("KGW313", message, path)
            return
        try:
            content.decode()
        except UnicodeDecodeError:
            message = f"Secret {'/'.join(named)}: {key} is no text"
            checking.fail("KGW313", message, path)


def _limits(
    checking: Checking, value: GlobalRateLimit, server: RedisServer, path: FieldPath
) -> None:
    """Warns of descriptors that have no limit."""
    known = {tuple(entry.key for entry in limit.descriptor) for limit in server.limits}
    for number, descriptor in enumerate(value.descriptors):
        if descriptor.limit is None and keys(descriptor) not in known:
            message = "the Redis server has no limit for this descriptor: nothing is counted by it"
            hint = "give it a `limit`, or the GatewayExtension one of this descriptor"
            checking.warn("KGW413", message, (*path, "descriptors", number), hint=hint)


def keys(descriptor: Descriptor) -> tuple[str, ...]:
    """The keys of a descriptor."""
    found = []
    for entry in descriptor.entries:
        if entry.generic is not None:
            found.append(entry.generic.key)
            continue
        named = entry.key or entry.header or entry.query or entry.cookie
        if named is None and entry.metadata is not None:
            named = entry.metadata.path[-1]
        found.append(named or _KEYS[entry.type])
    return tuple(found)


#: What values are called that have no name of their own.
_KEYS: Final = {
    "RemoteAddress": "remote_address",
    "Path": "path",
    "Method": "method",
    "Host": "host",
    "Principal": "principal",
}
