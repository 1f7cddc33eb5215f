"""Listening sockets that somebody else bound: another process, systemd, the program around a proxy.

Whoever holds a listening socket holds the queue of connections, or datagrams, that wait on it.
Passing it on, rather than binding the address anew, lets a process be replaced without a connection
being refused.
"""

from __future__ import annotations

import socket
from typing import Final, NamedTuple

from kgw.addresses import Address

__all__ = ["ListeningSocket", "checked"]

_TCP: Final = (socket.SOCK_STREAM, socket.IPPROTO_TCP)
_UDP: Final = (socket.SOCK_DGRAM, socket.IPPROTO_UDP)


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
    """Returns a socket that a proxy can accept connections on, or receive datagrams.

    Raises:
        ValueError: it is not a socket of TCP or UDP over IPv4 or IPv6, or does not listen.
    """
    given = one if isinstance(one, ListeningSocket) else ListeningSocket(None, one)
    sock = given.socket
    transport = (
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE),
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_PROTOCOL),
    )
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or transport not in (_TCP, _UDP):
        raise ValueError(f"descriptor {sock.fileno()} is not a TCP or UDP socket")
    if transport == _UDP:
        listens = given.address.port != 0
    else:
        listens = bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    if not listens:
        raise ValueError(f"descriptor {sock.fileno()} ({given.address}) does not listen")
    if sock.family == socket.AF_INET6 and not sock.getsockopt(
        socket.IPPROTO_IPV6, socket.IPV6_V6ONLY
    ):
        raise ValueError(
            f"descriptor {sock.fileno()} ({given.address}) takes IPv4 connections too: a listener"
            " has a socket for each family (systemd: BindIPv6Only=ipv6-only)"
        )
    return given
