"""`start_server` and `create_server`: handlers behind a proxy, over real sockets."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from kgw.errors import IncompleteProxyHeader, ProxyProtocolError
from kgw.proxyproto import (
    MeshIdentity,
    ProxyHeader,
    Refusal,
    create_server,
    start_server,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine
    from pathlib import Path

CURL = MeshIdentity("cluster.local", "default", "curl")
HEADER = ProxyHeader(("10.244.0.24", 46238), ("10.96.0.1", 80), identity=CURL)
ANSWER = b"hello\n"

#: Fails a test that waits for what does not come.
BOUND = 20.0


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(main, BOUND))


async def ended(reader: asyncio.StreamReader) -> None:
    """Sees a connection end without data, in an orderly way or not."""
    with suppress(ConnectionResetError):
        assert await reader.read() == b""


async def close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):  # the other end may have reset the connection
        await writer.wait_closed()


class Served:
    """A server that greets, what its handler saw, and what was refused."""

    def __init__(self) -> None:
        self.infos: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.refused: asyncio.Queue[Refusal] = asyncio.Queue()
        self.port = 0
        self.tls: ssl.SSLContext | None = None

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        names = ["peername", "sockname", "proxy_header", "proxy_peername", "proxy_sockname"]
        info = {name: writer.get_extra_info(name) for name in names}
        info["tls"] = writer.get_extra_info("ssl_object") is not None
        info["line"] = await reader.readline()
        writer.write(ANSWER)
        await writer.drain()
        self.infos.put_nowait(info)
        await close(writer)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def ask(self, wire: bytes) -> dict[str, Any]:
        """Sends *wire* and a line, and returns what the handler saw."""
        reader, writer = await self.connect()
        writer.write(wire)
        if self.tls is not None:
            await writer.drain()
            await writer.start_tls(self.tls, server_hostname="localhost")
        writer.write(b"ping\n")
        assert await reader.read() == ANSWER
        await close(writer)
        info = await self.infos.get()
        assert info["line"] == b"ping\n"
        return info

    async def closed(self, wire: bytes, *, half_close: bool = False) -> Refusal:
        """Sends *wire*, sees the connection closed without an answer, and returns why."""
        reader, writer = await self.connect()
        writer.write(wire)
        if half_close:
            writer.write_eof()
        refusal = await self.refused.get()
        await ended(reader)
        await close(writer)
        assert refusal.peer[0] == "127.0.0.1"
        return refusal


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[Served]:
    served = Served()
    options = {"on_refused": served.refused.put_nowait, **options}
    server = await start_server(served.handle, "127.0.0.1", 0, **options)
    async with server:
        served.port = server.sockets[0].getsockname()[1]
        yield served
    assert served.refused.empty()


def test_handlers_see_the_client() -> None:
    async def main() -> None:
        async with serving() as served:
            info = await served.ask(HEADER.encode())
            assert info["peername"] == ("10.244.0.24", 46238)
            assert info["sockname"] == ("10.96.0.1", 80)
            assert info["proxy_header"] == HEADER
            assert info["proxy_header"].identity == CURL
            assert info["proxy_peername"][0] == "127.0.0.1"
            assert info["proxy_sockname"] == ("127.0.0.1", served.port)

            info = await served.ask(b"PROXY TCP6 ::1 ::2 1 65535\r\n")
            assert (info["peername"], info["sockname"]) == (("::1", 1, 0, 0), ("::2", 65535, 0, 0))

            info = await served.ask(ProxyHeader(unix=(b"/a", b"/b")).encode())
            assert (info["peername"], info["sockname"]) == ("/a", "/b")

    run(main())


@pytest.mark.parametrize(
    "wire", [ProxyHeader(command="local").encode(), b"PROXY UNKNOWN\r\n", ProxyHeader().encode()]
)
def test_without_addresses_in_the_header_the_sockets_own_apply(wire: bytes) -> None:
    async def main() -> None:
        async with serving() as served:
            info = await served.ask(wire)
            assert info["peername"] == info["proxy_peername"]
            assert info["sockname"] == ("127.0.0.1", served.port)
            assert info["proxy_header"].source is None

    run(main())


def test_a_header_in_pieces() -> None:
    async def main() -> None:
        async with serving(limit=200_000) as served:
            reader, writer = await served.connect()
            writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in HEADER.encode():
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0)
            writer.write(b"x" * 100_000 + b"\n")
            assert await reader.read() == ANSWER
            await close(writer)
            info = await served.infos.get()
            assert info["peername"] == ("10.244.0.24", 46238)
            assert len(info["line"]) == 100_001

    run(main())


@pytest.mark.parametrize(
    ("wire", "options", "reason", "text"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", {}, "proxy_header_malformed", "unexpected byte 0x47 at 0"),
        (
            HEADER.encode(),
            {"max_header": 71},
            "proxy_header_malformed",
            "exceeds the maximum of 71",
        ),
        (HEADER.encode(), {"v2": False}, "proxy_header_malformed", "unexpected byte 0x0d"),
        (b"PROXY UNKNOWN\r\n", {"v1": False}, "proxy_header_malformed", "unexpected byte 0x50"),
        (HEADER.encode()[:-1], {"header_timeout": 0.01}, "proxy_header_timeout", "refused"),
        (b"", {"header_timeout": 0.01}, "proxy_header_timeout", "refused"),
        (HEADER.encode(), {"allow": "10.0.0.0/8"}, "proxy_header_not_allowed", "127.0.0.1:"),
        (HEADER.encode(), {"allow": ()}, "proxy_header_not_allowed", "127.0.0.1:"),
    ],
)
def test_what_is_refused_is_closed_and_reported(
    wire: bytes, options: dict[str, Any], reason: str, text: str
) -> None:
    async def main() -> None:
        async with serving(**options) as served:
            refusal = await served.closed(wire)
            assert refusal.reason == reason
            assert text in str(refusal)
            assert isinstance(refusal.error, ProxyProtocolError) == (reason.endswith("malformed"))

    run(main())


def test_a_connection_that_ends_early() -> None:
    async def main() -> None:
        async with serving() as served:
            assert (await served.closed(b"", half_close=True)).reason == "proxy_header_absent"
            refusal = await served.closed(HEADER.encode()[:-1], half_close=True)
            assert refusal.reason == "proxy_header_malformed"
            assert isinstance(refusal.error, IncompleteProxyHeader)
            assert refusal.error.need == HEADER.length
            # and the server is as it was
            assert (await served.ask(HEADER.encode()))["proxy_header"] == HEADER

    run(main())


def test_direct_sources_have_no_header() -> None:
    async def main() -> None:
        async with serving(allow=["10.0.0.0/8", "fd00::/8"], direct="127.0.0.1") as served:
            info = await served.ask(b"")
            assert info["proxy_header"] is None
            assert info["peername"] == info["proxy_peername"]
        async with serving(allow=["127.0.0.0/8"], direct="127.0.0.1") as served:
            assert (await served.ask(HEADER.encode()))["proxy_header"] == HEADER

    run(main())


def test_addresses_of_dual_stack_sockets_are_those_of_ipv4() -> None:
    async def main() -> None:
        sock = socket.socket(socket.AF_INET6)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(("::", 0))
        served = Served()
        server = await start_server(served.handle, sock=sock, allow="127.0.0.1")
        async with server:
            served.port = sock.getsockname()[1]
            info = await served.ask(HEADER.encode())
            assert info["proxy_peername"][0] == "::ffff:127.0.0.1"
            assert info["peername"] == ("10.244.0.24", 46238)

    run(main())


def test_unix_sockets_are_allowed(tmp_path: Path) -> None:
    async def main() -> None:
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(tmp_path / "socket"))
        served = Served()
        async with await start_server(served.handle, sock=sock, allow=()):
            reader, writer = await asyncio.open_unix_connection(tmp_path / "socket")
            writer.write(HEADER.encode() + b"\n")
            assert await reader.read() == ANSWER
            await close(writer)
            assert (await served.infos.get())["peername"] == ("10.244.0.24", 46238)

    run(main())


def test_only_so_many_are_waited_for_at_a_time() -> None:
    async def main() -> None:
        async with serving(max_pending=2) as served:
            waiting = [await served.connect(), await served.connect()]
            for _, writer in waiting:
                writer.write(HEADER.encode()[:16])
            assert (await served.closed(b"")).reason == "proxy_header_pending"
            # Those that have become somebody's are not counted, and make room.
            for reader, writer in waiting:
                writer.write(HEADER.encode()[16:] + b"\n")
                assert await reader.read() == ANSWER
                await served.infos.get()
                await close(writer)
            for _ in range(5):
                await served.ask(HEADER.encode())

    run(main())


def test_by_default_refusals_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "kgw.proxyproto")

    async def main() -> None:
        async with serving(on_refused=None) as served:
            for wire in (b"GET /", b""):
                reader, writer = await served.connect()
                writer.write(wire)
                writer.write_eof()
                await ended(reader)
                await close(writer)

    run(main())
    found = [(one.levelname, one.getMessage()) for one in caplog.records if one.name[:3] == "kgw"]
    assert [level for level, _ in found] == ["WARNING", "DEBUG"]
    assert found[0][1].endswith(
        "refused, proxy_header_malformed: no PROXY protocol header: unexpected byte 0x47 at 0"
    )
    assert found[1][1].endswith("refused, proxy_header_absent")


def test_a_failing_callback_or_handler_ends_nothing_else() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        contexts: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        loop.set_exception_handler(lambda _, context: contexts.put_nowait(context))

        def fails(refusal: Refusal) -> None:
            raise ZeroDivisionError(refusal.reason)

        async with serving(on_refused=fails) as served:
            _, writer = await served.connect()
            writer.write(b"GET /")
            context = await contexts.get()
            assert str(context["exception"]) == "proxy_header_malformed"
            await close(writer)
            assert (await served.ask(HEADER.encode()))["proxy_header"] == HEADER
        assert contexts.empty()

    run(main())


def test_without_proxy_protocol_it_is_asyncio() -> None:
    async def main() -> None:
        async with serving(proxy_protocol=False) as served:
            info = await served.ask(b"")
            assert info["peername"][0] == "127.0.0.1"
            assert info["proxy_header"] is None

    run(main())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"allow": "10.0.0.1/8"}, "has host bits set"),
        ({"direct": ["everyone"]}, "'everyone' does not appear to be"),
        ({"max_pending": 0}, "max_pending must be at least 1"),
        ({"ssl_handshake_timeout": 1.0}, "need ssl"),
    ],
)
def test_what_makes_no_sense_is_a_value_error(options: dict[str, Any], message: str) -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match=message):
            async with serving(**options):
                pass

    run(main())


# === TLS ===


@pytest.fixture(scope="module")
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Those of the server and of the client."""
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


