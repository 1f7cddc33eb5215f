"""A whole proxy inside a Python program.

    async with kgw.Proxy("manifests/") as proxy:
        await proxy.apply("manifests/")

The states, and what moves between them; anything else raises `NotRunning`::

    New ──start──▶ Running ──drain──▶ Draining ──(all connections ended, or time is up)──▶ Closed
     └───────────────(start failed)────────────────────────────────────────────────────────▲

Rule 1: the data plane runs on threads of its own; an event loop is never blocked by it, and it is
never blocked by an event loop. Every native call that may wait runs in a worker thread.
Rule 2: no signal handler is installed; `kgw run` does that, an embedding program decides itself.
Rule 3: threads do not survive `fork`, so in a forked child every proxy of the parent is dead.
Rule 4: what still runs when the interpreter exits is closed.

Nothing here imports anyio before an event loop is there: without one it is not needed, and it takes
a third of the time to the first answer of ``kgw run``.
"""

from __future__ import annotations

import atexit
import enum
import functools
import json
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast, overload

from kgw import inprocess
from kgw._native import engine as native
from kgw.api import Resource
from kgw.binding import has_ipv6, rebind, without_ipv6
from kgw.config import Config, Session
from kgw.errors import BindError, ConfigError, FilterError, NotRunning
from kgw.filters import MAX_BYTES, MAX_CALLS, Filters
from kgw.filters import TIMEOUT as FILTER_TIMEOUT
from kgw.listening import ListeningSocket, checked
from kgw.source import Files
from kgw.translate import VERSION, AddressPool, Options, PolicyOptions, Translation
from kgw.translate.delta import difference

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self, TypeAlias

    from kgw._native.bridge import Bridge
    from kgw.asgi.hosting import ThreadHost
    from kgw.asgi.scopes import Scopes
    from kgw.diagnostics import Finding
    from kgw.events import Event, EventFeed, EventHub
    from kgw.filterloops import FilterLoop, ThreadLoop
    from kgw.filters import Needs, OnError, When
    from kgw.stats import Stats
    from kgw.streams import AccessRecord, BlockingStream, Feed, Stream

    Configuration: TypeAlias = (
        Config
        | str
        | os.PathLike[str]
        | Mapping[str, Any]
        | Resource
        | Iterable[str | os.PathLike[str]]
        | Iterable[Mapping[str, Any] | Resource]
    )
    Addresses: TypeAlias = dict[str, list[tuple[str, int]]]
    Listeners: TypeAlias = list[dict[str, Any]]

_T = TypeVar("_T")
_F = TypeVar("_F")

__all__ = ["BlockingProxy", "ManualClock", "Proxy", "State"]

DRAIN_TIMEOUT = 5.0
"""Seconds that requests in flight get when a ``with`` block ends."""

ACCESS_LOG_BUFFER = 1024 * 1024
"""Bytes of access log records that may wait for one reader, for each worker."""

_APPLY_TIMEOUT = 30.0
"""Seconds for every worker to take a generation; each does so within its next loop turn."""

_FIRST = 1
"""The generation that an engine starts with."""

_END = 2**64 - 1
"""What a worker that has ended says that it runs."""

_FEW = 100
"""Routes: of fewer than these a change may change any number."""

EVENT_INTERVAL = 2.0
"""Seconds between two looks at the counters for those who read events."""

_NO_BACKENDS: Mapping[str, Any] = {}

_POLL = 0.25
"""Seconds that a worker thread waits at most before it looks whether its task was cancelled."""


_LAST_WAIT = 2.0
"""Seconds that filters and backends have to end with the interpreter: one may block its loop."""


class State(enum.Enum):
    """Where a proxy is in its life."""

    NEW = "new"
    """Not started: nothing is bound."""
    RUNNING = "running"
    """Serving."""
    DRAINING = "draining"
    """About to end: not ready for more; requests in flight are finished."""
    CLOSED = "closed"
    """Everything ended. A closed proxy is not started again."""


class ManualClock:
    """A clock that stands still until `advance` moves it, for tests.

    Time-outs, rate limits and health checks of the proxies that were given it follow it.
    """

    def __init__(self) -> None:
        self._engines: list[native.Engine] = []

    def advance(self, seconds: float) -> None:
        """Moves the clock of every running proxy that has it forward by *seconds*."""
        for engine in self._engines:
            engine.advance(seconds)

    def next_deadline(self) -> float | None:
        """Returns the seconds to the first deadline that a proxy waits for, if any does.

        Whatever waits may end before, so an advance by this can change nothing.
        """
        left = (engine.next_deadline() for engine in self._engines)
        return min((one for one in left if one is not None), default=None)

    def settle(self, timeout: float) -> bool:
        """Waits until the proxies did what follows from the time and from what they received.

        The time as it is when this is called, and what their sockets have received by then, count.

        Args:
            timeout: real seconds to wait at most for each.

        Returns:
            Whether they have.
        """
        return all(engine.settle(timeout) for engine in self._engines)


