"""A client leaves at every stage: the backend is told, the log says so, and nothing stays."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from tests.engine.harness import Peer, eventually
from tests.peers import frames
from tests.peers.h2 import Connection

from .stage import PAIRS, Stage, stage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .clients import Client
    from .upstreams import Upstream

LONG = 100_000_000
"""The length of an answer that is never sent whole."""


@pytest.fixture(params=PAIRS, ids=lambda pair: "-to-".join(pair))
def on(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    downstream, upstream = request.param
    with stage(downstream, upstream, tmp_path) as found:
        yield found


@pytest.fixture(params=["abort", "close"])
def leave(request: pytest.FixtureRequest) -> str:
    """How the client leaves."""
    return str(request.param)


def _leave(client: Client, how: str) -> None:
    getattr(client, how)()


def _may_still_read(on: Stage, leave: str) -> bool:
    """Whether the client's end may be half of one: then it is gone only when it is written to."""
    return (on.downstream, leave) == ("h1", "close")


def _goes_on_until_released(upstream: Upstream) -> None:
    with contextlib.suppress(OSError):
        for _ in range(LONG // 16_000):
            upstream.more(bytes(16_000))


def test_within_the_head(on: Stage, leave: str) -> None:
    address = ("127.0.0.1", on.gateway.port)
    if on.downstream == "h2":
        connection = Connection(address)
        block = frames.block(frames.request_fields())
        connection.send(frames.headers(1, block, complete=False))
        getattr(connection, {"abort": "reset", "close": "close"}[leave])()
    else:
        peer = Peer(on.gateway.connect().sock)
        peer.send(b"GET / HTTP/1.1\r\nhost: la")
        getattr(peer, {"abort": "reset", "close": "close"}[leave])()
    eventually(lambda: on.gateway.stat("downstream_cx_active") == 0, "no connection")
    on.gateway.reaches("downstream_rq_active", 0)
    assert on.listener.connections == 0


def test_after_the_head(on: Stage, leave: str) -> None:
    client, upstream = on.exchange("POST", 8)
    _leave(client, leave)
    assert upstream.is_released()
    line = on.logged()
    assert (line["status"], line["flags"]) == (0, on.gone(leave))
    on.nothing_is_left()


def test_within_the_body(on: Stage, leave: str) -> None:
    client, upstream = on.exchange("POST", 8)
    client.send(b"half")
    assert upstream.read_body(4) == b"half"
    _leave(client, leave)
    assert upstream.is_released()
    line = on.logged()
    assert (line["status"], line["flags"], line["received"]) == (0, on.gone(leave), 4)
    on.nothing_is_left()


def test_before_the_answer(on: Stage, leave: str) -> None:
    client, upstream = on.exchange("POST", 4)
    client.send(b"full", end=True)
    assert upstream.read_body(4) == b"full"
    _leave(client, leave)
    if _may_still_read(on, leave):
        upstream.answer(bytes(16_000), LONG)
        _goes_on_until_released(upstream)
    assert upstream.is_released()
    line = on.logged()
    assert (line["flags"], line["received"]) == (on.gone(leave), 4)
    on.nothing_is_left()


def test_within_the_answer(on: Stage, leave: str) -> None:
    client, upstream = on.exchange()
    upstream.answer(b"half", LONG)
    assert client.start_of_answer() == 200
    _leave(client, leave)
    if _may_still_read(on, leave):
        _goes_on_until_released(upstream)
    assert upstream.is_released()
    line = on.logged()
    assert (line["status"], line["flags"]) == (200, on.gone(leave))
    on.nothing_is_left()


def test_after_the_answer(on: Stage, leave: str) -> None:
    client, upstream = on.exchange()
    upstream.answer(b"whole")
    assert client.answer().whole
    _leave(client, leave)
    line = on.logged()
    assert (line["status"], line["flags"]) == (200, "-")
    on.nothing_is_left()
    on.serves(upstream)
    assert on.listener.connections == 1


def test_while_the_backend_does_not_take_the_body(on: Stage, leave: str) -> None:
    client, upstream = on.exchange("POST", 100_000_000)
    for _ in range(3):
        client.send(bytes(16_384))
    _leave(client, leave)
    assert upstream.is_released()
    assert on.logged()["flags"] == on.gone(leave)
    on.nothing_is_left()
