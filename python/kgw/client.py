"""httpx clients whose requests go through a proxy of this process, without a port.

    async with httpx.AsyncClient(transport=kgw.httpx_transport("manifests/")) as client:
        await client.get("http://api.example/")

The client speaks HTTP/1.1 on a socket pair to the proxy's worker. So every policy that holds for a
client from outside holds here: it is the same listener, the same routes, the same code.
"""

from __future__ import annotations

import contextlib
import functools
import ssl
import threading
from typing import TYPE_CHECKING, Any, NoReturn

from kgw.errors import KgwError
from kgw.proxy import BlockingProxy, Proxy, State
from kgw.sockets import Stream

try:
    import anyio
    import httpcore
    import httpx
except ImportError as _error:
    raise ImportError(
        "kgw.httpx_transport needs httpx (the extra 'httpx'): pip install httpx", name=_error.name
    ) from None

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator
    from types import TracebackType
    from typing import Self

    from kgw.proxy import Configuration

__all__ = ["GatewayTransport", "httpx_transport"]


def httpx_transport(
    config: Configuration | Proxy | BlockingProxy,
    *,
    listener: str | None = None,
    limits: httpx.Limits | None = None,
    **options: Any,
) -> GatewayTransport:
    """Returns a transport for `httpx.AsyncClient` or `httpx.Client`: requests go through a proxy.

    The proxy runs in this process, none of its listeners is bound, and no port is needed. What the
    configuration says about routes, hosts, time-outs, limits, headers and logs holds for each
    request; what has no route is answered 404 by the proxy and goes nowhere.

    Args:
        config: what the proxy is to serve, in any form that `kgw.Proxy` takes; or a proxy. One that
            runs already is used and left running; one that was not started runs as long as the
            client.
        listener: the listener that requests go to, ``namespace/gateway/listener``. By default the
            only one; where there are several, the one for the URL's scheme and port.
        limits: of the client's connections to the proxy; httpx's by default.
        options: more arguments for `kgw.Proxy`, unless *config* is a proxy. One worker by default.

    Raises:
        ImportError: httpx is not there.
        TypeError: *options* beside a proxy.
    """
    if isinstance(config, Proxy | BlockingProxy):
        if options:
            raise TypeError(f"a proxy has its options already: {', '.join(options)}")
        return GatewayTransport(config, listener, limits)
    proxy = Proxy(config, **{"listen": False, "workers": 1, **options})
    return GatewayTransport(proxy, listener, limits)