def test_tls_begins_after_the_header(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    async def main() -> None:
        async with serving(ssl=contexts[0]) as served:
            served.tls = contexts[1]
            for _ in range(3):
                info = await served.ask(HEADER.encode())
                assert info["tls"]
                assert info["peername"] == ("10.244.0.24", 46238)
                assert info["proxy_header"] == HEADER

    run(main())


def test_header_and_client_hello_in_one_segment(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    """And what follows the handshake arrives with its last message."""

    async def main() -> None:
        async with serving(ssl=contexts[0]) as served:
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = contexts[1].wrap_bio(incoming, outgoing, server_hostname="localhost")
            reader, writer = await served.connect()
            with pytest.raises(ssl.SSLWantReadError):
                tls.do_handshake()
            writer.write(HEADER.encode() + outgoing.read())
            while True:
                try:
                    tls.do_handshake()
                except ssl.SSLWantReadError:
                    incoming.write(await reader.read(65536))
                else:
                    break
            tls.write(b"early\n")
            writer.write(outgoing.read())
            info = await served.infos.get()
            assert (info["line"], info["peername"]) == (b"early\n", ("10.244.0.24", 46238))
            await close(writer)

    run(main())


@pytest.mark.parametrize("tail", [b"", b"GET / HTTP/1.1\r\n\r\n"], ids=["gone", "no TLS"])
def test_a_failed_handshake_is_reported(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], tail: bytes
) -> None:
    async def main() -> None:
        async with serving(ssl=contexts[0], max_pending=1) as served:
            _, writer = await served.connect()
            writer.write(HEADER.encode() + tail)
            if not tail:
                writer.write_eof()
            assert (await served.refused.get()).reason == "downstream_tls_fail"
            await close(writer)
            served.tls = contexts[1]
            assert (await served.ask(HEADER.encode()))["tls"]

    run(main())


def test_a_slow_handshake_is_ended(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    async def main() -> None:
        async with serving(ssl=contexts[0], ssl_handshake_timeout=0.01, max_pending=1) as served:
            _, writer = await served.connect()
            writer.write(HEADER.encode())
            refusal = await served.refused.get()
            assert refusal.reason == "downstream_tls_fail"
            assert "ssl_handshake_timeout" in str(refusal) or "longer than" in str(refusal)
            await close(writer)

    run(main())


# === Protocols ===


class Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        assert self.transport.get_protocol() is self
        self.transport.writelines([str(self.transport.get_extra_info("peername")).encode(), data])

    def eof_received(self) -> bool:
        assert self.transport.can_write_eof()
        self.transport.write_eof()
        return False


class BufferedEcho(asyncio.BufferedProtocol):
    """With a buffer smaller than what arrives."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.buffer = bytearray(3)
        transport.write(str(transport.get_extra_info("peername")).encode())

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.transport.write(bytes(self.buffer[:nbytes]))


@pytest.mark.parametrize("protocol", [Echo, BufferedEcho])
@pytest.mark.parametrize("with_tls", [False, True])
def test_any_protocol_can_be_served(
    protocol: type[asyncio.BaseProtocol],
    with_tls: bool,
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    async def main() -> None:
        tls = contexts if with_tls else (None, None)
        server = await create_server(protocol, "127.0.0.1", 0, ssl=tls[0])
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(HEADER.encode())
            if tls[1] is not None:
                await writer.start_tls(tls[1], server_hostname="localhost")
            writer.write(b"payload")
            expected = b"('10.244.0.24', 46238)payload"
            assert await reader.readexactly(len(expected)) == expected
            if tls[1] is None:
                writer.write_eof()
                assert await reader.read() == b""
            await close(writer)

    run(main())


def test_a_factory_that_fails_costs_its_connection_only() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        failures: asyncio.Queue[Any] = asyncio.Queue()
        loop.set_exception_handler(lambda _, context: failures.put_nowait(context["exception"]))
        factories = iter([lambda: 1 / 0, Echo])
        server = await create_server(lambda: next(factories)(), "127.0.0.1", 0)  # type: ignore[arg-type, return-value]
        async with server:
            for expected in (b"", b"('10.244.0.24', 46238)x"):
                reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
                writer.write(HEADER.encode() + b"x")
                writer.write_eof()
                try:
                    assert await reader.read() == expected
                except ConnectionResetError:
                    assert expected == b""
                await close(writer)
            assert isinstance(await failures.get(), ZeroDivisionError)

    run(main())
