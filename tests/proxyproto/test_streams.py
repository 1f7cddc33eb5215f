"""Headers read from streams of anyio and trio."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from kgw.proxyproto import (
    IncompleteProxyHeader,
    ProxyHeader,
    ProxyProtocolError,
    read_proxy_header,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

HEADER = ProxyHeader(("10.244.0.24", 46238), ("10.96.0.1", 80), authority="example")
REQUEST = b"GET / HTTP/1.1\r\n\r\n"


class Pieces(anyio.abc.ByteReceiveStream):
    """A stream of prepared pieces, which never gives more than is asked for."""

    def __init__(self, pieces: Iterable[bytes], *, hangs: bool = False) -> None:
        self.pieces = [piece for piece in pieces if piece]
        self.hangs = hangs

    async def receive(self, max_bytes: int = 65536) -> bytes:
        await anyio.lowlevel.checkpoint()
        if not self.pieces:
            if self.hangs:
                await anyio.sleep_forever()
            raise anyio.EndOfStream
        piece = self.pieces.pop(0)
        if piece[max_bytes:]:
            self.pieces.insert(0, piece[max_bytes:])
        return piece[:max_bytes]

    async def aclose(self) -> None:
        """Nothing to close."""


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    virtual = {"clock": MockClock(autojump_threshold=0)}
    return request.param, virtual if request.param == "trio" else {}


@pytest.mark.anyio
@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_takes_the_header_and_nothing_else(size: int) -> None:
    wire = HEADER.encode() + REQUEST
    stream = Pieces(wire[at : at + size] for at in range(0, len(wire), size))
    assert await read_proxy_header(stream) == HEADER
    assert b"".join(stream.pieces) == REQUEST


@pytest.mark.anyio
async def test_errors_are_those_of_asyncio_streams() -> None:
    with pytest.raises(IncompleteProxyHeader):
        await read_proxy_header(Pieces([HEADER.encode()[:-1]]))
    with pytest.raises(ProxyProtocolError, match="unexpected byte 0x47"):
        await read_proxy_header(Pieces([REQUEST]), timeout=None)
    with pytest.raises(ProxyProtocolError, match="exceeds the maximum"):
        await read_proxy_header(Pieces([HEADER.encode()]), max_header=16)
    with pytest.raises(TimeoutError):
        await read_proxy_header(Pieces([HEADER.encode()[:20]], hangs=True), timeout=0.01)


def test_a_stream_of_trio() -> None:
    async def main() -> None:
        near, far = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(near.send_all, HEADER.encode() + REQUEST)
            assert await read_proxy_header(far) == HEADER
            assert await far.receive_some() == REQUEST
        await near.aclose()
        with pytest.raises(IncompleteProxyHeader):
            await read_proxy_header(far)

    trio.run(main)
