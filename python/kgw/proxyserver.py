"""asyncio servers whose connections begin with a PROXY protocol header.

Public as `kgw.proxyproto.start_server` and `create_server`. The flow of a connection:

1. its source is looked up in ``allow`` and ``direct``, and there must be room for one more;
2. the header is read: exactly its bytes, so that what follows is still in the socket, where TLS can
   begin with it;
3. with ``ssl``, the TLS handshake;
4. the handler, or the protocol, gets the connection with the client's addresses.

Until the last step a connection costs a small buffer, is counted, and has a deadline. Whatever goes
wrong until then ends this connection, is reported once, and nothing else.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from kgw._native.proxyproto import ProxyHeader, parse_proxy_header
from kgw.errors import IncompleteProxyHeader, ProxyProtocolError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence
    from ssl import SSLContext

__all__ = ["LOOPBACK", "Refusal", "create_server", "start_server"]

LOOPBACK: Final = ("127.0.0.0/8", "::1/128")
"""The sources that may send a header unless others are named: the machine, or pod, itself."""

Reason = Literal[
    "proxy_header_not_allowed",
    "proxy_header_pending",
    "proxy_header_absent",
    "proxy_header_malformed",
    "proxy_header_timeout",
    "downstream_tls_fail",
]

_log = logging.getLogger("kgw.proxyproto")

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Refusal:
    """A connection that was closed before a handler saw it."""

    reason: Reason
    """Few and fixed, to count by.

    ``proxy_header_not_allowed``: the source is neither in ``allow`` nor in ``direct``.
    ``proxy_header_pending``: ``max_pending`` connections are being set up already.
    ``proxy_header_absent``: it ended before its first byte, as a TCP health check does.
    ``proxy_header_malformed``: what it sent is no acceptable header, or less than one.
    ``proxy_header_timeout``: the header took longer than ``header_timeout``.
    ``downstream_tls_fail``: the TLS handshake failed, or took too long.
    """
    peer: Any
    """Where it came from: the socket's address, as ``peername`` has it."""
    error: Exception | None = None
    """What was wrong, if there is more to know."""

    def __str__(self) -> str:
        """Returns one line for a log."""
        detail = f": {self.error or type(self.error).__name__}" if self.error is not None else ""
        return f"connection from {_shown(self.peer)} refused, {self.reason}{detail}"


async def start_server(
    client_connected_cb: Callable[
        [asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None] | None
    ],
    host: str | Sequence[str] | None = None,
    port: int | None = None,
    *,
    proxy_protocol: bool = True,
    allow: str | Iterable[str] = LOOPBACK,
    direct: str | Iterable[str] = (),
    header_timeout: float | None = 15.0,
    max_header: int = 4096,
    v1: bool = True,
    v2: bool = True,
    max_pending: int = 1024,
    on_refused: Callable[[Refusal], object] | None = None,
    limit: int = 2**16,
    ssl: SSLContext | None = None,
    ssl_handshake_timeout: float | None = None,
    ssl_shutdown_timeout: float | None = None,
    **kwds: Any,
) -> asyncio.Server:
    """`asyncio.start_server` for connections that begin with a PROXY protocol header.

    Handlers are those of `asyncio.start_server`. What they ask ``writer.get_extra_info(...)`` for:

    - ``peername``: the client's address, as the header says;
    - ``sockname``: the address that the client connected to, as the header says;
    - ``proxy_header``: the `ProxyHeader`, with the client's mesh ``identity`` and all else in it;
      ``None`` for a connection without header;
    - ``proxy_peername``: the address of the proxy that sent the header, the socket's ``peername``;
    - ``proxy_sockname``: the socket's ``sockname``.

    The first two are the socket's own if the header has no addresses: the proxy's health checks
    (``command`` is ``"local"``), and clients of unknown address. Everything else is as without a
    header.

    Whether a connection has a header is never guessed: its source decides.

    Args:
        client_connected_cb: the handler, a function or coroutine function.
        host: as for `asyncio.start_server`.
        port: as for `asyncio.start_server`.
        proxy_protocol: ``False`` makes this `asyncio.start_server`.
        allow: the networks, such as ``10.0.0.0/8``, or addresses from which connections begin with
            a header. Whoever is in them can claim to be anyone. Unix sockets have no address and
            are always allowed: guard them with file permissions.
        direct: the networks or addresses from which connections come without a header. ``allow``
            goes first. Connections from anywhere else are closed.
        header_timeout: seconds until the whole header must be there; ``None`` for no limit.
        max_header: the longest header accepted, in bytes.
        v1: whether version 1, the line of text, is accepted.
        v2: whether version 2, the binary header, is accepted.
        max_pending: how many connections may be on their way to the handler at a time, header or
            TLS handshake incomplete. More are closed.
        on_refused: called with each connection that was closed before the handler saw it. By
            default they are logged by the logger ``kgw.proxyproto``: as warnings, those that ended
            before their first byte as debug messages.
        limit: as for `asyncio.start_server`.
        ssl: TLS, which begins after the header.
        ssl_handshake_timeout: as for `asyncio.start_server`; seconds.
        ssl_shutdown_timeout: as for `asyncio.start_server`; seconds.
        kwds: more arguments of `loop.create_server`: ``sock``, ``backlog``, ``reuse_port``, ...

    Raises:
        ValueError: ``allow`` or ``direct`` has something that is no network, or a number is out of
            range.
        OSError: the server cannot listen.
    """
    loop = asyncio.get_running_loop()

    def streams() -> asyncio.StreamReaderProtocol:
        reader = asyncio.StreamReader(limit=limit, loop=loop)
        return asyncio.StreamReaderProtocol(reader, client_connected_cb, loop=loop)

    return await create_server(
        streams,
        host,
        port,
        proxy_protocol=proxy_protocol,
        allow=allow,
        direct=direct,
        header_timeout=header_timeout,
        max_header=max_header,
        v1=v1,
        v2=v2,
        max_pending=max_pending,
        on_refused=on_refused,
        ssl=ssl,
        ssl_handshake_timeout=ssl_handshake_timeout,
        ssl_shutdown_timeout=ssl_shutdown_timeout,
        **kwds,
    )


