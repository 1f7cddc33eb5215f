"""The PROXY protocol: who a relayed connection comes from, and for whom it is.

A proxy such as ztunnel or HAProxy puts one header in front of the bytes of each connection that it
relays. :func:`parse_proxy_header` reads it from bytes, :func:`read_proxy_header` from an asyncio
stream, and :meth:`ProxyHeader.encode` writes it.

Anyone who can connect to a listener that reads such headers can claim to be anyone: bind it where
only the proxy can connect, such as to loopback.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from kgw._native.proxyproto import MeshIdentity, ProxyHeader, Ssl, parse_proxy_header
from kgw.errors import IncompleteProxyHeader, ProxyProtocolError

if TYPE_CHECKING:
    from asyncio import StreamReader

__all__ = [
    "IncompleteProxyHeader",
    "MeshIdentity",
    "ProxyHeader",
    "ProxyProtocolError",
    "Ssl",
    "parse_proxy_header",
    "read_proxy_header",
]


async def read_proxy_header(
    reader: StreamReader,
    *,
    timeout: float | None = 15.0,  # noqa: ASYNC109 - one deadline for all reads is the point
    max_header: int = 4096,
    v1: bool = True,
    v2: bool = True,
) -> ProxyHeader:
    """The PROXY protocol header that a connection begins with.

    Takes the header's bytes from ``reader`` and no other: the next read gives the payload. Bytes
    that cannot become a header are refused as soon as they arrive. After an exception, or a
    cancellation, part of the header is gone: close the connection.

    Args:
        reader: the stream, nothing of which has been read.
        timeout: seconds that the whole header may take; None for no limit.
        max_header: the longest header accepted, in bytes.
        v1: whether version 1, the line of text, is accepted.
        v2: whether version 2, the binary header, is accepted.

    Raises:
        ProxyProtocolError: the bytes are not an acceptable header.
        IncompleteProxyHeader: the connection ended before the header did.
        TimeoutError: the header did not arrive in time.
    """
    data = bytearray()
    async with asyncio.timeout(timeout):
        while True:
            try:
                return parse_proxy_header(bytes(data), max_header=max_header, v1=v1, v2=v2)
            except IncompleteProxyHeader as incomplete:
                more = await reader.read(incomplete.need - len(data))
                if not more:
                    raise
                data += more
