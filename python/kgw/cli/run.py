"""``kgw run``: serves what manifests say, and follows their changes."""

from __future__ import annotations

import math
import re
import signal
import time
from contextlib import aclosing
from typing import TYPE_CHECKING

import click

from kgw.cli import eventlog
from kgw.cli.addresses import bindings as checked_bindings
from kgw.cli.exits import Exit
from kgw.cli.manifests import files_option, print_findings
from kgw.cli.refusals import Refusals

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from anyio.abc import TaskGroup

    from kgw.addresses import Address
    from kgw.config import Config
    from kgw.diagnostics import Finding
    from kgw.proxy import Proxy

LISTENING = "listening"
"""The event that is logged for each address that was bound."""

READY = "serving"
"""The event that is logged once every listener is bound."""

_POLL = 2.0
"""Seconds between two looks at the counters of refused connections."""


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
@click.option(
    "--lenient", is_flag=True, help="Start without the objects that cannot be read, if there are."
)
@click.option("--no-watch", is_flag=True, help="Do not follow changes of the files.")
@click.option(
    "--drain-timeout",
    type=click.FloatRange(0),
    default=25.0,
    show_default=True,
    metavar="SECONDS",
    help="Time that requests in flight get at the end.",
)
def command(
    files: tuple[str, ...],
    workers: int | None,
    bindings: tuple[str, ...],
    lenient: bool,
    no_watch: bool,
    drain_timeout: float,
) -> None:
    """Serve what manifests say, and follow their changes.

    It does not start with an object that cannot be read, which may be a rate limit, unless
    --lenient says so. A change is live within a moment and drops no connection. One that cannot be
    read changes nothing: the last good configuration keeps serving, and stderr says why.

    SIGTERM and SIGINT finish the requests in flight and end (a second one ends at once); SIGHUP
    reads the files again and reopens the access logs. Exits with 4 if requests were cut off.
    """
    import anyio

    server = _Server(
        files, bindings, lenient=lenient, watching=not no_watch, drain_timeout=drain_timeout
    )
    code = anyio.run(server.serve, workers)
    if code is not Exit.OK:
        raise click.exceptions.Exit(code)


class _Server:
    """One proxy and what moves it: the files, and signals."""

    def __init__(
        self,
        files: tuple[str, ...],
        bindings: tuple[str, ...],
        *,
        lenient: bool,
        watching: bool,
        drain_timeout: float,
    ) -> None:
        self._files = files
        self._bindings = bindings
        self._lenient = lenient
        self._watching = watching
        self._drain_timeout = drain_timeout
        self._announced: set[tuple[str, Address]] = set()
        self._refusals = Refusals()
        self._cut_off = False

    async def serve(self, workers: int | None) -> Exit:
        """Serves until a signal ends it."""
        import anyio

        from kgw.config import watch

        # From the first moment on: a signal during the start is obeyed after it.
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            async with aclosing(watch(self._files)) as configs:
                return await self._serve(configs, signals, workers)

    async def _serve(
        self,
        configs: AsyncIterator[Config],
        signals: AsyncIterator[signal.Signals],
        workers: int | None,
    ) -> Exit:
        from kgw.errors import ConfigError
        from kgw.proxy import Proxy, unreadable

        config = await anext(configs)
        print_findings(_noteworthy(config))
        if refused := _objects(unreadable(config)):
            if not self._lenient:
                eventlog.error(
                    f"does not start: {refused} cannot be read (--lenient serves without)"
                )
                return Exit.FINDINGS
            eventlog.warn(f"serving without {refused} that cannot be read")
        if not config.ir["listeners"]:
            eventlog.error("nothing can be served: no Gateway has a listener that works")
            return Exit.FINDINGS
        started = time.monotonic()
        proxy = Proxy(config, workers=workers, bind=self._bindings, strict=False, drain_timeout=0)
        try:
            async with proxy:
                self._announce(proxy, config)
                eventlog.info(READY, **_extent(config), ms=_ms_since(started))
                await self._until_ended(proxy, configs, signals)
        except ConfigError as error:
            eventlog.error("the configuration cannot be served", because=error)
            return Exit.FINDINGS
        except OSError as error:
            eventlog.error("cannot listen", because=error.strerror or error)
            return Exit.UNREACHABLE
        return Exit.PARTIAL if self._cut_off else Exit.OK

    def _announce(self, proxy: Proxy, config: Config) -> None:
        """Logs which addresses are new, and everything that is not in effect."""
        from kgw.addresses import Address
        from kgw.binding import exposed

        bound = proxy.addresses
        addresses = {(name, Address(*at)) for name, where in bound.items() for at in where}
        for listener, address in sorted(addresses - self._announced):
            eventlog.info(LISTENING, listener=listener, address=address)
        for listener, address in exposed(config.ir, bound):
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
        configs: AsyncIterator[Config],
        signals: AsyncIterator[signal.Signals],
    ) -> None:
        import anyio

        async with anyio.create_task_group() as tasks:
            if self._watching:
                tasks.start_soon(self._follow, proxy, configs)
            tasks.start_soon(self._report_refusals, proxy)
            await self._obey(signals, proxy, tasks)

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

    # === Reloading ===

    async def _follow(self, proxy: Proxy, configs: AsyncIterator[Config]) -> None:
        async for config in configs:
            await self._reload(proxy, config)

    async def _reload(self, proxy: Proxy, config: Config) -> None:
        """Serves *config*, unless an object of it cannot be read."""
        from kgw.errors import ConfigError, NotRunning
        from kgw.proxy import unreadable

        started = time.monotonic()
        try:
            if unreadable(config):
                print_findings(unreadable(config))
                raise ConfigError("it has objects that cannot be read")
            if not config.ir["listeners"]:
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
            eventlog.info("configuration is live", **_extent(config), ms=_ms_since(started))

    # === Signals ===

    async def _obey(
        self, signals: AsyncIterator[signal.Signals], proxy: Proxy, tasks: TaskGroup
    ) -> None:
        import anyio.to_thread

        draining = False
        async for number in signals:
            if number == signal.SIGHUP:
                if not draining:
                    eventlog.info("reopening logs, reading the files", signal=number.name)
                    proxy.reopen_logs()
                    tasks.start_soon(self._read_again, proxy)
            elif not draining:
                draining = True
                tasks.start_soon(self._drain, proxy, number, tasks)
            else:
                eventlog.warn("ending at once", signal=number.name)
                await anyio.to_thread.run_sync(proxy.kill)

    async def _read_again(self, proxy: Proxy) -> None:
        import anyio.to_thread

        from kgw.config import load

        await self._reload(proxy, await anyio.to_thread.run_sync(load, self._files))

    async def _drain(self, proxy: Proxy, number: signal.Signals, tasks: TaskGroup) -> None:
        self._log_refusals(proxy, math.inf)
        eventlog.info("draining", signal=number.name, seconds=f"{self._drain_timeout:g}")
        finished = await proxy.drain(self._drain_timeout)
        if finished:
            eventlog.info("closed")
        else:
            self._cut_off = True
            eventlog.warn("closed; requests in flight were cut off")
        tasks.cancel_scope.cancel()


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
    ir = config.ir
    return {"listeners": len(ir["listeners"]), "routes": len(ir["routes"])}


def _ms_since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
