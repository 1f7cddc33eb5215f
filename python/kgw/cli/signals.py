"""Signals that come while there is no event loop to take them.

A command that starts without one holds them back, so that a signal is neither lost nor ends the
process half-way; the loop gets what came meanwhile.
"""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Held:
    """Signals that this thread, and those that it starts, do not get."""

    def __init__(self, numbers: tuple[signal.Signals, ...]) -> None:
        self.numbers = numbers
        """Which."""

    @contextmanager
    def released(self) -> Iterator[None]:
        """Lets them, and those that came meanwhile, through to what handles them by now."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self.numbers)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, self.numbers)


@contextmanager
def held(*numbers: signal.Signals) -> Iterator[Held]:
    """Holds back signals; those that are still held at the end are dropped.

    Threads started inside never get them, which leaves them to the main thread. It is for the main
    thread, and for signals that it does not block already.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield Held(numbers)
    finally:
        while signal.sigtimedwait(numbers, 0) is not None:
            pass
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