class _Core:
    """What both faces share: the engine, the state, and the blocking calls."""

    def __init__(
        self,
        config: Configuration,
        *,
        workers: int | None,
        clock: ManualClock | None,
        bind: str | Iterable[str],
        address_pool: str | None,
        policies: PolicyOptions | None,
        sockets: Iterable[socket.socket | ListeningSocket],
        max_connections: int | None,
        max_memory: int | None,
        max_filter_calls: int,
        max_filter_bytes: int,
        strict: bool,
        listen: bool,
        backends: Mapping[str, Any],
    ) -> None:
        _check_type(config)
        if isinstance(config, Config) and (address_pool is not None or policies is not None):
            raise ValueError(_OWN_OPTIONS)
        limits = {
            "workers": workers,
            "max_connections": max_connections,
            "max_memory": max_memory,
            "max_filter_calls": max_filter_calls,
            "max_filter_bytes": max_filter_bytes,
        }
        for name, limit in limits.items():
            if limit is None:
                continue
            if not isinstance(limit, int):
                raise TypeError(f"{name} must be a whole number, not {limit!r}")
            if limit < 1:
                raise ValueError(f"{name} must be at least 1, not {limit}")
        self.config = config
        self.state: State = State.NEW
        # Has something once the proxy is closed. An Event would not do: a thread interrupted
        # while it waits for one can leave that locked, and `set` would never return.
        self._closed: SimpleQueue[None] = SimpleQueue()
        self._workers = workers
        self._clock = clock
        self._bindings = [bind] if isinstance(bind, str) else list(bind)
        if self._bindings and not listen:
            raise ValueError("with listen=False nothing is bound, so bind= has no meaning")
        self._listen = listen
        self.backends: dict[str, Any] = {
            inprocess.checked(name): app for name, app in backends.items()
        }
        #: What serves the backends; made before the start.
        self.host: inprocess.Host | None = None
        #: Whose scopes the requests of the backends have, if they are a middleware's.
        self.scopes: Scopes | None = None
        self._sockets = [checked(one) for one in sockets]
        self._max_connections = max_connections
        self._max_memory = max_memory
        self._strict = strict
        self.filters: Filters = Filters(max_filter_calls, max_filter_bytes)
        self._events: EventHub | None = None  # made for the first reader
        self._bridge: Bridge | None = None
        self._engine: native.Engine | None = None
        self._owner: int | None = None
        self._abandoned = False
        self._killed = False
        # One configuration at a time is read, by what remembers the last one.
        self._reading = threading.Lock()
        self._source = _Source(address_pool, policies)
        #: What the engine runs: a change is sent as what it changes of this.
        self._live: _Live | None = None
        # Held only for the switch of state itself, never across a wait. Reentrant, since a signal
        # handler may kill the proxy at any time.
        self._lock = threading.RLock()
        # One configuration at a time: the last call of apply() is what serves in the end.
        self._apply_lock = threading.Lock()

    @property
    def forked(self) -> bool:
        """Whether this is a child of the process that started the proxy."""
        return self._owner is not None and self._owner != os.getpid()

    @property
    def seen_state(self) -> State:
        """The state as this process sees it."""
        return State.CLOSED if self.forked else self.state

    def check_process(self) -> None:
        """Raises `NotRunning` in a forked child, where no lock may be waited for."""
        if self.forked:
            raise NotRunning("the proxy belongs to the parent process: threads do not survive fork")

    def running(self, *states: State) -> native.Engine:
        """Returns the engine if the proxy is in one of *states*, else raises `NotRunning`."""
        self.check_process()
        if self.state not in states or self._engine is None:
            raise NotRunning(_WHY[self.state])
        return self._engine

    def claim(self) -> None:
        """Reserves the one start that a proxy has."""
        self.check_process()
        with self._lock:
            if self.state is not State.NEW:
                raise NotRunning(f"a proxy is started once: this one is {self.state.value}")
            self._owner = os.getpid()
            self.state = State.RUNNING

    def bridge(self) -> Bridge | None:
        """Makes the way to the filters, if there are any; what calls them is to be ready then."""
        if self.filters and self._bridge is None:
            self._bridge = self.filters.bridge()
        return self._bridge

    def start(self) -> None:
        """Starts a claimed proxy."""
        try:
            config = self.usable(self.config)
            listeners = self._bound(config)
            if self.backends:
                inprocess.check_reached(config.translation.clusters, self.backends)
            engine = native.Engine(
                workers=self._workers,
                manual_clock=self._clock is not None,
                max_connections=self._max_connections,
                max_memory=self._max_memory,
                bridge=self._bridge,
                backends=self.host.doorbells() if self.host else (),
            )
            whole = self._whole(config, listeners)
            with _signals_held():
                engine.start(whole, self._sockets)
        except BaseException as error:
            self._tell_failure(error)
            for one in self._sockets:
                one.socket.close()
            self._ended()
            raise
        with self._lock:
            self.config = config
            self._live = _Live(_FIRST, config.translation, listeners)
            self._engine = engine
            if self._clock is not None:
                self._clock._engines.append(engine)
            _RUNNING.add(self)
        self._tell_applied(_FIRST, config, {})
        if self._abandoned:
            self.kill()

    def apply(self, config: Configuration, timeout: float = _APPLY_TIMEOUT) -> Config:
        self.running(State.RUNNING)
        try:
            usable = self.usable(config)
            listeners = self._bound(usable)
            with self._apply_lock:
                engine = self.running(State.RUNNING)
                before = engine.addresses() if self._events else {}
                generation = self._send(engine, usable, listeners)
                self._live = _Live(generation, usable.translation, listeners)
                if not engine.wait_applied(generation, timeout):
                    raise TimeoutError(f"generation {generation} is not on every worker yet")
                self.config = usable
                self._tell_applied(generation, usable, before)
        except Exception as error:
            self._tell_failure(error)
            raise
        return usable

    def addresses(self) -> Addresses:
        return self.running(State.RUNNING, State.DRAINING).addresses()

    def connect(
        self,
        listener: str | None,
        peer: tuple[str, int] | None,
        local: tuple[str, int] | None,
        secure: bool,
        server_name: str | None,
    ) -> socket.socket:
        engine = self.running(State.RUNNING)
        if listener is None:
            live = self._live
            known = live.translation.listeners if live else ()
            port = local[1] if local else None
            listener = inprocess.choose(known, secure=secure, port=port)
        descriptor = engine.connect(
            listener, peer=peer, local=local, secure=secure, server_name=server_name
        )
        return socket.socket(fileno=descriptor)

    def stats(self) -> Stats:
        counters = json.loads(self.running(State.RUNNING, State.DRAINING).stats())
        return cast("Stats", counters)

    def access_log(self, fields: Mapping[str, Any] | None, buffer: int) -> Feed[Any]:
        from kgw.streams import DEFAULT_FIELDS, TapFeed

        if buffer < 1:
            raise ValueError(f"buffer must be at least 1, not {buffer}")
        format = json.dumps(DEFAULT_FIELDS if fields is None else dict(fields))
        return TapFeed(self.running(State.RUNNING, State.DRAINING).tap(format, buffer))

    def event_feed(self, interval: float) -> EventFeed:
        self.check_process()
        from kgw.events import EventHub

        with self._lock:
            if self.state is State.CLOSED:
                raise NotRunning(_WHY[State.CLOSED])
            if self._events is None:
                self._events = EventHub()
        return self._events.open(interval, self._stats_if_any)

    def _stats_if_any(self) -> Stats | None:
        try:
            return self.stats()
        except NotRunning:
            return None

    def problems(self) -> tuple[str, ...]:
        return tuple(self.running(State.RUNNING, State.DRAINING).problems())

    def reopen_logs(self) -> None:
        self.running(State.RUNNING, State.DRAINING).reopen_logs()

    def listening_sockets(self) -> list[ListeningSocket]:
        return [
            ListeningSocket(listener, socket.socket(fileno=descriptor))
            for listener, descriptor in self.running(State.RUNNING).listening_sockets()
        ]

    def drain(self, max: float, min: float = 0.0) -> bool:
        """Drains and waits for the end; returns whether nothing had to be cut off."""
        if not 0 <= min <= max:
            raise ValueError(f"min must be between 0 and max ({max}), not {min}")
        self.check_process()
        with self._lock:
            engine = self.running(State.RUNNING)
            self.state = State.DRAINING
        finished = False
        try:
            self._tell_drain(max, min)
            engine.drain(min)
            self._wait_ended(engine, max)
            finished = engine.join(0) and not self._killed
        except NotRunning:
            pass  # killed meanwhile
        finally:
            engine.join(0)  # also if a signal handler raised something
            self._ended(finished)
        return finished

    def _wait_ended(self, engine: native.Engine, timeout: float) -> None:
        """Waits until every worker has ended, and lets signal handlers run meanwhile."""
        deadline = time.monotonic() + timeout
        while not engine.wait_applied(_END, max(0.0, min(_POLL, deadline - time.monotonic()))):
            if time.monotonic() >= deadline:
                return

    def abandon(self) -> None:
        """Closes a proxy that nobody waits for any more, also one that is still starting."""
        if self.forked:
            return
        with self._lock:
            self._abandoned = True
        self.kill()

    def kill(self) -> None:
        """Ends everything now, from whatever state; a drain under way returns early."""
        if self.forked:
            return
        with self._lock:
            engine = self._engine
            if engine is None or self.state is State.CLOSED:
                return
            self._killed = True
            self.state = State.DRAINING
        engine.join(0)
        self._ended()

    def wait_closed(self, timeout: float | None) -> bool:
        self.check_process()
        if self.state is State.NEW:
            raise NotRunning(_WHY[State.NEW])
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while self.state is not State.CLOSED:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            with suppress(Empty):  # at the end of a slice, or another thread was quicker
                self._closed.get(timeout=min(left, _POLL))
        self._closed.put(None)  # for the next one
        return True

    # === Events ===

    def _tell_applied(self, generation: int, config: Config, before: Addresses) -> None:
        """Says that a generation is live, after what it changed of the *before* bound addresses."""
        if not self._events:
            return
        from kgw.events import ConfigApplied, ListenerBound, ListenerClosed

        emit = self._events.emit
        with suppress(NotRunning):  # it may be over already
            engine = self.running(State.RUNNING, State.DRAINING)
            gone, bound = _pairs(before), _pairs(engine.addresses())
            for listener, host, port in sorted(gone - bound):
                emit(ListenerClosed(listener, host, port))
            for listener, host, port in sorted(bound - gone):
                emit(ListenerBound(listener, host, port))
            problems = tuple(engine.problems())
            emit(ConfigApplied(generation, tuple(config.findings), problems))

    def _tell_failure(self, error: BaseException) -> None:
        if not self._events or isinstance(error, NotRunning) or not isinstance(error, Exception):
            return
        from kgw.events import ApplyFailed, ListenerFailed

        if isinstance(error, BindError):
            self._events.emit(ListenerFailed(error.listener, error.address, error))
        self._events.emit(ApplyFailed(error))

    def _tell_drain(self, max: float, min: float) -> None:
        """Says that the end begins, after what is left to be said about what was before."""
        if not self._events:
            return
        from kgw.events import DrainBegun

        if (stats := self._stats_if_any()) is not None:
            self._events.look(stats)
        self._events.emit(DrainBegun(max, min))

    def usable(self, config: Configuration) -> Config:
        """Returns a configuration in any of its forms as a `Config`. Raises `ConfigError`."""
        with self._reading:
            usable = self._source.config(config)
        if self._strict and (refused := unreadable(usable)):
            first, more = refused[0], len(refused) - 1
            raise ConfigError(
                f"{first} (and {more} more)" if more else str(first),
                resource=first.resource,
                path=first.field or None,
                code=first.code,
            )
        return usable

    def _send(self, engine: native.Engine, config: Config, listeners: Listeners) -> int:
        """Sends a configuration, or what it changes; returns its generation."""
        live = self._live
        if live is not None:
            delta = live.delta(config.translation, listeners, self.backends)
            # A refusal is of this way of saying it, until the whole is refused as well.
            with suppress(ConfigError):
                if delta is not None:
                    return engine.apply_delta(delta)
        return engine.apply(self._whole(config, listeners))

    def _whole(self, config: Config, listeners: Listeners) -> bytes:
        """Returns a configuration as the engine takes it."""
        if listeners is config.listeners and not self.backends:
            return config.ir_bytes
        clusters = inprocess.served_here(config.ir["clusters"], self.backends)
        return _encoded({**config.ir, "listeners": listeners, "clusters": clusters})

    def _bound(self, config: Config) -> Listeners:
        """Returns the listeners, where they are to be bound. Raises `ConfigError`."""
        listeners = config.listeners
        if not self._listen:
            return inprocess.unbound(listeners)
        if self._bindings:
            try:
                listeners = rebind(listeners, self._bindings)
            except ValueError as error:
                raise ConfigError(str(error)) from None
        return listeners if has_ipv6() else without_ipv6(listeners)

    def _ended(self, finished: bool = False) -> None:
        with self._lock:
            self.state = State.CLOSED
            events = self._events
        if self._bridge is not None:
            self._bridge.close()
        _RUNNING.discard(self)
        if self._clock is not None and self._engine in self._clock._engines:
            self._clock._engines.remove(self._engine)
        self._closed.put(None)
        if events is not None:
            from kgw.events import Closed

            events.close(Closed(finished))


