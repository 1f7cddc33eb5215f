"""Draining: what is under way ends well, nothing new begins, and the engine ends."""

from __future__ import annotations

import json
import socket
import threading
from typing import TYPE_CHECKING

import pytest
from tests.engine.harness import Peer, Setup, always, eventually, get, ok, post, serving

from kgw.errors import NotRunning

if TYPE_CHECKING:
    from pathlib import Path


def refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except (ConnectionRefusedError, ConnectionResetError):
        return True
    return False


def test_a_request_under_way_is_answered_and_then_the_engine_ends() -> None:
    with serving(script=None) as (gateway, upstream):
        client = gateway.connect()
        client.send(get())
        peer = upstream.accept()
        peer.read_request()
        gateway.engine.drain()
        eventually(lambda: refuses(gateway.port), "closed listening socket")
        assert not client.is_readable()
        peer.send(ok(b"answer"))
        response = client.read_response()
        assert (response.body, response["connection"]) == (b"answer", "close")
        assert client.is_closed()
        client.close()
        assert gateway.engine.join(5.0) is True


def test_a_body_under_way_ends_well() -> None:
    with serving(script=None) as (gateway, upstream):
        client = gateway.connect()
        client.send(post(b"x" * 100)[:-50])
        peer = upstream.accept()
        peer.read_head()
        gateway.engine.drain()
        client.send(b"x" * 50)
        assert peer.read_exactly(100) == b"x" * 100
        peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n")
        assert client.read_head()[0] == "HTTP/1.1 200 OK"
        peer.send(b"0\r\n\r\n")
        assert client.read_to_end() == b"2\r\nok\r\n0\r\n\r\n"
        client.close()
        assert gateway.engine.join(5.0) is True


def test_idle_connections_are_closed_after_a_moment() -> None:
    with serving() as (gateway, _):
        clients = [gateway.connect() for _ in range(5)]
        for client in clients[:3]:
            client.send(get())
            assert client.read_response().status == 200
        gateway.settle()
        gateway.engine.drain()
        # What was sent before the client could know is still served.
        late = clients[0]
        late.send(get())
        assert late.read_response()["connection"] == "close"
        assert late.is_closed()
        late.close()

        def closed() -> bool:
            gateway.engine.advance(0.5)
            return all(client.is_readable() for client in clients[1:])

        eventually(closed, "closed idle connections")
        for client in clients[1:]:
            assert client.is_closed()
        assert gateway.engine.join(5.0) is True


def test_connections_that_wait_to_be_accepted_are_served() -> None:
    with serving(script=None) as (gateway, upstream):
        # Real requests that the worker may or may not have looked at when draining begins.
        clients = [gateway.connect() for _ in range(50)]
        for client in clients:
            client.send(get())
        gateway.engine.drain()
        peers: list[Peer] = [upstream.accept() for _ in clients]
        for peer in peers:
            peer.read_request()
            peer.send(ok())
        for client in clients:
            assert client.read_response().status == 200
            client.close()
        assert gateway.engine.join(5.0) is True


def test_joining_without_patience_cuts_what_is_under_way() -> None:
    with serving(script=None) as (gateway, upstream):
        client = gateway.connect()
        client.send(get())
        peer = upstream.accept()
        peer.read_request()
        gateway.engine.drain()
        assert gateway.engine.join(0.0) is False
        assert client.is_closed()
        assert peer.is_closed()


def test_what_is_cut_is_logged(tmp_path: Path) -> None:
    log_path = tmp_path / "access.log"
    setup = Setup(log={"code": "%RESPONSE_CODE%"}, log_path=str(log_path))
    with serving(setup, script=None) as (gateway, upstream):
        answered, waiting = gateway.connect(), gateway.connect()
        for client in (answered, waiting):
            client.send(get())
        peer = upstream.accept()
        peer.read_request()
        upstream.accept().read_request()
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhe")
        eventually(lambda: answered.is_readable() or waiting.is_readable())
        gateway.engine.drain()
        assert gateway.engine.join(0.0) is False
        lines = [json.loads(line)["code"] for line in log_path.read_text().splitlines()]
        assert sorted(lines) == [0, 200]


def test_an_engine_that_was_joined_is_over() -> None:
    with serving() as (gateway, _):
        assert gateway.get().status == 200
        gateway.engine.drain()
        eventually(lambda: gateway.engine.join(0.0) in (True, False))
        for call in (gateway.engine.drain, gateway.engine.stats, gateway.engine.addresses):
            with pytest.raises(NotRunning):
                call()
        with pytest.raises(NotRunning):
            gateway.engine.apply(Setup().encoded())
        with pytest.raises(NotRunning):
            gateway.engine.start(Setup().encoded())
        assert gateway.engine.join(1.0) is True


def test_draining_under_load_loses_nothing() -> None:
    with serving(script=always(ok()), workers=2, real_time=True) as (gateway, _):
        failures: list[BaseException] = []
        answers: list[int] = []
        started = threading.Barrier(5)

        def load() -> None:
            client = gateway.connect()
            try:
                client.send(get())
                client.read_response()
                started.wait(5)
                while True:
                    client.send(get())
                    response = client.read_response()
                    answers.append(response.status)
                    if response.get("connection") == "close":
                        assert client.is_closed()
                        return
            except BaseException as error:
                failures.append(error)
            finally:
                client.close()

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        started.wait(5)
        gateway.engine.drain()
        for thread in threads:
            thread.join(5)
        assert failures == []
        assert set(answers) == {200}
        assert len(answers) >= 4
        assert gateway.engine.join(5.0) is True


def test_a_lame_duck_accepts_and_tells_everyone_to_go() -> None:
    with serving() as (gateway, _):
        client = gateway.connect()
        client.send(get())
        assert client.read_response().get("connection") is None
        idle = gateway.connect()
        idle.send(get())
        idle.read_response()
        gateway.engine.drain(min=10.0)
        # New connections are served, told, and closed; so are those from before.
        for peer in (gateway.connect(), client):
            peer.send(get())
            assert peer.read_response()["connection"] == "close"
            assert peer.is_closed()
            peer.close()
        gateway.engine.advance(9.0)
        late = gateway.connect()
        late.send(get())
        assert late.read_response()["connection"] == "close"
        late.close()
        # Nobody takes an idle connection away while its next request can still be told.
        assert not idle.is_readable()
        gateway.engine.advance(1.0)
        eventually(lambda: refuses(gateway.port), "closed listening socket")
        idle.send(get())
        assert idle.read_response()["connection"] == "close"
        idle.close()
        gateway.probe = None
        assert gateway.engine.join(5.0) is True


def test_a_lame_duck_that_is_told_to_drain_does_so_at_once() -> None:
    with serving() as (gateway, _):
        gateway.engine.drain(min=1000.0)
        assert gateway.get()["connection"] == "close"
        gateway.engine.drain()
        eventually(lambda: refuses(gateway.port), "closed listening socket")
        assert gateway.engine.join(5.0) is True


def test_a_configuration_published_just_before_is_listened_on() -> None:
    with serving(workers=2) as (gateway, _):
        more = {
            "id": "more",
            "bind": ["127.0.0.1:0"],
            "traffic": {"type": "http", "route_table": "t"},
        }
        ir = gateway.setup.ir()
        ir["listeners"].append(more)
        generation = gateway.publish(ir)
        gateway.engine.drain(min=1000.0)
        assert gateway.engine.wait_applied(generation, 5.0)
        at = gateway.engine.addresses()["more"][0]
        with socket.create_connection(at, 5.0) as sock:
            client = Peer(sock)
            client.send(get())
            assert client.read_response()["connection"] == "close"
