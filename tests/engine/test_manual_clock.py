"""What a manual clock says of the deadlines ahead, and when what follows from it has happened."""

from __future__ import annotations

import pytest
from tests.engine.harness import WAIT, Setup, get, ok, serving

from kgw._native.engine import Engine
from kgw.errors import NotRunning
from kgw.proxy import ManualClock


def test_the_first_deadline_is_known_and_moves_nearer() -> None:
    with serving(Setup(http={"idle_timeout_ms": 0}), None) as (gateway, upstream):
        engine = gateway.engine
        assert engine.settle(WAIT)
        assert engine.next_deadline() is None
        client = gateway.connect()
        client.send(get())
        backend = upstream.accept()
        backend.read_request()
        assert engine.settle(WAIT)
        assert engine.next_deadline() == 5.0  # of connecting, which has succeeded meanwhile
        engine.advance(0)
        assert engine.settle(WAIT)
        assert engine.next_deadline() == 15.0
        engine.advance(14.5)
        assert engine.settle(WAIT)
        assert engine.next_deadline() == 0.5
        assert not client.is_readable()
        engine.advance(0.5)
        assert engine.settle(WAIT)
        # No wait: settled, the answer has been written.
        assert client.is_readable()
        assert client.read_response().status == 504


def test_settled_the_gateway_has_taken_what_it_was_sent() -> None:
    with serving(Setup(), None) as (gateway, upstream):
        client = gateway.connect()
        client.send(get())
        backend = upstream.accept()
        backend.read_request()
        backend.send(ok(b"in time"))
        # Its answer is there before the time-out: it counts, although nobody has waited for it.
        assert gateway.engine.settle(WAIT)
        gateway.engine.advance(3600)
        assert client.read_response().body == b"in time"


def test_every_worker_settles_and_one_after_another() -> None:
    with serving(Setup(), workers=3) as (gateway, _):
        for _ in range(50):
            gateway.engine.advance(1)
            assert gateway.engine.settle(WAIT)


def test_an_engine_that_does_not_run_has_nothing_to_settle() -> None:
    engine = Engine(workers=1, manual_clock=True)
    with pytest.raises(NotRunning):
        engine.settle(0)
    with pytest.raises(NotRunning):
        engine.next_deadline()


def test_a_clock_without_proxies_is_settled() -> None:
    clock = ManualClock()
    assert clock.settle(0)
    assert clock.next_deadline() is None
