"""The clock of a gateway under test: limits, time-outs and slow backends, without waiting."""

from __future__ import annotations

import asyncio
import math
import threading
from typing import TYPE_CHECKING

import pytest
from tests.testing.manifests import EDGE, LIMIT

from kgw.testing import NoAnswer, Reply
from kgw.testing import gateway as gateways

if TYPE_CHECKING:
    import kgw
    from kgw.testing import GatewayFactory, Received

WAIT = 10.0
"""Real seconds: a bound on what must happen."""


def test_a_rate_limit_goes_by_the_clock(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy([EDGE, LIMIT])
    assert [gateway.get("/api").status for _ in range(3)] == [200, 200, 429]
    gateway.clock.advance(29.999)
    assert gateway.get("/api").status == 429
    gateway.clock.advance(30.001)
    assert [gateway.get("/api").status for _ in range(3)] == [200, 200, 429]
    assert gateway.clock.now == 60


def test_a_slow_backend_answers_when_time_has_jumped(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy(EDGE)
    gateway.backend("api").responds(200, body="late", delay=14.5)
    answer = gateway.get("/api")
    assert (answer.status, answer.text, answer.at) == (200, "late", 14.5)
    assert answer.log["duration"] == 14_500


def test_a_time_out_fires_before_a_backend_that_is_too_slow(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy(EDGE)
    gateway.backend("api").responds(delay=15.001)
    answer = gateway.get("/api")
    assert (answer.status, answer.flags, answer.at) == (504, "UT", 15)
    assert answer.log["duration"] == 15_000
    assert answer.received is not None
    assert gateway.get("/api").at == 30


def test_at_one_moment_the_gateway_goes_first(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy(EDGE)
    gateway.backend("api").responds(delay=15)
    assert gateway.get("/api").status == 504


def test_a_backend_that_hangs_runs_into_the_time_out(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy(EDGE)
    gateway.backend("api").hangs(times=1)
    assert [gateway.get("/api").status for _ in range(2)] == [504, 200]


def test_a_started_request_waits_for_the_test(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy(EDGE)
    gateway.backend("api").responds(201, delay=10)
    pending = gateway.start("GET", "/api")
    assert repr(pending) == "<Pending GET http://localhost/api>"
    assert not pending.done
    gateway.clock.advance(9.999)
    assert not pending.done
    gateway.clock.advance(0.001)
    assert pending.done
    assert pending.answer().log["duration"] == 10_000


def test_what_is_due_on_the_way_happens_in_order(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy(EDGE)
    gateway.backend("api").responds(delay=20, times=1).responds(200, delay=5, times=1)
    slow, quick = gateway.start("GET", "/api"), gateway.start("GET", "/api")
    gateway.clock.advance(3600)
    answers = [slow.answer(), quick.answer()]
    assert [answer.status for answer in answers] == [504, 200]
    assert [answer.log["duration"] for answer in answers] == [15_000, 5_000]
    assert gateway.clock.now == 3600


def test_waiting_for_a_started_request_lets_time_jump(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy(EDGE)
    gateway.backend("api").responds(delay=7)
    first, second = gateway.start("GET", "/api"), gateway.start("GET", "/api")
    assert gateway.clock.now == 0
    assert (first.answer().status, second.answer().status) == (200, 200)
    assert gateway.clock.now == 7


def test_time_does_not_jump_over_a_request_that_is_being_worked_on(
    kgw_proxy: GatewayFactory,
) -> None:
    gateway = kgw_proxy(EDGE)
    arrived, let_go = threading.Event(), threading.Event()

    def handler(request: Received) -> Reply:
        if request.path == "/api/busy":
            arrived.set()
            assert let_go.wait(WAIT)
        return Reply(delay=0.0 if request.path == "/api/busy" else 3.0)

    gateway.backend("api").handles(handler)
    slow = gateway.start("GET", "/api/slow")
    waiting = threading.Thread(target=slow.answer)
    busy = gateway.start("GET", "/api/busy")
    assert arrived.wait(WAIT)
    waiting.start()
    # One request waits for time, the other for the test: nothing may move.
    assert gateway.get("/nowhere").at == 0
    assert not slow.done
    let_go.set()
    assert busy.answer().status == 200
    waiting.join(WAIT)
    assert slow.answer().at == 3


def test_a_filter_that_hangs_has_its_own_time_out(kgw_proxy: GatewayFactory) -> None:
    def filters(proxy: kgw.Proxy) -> None:
        @proxy.filter("slow", routes=["default/web"], timeout=2.0, on_error="deny")
        async def slow(request: kgw.Request) -> None:
            await asyncio.Event().wait()

    gateway = kgw_proxy(EDGE, setup=filters)
    pending = gateway.start("GET", "/api")
    gateway.clock.advance(1.999)
    assert not pending.done
    gateway.clock.advance(0.001)
    answer = pending.answer()
    assert (answer.status, answer.log["duration"]) == (504, 2_000)


def test_what_nothing_will_end_is_told_apart(
    kgw_proxy: GatewayFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler of the test that never returns: the one thing that takes real time to notice."""
    monkeypatch.setattr(gateways, "PATIENCE", 0.2)
    gateway = kgw_proxy(EDGE)
    let_go = threading.Event()

    def handler(request: Received) -> Reply:
        assert let_go.wait(WAIT)
        return Reply()

    gateway.backend("api").handles(handler)
    with pytest.raises(NoAnswer, match=r"nothing came for 0\.2 real seconds; the gateway waits"):
        gateway.get("/api")
    let_go.set()


def test_a_client_that_goes_away_ends_the_wait_of_its_backend(
    kgw_proxy: GatewayFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateways, "PATIENCE", 0.2)
    gateway = kgw_proxy(EDGE)
    gateway.backend("api").hangs()
    pending = gateway.start("GET", "/api")
    assert gateway.backend("api").waits
    pending._thread.join(WAIT)  # without a test that waits for it, time does not jump
    with pytest.raises(NoAnswer, match="default/api would answer later: advance the clock"):
        pending.answer()
    assert gateway.clock.now == 0


@pytest.mark.parametrize("seconds", [-1.0, math.inf, math.nan])
def test_time_goes_forward_by_a_finite_number(kgw_proxy: GatewayFactory, seconds: float) -> None:
    with pytest.raises(ValueError, match="time goes forward"):
        kgw_proxy(EDGE).clock.advance(seconds)
