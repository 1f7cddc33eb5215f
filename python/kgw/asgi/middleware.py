"""A gateway in front of an ASGI application.

Each request goes through the data plane and comes back to the application by it::

    server ─▶ GatewayMiddleware ─▶ data plane ─▶ kgw.asgi.serve ─▶ application
              (exchange, a pool)   (all policy)  (with the scope that the request came with)

Rule 1: what the data plane answers by itself (404, 429, a redirect) never reaches the application.
Rule 2: a client that leaves takes its exchange with it, all the way to the application.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from kgw import inprocess
from kgw.asgi import exchange
from kgw.asgi.backend import Backend
from kgw.asgi.lifespan import log
from kgw.asgi.pool import Pool
from kgw.asgi.scopes import Scopes
from kgw.errors import ConfigError, KgwError
from kgw.proxy import Proxy

if TYPE_CHECKING:
    from kgw.asgi.types import App, Message, Receive, Scope, Send
    from kgw.config import Config
    from kgw.proxy import Configuration

__all__ = ["GatewayMiddleware"]


class GatewayMiddleware:
    """Applies a configuration to what an ASGI application is asked, and to what it answers.

    Routes, limits, header edits, redirects, rewrites, direct responses, time-outs and access logs
    are those of the configuration. No port is bound. It starts with the server's lifespan, or,
    where the server has none, with the first request.

    Args:
        app: the application.
        config: what the gateway serves, in any form that `kgw.Proxy` takes; or a proxy that was not
            started, for its other arguments and its filters. It runs once then.
        backend: the Service port that the application is, ``namespace/service:port``. By default
            the
            only one that routes lead to. Others are reached over the network.
        listener: the listener that requests come to, ``namespace/gateway/listener``. By default the
            only one; where there are several, the one for the request's scheme and port.
        max_concurrency: calls of the application that run at once. See `Backend`.
        disconnect_grace: seconds that a call may go on after its client left. See `Backend`.
    """

    def __init__(
        self,
        app: App,
        config: Configuration | Proxy,
        *,
        backend: str | None = None,
        listener: str | None = None,
        max_concurrency: int = 1_000,
        disconnect_grace: float | None = 5.0,
    ) -> None:
        self.app = app
        self._config = config
        self._name = backend and inprocess.checked(backend)
        self._listener = listener
        # Its lifespan is the server's, which passes through.
        self._backend = Backend(
            app,
            max_concurrency=max_concurrency,
            disconnect_grace=disconnect_grace,
            lifespan=False,
        )
        self._gateway: _Gateway | None = None
        self._starting: tuple[object, anyio.Lock] | None = None
        # What is wrong with the arguments is known now, and not at the first request.
        _proxy(config)

    @property
    def proxy(self) -> Proxy | None:
        """The proxy that requests go through, once it runs: its counters, its configuration."""
        return None if self._gateway is None else self._gateway.proxy

    async def apply(self, config: Configuration) -> Config:
        """Serves another configuration from now on. See `kgw.Proxy.apply`."""
        gateway = await self._running()
        applied = await gateway.proxy.apply(config)
        if not isinstance(self._config, Proxy):
            self._config = applied
        return applied

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves a request, a WebSocket, or the server's lifespan."""
        match scope["type"]:
            case "http":
                gateway = await self._running()
                await exchange.serve(gateway.pool, gateway.scopes, scope, receive, send)
            case "websocket":
                from kgw.asgi import tunnel

                gateway = await self._running()
                await tunnel.serve(gateway.pool, gateway.scopes, scope, receive, send)
            case "lifespan":
                await self._live(scope, receive, send)
            case other:
                raise RuntimeError(f"{other!r} is no scope that kgw.asgi knows")

    async def aclose(self) -> None:
        """Ends the gateway, where no lifespan does."""
        gateway, self._gateway = self._gateway, None
        if gateway is None:
            return
        if gateway.loop is _loop():
            await gateway.aclose()
        else:
            gateway.proxy.kill()

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        first: Message | None = await receive()
        try:
            await self._running()
        except (KgwError, OSError) as error:
            log.error("the gateway did not start: %s", error)
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        is_answered = False

        async def replayed() -> Message:
            nonlocal first
            message, first = first, None
            return await receive() if message is None else message

        async def noted(message: Message) -> None:
            nonlocal is_answered
            is_answered = True
            await send(message)

        try:
            try:
                await self.app(scope, replayed, noted)
            except Exception as error:
                if is_answered:
                    raise
                # What ASGI says of an application that has no lifespan: it raises.
                log.debug("the application has no lifespan: %r", error)
            if not is_answered:
                await send({"type": "lifespan.startup.complete"})
                await receive()
                await self.aclose()
                await send({"type": "lifespan.shutdown.complete"})
        finally:
            with anyio.CancelScope(shield=True):
                await self.aclose()

    async def _running(self) -> _Gateway:
        """Returns the gateway of this event loop, which is started if it does not run."""
        gateway, loop = self._gateway, _loop()
        if gateway is not None and gateway.loop is loop:
            return gateway
        if self._starting is None or self._starting[0] is not loop:
            self._starting = (loop, anyio.Lock())
        async with self._starting[1]:
            gateway = self._gateway
            if gateway is not None and gateway.loop is loop:
                return gateway
            if gateway is not None:
                gateway.proxy.kill()  # its loop is over
            gateway = _Gateway(loop, _proxy(self._config), self._listener)
            await gateway.start(self._name, self._backend)
            self._gateway = gateway
            return gateway


class _Gateway:
    """A running proxy whose backend is the application, and connections to it."""

    def __init__(self, loop: object, proxy: Proxy, listener: str | None) -> None:
        self.loop = loop
        self.proxy = proxy
        self.pool = Pool(proxy, listener)
        # A loop that ends leaves nothing open, whoever forgot to end the gateway.
        self.scopes = Scopes(self.pool.close)

    async def start(self, name: str | None, backend: Backend) -> None:
        core = self.proxy._core
        core.config = config = await anyio.to_thread.run_sync(core.usable, core.config)
        core.backends[name or _only(config)] = backend
        core.scopes = self.scopes
        await self.proxy.__aenter__()

    async def aclose(self) -> None:
        self.pool.close()
        await self.proxy.__aexit__(None, None, None)


def _proxy(config: Configuration | Proxy) -> Proxy:
    """The proxy for a configuration, or the one that was given."""
    return config if isinstance(config, Proxy) else Proxy(config, listen=False, workers=1)


def _only(config: Config) -> str:
    """The one backend that routes lead to. Raises `ConfigError`."""
    found = {inprocess.backend_of(ident) for ident in config.translation.clusters} - {None}
    if len(found) != 1:
        known = ", ".join(sorted(filter(None, found))) or "none"
        raise ConfigError(f"which backend the application is must be said; routes lead to {known}")
    (name,) = found
    assert name is not None
    return name


def _loop() -> object:
    if "trio" in sys.modules:
        import trio

        if trio.lowlevel.in_trio_run():
            return trio.lowlevel.current_trio_token()
    return asyncio.get_running_loop()
