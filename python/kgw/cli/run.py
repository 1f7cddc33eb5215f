"""``kgw run``: serves what manifests say, and follows their changes."""

from __future__ import annotations

import gc
import importlib
import math
import os
import re
import signal
import time
from contextlib import ExitStack, aclosing, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import click

from kgw.cli import eventlog, memory, signals
from kgw.cli.addresses import bindings as checked_bindings
from kgw.cli.exits import Exit
from kgw.cli.manifests import (
    address_pool_option,
    files_option,
    policy_options,
    print_findings,
)
from kgw.refusals import Refusals

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from anyio.abc import TaskGroup

    from kgw.addresses import Address
    from kgw.attach.options import PolicyOptions
    from kgw.cli.statuses import StatusFile
    from kgw.cli.upgrade import Successor, UpgradeSocket
    from kgw.config import Config, Manifests
    from kgw.diagnostics import Finding
    from kgw.proxy import Proxy
    from kgw.translate import Options

LISTENING = "listening"
"""The event that is logged for each address that was bound."""

READY = "serving"
"""The event that is logged once every listener is bound."""

_MOST_CONNECTIONS = 50_000
"""Connections open at once, unless told otherwise, however many files may be open."""

_OTHER_FILES = 64
"""Open files that are no connections: logs, listening sockets, event loops."""

_PIPES = 16
"""One of this many open files may be the end of a pipe that a body passes through."""

_POLL = 2.0
"""Seconds between two looks at the counters of refused connections."""


def _seconds(_context: click.Context, _parameter: click.Parameter, value: float) -> float:
    """Refuses NaN, which no range excludes: comparisons with it are false."""
    if math.isnan(value):
        raise click.BadParameter("nan is no number of seconds")
    return value


@click.command(name="run")
@files_option(help="Manifests: a file, or a directory of them.", required=True)
@click.option(
    "--workers",
    type=click.IntRange(1),
    help="Data plane threads.  [default: one for each CPU this process may use]",
)
@click.option(
    "--bind",
    "bindings",
    callback=checked_bindings,
    multiple=True,
    metavar="[LISTENER=]IP[:PORT]",
    help="Bind listeners (or the one named) elsewhere than the manifests say.",
)
@address_pool_option()
@policy_options()
@click.option(
    "--status",
    "status_file",
    metavar="FILE",
    help="Keep a file with the statuses of all objects, as a cluster has them.",
)
@click.option(
    "--lenient", is_flag=True, help="Start without the objects that cannot be read, if there are."
)
@click.option("--no-watch", is_flag=True, help="Do not follow changes of the files.")
@click.option(
    "--drain-timeout",
    type=click.FloatRange(0),
    callback=_seconds,
    default=25.0,
    show_default=True,
    metavar="SECONDS",
    help="Time from the signal to the end: what is not finished then is cut off.",
)
@click.option(
    "--drain-min",
    type=click.FloatRange(0),
    callback=_seconds,
    default=0.0,
    show_default=True,
    metavar="SECONDS",
    help="Time, of that, for which new connections are still accepted.",
)
@click.option(
    "--max-connections",
    type=click.IntRange(1),
    metavar="N",
    help="Connections open at once; accepting pauses there.  "
    "[default: half of the limit of open files, at most 50000]",
)
@click.option(
    "--max-memory",
    callback=memory.size,
    metavar="SIZE",
    help="Memory above which load is shed: 512Mi, 2G, none.  "
    "[default: 90% of what the container may use]",
)
@click.option(
    "--upgrade-socket",
    metavar="PATH",
    help="Where a newer process takes over the listening sockets, with --upgrade.",
)
@click.option(
    "--upgrade",
    is_flag=True,
    help="Take the place of the process that waits at --upgrade-socket.",
)
def command(
    files: tuple[str, ...],
    workers: int | None,
    bindings: tuple[str, ...],
    address_pool: str | None,
    policies: PolicyOptions,
    status_file: str | None,
    lenient: bool,
    no_watch: bool,
    drain_timeout: float,
    drain_min: float,
    max_connections: int | None,
    max_memory: int | None,
    upgrade_socket: str | None,
    upgrade: bool,
) -> None:
    """Serve what manifests say, and follow their changes.

    It does not start with an object that cannot be read, which may be a rate limit, unless
    --lenient says so. A change is live within a moment and drops no connection. One that cannot be
    read changes nothing: the last good configuration keeps serving, and stderr says why.

    SIGTERM and SIGINT finish the requests in flight and end (a second one ends at once); SIGHUP
    reads the files again and reopens the access logs. Exits with 4 if requests were cut off.

    A running process is replaced by a newer one without losing a connection: start both with
    --upgrade-socket PATH, and the newer one with --upgrade too.
    """
    if drain_min > drain_timeout:
        raise click.UsageError("--drain-min is a part of --drain-timeout, and cannot be longer")
    if upgrade and upgrade_socket is None:
        raise click.UsageError("--upgrade needs --upgrade-socket")
    if max_memory is None:
        container = memory.container_limit()
        max_memory = int(container * memory.SHARE) if container else None
    most, files_suffice = _max_connections(max_connections)
    limits = _Limits(workers, most, max_memory or None, files_suffice)
    statuses = None if status_file is None else _status_file(status_file, files)
    server = _Server(
        files,
        bindings,
        options=_options(policies, address_pool, statuses),
        statuses=statuses,
        lenient=lenient,
        watching=not no_watch,
        limits=limits,
        drain=(drain_min, drain_timeout),
        upgrade_socket=upgrade_socket,
        upgrade=upgrade,
    )
    gc.disable()  # what a start makes is kept: to look for garbage takes a twentieth of its time
    try:
        code = server.serve()
    finally:
        gc.enable()
    if code is not Exit.OK:
        raise click.exceptions.Exit(code)


