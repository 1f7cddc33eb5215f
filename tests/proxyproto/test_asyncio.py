"""Headers read from real sockets."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

import pytest

from kgw.proxyproto import (
    IncompleteProxyHeader,
    MeshIdentity,
    ProxyHeader,
    ProxyProtocolError,
    read_proxy_header,
)

if TYPE_CHECKING:
    from collections.abc import Callable

HEADER = ProxyHeader(
    ("10.244.0.24", 46238),
    ("10.96.0.1", 80),
    identity=MeshIdentity("cluster.local", "default", "curl"),
)
WIRES = [HEADER.encode(), b"PROXY TCP6 ::1 ::2 1 65535\r\n", b"PROXY UNKNOWN\r\n"]
REQUEST = b"GET / HTTP/1.1\r\n\r\n"


def with_connection(
    client: Callable[[socket.socket], Any],
    server: Callable[[asyncio.StreamReader], Any],
) -> None:
    """Runs both ends of a TCP connection; a result of either that can be awaited, is."""

    async def main() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        near = socket.create_connection(listener.getsockname())
        near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        far, _ = listener.accept()
        listener.close()
        near.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=far)
        try:
            async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
                tasks.create_task(client(near))
                tasks.create_task(server(reader))
        finally:
            near.close()
            writer.close()
            await writer.wait_closed()

    asyncio.run(main())


@pytest.mark.parametrize("wire", WIRES)
def test_byte_by_byte(wire: bytes) -> None:
    """Each byte is sent only when the one before it was taken from the stream."""
    taken = asyncio.Queue[int]()

    async def client(near: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        for byte in wire:
            await loop.sock_sendall(near, bytes([byte]))
            assert await taken.get() == 1
        await loop.sock_sendall(near, REQUEST)

    async def server(reader: asyncio.StreamReader) -> None:
        read = reader.read

        async def counted(n: int = -1) -> bytes:
            data = await read(n)
            taken.put_nowait(len(data))
            return data

        reader.read = counted  # type: ignore[method-assign]
        header = await read_proxy_header(reader)
        assert header.length == len(wire)
        assert await reader.readexactly(len(REQUEST)) == REQUEST

    with_connection(client, server)


@pytest.mark.parametrize("wire", WIRES)
def test_takes_nothing_of_the_payload(wire: bytes) -> None:
    async def client(near: socket.socket) -> None:
        await asyncio.get_running_loop().sock_sendall(near, wire + REQUEST)
        near.shutdown(socket.SHUT_WR)

    async def server(reader: asyncio.StreamReader) -> None:
        header = await read_proxy_header(reader)
        assert header.length == len(wire)
        assert await reader.read() == REQUEST

    with_connection(client, server)


def test_refuses_without_waiting() -> None:
    """One wrong byte is enough, though the peer keeps the connection open."""

    async def client(near: socket.socket) -> None:
        await asyncio.get_running_loop().sock_sendall(near, b"G")

    async def server(reader: asyncio.StreamReader) -> None:
        with pytest.raises(ProxyProtocolError, match="unexpected byte 0x47"):
            await read_proxy_header(reader, timeout=None)

    with_connection(client, server)


def test_refuses_what_the_options_exclude() -> None:
    async def client(near: socket.socket) -> None:
        await asyncio.get_running_loop().sock_sendall(near, HEADER.encode())

    async def server(reader: asyncio.StreamReader) -> None:
        with pytest.raises(ProxyProtocolError, match="exceeds the maximum of 71"):
            await read_proxy_header(reader, max_header=71)

    with_connection(client, server)


def test_connection_ends_early() -> None:
    async def client(near: socket.socket) -> None:
        await asyncio.get_running_loop().sock_sendall(near, HEADER.encode()[:-1])
        near.shutdown(socket.SHUT_WR)

    async def server(reader: asyncio.StreamReader) -> None:
        with pytest.raises(IncompleteProxyHeader) as caught:
            await read_proxy_header(reader)
        assert caught.value.need == HEADER.length

    with_connection(client, server)


def test_silence_times_out() -> None:
    async def client(_near: socket.socket) -> None:
        pass

    async def server(reader: asyncio.StreamReader) -> None:
        with pytest.raises(TimeoutError):
            await read_proxy_header(reader, timeout=0)

    with_connection(client, server)
