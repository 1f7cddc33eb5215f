"""The PROXY protocol: who a relayed connection comes from, and for whom it is.

A proxy such as ztunnel or HAProxy puts one header in front of the bytes of each connection that it
relays. :func:`parse_proxy_header` reads it from bytes, :func:`read_proxy_header` from a stream of
asyncio, anyio or trio, and :meth:`ProxyHeader.encode` writes it. :func:`start_server` is
`asyncio.start_server` for handlers that want to know the client rather than the proxy.

Anyone who can connect to a listener that reads such headers can claim to be anyone: bind it where
only the proxy can connect, such as to loopback, or name the proxy's addresses.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from kgw._native.proxyproto import MeshIdentity, ProxyHeader, Ssl, parse_proxy_header
from kgw.errors import IncompleteProxyHeader, ProxyProtocolError
from kgw.proxyserver import LOOPBACK, Refusal, create_server, start_server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from anyio.abc import ByteReceiveStream

__all__ = [
    "LOOPBACK",
    "IncompleteProxyHeader",
    "MeshIdentity",
    "ProxyHeader",
    "ProxyProtocolError",
    "Refusal",
    "Ssl",
    "create_server",
    "parse_proxy_header",
    "read_proxy_header",
    "start_server",
]


class TrioReceiveStream(Protocol):
    """A stream of trio, as far as it is needed here: `trio.abc.ReceiveStream`."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Returns some bytes; none at the end."""


async def read_proxy_header(
    reader: asyncio.StreamReader | ByteReceiveStream | TrioReceiveStream,
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
        reader: the stream, nothing of which has been read: asyncio's, anyio's or trio's.
        timeout: seconds that the whole header may take; None for no limit.
        max_header: the longest header accepted, in bytes.
        v1: whether version 1, the line of text, is accepted.
        v2: whether version 2, the binary header, is accepted.

    Raises:
        ProxyProtocolError: the bytes are not an acceptable header.
        IncompleteProxyHeader: the connection ended before the header did.
        TimeoutError: the header did not arrive in time.
    """
    options = {"max_header": max_header, "v1": v1, "v2": v2}
    if isinstance(reader, asyncio.StreamReader):
        async with asyncio.timeout(timeout):
            return await _read(reader.read, options)
    import anyio  # not at the top: those who use asyncio alone should not pay for it

    with anyio.fail_after(timeout):
        return await _read(_reading(reader, anyio.EndOfStream), options)


def _reading(
    stream: ByteReceiveStream | TrioReceiveStream, end: type[Exception]
) -> Callable[[int], Awaitable[bytes | bytearray]]:
    """A stream's method that returns some bytes, none at its end."""
    if not hasattr(stream, "receive"):
        return stream.receive_some

    async def receive(most: int) -> bytes:
        try:
            return await stream.receive(most)
        except end:
            return b""

    return receive


async def _read(
    read: Callable[[int], Awaitable[bytes | bytearray]], options: dict[str, int]
) -> ProxyHeader:
    data = bytearray()
    while True:
        try:
            return parse_proxy_header(bytes(data), **options)  # type: ignore[arg-type] # bools are ints
        except IncompleteProxyHeader as incomplete:
            more = await read(incomplete.need - len(data))
            if not more:
                raise
            data += more
