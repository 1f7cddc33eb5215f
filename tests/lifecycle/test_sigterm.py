"""SIGTERM under load: nothing is lost, on reused connections neither."""

from __future__ import annotations

import signal
import socket
from typing import TYPE_CHECKING

import pytest
from tests.engine.harness import Peer, eventually, get
from tests.lifecycle.conftest import Site, serving
from tests.lifecycle.load import Load
from tests.lifecycle.load_http2 import Http2Load

if TYPE_CHECKING:
    from tests.cli.conftest import Kgw, Running


@pytest.mark.parametrize("attempt", range(3))
def test_sigterm_under_load_loses_no_request(
    running: type[Running], site: Site, attempt: int
) -> None:
    run = running(*site.arguments())
    # Clients that ask at once, and clients that let a connection idle for up to 0.4 s.
    with Load(serving(run)) as busy, Load(busy.address, thinking=0.4) as thinking:
        run.signal(signal.SIGTERM)
        busy.join()
        thinking.join()
        assert busy.lost == []
        assert thinking.lost == []
        # Each client was told, and found nobody when it came back.
        assert (busy.refused, thinking.refused) == (8, 8)
        assert set(busy.statuses) == {200}
    assert run.wait() == 0
    assert "closed" in str(run.stderr)
    assert "cut off" not in str(run.stderr)


@pytest.mark.parametrize("options", [(), ("--drain-min", "1")], ids=["at once", "lame duck"])
def test_sigterm_under_load_loses_no_stream(
    running: type[Running], site: Site, options: tuple[str, ...]
) -> None:
    run = running(*site.arguments(*options))
    with Http2Load(serving(run)) as load:
        run.signal(signal.SIGTERM)
        load.join()
        assert load.lost == []
        # The first GOAWAY leaves time for the streams that were on their way.
        assert load.unprocessed == 0
        assert load.refused == 4
        assert set(load.statuses) == {200}
    assert run.wait() == 0
    assert "cut off" not in str(run.stderr)


def test_a_lame_duck_serves_new_connections_until_its_time_is_over(
    running: type[Running], site: Site
) -> None:
    run = running(*site.arguments("--drain-min", "3"))
    with Load(serving(run)) as load:
        run.signal(signal.SIGTERM)
        run.stderr.after("draining")
        # Each answer closes its connection, and new ones are accepted.
        eventually(lambda: load.connections >= 3 * 8, "new connections")
        load.join()
        assert load.lost == []
        assert load.refused == 8
    assert run.wait() == 0


def test_a_second_sigterm_ends_a_lame_duck_at_once(running: type[Running], site: Site) -> None:
    run = running(*site.arguments("--drain-min", "1000", "--drain-timeout", "1000"))
    serving(run)
    run.signal(signal.SIGTERM)
    run.stderr.after("draining")
    run.signal(signal.SIGTERM)
    assert run.wait() == 4


def test_draining_for_longer_than_there_is_time_is_refused(kgw: Kgw, site: Site) -> None:
    result = kgw(*site.arguments("--drain-min", "3", "--drain-timeout", "2"))
    assert result.returncode == 2
    assert "--drain-min" in result.stderr


def test_a_request_of_a_client_that_was_told_nothing_yet_is_answered(
    running: type[Running], site: Site
) -> None:
    """The close is announced with an answer; until then requests are read."""
    run = running(*site.arguments())
    address = serving(run)
    peers = [Peer(socket.create_connection(address, 5)) for _ in range(10)]
    for peer in peers:
        peer.send(get())
        assert peer.read_response().get("connection") is None
    run.signal(signal.SIGTERM)
    for peer in peers:
        told = None
        while told is None:
            peer.send(get())
            answer = peer.read_response()
            assert answer.status == 200
            told = answer.get("connection")
        assert told == "close"
        assert peer.is_closed()
        peer.close()
    assert run.wait() == 0
