"""Signals that come before there is an event loop."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from kgw.cli.signals import held

if TYPE_CHECKING:
    from collections.abc import Iterator

NUMBER = signal.SIGUSR1


@contextmanager
def caught() -> Iterator[list[int]]:
    """The signals that the handler gets."""
    found: list[int] = []
    before = signal.signal(NUMBER, lambda number, _: found.append(number))
    try:
        yield found
    finally:
        signal.signal(NUMBER, before)


def test_a_held_signal_comes_when_it_is_released() -> None:
    with caught() as found, held(NUMBER) as signals:
        signal.raise_signal(NUMBER)
        assert found == []
        with signals.released():
            assert found == [NUMBER]
            signal.raise_signal(NUMBER)
            assert found == [NUMBER, NUMBER]
        signal.raise_signal(NUMBER)
        assert found == [NUMBER, NUMBER]


def test_a_signal_that_is_still_held_at_the_end_is_dropped() -> None:
    with caught() as found:
        with held(NUMBER):
            signal.raise_signal(NUMBER)
        assert found == []
        signal.raise_signal(NUMBER)
        assert found == [NUMBER]


def test_threads_that_are_started_meanwhile_leave_the_signals_to_the_main_thread() -> None:
    masks: list[set[int]] = []
    with held(NUMBER):
        thread = threading.Thread(
            target=lambda: masks.append(set(signal.pthread_sigmask(signal.SIG_BLOCK, ())))
        )
        thread.start()
        thread.join()
    assert NUMBER in masks[0]
    assert NUMBER not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
