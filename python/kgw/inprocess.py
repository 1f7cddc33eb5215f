"""What a proxy and the program around it say to each other without a port.

Towards the proxy, `Proxy.connect` is a client's connection to a listener. From the proxy, a cluster
may be served by the program: the proxy then makes a socket pair for each connection and sends one
end through the *doorbell* of the backend, a socket that only this process has.
"""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING, Any, Protocol

from kgw.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Host", "backend_of", "choose", "doorbell", "next_connection", "served_here", "unbound"]

#: The id of a cluster (`docs/ir.md`). Names of Kubernetes have no underscores.
_CLUSTER = re.compile(r"kube_([^_]+)_([^_]+)_([0-9]+)(?:_(?:auto|http2))?(?:@.*)?")

_BACKEND = re.compile(r"[^/:_]+/[^/:_]+:[0-9]+")


class Host(Protocol):
    """What serves the backends of a running proxy."""

    def doorbells(self) -> list[tuple[str, socket.socket]]:
        """Returns the proxy's end of each backend's doorbell, which is the caller's then."""

    async def aclose(self) -> None:
        """Ends what is being served, and the applications."""


def checked(name: str) -> str:
    """Returns the name of a backend, ``namespace/service:port``. Raises `ValueError`."""
    if _BACKEND.fullmatch(name) is None:
        raise ValueError(f"a backend is namespace/service:port, not {name!r}")
    return name


def backend_of(cluster: str) -> str | None:
    """The Service port of a cluster, ``namespace/service:port``, from its id."""
    found = _CLUSTER.fullmatch(cluster)
    return found and f"{found[1]}/{found[2]}:{found[3]}"


def served_here(clusters: Mapping[str, Any], backends: Iterable[str]) -> dict[str, Any]:
    """Returns clusters of the IR, or changes to them, with those of *backends* served here."""
    names = frozenset(backends)
    found = dict(clusters)
    for ident, cluster in clusters.items():
        name = backend_of(ident)
        if cluster is not None and name in names:
            found[ident] = {**cluster, "endpoints": [], "in_process": name}
    return found


def check_reached(clusters: Iterable[str], backends: Iterable[str]) -> None:
    """Refuses backends that no route leads to. Raises `ConfigError`."""
    reached = {backend_of(ident) for ident in clusters}
    for name in backends:
        if name not in reached:
            known = ", ".join(sorted(filter(None, reached))) or "none"
            raise ConfigError(f"no route leads to {name}; those that any leads to: {known}")


def unbound(listeners: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns listeners of the IR, none of which listens."""
    return [{**listener, "bind": []} for listener in listeners]


def choose(listeners: Iterable[Mapping[str, Any]], *, secure: bool, port: int | None) -> str:
    """Returns the listener that a request from this process goes to, of those in the IR.

    Where there is one, it is that one; else the one for the scheme, TLS listeners for ``https``;
    else the one of these that has the port. A listener for TLS takes no ``http``.

    Raises:
        LookupError: there is none, or there are several.
    """
    kinds = ("http", "waypoint", "tls") if secure else ("http", "waypoint")
    found = [one for one in listeners if one["traffic"]["type"] in kinds]
    if len(found) > 1:
        fitting = [one for one in found if (one["traffic"]["type"] == "tls") == secure]
        found = fitting or found
    if len(found) > 1:
        suffix = f":{port}"
        found = [one for one in found if any(bind.endswith(suffix) for bind in one["bind"])]
    if len(found) != 1:
        scheme = "https" if secure else "http"
        known = ", ".join(one["id"] for one in listeners) or "there are none"
        raise LookupError(f"no one listener is for {scheme} and port {port}: name it ({known})")
    ident = found[0]["id"]
    assert isinstance(ident, str)
    return ident


def doorbell() -> tuple[socket.socket, socket.socket]:
    """Returns the proxy's end of a doorbell, and that of who answers."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    theirs.setblocking(False)
    return ours, theirs


def next_connection(bell: socket.socket) -> socket.socket | None:
    """Takes the next connection from a doorbell; ``None`` when there are no more to come.

    Raises:
        BlockingIOError: nobody rings now.
    """
    while True:
        message, descriptors, _, _ = socket.recv_fds(bell, 1, 1)
        if descriptors:
            connection = socket.socket(fileno=descriptors[0])
            connection.setblocking(False)
            return connection
        if not message:
            return None
        # Without a free descriptor there is only the byte: the proxy sees its end closed.
