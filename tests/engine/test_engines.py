"""Engines as a whole: limits, several of them, forks."""

from __future__ import annotations

import os
import socket

import pytest
from tests.engine.harness import (
    Peer,
    Setup,
    always,
    direct,
    eventually,
    free_port,
    get,
    ok,
    serving,
)

from kgw._native.engine import Engine
from kgw.errors import ConfigError, NotRunning


def test_engines_do_not_know_of_each_other() -> None:
    with (
        serving(Setup(routes={"d": direct(200, "one")})) as (one, _),
        serving(Setup(routes={"d": direct(200, "other")}), workers=2) as (other, _),
    ):
        assert one.port != other.port
        assert one.get().body == b"one"
        assert other.get().body == b"other"
        one.close()
        assert other.get().body == b"other"
        eventually(lambda: other.stat("downstream_rq_total") == 2, "two counted requests")


def test_an_engine_that_was_not_started_does_nothing() -> None:
    engine = Engine(workers=1)
    with pytest.raises(NotRunning):
        engine.apply(Setup().encoded())
    with pytest.raises(NotRunning):
        engine.stats()
    assert engine.join(0.0) is True


def test_an_engine_that_cannot_start_can_be_started_later() -> None:
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        ir = Setup()
        ir.listeners = [
            {
                "id": "taken",
                "bind": ["{}:{}".format(*taken.getsockname())],
                "traffic": {"type": "http", "route_table": "t"},
            }
        ]
        engine = Engine(workers=1)
        with pytest.raises(ConfigError):
            engine.start(b"[]")
        with pytest.raises(OSError, match="taken"):
            engine.start(ir.encoded())
    engine.start(ir.encoded())
    assert engine.wait_applied(1, 5)
    with pytest.raises(NotRunning):
        engine.start(ir.encoded())
    engine.join(0.0)


@pytest.mark.parametrize("workers", [0, -1, 1025])
def test_the_number_of_workers_is_checked(workers: int) -> None:
    with pytest.raises((ValueError, OverflowError)):
        Engine(workers=workers)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_is_refused_and_ends_without_hanging() -> None:
    with serving(script=always(ok())) as (gateway, _):
        assert gateway.get().status == 200
        child = os.fork()
        if child == 0:
            # Nothing here may return into pytest.
            status = 1
            try:
                gateway.engine.stats()
            except NotRunning:
                status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert gateway.get().status == 200


def test_an_engine_that_is_dropped_closes_everything() -> None:
    engine = Engine(workers=2)
    engine.start(Setup(routes={"d": direct(200, "ok")}).encoded())
    assert engine.wait_applied(1, 5)
    port = engine.addresses()["l"][0][1]
    client = Peer(socket.create_connection(("127.0.0.1", port), 5))
    client.send(get())
    assert client.read_response().body == b"ok"
    del engine
    assert client.is_closed()
    client.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 5)


def test_a_wait_may_be_longer_than_any_clock() -> None:
    centuries = 1e19  # more seconds than fit an i64
    engine = Engine(workers=1)
    engine.start(Setup(routes={"d": direct(200, "ok")}).encoded())
    assert engine.wait_applied(1, centuries)
    assert engine.flush_logs(centuries)
    engine.drain()
    assert engine.join(centuries)