async def create_server(
    protocol_factory: Callable[[], asyncio.BaseProtocol],
    host: str | Sequence[str] | None = None,
    port: int | None = None,
    *,
    proxy_protocol: bool = True,
    allow: str | Iterable[str] = LOOPBACK,
    direct: str | Iterable[str] = (),
    header_timeout: float | None = 15.0,
    max_header: int = 4096,
    v1: bool = True,
    v2: bool = True,
    max_pending: int = 1024,
    on_refused: Callable[[Refusal], object] | None = None,
    ssl: SSLContext | None = None,
    ssl_handshake_timeout: float | None = None,
    ssl_shutdown_timeout: float | None = None,
    **kwds: Any,
) -> asyncio.Server:
    """`loop.create_server` for connections that begin with a PROXY protocol header.

    Serves any protocol of asyncio: that of aiohttp's `aiohttp.web.Server`, for instance. Its
    transport answers ``get_extra_info`` as `start_server` says, where the arguments are described.
    """
    loop = asyncio.get_running_loop()
    if not proxy_protocol:
        return await _listen(
            protocol_factory,
            host,
            port,
            ssl=ssl,
            ssl_handshake_timeout=ssl_handshake_timeout,
            ssl_shutdown_timeout=ssl_shutdown_timeout,
            **kwds,
        )
    if max_pending < 1:
        raise ValueError("max_pending must be at least 1")
    if ssl is None and (ssl_handshake_timeout is not None or ssl_shutdown_timeout is not None):
        raise ValueError("ssl_handshake_timeout and ssl_shutdown_timeout need ssl")
    gate = _Gate(
        loop,
        protocol_factory,
        _networks(allow),
        _networks(direct),
        header_timeout,
        {"max_header": max_header, "v1": v1, "v2": v2},
        max_pending,
        on_refused or _logged,
        ssl,
        {
            "ssl_handshake_timeout": ssl_handshake_timeout,
            "ssl_shutdown_timeout": ssl_shutdown_timeout,
        },
    )
    return await _listen(lambda: _Arrival(gate), host, port, **kwds)


async def _listen(factory: Any, host: Any, port: Any, **kwds: Any) -> asyncio.Server:
    """`loop.create_server`, whose types know no host and port that may each be None."""
    return await asyncio.get_running_loop().create_server(factory, host, port, **kwds)