class _Live(NamedTuple):
    """A generation that the engine runs, and what it was made of."""

    generation: int
    translation: Translation
    listeners: Listeners

    def delta(
        self, after: Translation, listeners: Listeners, backends: Iterable[str]
    ) -> bytes | None:
        """Returns what another configuration changes; none if it changes most of it."""
        before = self.translation
        changed = difference(before, after)
        if len(changed["routes"]) * 2 > max(before.route_count, _FEW):
            return None
        changed["clusters"] = inprocess.served_here(changed["clusters"], backends)
        members = {"version": VERSION, "base": self.generation, **changed}
        if listeners != self.listeners:
            members["listeners"] = listeners
        return _encoded(members)


def _pairs(addresses: Addresses) -> set[tuple[str, str, int]]:
    return {(listener, *at) for listener, bound in addresses.items() for at in bound}


def _encoded(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


class Proxy:
    """A proxy that runs inside this process.

    Use it with ``async with`` under asyncio or trio. ``with`` gives a `BlockingProxy` for programs
    without an event loop. Any number may run side by side.

    Args:
        config: what to serve: a `Config`, a path or several, or a resource or several, as mappings
            or models of `kgw.api`.
        bind: where listeners bind instead of where the configuration says: ``"127.0.0.1:0"`` for
            all, or ``"namespace/gateway/listener=IP:PORT"`` for one; several may be given.
        address_pool: a network, as in ``"127.10.0.0/16"``, out of which each Gateway gets an
            address of its own, with the ports that its listeners state. Statuses have it.
        policies: how policies are attached, merged and checked.
        sockets: listening sockets that are bound already, by systemd for instance. Those bound to
            an address that the configuration asks for are used; the others are closed. They are the
            proxy's from then on.
        strict: whether a configuration with an object that cannot be read (`KGW1xx`, `KGW2xx`:
            what an API server would refuse) is refused as a whole. Without it, the objects that can
            be read are served. References that lead nowhere never stop the rest: they answer 500,
            as the Gateway API says.
        workers: data plane threads; by default one for each CPU that the process may use.
        clock: a `ManualClock` to stop time in tests; by default the system's.
        drain_timeout: seconds that requests in flight get when the ``with`` block ends.
        max_connections: connections open at once (50,000); accepting pauses there.
        max_memory: bytes of this process's memory above which load is shed: idle connections are
            closed shortly before, and requests are answered with 503; by default no limit.
        max_filter_calls: calls of filters that may wait and run at once (1,024). More of them have
            the outcome that the filter declared for failures.
        max_filter_bytes: bytes of bodies that are held at once for filters that need them whole
            (256 MiB). What is more has the same outcome.
        listen: whether listeners are bound. Without it, requests come from this process alone, by
            `connect`; what else the configuration says about listeners holds for them.
        backends: what serves Service ports in this process, by ``namespace/service:port``: ASGI
            applications, or `kgw.asgi.Backend`. The endpoints of these Services are not used.

    Raises:
        TypeError: *config* is none of these, or a limit is no whole number.
        ValueError: *workers* or a limit is less than 1, *drain_timeout* less than 0, a socket is
            neither a listening one of TCP nor a bound one of UDP, or a `Config` is given together
            with an *address_pool* or *policies*.
    """

    def __init__(
        self,
        config: Configuration,
        *,
        workers: int | None = None,
        clock: ManualClock | None = None,
        bind: str | Iterable[str] = (),
        address_pool: str | None = None,
        policies: PolicyOptions | None = None,
        sockets: Iterable[socket.socket | ListeningSocket] = (),
        strict: bool = True,
        drain_timeout: float = DRAIN_TIMEOUT,
        max_connections: int | None = None,
        max_memory: int | None = None,
        max_filter_calls: int = MAX_CALLS,
        max_filter_bytes: int = MAX_BYTES,
        listen: bool = True,
        backends: Mapping[str, Any] = _NO_BACKENDS,
    ) -> None:
        # Not only when the block ends, which then could not close the proxy. NaN is not >= 0.
        if not drain_timeout >= 0:
            raise ValueError(f"drain_timeout must be at least 0, not {drain_timeout}")
        self._core = _Core(
            config,
            workers=workers,
            clock=clock,
            bind=bind,
            address_pool=address_pool,
            policies=policies,
            sockets=sockets,
            max_connections=max_connections,
            max_memory=max_memory,
            max_filter_calls=max_filter_calls,
            max_filter_bytes=max_filter_bytes,
            strict=strict,
            listen=listen,
            backends=backends,
        )
        self._drain_timeout = drain_timeout
        self._filter_loop: FilterLoop | None = None
        self._filter_thread: ThreadLoop | None = None
        self._thread_host: ThreadHost | None = None

    def filter(
        self,
        name: str,
        *,
        routes: Iterable[str] = (),
        when: When | None = None,
        needs: Needs | None = None,
        timeout: float = FILTER_TIMEOUT,
        on_error: OnError = "deny",
    ) -> Callable[[_F], _F]:
        """Registers what it decorates as a filter, before the proxy starts.

        A function is called with each request, a `kgw.Request`. An object, or a class that is made
        one without arguments, is called by its methods, of which one is enough; all may be
        ``async def``:

        * ``on_request(request)`` and ``on_response(request, response)`` return None, which lets the
          message pass with the changes that were made to it, or a `kgw.Response` that the client
          gets instead.
        * ``on_request_chunk(request, data, end)`` and
          ``on_response_chunk(request, response, data, end)`` see the body as it goes on, piece by
          piece: ``bytes``, which are empty only at the end, if then. They return None, which lets
          the piece pass, or the bytes that take its place (none drop it). The former may also
          return a `kgw.Response` as long as the client has not begun to get one.

        Args:
            name: what an HTTPRoute's ``ExtensionRef`` filter names, with ``group: kgw.dev`` and
                ``kind: PythonFilter``.
            routes: routes that the filter is attached to without being named there:
                ``"namespace/name"``, ``"namespace"``, or ``"*"`` for all.
            when: the requests that it is asked about; by default all.
            needs: what it has to have before it can decide, beside the head: whole bodies.
            timeout: seconds for one decision.
            on_error: what becomes of a message if the filter raises an exception, takes too long or
                cannot be asked: ``"allow"`` lets it pass, ``"deny"`` answers with an error.

        Raises:
            FilterError: the proxy was started already.
            TypeError: what is decorated is no filter.
            ValueError: an argument is none of these, or the name is taken.
        """

        def register(handler: _F) -> _F:
            if self._core.state is not State.NEW:
                raise FilterError("filters are registered before the proxy starts")
            self._core.filters.add(
                name,
                handler,
                routes=routes,
                when=when,
                needs=needs,
                timeout=timeout,
                on_error=on_error,
            )
            return handler

        return register

    async def __aenter__(self) -> Self:
        """Loads the configuration, binds every listener and starts serving.

        If cancelled meanwhile, nothing stays: what was started is closed.

        Raises:
            ConfigError: the configuration cannot be used.
            NotRunning: the proxy was started before.
            OSError: an address cannot be bound.
        """
        import anyio.to_thread

        self._core.claim()
        try:
            if (bridge := self._core.bridge()) is not None:
                from kgw import filterloops

                self._filter_loop = filterloops.current(self._core.filters, bridge)
            if self._core.backends:
                from kgw.asgi import hosting

                self._core.host = await hosting.start(self._core.backends, self._core.scopes)
            await anyio.to_thread.run_sync(self._core.start)
        except BaseException:
            # A cancelled asyncio task does not wait for the thread, so the thread must know.
            self._core.abandon()
            with anyio.CancelScope(shield=True):
                await self._close_filters()
            raise
        return self

    async def _close_filters(self) -> None:
        if self._core.host is not None:
            await self._core.host.aclose()
        if self._filter_loop is not None:
            await self._filter_loop.aclose()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Drains if that was not done yet; a cancelled block still closes everything.

        A drain under way has the time that it was given. Of a block that failed, or was cancelled,
        it has no more than ``drain_timeout``.
        """
        import anyio

        with anyio.CancelScope(shield=True):
            try:
                await self.drain(self._drain_timeout)
            except NotRunning:
                if self._core.state is State.DRAINING:
                    with anyio.move_on_after(None if kind is None else self._drain_timeout):
                        await self.wait_closed()
                    self.kill()
                    await self.wait_closed()
            finally:
                await self._close_filters()

    def __enter__(self) -> BlockingProxy:
        """Starts serving, without an event loop; see `__aenter__` for what it raises."""
        self._core.claim()
        if (bridge := self._core.bridge()) is not None:
            from kgw.filterloops import ThreadLoop

            self._filter_thread = ThreadLoop(self._core.filters, bridge)
            _THREADS.add(self._filter_thread)
        try:
            if self._core.backends:
                from kgw.asgi.hosting import ThreadHost

                self._core.host = self._thread_host = ThreadHost(self._core.backends)
                _THREADS.add(self._thread_host)
            self._core.start()
        except BaseException:
            self._core.abandon()
            self._close_threads()
            raise
        return BlockingProxy(self._core)

    def _close_threads(self) -> None:
        for thread in (self._thread_host, self._filter_thread):
            if thread is not None:
                thread.close()
                _THREADS.discard(thread)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Drains if that was not done yet."""
        try:
            self._core.drain(self._drain_timeout)
        except NotRunning:
            if self._core.state is State.DRAINING:
                self._core.wait_closed(None)
        finally:
            self._close_threads()

    def __repr__(self) -> str:
        return f"<kgw.Proxy {self._core.seen_state.value}>"

    @property
    def state(self) -> State:
        """Where the proxy is in its life."""
        return self._core.seen_state

    @property
    def addresses(self) -> Addresses:
        """The bound ``(host, port)`` pairs of each listener, by ``namespace/gateway/listener``."""
        return self._core.addresses()

    @property
    def config(self) -> Config | None:
        """What is served: the configuration that was applied last; none before the start."""
        config = self._core.config
        return config if isinstance(config, Config) else None

    @property
    def problems(self) -> tuple[str, ...]:
        """What of the configuration in use could not be put into effect, in words.

        Such as an access log that cannot be opened. It is tried again by the next `apply`.
        """
        return self._core.problems()

    def connect(
        self,
        listener: str | None = None,
        *,
        peer: tuple[str, int] | None = None,
        local: tuple[str, int] | None = None,
        secure: bool = False,
        server_name: str | None = None,
    ) -> socket.socket:
        """Connects to a listener from inside of this process, whether it is bound or not.

        What the listener's configuration says holds for the connection as for any other, but it
        carries HTTP/1.1 without TLS, and no PROXY header. A waypoint's listener takes the service
        from each request's host.

        Args:
            listener: ``namespace/gateway/listener``. By default the only one; of several, the one
                for *secure*, and of several of these the one of *local*'s port.
            peer: the client's IP address and port, in logs and policies; by default loopback's.
            local: what the client addressed; by default loopback's.
            secure: whether requests count as ``https``.
            server_name: the server name in the client's place, which selects among TLS listeners.

        Returns:
            The connected socket. It does not block. Closing it abandons the request under way.

        Raises:
            LookupError: no one listener is meant.
            NotRunning: the proxy is not running.
            OSError: there are no more descriptors, or too many connections wait to be served.
            ValueError: an address is none.
        """
        return self._core.connect(listener, peer, local, secure, server_name)

    def stats(self) -> Stats:
        """Returns the data plane's counters, as they are now. `kgw.Stats` says what they count."""
        return self._core.stats()

    @overload
    def access_log(
        self, fields: None = None, *, buffer: int = ACCESS_LOG_BUFFER
    ) -> Stream[AccessRecord]: ...

    @overload
    def access_log(
        self, fields: Mapping[str, Any], *, buffer: int = ACCESS_LOG_BUFFER
    ) -> Stream[dict[str, Any]]: ...

    def access_log(
        self, fields: Mapping[str, Any] | None = None, *, buffer: int = ACCESS_LOG_BUFFER
    ) -> Stream[Any]:
        """Returns what is logged of each request that ends from now on, as a stream of records.

            async for record in proxy.access_log({"path": "%REQ(:PATH)%", "took": "%DURATION%"}):
                ...

        It does not depend on the access logs that the configuration asks for, and the data plane
        never waits for the reader. The stream ends when the proxy is closed.

        Args:
            fields: what a record consists of: names, and Envoy's operators (docs/access-log.md) as
                their values; by default what `kgw.AccessRecord` has.
            buffer: bytes of records that may wait for the reader, for each worker (1 MiB). What
                does not fit is dropped, and counted by the stream's ``dropped``.

        Raises:
            ConfigError: *fields* has an operator that does not exist, or a wrong one.
            NotRunning: the proxy is not running.
            ValueError: *buffer* is less than 1.
        """
        from kgw.streams import Stream

        return Stream(self._core.access_log(fields, buffer))

    def events(self, *, interval: float = EVENT_INTERVAL) -> Stream[Event]:
        """Returns what happens to the proxy from now on, as a stream of `kgw.events`.

        Before the start, it has the start's events too. The last event is `kgw.events.Closed`, and
        ends the stream. At most 1,024 events wait; the stream's ``dropped`` counts what is lost.

        Args:
            interval: seconds between two looks at the counters, for events that come from there:
                refused connections, memory that runs short.

        Raises:
            NotRunning: the proxy is closed.
            ValueError: *interval* is not positive.
        """
        from kgw.streams import Stream

        return Stream(self._core.event_feed(interval))

    async def apply(self, config: Configuration) -> Config:
        """Serves another configuration from now on; no connection is dropped.

        Returns when every worker runs it. If cancelled while waiting, it is applied all the same.

        Raises:
            ConfigError: it cannot be used; the one before keeps serving.
            NotRunning: the proxy is not running.
        """
        return await _in_thread(functools.partial(self._core.apply, config))

    def reopen_logs(self) -> None:
        """Opens the access logs' files anew, after something renamed them."""
        self._core.reopen_logs()

    def listening_sockets(self) -> list[ListeningSocket]:
        """Returns duplicates of the listening sockets, for another process to go on with.

        The caller must close them. See `Proxy` for what takes them.

        Raises:
            NotRunning: the proxy is not running.
        """
        return self._core.listening_sockets()

    async def drain(self, max: float = DRAIN_TIMEOUT, *, min: float = 0.0) -> bool:
        """Announces the end, stops accepting, finishes the requests in flight, and closes.

        From the start on, `state` says so and every answer closes its connection. If cancelled, the
        draining goes on.

        Args:
            max: seconds after which what is not finished is cut off.
            min: seconds, of those, for which connections are still accepted: the time that whoever
                balances load needs to hear of it.

        Returns:
            Whether everything ended by itself.

        Raises:
            NotRunning: the proxy is not running.
            ValueError: *min* is negative or more than *max*.
        """
        return await _in_thread(functools.partial(self._core.drain, max, min))

    def kill(self) -> None:
        """Closes everything at once, also while draining. Does nothing if nothing runs."""
        self._core.kill()

    async def wait_closed(self) -> None:
        """Returns when the proxy is closed.

        Raises:
            NotRunning: the proxy was not started.
        """
        import anyio.to_thread

        wait = functools.partial(self._core.wait_closed, _POLL)
        while not await anyio.to_thread.run_sync(wait, abandon_on_cancel=True):
            pass


class BlockingProxy:
    """A running proxy in a program without an event loop: what ``with kgw.Proxy(...)`` gives."""

    def __init__(self, core: _Core) -> None:
        self._core = core

    def __repr__(self) -> str:
        return f"<kgw.BlockingProxy {self._core.seen_state.value}>"

    @property
    def state(self) -> State:
        """Where the proxy is in its life."""
        return self._core.seen_state

    @property
    def addresses(self) -> Addresses:
        """The bound ``(host, port)`` pairs of each listener, by ``namespace/gateway/listener``."""
        return self._core.addresses()

    @property
    def problems(self) -> tuple[str, ...]:
        """What of the configuration could not be put into effect. See `Proxy.problems`."""
        return self._core.problems()

    def connect(
        self,
        listener: str | None = None,
        *,
        peer: tuple[str, int] | None = None,
        local: tuple[str, int] | None = None,
        secure: bool = False,
        server_name: str | None = None,
    ) -> socket.socket:
        """Connects to a listener from inside of this process. See `Proxy.connect`."""
        return self._core.connect(listener, peer, local, secure, server_name)

    def stats(self) -> Stats:
        """Returns the data plane's counters, as they are now. `kgw.Stats` says what they count."""
        return self._core.stats()

    @overload
    def access_log(
        self, fields: None = None, *, buffer: int = ACCESS_LOG_BUFFER
    ) -> BlockingStream[AccessRecord]: ...

    @overload
    def access_log(
        self, fields: Mapping[str, Any], *, buffer: int = ACCESS_LOG_BUFFER
    ) -> BlockingStream[dict[str, Any]]: ...

    def access_log(
        self, fields: Mapping[str, Any] | None = None, *, buffer: int = ACCESS_LOG_BUFFER
    ) -> BlockingStream[Any]:
        """Returns what is logged of each request from now on. See `Proxy.access_log`."""
        from kgw.streams import BlockingStream

        return BlockingStream(self._core.access_log(fields, buffer))

    def events(self, *, interval: float = EVENT_INTERVAL) -> BlockingStream[Event]:
        """Returns what happens to the proxy from now on. See `Proxy.events`."""
        from kgw.streams import BlockingStream

        return BlockingStream(self._core.event_feed(interval))

    def apply(self, config: Configuration) -> Config:
        """Serves another configuration; returns when every worker does. See `Proxy.apply`."""
        return self._core.apply(config)

    def reopen_logs(self) -> None:
        """Opens the access logs' files anew, after something renamed them."""
        self._core.reopen_logs()

    def listening_sockets(self) -> list[ListeningSocket]:
        """Returns duplicates of the listening sockets. See `Proxy.listening_sockets`."""
        return self._core.listening_sockets()

    def drain(self, max: float = DRAIN_TIMEOUT, *, min: float = 0.0) -> bool:
        """Stops accepting, finishes the requests in flight, and closes. See `Proxy.drain`."""
        return self._core.drain(max, min)

    def kill(self) -> None:
        """Closes everything at once, also while draining. Does nothing if nothing runs."""
        self._core.kill()

    def wait_closed(self, timeout: float | None = None) -> bool:
        """Waits until the proxy is closed, at most *timeout* seconds; returns whether it is."""
        return self._core.wait_closed(timeout)


# === Configurations ===


def unreadable(config: Config) -> list[Finding]:
    """Returns the errors that leave an object unread: syntax and schema (`KGW1xx`, `KGW2xx`).

    An API server would refuse such an object, so there is nothing of it to serve.
    """
    return [finding for finding in config.errors if finding.code.startswith(("KGW1", "KGW2"))]


class _Source:
    """Makes configurations of all their forms, each of what the last one was made of."""

    def __init__(
        self, address_pool: str | None = None, policies: PolicyOptions | None = None
    ) -> None:
        pool = None if address_pool is None else AddressPool(address_pool)
        self._has_options = pool is not None or policies is not None
        self._session = Session(Options(pool=pool, policies=policies or PolicyOptions()))
        self._files = Files([])

    def config(self, config: Configuration) -> Config:
        """Returns a configuration in any of its forms as a `Config`."""
        if isinstance(config, Config):
            if self._has_options:
                raise ValueError(_OWN_OPTIONS)
            return config
        _check_type(config)
        if isinstance(config, str | os.PathLike):
            return self._load([config])
        if isinstance(config, Mapping | Resource):
            return self._session.from_objects([config])
        paths: list[str | os.PathLike[str]] = []
        objects: list[Mapping[str, Any] | Resource] = []
        for part in config:
            if isinstance(part, str | os.PathLike):
                paths.append(part)
            elif isinstance(part, Mapping | Resource):
                objects.append(part)
            else:
                raise TypeError(f"{_FORMS}; a part of it is {type(part).__name__}")
        if paths and objects:
            raise TypeError("a configuration is of paths or of resources, not of both")
        return self._load(paths) if paths else self._session.from_objects(objects)

    def _load(self, paths: list[str | os.PathLike[str]]) -> Config:
        files = Files(paths)
        if files.paths != self._files.paths:
            self._files = files
        return self._session.from_loaded(self._files.load())


def _check_type(config: object) -> None:
    """Refuses what is no configuration in any form. Raises `TypeError`."""
    forms = (Config, str, os.PathLike, Mapping, Resource, Iterable)
    if not isinstance(config, forms) or isinstance(config, bytes | bytearray | memoryview):
        raise TypeError(f"{_FORMS}, not {type(config).__name__}")


_OWN_OPTIONS = "a Config has options of its own, not address_pool= or policies="

_FORMS = "a configuration is a Config, one or several paths, or one or several resources"


# === Threads, forks, the end ===


async def _in_thread(call: Callable[[], _T]) -> _T:
    """Runs a blocking call in a worker thread; a cancelled task does not wait for it."""
    import anyio.to_thread

    return await anyio.to_thread.run_sync(call, abandon_on_cancel=True)


@contextmanager
def _signals_held() -> Iterator[None]:
    """Has threads that are started meanwhile leave all signals to the program's own threads.

    Python's handlers take effect in the main thread, which notices at once only what it was
    interrupted by itself. Faults are a thread's own, and a profiler is to see the data plane too.
    """
    kept = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP}
    held = signal.valid_signals() - kept - {signal.SIGABRT, signal.SIGSYS, signal.SIGPROF}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _close_all() -> None:
    """Ends every proxy that runs, before the interpreter takes itself apart.

    So do the event loops in threads of their own: the interpreter ends threads wherever they are,
    and where they are in native code it ends the process with them.
    """
    for core in list(_RUNNING):
        core.kill()
    for thread in list(_THREADS):
        thread.close(_LAST_WAIT)


_RUNNING: set[_Core] = set()
_THREADS: set[ThreadLoop | ThreadHost] = set()

_WHY = {
    State.NEW: "the proxy was not started: use it with `async with` or `with`",
    State.RUNNING: "the proxy is still starting",
    State.DRAINING: "the proxy is draining",
    State.CLOSED: "the proxy is closed",
}

atexit.register(_close_all)
os.register_at_fork(after_in_child=_THREADS.clear)
