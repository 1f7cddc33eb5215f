from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING, Any

import pytest
from trio.testing import MockClock

if TYPE_CHECKING:
    from collections.abc import Callable


class _NoWaitSelector(selectors.DefaultSelector):
    """Waits in virtual time: instead of blocking, the clock jumps."""

    def __init__(self, advance: Callable[[float], None]) -> None:
        super().__init__()
        self._advance = advance

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0 if timeout is not None else None)
        if not ready and timeout:
            self._advance(timeout)
        return ready


class _VirtualTimeLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._now = 0.0
        super().__init__(_NoWaitSelector(self._advance))

    def time(self) -> float:
        return self._now

    def _advance(self, seconds: float) -> None:
        self._now += seconds


def _backends() -> list[Any]:
    return [
        pytest.param(("asyncio", {"loop_factory": _VirtualTimeLoop}), id="asyncio"),
        pytest.param(("trio", {}), id="trio"),
    ]


@pytest.fixture(params=_backends())
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Both event loops, in virtual time: a sleep takes none, yet `anyio.current_time` moves."""
    name, options = request.param
    if name == "trio":
        options = {"clock": MockClock(autojump_threshold=0)}
    return name, options
