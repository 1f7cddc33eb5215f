"""A whole gateway inside a test."""

from __future__ import annotations

import functools
import http.client
import json as jsonlib
import threading
import time
from collections import deque
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypedDict, Unpack

from kgw.addresses import Address
from kgw.errors import NotRunning
from kgw.proxy import ManualClock, Proxy, State, unreadable
from kgw.testing import client, explain
from kgw.testing.aim import Aim, aim
from kgw.testing.answer import Answer, NoAnswer
from kgw.testing.backends import Backend, Backends, Received
from kgw.testing.clock import Clock
from kgw.testing.configuration import Configuration, configuration, refuse
from kgw.testing.overlay import Endpoint, overlaid
from kgw.testing.records import Line, Records
from kgw.translate import AddressPool, PolicyOptions
from kgw.translate import Options as Translating

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from kgw.config import Config
    from kgw.mesh import Request
    from kgw.proxy import BlockingProxy
    from kgw.proxyproto import MeshIdentity
    from kgw.stats import Stats
    from kgw.testing.headers import Fields

__all__ = ["Gateway", "GatewayFactory", "Options", "Pending"]

PATIENCE = 10.0
"""Real seconds for anything that does not depend on the gateway's clock."""

_RESTLESS = 1.0
"""Real seconds after which a request that was started counts as waiting for something unknown: a
handler of the test that blocks, for instance."""

_PAUSE = 0.001
"""Real seconds between two looks at a request that was started."""

MAX_ANSWERS = 1_000
"""Answers that are remembered; older ones are forgotten."""


class Options(TypedDict, total=False):
    """What can be said of a request beside its method and URL."""

    headers: Fields
    """Header fields."""
    body: bytes | str | None
    """Bytes, or text as UTF-8."""
    json: Any
    """What to send as JSON in place of a body."""
    host: str | None
    """``Host``, if it is another than the URL's."""
    identity: str | MeshIdentity | None
    """Who calls (``spiffe://…``), as the mesh says it to a waypoint."""
    source: str | None
    """Where from, ``IP`` or ``IP:PORT``: what the PROXY protocol header says on a listener that
    takes one, else what the client's socket is bound to."""
    to: str | None
    """The service of a waypoint that is called, if it is another than the URL's:
    ``[namespace/]name[:port]`` or ``VIP:port``."""
    listener: str | None
    """``namespace/gateway/listener``, or its end, where a path says too little."""