class GatewayTransport(httpx.AsyncBaseTransport, httpx.BaseTransport):
    """Sends requests through a proxy of this process; see `httpx_transport`.

    It serves one client, of either kind, from its first request to its end.
    """

    def __init__(
        self,
        proxy: Proxy | BlockingProxy,
        listener: str | None = None,
        limits: httpx.Limits | None = None,
    ) -> None:
        self._proxy = proxy
        self._listener = listener
        self._owned = isinstance(proxy, Proxy) and proxy.state is State.NEW
        self._started = False
        self._lock = threading.Lock()
        self._async_lock: anyio.Lock | None = None
        limits = limits or httpx.Limits(max_connections=100, max_keepalive_connections=20)
        self._limits: dict[str, Any] = {
            "max_connections": limits.max_connections,
            "max_keepalive_connections": limits.max_keepalive_connections,
            "keepalive_expiry": limits.keepalive_expiry,
            # Never used, since there is no TLS to the proxy; the default one takes long to make.
            "ssl_context": ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        }
        self._pool: httpcore.ConnectionPool | None = None
        self._async_pool: httpcore.AsyncConnectionPool | None = None

    @property
    def proxy(self) -> Proxy | BlockingProxy:
        """The proxy that requests go through: its counters, its configuration."""
        return self._proxy

    # === asyncio and trio ===

    async def __aenter__(self) -> Self:
        """Starts the proxy, unless it runs."""
        await self._start_async()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        """Ends the proxy, if the transport has started it."""
        await self.aclose()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Sends a request, and returns the answer's head with the body to come."""
        pool = await self._start_async()
        with _httpx_errors():
            answer = await pool.handle_async_request(_core_request(request))
        return httpx.Response(
            answer.status,
            headers=answer.headers,
            stream=_AsyncBody(answer),
            extensions=answer.extensions,
        )

    async def aclose(self) -> None:
        """Closes the connections, and the proxy if the transport has started it."""
        pool, self._async_pool = self._async_pool, None
        if pool is not None:
            await pool.aclose()
        if self._started and isinstance(self._proxy, Proxy):
            self._started = False
            await self._proxy.__aexit__(None, None, None)

    async def _start_async(self) -> httpcore.AsyncConnectionPool:
        if self._async_pool is not None:
            return self._async_pool
        if self._async_lock is None:
            self._async_lock = anyio.Lock()
        async with self._async_lock:
            if self._async_pool is None:
                if self._owned and not self._started:
                    assert isinstance(self._proxy, Proxy)
                    await self._proxy.__aenter__()
                    self._started = True
                self._async_pool = httpcore.AsyncConnectionPool(
                    network_backend=_AsyncNetwork(self._dial), **self._limits
                )
        return self._async_pool

    # === threads ===

    def __enter__(self) -> Self:
        """Starts the proxy, unless it runs."""
        self._start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        """Ends the proxy, if the transport has started it."""
        self.close()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Sends a request, and returns the answer's head with the body to come."""
        pool = self._start()
        with _httpx_errors():
            answer = pool.handle_request(_core_request(request))
        return httpx.Response(
            answer.status,
            headers=answer.headers,
            stream=_Body(answer),
            extensions=answer.extensions,
        )

    def close(self) -> None:
        """Closes the connections, and the proxy if the transport has started it."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()
        if self._started and isinstance(self._proxy, Proxy):
            self._started = False
            self._proxy.__exit__(None, None, None)

    def _start(self) -> httpcore.ConnectionPool:
        with self._lock:
            if self._pool is None:
                if self._owned and not self._started:
                    assert isinstance(self._proxy, Proxy)
                    self._proxy.__enter__()
                    self._started = True
                self._pool = httpcore.ConnectionPool(
                    network_backend=_Network(self._dial), **self._limits
                )
            return self._pool

    def _dial(self, host: str, port: int, *, secure: bool) -> socket.socket:
        """Connects to the proxy. Raises `httpcore.ConnectError`."""
        try:
            return self._proxy.connect(
                self._listener, local=("127.0.0.1", port), secure=secure, server_name=host
            )
        except (KgwError, LookupError, OSError) as error:
            raise httpcore.ConnectError(str(error)) from error


# === Bodies and errors, as httpx has them ===


class _Body(httpx.SyncByteStream):
    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        with _httpx_errors():
            yield from self._answer.iter_stream()

    def close(self) -> None:
        self._answer.close()


class _AsyncBody(httpx.AsyncByteStream):
    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _httpx_errors():
            async for part in self._answer.aiter_stream():
                yield part

    async def aclose(self) -> None:
        await self._answer.aclose()


def _core_request(request: httpx.Request) -> httpcore.Request:
    url = request.url
    return httpcore.Request(
        method=request.method,
        url=httpcore.URL(
            scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
        ),
        headers=request.headers.raw,
        content=request.stream,
        extensions=request.extensions,
    )


@contextlib.contextmanager
def _httpx_errors() -> Iterator[None]:
    """Raises httpx's exceptions in place of httpcore's, which have the same names."""
    try:
        yield
    except Exception as error:
        for kind in type(error).__mro__:
            if kind.__module__.partition(".")[0] == "httpcore":
                own = getattr(httpx, kind.__name__, None)
                if own is not None:
                    raise own(str(error)) from error
        raise


# === Connections ===


def _refuse_paths() -> NoReturn:
    raise httpcore.UnsupportedProtocol("requests go through the proxy, to no other socket")


class _Network(httpcore.NetworkBackend):
    """Makes connections to the proxy, for threads."""

    def __init__(self, dial: Callable[..., socket.socket]) -> None:
        self._dial = dial

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        return _Connection(functools.partial(self._dial, host, port))

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.NetworkStream:
        _refuse_paths()


class _AsyncNetwork(httpcore.AsyncNetworkBackend):
    """Makes connections to the proxy, in an event loop."""

    def __init__(self, dial: Callable[..., socket.socket]) -> None:
        self._dial = dial

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        return _AsyncConnection(functools.partial(self._dial, host, port))

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.AsyncNetworkStream:
        _refuse_paths()

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)


# ruff: noqa: ASYNC109 - time-outs are arguments where httpcore has them


class _Lazy:
    """A connection that is made when it is known whether its requests are ``https``.

    There is no TLS on it: the bytes do not leave the process. What TLS would say is told instead.
    """

    def __init__(self, dial: Callable[..., socket.socket]) -> None:
        self._dial = dial
        self._secure = False
        self._connected: socket.socket | None = None

    @property
    def connected(self) -> socket.socket:
        if self._connected is None:
            self._connected = self._dial(secure=self._secure)
        return self._connected

    def shut(self) -> None:
        connected, self._connected = self._connected, None
        if connected is not None:
            connected.close()

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":
            return self._connected is not None and not Stream(self._connected).is_quiet()
        return self._connected if info == "socket" else None


class _Connection(_Lazy, httpcore.NetworkStream):
    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        connected = self.connected
        try:
            connected.settimeout(timeout)
            return connected.recv(max_bytes)
        except TimeoutError as error:
            raise httpcore.ReadTimeout(str(error)) from error
        except OSError as error:
            raise httpcore.ReadError(str(error)) from error
        finally:
            connected.setblocking(False)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        connected = self.connected
        try:
            connected.settimeout(timeout)
            connected.sendall(buffer)
        except TimeoutError as error:
            raise httpcore.WriteTimeout(str(error)) from error
        except OSError as error:
            raise httpcore.WriteError(str(error)) from error
        finally:
            connected.setblocking(False)

    def close(self) -> None:
        self.shut()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        self._secure = True
        return self


class _AsyncConnection(_Lazy, httpcore.AsyncNetworkStream):
    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        stream = Stream(self.connected)
        try:
            with anyio.fail_after(timeout):
                return await stream.receive(max_bytes)
        except TimeoutError as error:
            raise httpcore.ReadTimeout("the proxy did not answer in time") from error
        except OSError as error:
            raise httpcore.ReadError(str(error)) from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        stream = Stream(self.connected)
        try:
            with anyio.fail_after(timeout):
                await stream.send(buffer)
        except TimeoutError as error:
            raise httpcore.WriteTimeout("the proxy took no more in time") from error
        except OSError as error:
            raise httpcore.WriteError(str(error)) from error

    async def aclose(self) -> None:
        self.shut()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        self._secure = True
        return self
