"""The lifespan of an application: told to start, told to end (ASGI lifespan 2.0)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import anyio

from kgw.asgi.errors import LifespanError

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from kgw.asgi.types import App, Message

log: logging.Logger = logging.getLogger("kgw.asgi")


class Lifespan:
    """One application's lifespan, in a task of its own."""

    def __init__(self, app: App) -> None:
        self._app = app
        #: What the application shares with its requests.
        self.state: dict[str, Any] = {}
        self._ending = anyio.Event()
        self._told = False
        self._answered = anyio.Event()
        self._failure: str | None = None
        self._started = False
        self._over = anyio.Event()

    async def start(self, tasks: TaskGroup) -> None:
        """Starts the application in *tasks*; one that knows no lifespan just does not hear of it.

        Raises:
            LifespanError: the application says that it cannot start.
        """
        tasks.start_soon(self._run)
        await self._answered.wait()
        if self._failure is not None:
            raise LifespanError(f"the application did not start: {self._failure}")

    async def end(self) -> None:
        """Tells the application to end, and waits until it has. What fails is logged."""
        self._answered = anyio.Event()
        self._ending.set()
        if not self._started:
            return
        await self._answered.wait()
        if self._failure is not None:
            log.error("the application did not end well: %s", self._failure)
        await self._over.wait()

    async def _run(self) -> None:
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self.state,
        }
        try:
            await self._app(scope, self._receive, self._send)
        except Exception as error:
            if self._started:
                log.exception("the lifespan of an application failed")
            elif self._failure is None:
                # What ASGI says of an application that has no lifespan: it raises.
                log.debug("the application has no lifespan: %r", error)
        finally:
            self._started = False
            self._over.set()
            self._answered.set()

    async def _receive(self) -> Message:
        if not self._told:
            self._told = True
            return {"type": "lifespan.startup"}
        await self._ending.wait()
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: Message) -> None:
        match message["type"]:
            case "lifespan.startup.complete":
                self._started = True
            case "lifespan.startup.failed" | "lifespan.shutdown.failed":
                self._failure = message.get("message") or "it does not say why"
            case "lifespan.shutdown.complete":
                pass
            case other:
                raise RuntimeError(f"{other!r} is no message of a lifespan")
        self._answered.set()
