"""``HOST:PORT`` as text."""

from __future__ import annotations

import ipaddress
from typing import NamedTuple


class Address(NamedTuple):
    """A host, as a name or an IP address without brackets, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        """Returns ``host:port``, an IPv6 address in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def ip(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        """The host as an IP address, if it is one."""
        try:
            return ipaddress.ip_address(self.host)
        except ValueError:
            return None


def parse(text: str, default_port: int | None = None) -> Address:
    """Returns ``HOST:PORT``, ``[IPv6]:PORT``, or, given a default port, the host alone.

    Raises:
        ValueError: it is none of these.
    """
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        ipaddress.IPv6Address(host)
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"{text!r} is not [IPv6]:PORT")
        port = rest[1:]
    elif text.count(":") > 1:
        raise ValueError(f"{text!r}: an IPv6 address with a port is written [IPv6]:PORT")
    else:
        host, _, port = text.partition(":")
    if not host:
        raise ValueError(f"{text!r} has no host")
    if not port:
        if default_port is None:
            raise ValueError(f"{text!r} has no port")
        return Address(host, default_port)
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{port!r} is not a port")
    return Address(host, int(port))
