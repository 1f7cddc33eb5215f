"""The loop that calls filters, played by a test, and a gateway with filters around it."""

from __future__ import annotations

import json
import select
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tests.engine.harness import (
    WAIT,
    Gateway,
    Peer,
    Setup,
    Upstream,
    eventually,
    forward,
    rule,
    serving,
)

from kgw._native.bridge import Bridge, Job, Request, Response

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LOG = {
    "code": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "long": "%RESPONSE_FLAGS_LONG%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "user": "%DYNAMIC_METADATA(kgw.python:user)%",
}


def declared(name: str = "f", **more: Any) -> dict[str, Any]:
    """What a filter says of itself."""
    return {
        "name": name,
        "on_request": True,
        "on_response": False,
        "timeout_ms": 1_000,
        "on_error": "deny",
    } | more


class Loop:
    """What calls filters, when the test says so; keeps what it is told."""

    def __init__(
        self, *declarations: dict[str, Any], capacity: int = 64, max_bytes: int = 1 << 30
    ) -> None:
        self.bridge = Bridge(json.dumps(declarations).encode(), capacity, max_bytes)
        self.handlers: list[Callable[..., Any] | None] = [None] * (4 * len(declarations))
        self.jobs: list[Job] = []
        self.results: list[Any] = []
        self.cancelled: list[int] = []
        self.errors: list[tuple[int, Exception]] = []
        self.stopped = False

    def start(self, job: Job, result: Any) -> None:
        self.jobs.append(job)
        self.results.append(result)

    def cancel(self, ident: int) -> None:
        self.cancelled.append(ident)

    def failed(self, number: int, error: Exception) -> None:
        self.errors.append((number, error))

    def stop(self) -> None:
        self.stopped = True

    def is_woken(self) -> bool:
        return bool(select.select([self.bridge.fileno()], [], [], 0)[0])

    def drain(self) -> None:
        """Waits for the next wake and looks."""
        assert select.select([self.bridge.fileno()], [], [], WAIT)[0], "never woken"
        self.bridge.drain(self.handlers, self)

    def on_request(self, handler: Callable[[Request], Any], number: int = 0) -> None:
        self.handlers[4 * number] = handler

    def on_response(self, handler: Callable[[Request, Response], Any], number: int = 0) -> None:
        self.handlers[4 * number + 1] = handler

    def on_request_chunk(
        self, handler: Callable[[Request, bytes, bool], Any], number: int = 0
    ) -> None:
        self.handlers[4 * number + 2] = handler

    def on_response_chunk(
        self, handler: Callable[[Request, Response, bytes, bool], Any], number: int = 0
    ) -> None:
        self.handlers[4 * number + 3] = handler

    def drain_until(self, condition: Callable[[], object]) -> None:
        """Looks whenever it is woken, until something holds."""

        def holds() -> bool:
            if self.is_woken():
                self.drain()
            return bool(condition())

        eventually(holds)


def named(*names: str, **more: Any) -> list[dict[str, Any]]:
    return [{"type": "python", "filter": name} | more for name in names]


def filtered(filters: list[dict[str, Any]], action: dict[str, Any] | None = None) -> Setup:
    route = {"name": "ns/r/0/0", "filters": filters, "action": action or forward("c")}
    return Setup(
        log=LOG, routes={"r": route, "plain": {"name": "plain", "action": forward("c")}},
        rules=[rule("/", "r"), rule("/plain", "plain")],
    )  # fmt: skip


@contextmanager
def stage(
    loop: Loop,
    setup: Setup | None = None,
    script: Any = ...,
    *,
    log: Path | None = None,
    **options: Any,
) -> Iterator[tuple[Gateway, Upstream]]:
    setup = setup or filtered(named("f"))
    setup.log_path = None if log is None else str(log / "access.log")
    scripts = () if script is ... else (script,)
    with serving(setup, *scripts, bridge=loop.bridge, **options) as staged:
        yield staged


def asked(gateway: Gateway, request: bytes) -> Peer:
    client = gateway.connect()
    client.send(request)
    return client


def seen(client: Peer) -> dict[str, Any]:
    """What the upstream got, as it says."""
    response = client.read_response()
    assert response.status == 200, response
    found: dict[str, Any] = json.loads(response.body)
    found["headers"] = {name.lower(): value for name, value in found["headers"]}
    return found


def filter_stats(gateway: Gateway) -> dict[str, int]:
    """The counters of filters that are not 0."""
    stats = gateway.stats()
    prefix = "python_filter_"
    return {
        name.removeprefix(prefix): value
        for name, value in stats.items()
        if name.startswith(prefix) and value
    }


def boom(*_: object) -> None:
    """A filter that fails."""
    raise RuntimeError("boom")
