"""Time-outs with the system's clock: they come by themselves, however they are armed."""

from __future__ import annotations

from typing import Any

import pytest
from tests.engine.harness import Setup, deaf_address, forward, get, ok, rule, serving

SOON = 20
"""Milliseconds. Tests only wait for what comes; how long it took is nobody's business."""


def routed(timeout_ms: int, **more: Any) -> Setup:
    routes = {
        "default": {"name": "default", "action": forward("c", timeout_ms=60_000)},
        "soon": {"name": "soon", "action": forward("c", timeout_ms=timeout_ms)},
    }
    return Setup(routes=routes, rules=[rule("/", "default"), rule("/soon", "soon")], **more)


def test_a_route_time_out_comes_after_longer_ones_were_armed() -> None:
    with serving(routed(SOON), None, real_time=True) as (gateway, upstream):
        client = gateway.connect()
        client.send(get())
        first = upstream.accept()
        first.read_request()
        first.send(ok())
        assert client.read_response().status == 200
        client.send(get("/soon"))
        assert client.read_response().status == 504
        # The timer that was armed for the short one does not end the next.
        client.send(get() + get("/soon"))
        second = upstream.accept()
        second.read_request()
        second.send(ok())
        assert client.read_response().status == 200
        assert client.read_response().status == 504


def test_a_stream_idle_time_out_comes() -> None:
    setup = routed(0, http={"stream_idle_timeout_ms": SOON})
    with serving(setup, None, real_time=True) as (gateway, _):
        response = gateway.get("/soon")
        assert (response.status, response.body) == (504, b"stream timeout")


def test_a_head_time_out_comes() -> None:
    setup = Setup(http={"request_head_timeout_ms": SOON})
    with serving(setup, real_time=True) as (gateway, _):
        client = gateway.connect()
        client.send(b"GET /")
        assert client.read_response().status == 408
        assert client.is_closed()


@pytest.mark.parametrize("waypoint", [False, True])
def test_a_silent_connection_is_closed(waypoint: bool) -> None:
    setup = Setup(
        waypoint=waypoint,
        header_timeout_ms=SOON if waypoint else 60_000,
        http={"idle_timeout_ms": 60_000 if waypoint else SOON},
    )
    with serving(setup, real_time=True) as (gateway, _):
        assert gateway.connect().is_closed()


def test_a_connect_time_out_comes() -> None:
    with deaf_address() as address:
        setup = Setup(clusters={"c": {"endpoints": [address], "connect_timeout_ms": SOON}})
        with serving(setup, real_time=True) as (gateway, _):
            response = gateway.get()
            assert (response.status, response.body[-18:]) == (503, b"connection timeout")


def test_an_idle_connection_does_not_hold_up_the_end() -> None:
    with serving(real_time=True, workers=2) as (gateway, _):
        client = gateway.connect()
        client.send(get())
        assert client.read_response().status == 200
        gateway.engine.drain()
        assert gateway.engine.join(10.0) is True
        assert client.is_closed()