def _status_file(path: str, files: tuple[str, ...]) -> StatusFile:
    from kgw.cli.statuses import NotStatuses, StatusFile

    try:
        return StatusFile(path, files)
    except NotStatuses as error:
        raise click.UsageError(f"--status: {error}") from None


def _options(
    policies: PolicyOptions, address_pool: str | None, statuses: StatusFile | None
) -> Options:
    """Returns what the operator has chosen. Addresses that a last process gave Gateways are theirs
    again."""
    from kgw.translate import AddressPool, Options

    held = None if statuses is None else statuses.addresses
    pool = None if address_pool is None else AddressPool(address_pool, held)
    return Options(pool=pool, policies=policies)


class _Limits(NamedTuple):
    """How much of the machine is used."""

    workers: int | None
    max_connections: int
    max_memory: int | None
    files_suffice: bool
    """Whether so many connections, and what else there is, may be open at once."""


def _max_connections(asked: int | None) -> tuple[int, bool]:
    """Raises the limit of open files as far as it goes; returns the limit of connections.

    A proxied connection needs two descriptors, of the client and of the backend. Also returns
    whether there are that many.
    """
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return asked or _MOST_CONNECTIONS, True
    suffices = (files - files // _PIPES - _OTHER_FILES) // 2
    if asked is not None:
        return asked, asked <= suffices
    return max(1, min(_MOST_CONNECTIONS, suffices)), suffices > 0


class _Server:
    """One proxy and what moves it: the files, and signals."""

    def __init__(
        self,
        files: tuple[str, ...],
        bindings: tuple[str, ...],
        *,
        options: Options,
        statuses: StatusFile | None,
        lenient: bool,
        watching: bool,
        limits: _Limits,
        drain: tuple[float, float],
        upgrade_socket: str | None,
        upgrade: bool,
    ) -> None:
        self._files = files
        self._bindings = bindings
        self._options = options
        self._statuses = statuses
        self._lenient = lenient
        self._watching = watching
        self._limits = limits
        self._drain_min, self._drain_max = drain
        self._upgrade_socket = upgrade_socket
        self._upgrade = upgrade
        self._ending = False
        self._pressure = 0
        self._announced: set[tuple[str, Address]] = set()
        self._refusals = Refusals()
        self._cut_off = False

    def serve(self) -> Exit:
        """Serves until a signal ends it.

        The start blocks, and the event loop comes after it: importing one would take a third of
        the time to the first answer.
        """
        from kgw.config import Manifests
        from kgw.proxy import unreadable

        # From the first moment on: a signal during the start is obeyed after it.
        with signals.held(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as held:
            manifests = Manifests(self._files, options=self._options)
            config = manifests.load()
            print_findings(_noteworthy(config))
            if refused := _objects(unreadable(config)):
                if not self._lenient:
                    eventlog.error(
                        f"does not start: {refused} cannot be read (--lenient serves without)"
                    )
                    return Exit.FINDINGS
                eventlog.warn(f"serving without {refused} that cannot be read")
            if not config.listeners:
                eventlog.error("nothing can be served: no Gateway has a listener that works")
                return Exit.FINDINGS
            return self._start(config, manifests, held)

    def _start(self, config: Config, manifests: Manifests, held: signals.Held) -> Exit:
        """Serves *config* on sockets of its own, of systemd, and of the process to be replaced."""
        from kgw.cli.systemd import passed_sockets
        from kgw.errors import ConfigError
        from kgw.proxy import Proxy

        with ExitStack() as stack:
            try:
                sockets = passed_sockets()
            except (OSError, ValueError) as error:
                eventlog.error("does not start", because=error)
                return Exit.UNREACHABLE
            successor: Successor | None = None
            upgrades: UpgradeSocket | None = None
            if self._upgrade_socket:
                from kgw.cli import upgrade

                try:
                    if self._upgrade:
                        successor = upgrade.Successor(self._upgrade_socket)
                        stack.callback(successor.close)
                        sockets += successor.sockets
                    else:
                        upgrades = stack.enter_context(upgrade.UpgradeSocket(self._upgrade_socket))
                except (upgrade.UpgradeFailed, OSError, ValueError) as error:
                    eventlog.error("does not start", because=error)
                    return Exit.UNREACHABLE
            proxy = Proxy(
                config,
                workers=self._limits.workers,
                bind=self._bindings,
                sockets=sockets,
                max_connections=self._limits.max_connections,
                max_memory=self._limits.max_memory,
                strict=False,
                drain_timeout=0,
            )
            passed = {one.address for one in sockets}

            def ready() -> UpgradeSocket | None:
                if successor is None or self._upgrade_socket is None:
                    return upgrades
                return self._take_over(stack, successor, self._upgrade_socket)

            async def serve() -> None:
                with self._serving(proxy, config, passed, ready) as waits:
                    await self._until_ended(proxy, manifests, held, waits)

            try:
                if self._limits.files_suffice:
                    with self._serving(proxy, config, passed, ready) as waits:
                        _run(partial(self._until_ended, proxy, manifests, held, waits))
                else:
                    # The event loop needs some files, and there may be none as soon as it serves.
                    _run(serve)
            except ConfigError as error:
                eventlog.error("the configuration cannot be served", because=error)
                return Exit.FINDINGS
            except OSError as error:
                eventlog.error("cannot listen", because=error.strerror or error)
                return Exit.UNREACHABLE
        return Exit.PARTIAL if self._cut_off else Exit.OK

    @contextmanager
    def _serving(
        self,
        proxy: Proxy,
        config: Config,
        passed: set[Address],
        ready: Callable[[], UpgradeSocket | None],
    ) -> Iterator[UpgradeSocket | None]:
        """Starts the proxy and says so; ends it. Yields what *ready* returns, once it serves."""
        from kgw.cli.systemd import notify

        started = time.monotonic()
        with proxy:
            self._announce(proxy, config)
            self._report_unused(proxy, passed)
            notify(f"READY=1\nMAINPID={os.getpid()}")
            upgrades = ready()
            took = _ms_since(started)
            self._publish(config)  # whoever waits for the event can read them
            eventlog.info(READY, **_extent(config), ms=took)
            yield upgrades

    def _publish(self, config: Config) -> None:
        """Writes the statuses of what is served, if somebody wants them."""
        if self._statuses is None:
            return
        try:
            self._statuses.write(config)
        except OSError as error:
            eventlog.warn("statuses cannot be written", because=error)

    def _take_over(self, stack: ExitStack, successor: Successor, path: str) -> UpgradeSocket | None:
        """Has the old process drain, and waits at its place for the next one."""
        from kgw.cli.upgrade import UpgradeSocket

        drains = successor.ready()
        eventlog.info("took over", sockets=len(successor.sockets), drains="yes" if drains else "no")
        try:
            return stack.enter_context(UpgradeSocket(path, replace=True))
        except OSError as error:
            eventlog.error("cannot be upgraded", because=error)
            return None

    def _report_unused(self, proxy: Proxy, passed: set[Address]) -> None:
        """Logs the sockets that this process was given and does not listen on."""
        from kgw.addresses import Address

        used = {Address(*at) for where in proxy.addresses.values() for at in where}
        for address in sorted(passed - used):
            eventlog.warn("no listener is at the address of a passed socket", address=address)

    def _announce(self, proxy: Proxy, config: Config) -> None:
        """Logs which addresses are new, and everything that is not in effect."""
        from kgw.addresses import Address
        from kgw.binding import exposed

        bound = proxy.addresses
        addresses = {(name, Address(*at)) for name, where in bound.items() for at in where}
        for listener, address in sorted(addresses - self._announced):
            eventlog.info(LISTENING, listener=listener, address=address)
        for listener, address in exposed(config.listeners, bound):
            if (listener, address) not in self._announced:
                eventlog.warn(
                    "whoever can reach this address can claim any identity",
                    listener=listener,
                    address=address,
                )
        self._announced = addresses
        for problem in proxy.problems:
            _report(problem)

    async def _until_ended(
        self,
        proxy: Proxy,
        manifests: Manifests,
        held: signals.Held,
        upgrades: UpgradeSocket | None,
    ) -> None:
        """Serves what the files say until a signal ends it."""
        import anyio

        with anyio.open_signal_receiver(*held.numbers) as received, held.released():
            async with anyio.create_task_group() as tasks:
                if self._watching:
                    tasks.start_soon(self._follow, proxy, manifests)
                if upgrades is not None:
                    tasks.start_soon(self._wait_for_successor, upgrades, proxy, tasks)
                tasks.start_soon(self._report_refusals, proxy)
                await self._obey(received, proxy, tasks)

    # === Refused connections ===

    async def _report_refusals(self, proxy: Proxy) -> None:
        import anyio

        while True:
            await anyio.sleep(_POLL)
            self._log_refusals(proxy, time.monotonic())

    def _log_refusals(self, proxy: Proxy, now: float) -> None:
        from kgw.errors import NotRunning

        try:
            stats = proxy.stats()
        except NotRunning:
            return
        for reason, count in self._refusals.due(stats, now):
            eventlog.warn("refused connections", reason=reason, count=count)
        if stats["memory_pressure"] != self._pressure:
            self._pressure = stats["memory_pressure"]
            used = {"used": stats.get("memory_used"), "limit": self._limits.max_memory}
            match self._pressure:
                case 0:
                    eventlog.info("memory suffices again", **used)
                case 1:
                    eventlog.warn("memory is short: closing idle connections", **used)
                case _:
                    eventlog.warn("memory runs out: shedding load", **used)

    # === Reloading ===

    async def _follow(self, proxy: Proxy, manifests: Manifests) -> None:
        async with aclosing(manifests.changes()) as configs:
            async for config in configs:
                await self._reload(proxy, config)

    async def _reload(self, proxy: Proxy, config: Config) -> None:
        """Serves *config*, unless an object of it cannot be read."""
        import anyio.to_thread

        from kgw.errors import ConfigError, NotRunning
        from kgw.proxy import unreadable

        started = time.monotonic()
        try:
            if unreadable(config):
                print_findings(unreadable(config))
                raise ConfigError("it has objects that cannot be read")
            if not config.listeners:
                raise ConfigError("nothing of it can be served")
            await proxy.apply(config)
            self._announce(proxy, config)
        except TimeoutError as error:
            eventlog.warn("some workers still serve the last configuration", because=error)
        except (ConfigError, OSError) as error:
            eventlog.error(
                "kept the last good configuration: the new one is refused", because=error
            )
        except NotRunning:
            return
        else:
            print_findings(_noteworthy(config))
            took = _ms_since(started)
            await anyio.to_thread.run_sync(self._publish, config)
            eventlog.info("configuration is live", **_extent(config), ms=took)

    # === Signals ===

    async def _obey(
        self, received: AsyncIterator[signal.Signals], proxy: Proxy, tasks: TaskGroup
    ) -> None:
        import anyio.to_thread

        from kgw.cli.systemd import notify

        async for number in received:
            if number == signal.SIGHUP:
                if not self._ending:
                    eventlog.info("reopening logs, reading the files", signal=number.name)
                    proxy.reopen_logs()
                    tasks.start_soon(self._read_again, proxy)
            elif not self._ending:
                self._ending = True
                notify("STOPPING=1")
                tasks.start_soon(self._drain, proxy, tasks, self._drain_min, number.name)
            else:
                eventlog.warn("ending at once", signal=number.name)
                await anyio.to_thread.run_sync(proxy.kill)

    async def _read_again(self, proxy: Proxy) -> None:
        import anyio.to_thread

        from kgw.config import load

        try:
            read = partial(load, self._files, options=self._options)
            config = await anyio.to_thread.run_sync(read)
        except OSError as error:
            eventlog.error("kept the last good configuration: there is no new one", because=error)
        else:
            await self._reload(proxy, config)

    # === The end ===

    async def _wait_for_successor(
        self, upgrades: UpgradeSocket, proxy: Proxy, tasks: TaskGroup
    ) -> None:
        """Drains once another process serves in this one's place."""
        from kgw.cli.upgrade import UpgradeFailed

        while not self._ending:
            attempt = await upgrades.accept()
            eventlog.info("handing over to another process")
            try:
                await attempt.hand_over(proxy)
            except (UpgradeFailed, OSError) as error:
                because = error if str(error) else "it took too long"
                eventlog.warn("goes on serving: the other process failed", because=because)
                continue
            if not self._ending:
                self._ending = True
                # The sockets are the successor's too, which accepts from now on.
                tasks.start_soon(self._drain, proxy, tasks, 0.0)

    async def _drain(
        self, proxy: Proxy, tasks: TaskGroup, accepting: float, signal_name: str | None = None
    ) -> None:
        from kgw.errors import NotRunning

        self._log_refusals(proxy, math.inf)
        why = {"replaced": "yes"} if signal_name is None else {"signal": signal_name}
        eventlog.info("draining", **why, seconds=f"{self._drain_max:g}")
        try:
            finished = await proxy.drain(self._drain_max, min=accepting)
        except NotRunning:
            finished = False  # a second signal was quicker
        if finished:
            eventlog.info("closed")
        else:
            self._cut_off = True
            eventlog.warn("closed; requests in flight were cut off")
        tasks.cancel_scope.cancel()


def _run(function: Callable[[], Awaitable[None]]) -> None:
    """Runs an event loop, after it has imported what a reload needs: there may be no file then."""
    import anyio.to_thread

    from kgw.api import KINDS

    for module in ("kgw.cli.terminal", "kgw.diagnostics"):
        importlib.import_module(module)
    for _model in KINDS.values():
        pass  # looked up, it is imported
    gc.freeze()  # what is there stays: to look through it takes seconds, where there is much
    gc.enable()
    anyio.run(function)


def _noteworthy(config: Config) -> list[Finding]:
    """Returns the errors and warnings; what is merely worth knowing is for `kgw check`."""
    from kgw.diagnostics import Severity

    return [finding for finding in config.findings if finding.severity is not Severity.INFO]


def _objects(findings: list[Finding]) -> str:
    """Returns of how many objects the findings are: ``2 objects``; nothing if there are none."""
    found = {
        (one.resource, one.source and (one.source.file, one.source.document, one.source.prefix))
        for one in findings
    }
    return f"{len(found)} object{'s' * (len(found) > 1)}" if found else ""


_LOG_LOST = re.compile(r"(?P<listener>\S+): cannot open the access log (?P<path>.*): (?P<why>.*)")


def _report(problem: str) -> None:
    """Logs one of `Proxy.problems`."""
    if lost := _LOG_LOST.fullmatch(problem):
        eventlog.warn(
            "access log cannot be opened",
            path=lost["path"],
            listener=lost["listener"],
            because=lost["why"],
        )
    else:
        eventlog.warn("not in effect", because=problem)


def _extent(config: Config) -> dict[str, int]:
    """Returns how much there is to serve."""
    return {"listeners": len(config.listeners), "routes": config.translation.route_count}


def _ms_since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