@dataclass(slots=True, eq=False)
class _Gate:
    """What the connections of a server have in common."""

    loop: asyncio.AbstractEventLoop
    factory: Callable[[], asyncio.BaseProtocol]
    allow: tuple[_Network, ...]
    direct: tuple[_Network, ...]
    timeout: float | None
    options: dict[str, Any]
    max_pending: int
    on_refused: Callable[[Refusal], object]
    ssl: SSLContext | None
    ssl_options: dict[str, Any]
    #: Connections that have not come to their handler.
    pending: int = 0

    def refused(self, refusal: Refusal) -> None:
        """Reports a connection; what the callback raises is for the loop's exception handler."""
        try:
            self.on_refused(refusal)
        except Exception as error:  # it is the application's, and must not end the connection twice
            self.loop.call_exception_handler(
                {"message": "on_refused failed", "exception": error, "refusal": refusal}
            )


class _Arrival(asyncio.BufferedProtocol):
    """A connection until its handler gets it.

    A buffered protocol decides how much is read: exactly what the header still needs.
    """

    def __init__(self, gate: _Gate) -> None:
        self._gate = gate
        self._transport: Any = None
        self._data = bytearray()
        self._chunk = bytearray()
        self._header: ProxyHeader | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._handshake: asyncio.Task[None] | None = None
        #: Whether it counts as pending.
        self._counted = False
        #: Whether it was handed over, or refused.
        self._done = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        gate = self._gate
        self._transport = transport
        source = _source(transport)
        has_header = source is None or _in(source, gate.allow)
        if not has_header and (source is None or not _in(source, gate.direct)):
            self._refuse("proxy_header_not_allowed")
        elif gate.pending >= gate.max_pending:
            self._refuse("proxy_header_pending")
        else:
            gate.pending += 1
            self._counted = True
            if not has_header:
                self._header_read()
                return
            if gate.timeout is not None:
                self._timer = gate.loop.call_later(gate.timeout, self._timed_out)
            self._parse()

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._chunk

    def buffer_updated(self, nbytes: int) -> None:
        if self._done:
            return
        self._data += self._chunk[:nbytes]
        self._parse()

    def eof_received(self) -> bool:
        self._ended()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended()

    def _parse(self) -> None:
        try:
            self._header = parse_proxy_header(bytes(self._data), **self._gate.options)
        except IncompleteProxyHeader as incomplete:
            self._chunk = bytearray(incomplete.need - len(self._data))
        except ProxyProtocolError as error:
            self._refuse("proxy_header_malformed", error)
        else:
            self._header_read()

    def _timed_out(self) -> None:
        self._refuse("proxy_header_timeout")

    def _ended(self) -> None:
        """The peer is gone; during the handshake, that is for the handshake to report."""
        if self._done or self._handshake is not None:
            return
        if self._data:
            error = IncompleteProxyHeader(len(self._data) + len(self._chunk))
            self._refuse("proxy_header_malformed", error)
        else:
            self._refuse("proxy_header_absent")

    def _header_read(self) -> None:
        self._stop_timer()
        if self._gate.ssl is None:
            protocol = self._gate.factory()
            self._transport.set_protocol(protocol)
            self._hand_over(self._transport, protocol)
            return
        self._transport.pause_reading()  # what comes now is for TLS
        self._handshake = self._gate.loop.create_task(self._start_tls())

    async def _start_tls(self) -> None:
        gate, early = self._gate, _Early()
        assert gate.ssl is not None
        tls = None
        error: Exception | None = None
        try:
            if not self._transport.is_closing():
                tls = await gate.loop.start_tls(
                    self._transport, early, gate.ssl, server_side=True, **gate.ssl_options
                )
        except OSError as failed:  # an SSLError is one, and so is a time-out
            error = failed
        finally:
            if tls is None or early.lost:
                self._refuse("downstream_tls_fail", error)
        if tls is None or early.lost:
            return
        try:
            protocol = gate.factory()
            tls.set_protocol(protocol)
            self._hand_over(tls, protocol)
            early.replay(protocol)
        except BaseException:
            tls.abort()  # as the loop does when a protocol's callback fails
            raise

    def _hand_over(self, transport: Any, protocol: asyncio.BaseProtocol) -> None:
        self._settle()
        protocol.connection_made(_ClientTransport(transport, self._header))

    def _refuse(self, reason: Reason, error: Exception | None = None) -> None:
        if self._done:
            return
        self._settle()
        peer = self._transport.get_extra_info("peername")
        self._transport.abort()
        self._gate.refused(Refusal(reason, peer, error))

    def _settle(self) -> None:
        self._done = True
        self._stop_timer()
        if self._counted:
            self._counted = False
            self._gate.pending -= 1

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Early(asyncio.Protocol):
    """Keeps what arrives between the end of the handshake and the handler: one turn of the loop."""

    def __init__(self) -> None:
        self.lost = False
        self._data: list[bytes] = []
        self._eof = False

    def data_received(self, data: bytes) -> None:
        self._data.append(data)

    def eof_received(self) -> bool:
        self._eof = True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True

    def replay(self, protocol: asyncio.BaseProtocol) -> None:
        """Gives a protocol what was kept."""
        if isinstance(protocol, asyncio.BufferedProtocol):
            for data in self._data:
                rest = memoryview(data)
                while rest:
                    buffer = memoryview(protocol.get_buffer(len(rest))).cast("B")
                    taken = min(len(buffer), len(rest))
                    buffer[:taken] = rest[:taken]
                    protocol.buffer_updated(taken)
                    rest = rest[taken:]
        elif isinstance(protocol, asyncio.Protocol):
            for data in self._data:
                protocol.data_received(data)
        if self._eof and isinstance(protocol, asyncio.Protocol | asyncio.BufferedProtocol):
            protocol.eof_received()


