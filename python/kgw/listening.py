"""Listening sockets that somebody else bound: another process, systemd, the program around a proxy.

Whoever holds a listening socket holds the queue of connections that wait on it. Passing it on,
rather than binding the address anew, lets a process be replaced without a connection being refused.
"""

from __future__ import annotations

import socket
from typing import NamedTuple

from kgw.addresses import Address

__all__ = ["ListeningSocket", "checked"]


class ListeningSocket(NamedTuple):
    """A listening socket, and what it is for."""

    listener: str | None
    """``namespace/gateway/listener``, if known; sockets for port 0 are told apart by it."""
    socket: socket.socket
    """The socket."""

    @property
    def address(self) -> Address:
        """Where it listens."""
        host, port, *_ = self.socket.getsockname()
        return Address(host, port)


def checked(one: ListeningSocket | socket.socket) -> ListeningSocket:
    """Returns a socket that a proxy can accept connections on.

    Raises:
        ValueError: it is not a TCP socket of IPv4 or IPv6, or does not listen.
    """
    given = one if isinstance(one, ListeningSocket) else ListeningSocket(None, one)
    sock = given.socket
    if (
        sock.family not in (socket.AF_INET, socket.AF_INET6)
        or sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) != socket.SOCK_STREAM
        or sock.getsockopt(socket.SOL_SOCKET, socket.SO_PROTOCOL) != socket.IPPROTO_TCP
    ):
        raise ValueError(f"descriptor {sock.fileno()} is not a TCP socket")
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise ValueError(f"descriptor {sock.fileno()} ({given.address}) does not listen")
    if sock.family == socket.AF_INET6 and not sock.getsockopt(
        socket.IPPROTO_IPV6, socket.IPV6_V6ONLY
    ):
        raise ValueError(
            f"descriptor {sock.fileno()} ({given.address}) takes IPv4 connections too: a listener"
            " has a socket for each family (systemd: BindIPv6Only=ipv6-only)"
        )
    return given
