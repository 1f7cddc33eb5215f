"""Where listeners bind, other than where the manifests put them.

Manifests name ports for a pod of their own. On a laptop, in a test, or behind a port mapping the
same manifests are served elsewhere: ``127.0.0.1:0``, ``default/web/http=0.0.0.0:8080``.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from kgw.addresses import Address, parse

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["Binding", "exposed", "has_ipv6", "rebind", "without_ipv6"]


class Binding(NamedTuple):
    """One ``[LISTENER=]IP[:PORT]``."""

    listener: str | None
    """``namespace/gateway/listener`` or the end of it; ``None`` means all."""
    host: str
    """An IP address."""
    port: int | None
    """``None`` keeps the listener's; 0 takes any free port."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Returns the binding that *text* says. Raises `ValueError`."""
        listener, _, where = text.rpartition("=")
        try:
            # An IPv6 address without a port needs no brackets.
            return cls(listener or None, str(ipaddress.ip_address(where.strip("[]"))), None)
        except ValueError:
            if ":" not in where:
                raise ValueError(f"{where!r} is not IP[:PORT]") from None
            address = parse(where)
        if address.ip is None:
            raise ValueError(f"{address.host!r} is not an IP address")
        return cls(listener or None, address.host, address.port)

    def covers(self, listener_id: str) -> bool:
        """Whether the binding is about this listener."""
        return self.listener is None or f"/{listener_id}".endswith(f"/{self.listener}")


def rebind(listeners: Iterable[dict[str, Any]], bindings: Iterable[str]) -> list[dict[str, Any]]:
    """Returns listeners of the IR, bound where *bindings* say; the last that covers one wins.

    Raises:
        ValueError: a binding covers no listener, or gives one port to several.
    """
    listeners = [dict(listener) for listener in listeners]
    for binding in map(Binding.parse, bindings):
        covered = [listener for listener in listeners if binding.covers(listener["id"])]
        ids = [listener["id"] for listener in covered]
        if binding.listener is not None and not covered:
            known = ", ".join(listener["id"] for listener in listeners) or "there are none"
            raise ValueError(f"no listener {binding.listener!r} to bind ({known})")
        if binding.port and len(covered) > 1:
            raise ValueError(
                f"port {binding.port} would be bound by {', '.join(ids)}: "
                f"name one, as in {ids[0]}={Address(binding.host, binding.port)}"
            )
        for listener in covered:
            port = _port(listener) if binding.port is None else binding.port
            listener["bind"] = [str(Address(binding.host, port))]
    return listeners


def _port(listener: dict[str, Any]) -> int:
    return parse(listener["bind"][0]).port if listener["bind"] else 0


def without_ipv6(listeners: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns listeners of the IR without the IPv6 addresses of those that have IPv4 ones too.

    Listeners are on both families by default, and many containers have no IPv6. A listener that is
    on IPv6 alone stays as it is, so that binding it says what is wrong.
    """
    found = []
    for listener in listeners:
        ipv4 = [bind for bind in listener["bind"] if not bind.startswith("[")]
        found.append({**listener, "bind": ipv4 or listener["bind"]})
    return found


def has_ipv6() -> bool:
    """Whether this machine, or container, has IPv6 at least on loopback."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def exposed(
    listeners: Iterable[dict[str, Any]], bound: Mapping[str, Iterable[tuple[str, int]]]
) -> Iterator[tuple[str, Address]]:
    """Yields listener and address where a PROXY listener can be reached from other machines.

    Whoever can reach one can claim any identity: the header is believed.

    Args:
        listeners: those of the IR, which say which of them are PROXY listeners.
        bound: where each listener is bound, by its id.
    """
    for listener in listeners:
        if listener["traffic"]["type"] != "waypoint":
            continue
        for address in bound.get(listener["id"], ()):
            if not ipaddress.ip_address(address[0]).is_loopback:
                yield listener["id"], Address(*address)