class _ClientTransport(asyncio.Transport):
    """A connection's transport, with the client's addresses.

    Everything else is the transport's own: also what event loops look for by other names, as for
    `loop.sendfile` and `loop.start_tls`.
    """

    def __init__(self, transport: Any, header: ProxyHeader | None) -> None:
        super().__init__()
        self._transport = transport
        own = transport.get_extra_info
        peer, local = own("peername"), own("sockname")
        self._extra = {
            "peername": peer,
            "sockname": local,
            "proxy_peername": peer,
            "proxy_sockname": local,
            "proxy_header": header,
        }
        if header is not None and header.source is not None and header.destination is not None:
            self._extra["peername"] = _sockaddr(header.source)
            self._extra["sockname"] = _sockaddr(header.destination)
        elif header is not None and header.unix is not None:
            self._extra["peername"], self._extra["sockname"] = map(os.fsdecode, header.unix)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name in self._extra:
            found = self._extra[name]
            return default if found is None else found
        return self._transport.get_extra_info(name, default)

    def is_closing(self) -> bool:
        return bool(self._transport.is_closing())

    def close(self) -> None:
        self._transport.close()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._transport.set_protocol(protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        found: asyncio.BaseProtocol = self._transport.get_protocol()
        return found

    def is_reading(self) -> bool:
        return bool(self._transport.is_reading())

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._transport.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        return int(self._transport.get_write_buffer_size())

    def get_write_buffer_limits(self) -> tuple[int, int]:
        low, high = self._transport.get_write_buffer_limits()
        return low, high

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self._transport.write(data)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview[Any]]) -> None:
        self._transport.writelines(list_of_data)

    def write_eof(self) -> None:
        self._transport.write_eof()

    def can_write_eof(self) -> bool:
        return bool(self._transport.can_write_eof())

    def abort(self) -> None:
        self._transport.abort()


def _networks(given: str | Iterable[str]) -> tuple[_Network, ...]:
    return tuple(map(ipaddress.ip_network, [given] if isinstance(given, str) else given))


def _source(
    transport: asyncio.BaseTransport,
) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address of a connection's peer; none for Unix sockets."""
    own: socket.socket | None = transport.get_extra_info("socket")
    if own is not None and own.family == socket.AF_UNIX:
        return None
    peer = transport.get_extra_info("peername")
    # Gone before it was accepted: no address, and no network has this one.
    address = ipaddress.ip_address(peer[0].partition("%")[0] if peer else "::")
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _in(address: _Address, networks: tuple[_Network, ...]) -> bool:
    return any(address in network for network in networks)


def _sockaddr(address: tuple[str, int]) -> tuple[Any, ...]:
    """An address as sockets of its family have it."""
    return (*address, 0, 0) if ":" in address[0] else address


def _shown(peer: Any) -> str:
    if not isinstance(peer, tuple):
        return str(peer or "a Unix socket")
    host, port = peer[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _logged(refusal: Refusal) -> None:
    absent = refusal.reason == "proxy_header_absent"
    _log.log(logging.DEBUG if absent else logging.WARNING, "%s", refusal)