class Gateway:
    """A gateway under test: a data plane with one worker, a clock that stands still, and a fake
    backend in the place of every Service that requests can reach.

    Use it with ``with``, or by the pytest fixture ``kgw_proxy``.

    Args:
        config: what to serve; see `kgw.testing.Configuration`.
        address_pool: a network, as in ``127.10.0.0/16``, out of which each Gateway gets an address
            of its own, with the ports that its listeners state; without it all are on free ports
            of 127.0.0.1.
        policies: how policies are attached, merged and checked.
        strict: whether a configuration with errors is refused. Without it, what can be read is
            served, as `kgw run` does, and what is broken answers 500.
        setup: called with the `kgw.Proxy` before it starts, to register filters.

    Raises:
        ConfigError: the configuration has errors; all of them are in the message.
        TypeError: *config* is none.
    """

    def __init__(
        self,
        config: Configuration,
        *,
        address_pool: str | None = None,
        policies: PolicyOptions | None = None,
        strict: bool = True,
        setup: Callable[[Proxy], object] | None = None,
    ) -> None:
        pool = None if address_pool is None else AddressPool(address_pool)
        self._placed = pool is not None
        self._options = None
        if pool is not None or policies is not None:
            self._options = Translating(pool=pool, policies=policies or PolicyOptions())
        self.config: Config = configuration(config, self._options)
        """What is tested, as it was given: with its own endpoints and access logs."""
        self._strict = strict
        self._setup = setup
        self._check(self.config)
        self._time = ManualClock()
        self.clock: Clock = Clock(self._time)
        """The time that time-outs, rate limits and backends go by."""
        self.answers: deque[Answer] = deque(maxlen=MAX_ANSWERS)
        """Every answer so far, the oldest first."""
        self._stack = ExitStack()
        self._parts: _Parts | None = None

    def __repr__(self) -> str:
        return f"<Gateway at {self.clock.now:g} s, {len(self.answers)} answers>"

    def __enter__(self) -> Self:
        if self._parts is not None:
            raise NotRunning("a gateway is started once")
        with ExitStack() as stack:
            records, backends = Records(), Backends(self.clock)
            stack.callback(records.close)
            stack.callback(backends.close)
            proxy = Proxy(
                _served(self.config, backends, records),
                workers=1,
                clock=self._time,
                bind=() if self._placed else "127.0.0.1:0",
                strict=False,
                drain_timeout=0,
            )
            if self._setup is not None:
                self._setup(proxy)
            running = stack.enter_context(proxy)
            stack.callback(running.kill)
            stack.callback(self.clock.close)
            self._parts = _Parts(records, backends, proxy, running)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the gateway and its backends, and every connection. Does nothing the second time."""
        self._stack.close()

    # === The other side ===

    @property
    def backends(self) -> dict[str, Backend]:
        """The fake backends by ``namespace/name`` of their Service."""
        return dict(self._started.backends.by_name)

    def backend(self, name: str) -> Backend:
        """Returns the fake backend of a Service.

        Args:
            name: ``namespace/name``, or the name of one in namespace ``default``.

        Raises:
            LookupError: no route leads to such a Service.
        """
        every = self._started.backends.by_name
        found = every.get(name if "/" in name else f"default/{name}")
        if found is None:
            known = ", ".join(sorted(every)) or "none"
            raise LookupError(f"no route leads to a Service {name!r}; the backends are: {known}")
        return found

    @property
    def addresses(self) -> dict[str, list[tuple[str, int]]]:
        """Where each listener is bound, by ``namespace/gateway/listener``, for clients of your own.

        What they ask has no `Answer`. Time never jumps for them: move it with `Clock.advance`.
        """
        return self._started.running.addresses

    def stats(self) -> Stats:
        """Returns the data plane's counters, as they are now. `kgw.Stats` says what they count."""
        return self._started.running.stats()

    def logs(self) -> list[dict[str, Any]]:
        """Returns the log records that belong to no `Answer`: of connections that carry no HTTP,
        and of other clients' requests."""
        return [line.record for line in self._started.records.read(self._flush)]

    def apply(self, config: Configuration) -> None:
        """Serves another configuration; returns when it is live. What backends were told stays.

        Raises:
            ConfigError: it has errors; the last one goes on serving.
        """
        new = configuration(config, self._options)
        self._check(new)
        parts = self._started
        parts.running.apply(_served(new, parts.backends, parts.records))
        self.config = new

    # === Requests ===

    def request(self, method: str, url: str = "/", **options: Unpack[Options]) -> Answer:
        """Sends a request on a connection of its own, and returns what came of it.

        If nothing happens any more unless time passes, time jumps to when something does: a backend
        that was given a ``delay`` answers, a time-out fires.

        Args:
            method: the method.
            url: a path; or a URL, whose host becomes ``Host`` and, on a waypoint, the service that
                is called, as a client in namespace ``default`` would write it.
            options: what else there is to say of it.

        Raises:
            NoAnswer: the connection was closed, or there was silence.
            ValueError: the arguments say too little, or something that cannot be.
        """
        with self.clock.under_way(), self.clock.awaited():
            exchange = self._connect(*self._made(method, url, options))
            self._send(exchange)
            return self._finish(exchange)

    def get(self, url: str = "/", **options: Unpack[Options]) -> Answer:
        """Does what `request` does, with the method GET."""
        return self.request("GET", url, **options)

    def head(self, url: str = "/", **options: Unpack[Options]) -> Answer:
        """Does what `request` does, with the method HEAD."""
        return self.request("HEAD", url, **options)

    def post(self, url: str = "/", **options: Unpack[Options]) -> Answer:
        """Does what `request` does, with the method POST."""
        return self.request("POST", url, **options)

    def put(self, url: str = "/", **options: Unpack[Options]) -> Answer:
        """Does what `request` does, with the method PUT."""
        return self.request("PUT", url, **options)

    def patch(self, url: str = "/", **options: Unpack[Options]) -> Answer:
        """Does what `request` does, with the method PATCH."""
        return self.request("PATCH", url, **options)

    def delete(self, url: str = "/", **options: Unpack[Options]) -> Answer:
        """Does what `request` does, with the method DELETE."""
        return self.request("DELETE", url, **options)

    def options(self, url: str = "/", **options: Unpack[Options]) -> Answer:
        """Does what `request` does, with the method OPTIONS."""
        return self.request("OPTIONS", url, **options)

    async def request_async(
        self, method: str, url: str = "/", **options: Unpack[Options]
    ) -> Answer:
        """Does what `request` does, in a task under asyncio or trio: in a worker thread."""
        import anyio.to_thread

        return await anyio.to_thread.run_sync(
            functools.partial(self.request, method, url, **options), abandon_on_cancel=True
        )

    def start(self, method: str, url: str = "/", **options: Unpack[Options]) -> Pending:
        """Sends a request, as `request` does, and does not wait for its answer.

        It returns when the request waits for something: in a backend with a ``delay``, in a filter,
        for tokens of a rate limit, or for `Pending.answer`. Time stands still until somebody
        moves it: `Clock.advance`, or `Pending.answer`.
        """
        pending = Pending(self, self._connect(*self._made(method, url, options)))
        self._rest(pending)
        return pending

    def explain(self, method: str, url: str = "/", **options: Unpack[Options]) -> str:
        """Returns why each route would serve a request or not, a line for each.

        Only the routes of the host count; nothing is sent. Arguments are those of `request`.
        """
        where, request = self._made(method, url, options)
        return "\n".join(self._explain(where, method, list(request.fields)))

    # === How ===

    def _check(self, config: Config) -> None:
        refuse(config.errors if self._strict else unreadable(config))

    @property
    def _started(self) -> _Parts:
        if self._parts is None:
            raise NotRunning("the gateway was not started: use it with `with`")
        return self._parts

    def _flush(self, timeout: float) -> bool:
        core = self._started.proxy._core
        return core.running(State.RUNNING, State.DRAINING).flush_logs(timeout)

    def _made(self, method: str, url: str, options: Options) -> tuple[Aim, Request]:
        """Returns where a request goes, and the request."""
        given = dict[str, Any](options)
        where = aim(
            self.config.listeners,
            url,
            **{name: given.pop(name) for name in _AIMED if name in given},
        )
        return where, client.request(method, where, **given)

    def _explain(self, where: Aim, method: str, headers: list[tuple[str, str]]) -> list[str]:
        if where.table is None:
            return ["no route table serves this"]
        return explain.routes(
            self.config, where.table, method, where.target, where.authority, headers
        )

    def _connect(self, where: Aim, request: Request) -> client.Exchange:
        running = self._started.running
        bound = running.addresses.get(where.listener["id"])
        if not bound:
            problems = "; ".join(running.problems)
            raise NoAnswer(f"listener {where.listener['id']} is not bound: {problems}")
        try:
            return client.Exchange(Address(*bound[0]), where, request, PATIENCE)
        except OSError as error:
            raise NoAnswer(f"{request.method} {where.url} has no answer: {error}") from None

    def _send(self, exchange: client.Exchange) -> None:
        # What the gateway refuses it answers, and may close before it has read all.
        with suppress(BrokenPipeError, ConnectionResetError):
            exchange.send()

    def _rest(self, pending: Pending) -> None:
        """Waits until nothing happens any more with a request unless something else does first."""
        deadline = time.monotonic() + _RESTLESS
        while time.monotonic() < deadline:
            self._time.settle(PATIENCE)
            if pending.answered or self.clock.at_rest:
                return
            stats = self.stats()
            if stats["python_filter_active"] or stats["rate_limit_queue_active"]:
                return
            time.sleep(_PAUSE)  # a backend's thread is about to take it

    def _finish(self, exchange: client.Exchange) -> Answer:
        """Waits for the answer, and collects what happened."""
        where, request = exchange.aim, exchange.request
        try:
            response = exchange.receive()
        except client.Failure as error:
            raise self._no_answer(exchange, error) from None
        finally:
            exchange.close()
        line = self._started.records.claim(exchange.peer, self._flush, PATIENCE)
        if line is None:
            raise AssertionError(f"the access log has no record of {request.method} {where.url}")
        answer = Answer(
            request.method,
            where,
            *response,
            line.record,
            line.policies,
            self._received(line),
            explain.policies(self.config, where.listener["id"], line.record["route_name"]),
            self.clock.now,
            functools.partial(self._explain, where, request.method, list(request.fields)),
        )
        self.answers.append(answer)
        return answer

    def _received(self, line: Line) -> Received | None:
        """The request as a backend received it: the last that came on the connection it went by.

        Connections are used again, so the request's id counts as well if it has one.
        """
        record = line.record
        ident = record["request_id"]
        for backend in self.backends.values():
            for one in reversed(backend.requests.copy()):
                if str(Address(*one.peer)) != record["upstream_local_address"]:
                    continue
                if ident is None or one.headers.get("x-request-id", ident) == ident:
                    return one
        return None

    def _no_answer(self, exchange: client.Exchange, error: Exception) -> NoAnswer:
        """Says why there is no answer, with all that is known."""
        where = exchange.aim
        head = f"{exchange.request.method} {where.url} has no answer"
        if isinstance(error, TimeoutError):
            waits = [one.name for one in self.backends.values() if one.waits]
            why = f"nothing came for {PATIENCE:g} real seconds"
            if waits:
                why += f"; {', '.join(waits)} would answer later: advance the clock"
            elif (left := self._time.next_deadline()) is not None:
                why += f"; the gateway waits for something until {left:g} s from now by its clock"
        elif isinstance(error, http.client.IncompleteRead):
            why = f"it was cut off after {len(error.partial)} bytes of its body"
        elif where.origin is not None and where.table is None:
            why = f"the connection was closed: the waypoint serves no {where.origin.destination}"
        else:
            why = f"the connection was closed ({type(error).__name__})"
        line = self._started.records.claim(exchange.peer, self._flush, 0.0)
        lines = [f"{head}: {why}", f"  listener  {where.listener['id']}"]
        if line is not None:
            known = {name: value for name, value in line.record.items() if value is not None}
            lines += ["the log record:"]
            lines += [f"  {name}: {jsonlib.dumps(value)}" for name, value in known.items()]
        return NoAnswer("\n".join(lines))


