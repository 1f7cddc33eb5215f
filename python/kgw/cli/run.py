"""``kgw run``: serves what manifests say, and follows their changes."""

from __future__ import annotations

import signal
import time
from contextlib import aclosing
from typing import TYPE_CHECKING

import click

from kgw.cli import eventlog
from kgw.cli.addresses import bindings as checked_bindings
from kgw.cli.exits import Exit
from kgw.cli.manifests import files_option, print_findings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from anyio.abc import TaskGroup

    from kgw.config import Config
    from kgw.diagnostics import Finding
    from kgw.proxy import Proxy

LISTENING = "listening"
"""The event that is logged for each address that was bound."""

READY = "serving"
"""The event that is logged once every listener is bound."""


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
    no_watch: bool,
    drain_timeout: float,
) -> None:
    """Serve what manifests say, and follow their changes.

    A change is live within a moment and drops no connection. A file that cannot be read changes
    nothing: the last good configuration keeps serving, and stderr says why.

    SIGTERM and SIGINT finish the requests in flight and end (a second one ends at once); SIGHUP
    reads the files again and reopens the access logs.
    """
    import anyio

    server = _Server(files, bindings, watching=not no_watch, drain_timeout=drain_timeout)
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
        watching: bool,
        drain_timeout: float,
    ) -> None:
        self._files = files
        self._bindings = bindings
        self._watching = watching
        self._drain_timeout = drain_timeout

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
        from kgw.proxy import Proxy

        config = await anext(configs)
        print_findings(_noteworthy(config))
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
        return Exit.OK

    def _announce(self, proxy: Proxy, config: Config) -> None:
        from kgw.addresses import Address
        from kgw.binding import exposed, rebind

        for listener, addresses in sorted(proxy.addresses.items()):
            for address in addresses:
                eventlog.info(LISTENING, listener=listener, address=Address(*address))
        for listener, where in exposed(rebind(config.ir, self._bindings)):
            eventlog.warn(
                "whoever can reach this address can claim any identity",
                listener=listener,
                address=where,
            )

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
            await self._obey(signals, proxy, tasks)

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
        except ConfigError as error:
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
        eventlog.info("draining", signal=number.name, seconds=f"{self._drain_timeout:g}")
        finished = await proxy.drain(self._drain_timeout)
        if finished:
            eventlog.info("closed")
        else:
            eventlog.warn("closed; requests in flight were cut off")
        tasks.cancel_scope.cancel()


def _noteworthy(config: Config) -> list[Finding]:
    """Returns the errors and warnings; what is merely worth knowing is for `kgw check`."""
    from kgw.diagnostics import Severity

    return [finding for finding in config.findings if finding.severity is not Severity.INFO]


def _extent(config: Config) -> dict[str, int]:
    """Returns how much there is to serve."""
    ir = config.ir
    return {"listeners": len(ir["listeners"]), "routes": len(ir["routes"])}


def _ms_since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