class _Parts(NamedTuple):
    """What a gateway that was started consists of."""

    records: Records
    backends: Backends
    proxy: Proxy
    running: BlockingProxy


def _served(config: Config, backends: Backends, records: Records) -> Config:
    """Returns a configuration as the engine gets it; starts the backends that it needs."""

    def address(endpoint: Endpoint, proxy_protocol: bool) -> tuple[str, int]:
        return backends.address(endpoint.backend, endpoint.port, proxy_protocol=proxy_protocol)

    return overlaid(config, address, records.path)


class GatewayFactory(Protocol):
    """What the fixture ``kgw_proxy`` is: it starts gateways that end with the test."""

    def __call__(
        self,
        config: Configuration,
        *,
        address_pool: str | None = None,
        policies: PolicyOptions | None = None,
        strict: bool = True,
        setup: Callable[[Proxy], object] | None = None,
    ) -> Gateway:
        """Starts a gateway; see `Gateway` for the arguments."""
        ...


class Pending:
    """A request that was sent. See `Gateway.start`."""

    def __init__(self, gateway: Gateway, exchange: client.Exchange) -> None:
        self._gateway = gateway
        self._exchange = exchange
        self._what = f"{exchange.request.method} {exchange.aim.url}"
        self._answer: Answer | None = None
        self._error: BaseException | None = None
        # From here on, so that time does not jump over it.
        self._under_way = ExitStack()
        self._under_way.enter_context(gateway.clock.under_way())
        self._thread = threading.Thread(target=self._run, name="kgw-request", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"<Pending {self._what}{' (done)' if self.done else ''}>"

    @property
    def answered(self) -> bool:
        """Whether the gateway has begun to answer, or ended the connection."""
        return not self._thread.is_alive() or self._exchange.answered

    @property
    def done(self) -> bool:
        """Whether there is an answer, or it is certain that there will be none."""
        if self.answered:
            self._thread.join(PATIENCE)
        return not self._thread.is_alive()

    def answer(self) -> Answer:
        """Waits for the answer; time jumps meanwhile, as for `Gateway.request`.

        Raises:
            NoAnswer: there will be none.
        """
        with self._gateway.clock.awaited():
            self._thread.join(2 * PATIENCE)
        if self._error is not None:
            raise self._error
        if self._answer is None:
            raise NoAnswer(f"{self._what} has no answer after {2 * PATIENCE:g} real seconds")
        return self._answer

    def _run(self) -> None:
        try:
            with self._under_way:
                self._gateway._send(self._exchange)
                self._answer = self._gateway._finish(self._exchange)
        except BaseException as error:  # it is raised in the test's thread
            self._error = error


_AIMED = ("host", "to", "listener", "identity", "source")
"""The options of a request that say where it goes."""
