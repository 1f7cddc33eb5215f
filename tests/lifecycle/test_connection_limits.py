"""Connection limits: accepting pauses there, over all workers, and nobody who waits is refused."""

from __future__ import annotations

import json
import socket
import threading
from typing import Any

import pytest
from tests.engine.harness import Gateway, Peer, Setup, direct, eventually, get, serving

ANSWERING = {"d": direct(200, "ok")}


def limited(limit: int, **more: Any) -> dict[str, Any]:
    """The configuration with a limit on its listener."""
    ir = Setup(routes=ANSWERING, **more).ir()
    ir["listeners"][0]["max_connections"] = limit
    return ir


def answered(clients: list[Peer]) -> list[Peer]:
    """The clients that have an answer by now."""
    return [client for client in clients if client.is_readable()]


def ask_all(clients: list[Peer]) -> None:
    for client in clients:
        client.send(get())


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("of", ["process", "listener"])
def test_accepting_pauses_at_the_limit_and_goes_on_when_a_connection_ends(
    of: str, workers: int
) -> None:
    limits: dict[str, Any] = {"max_connections": 4} if of == "process" else {}
    with serving(Setup(routes=ANSWERING), workers=workers, **limits) as (gateway, _):
        if of == "listener":
            gateway.apply_ir(json.loads(json.dumps(limited(4))))
        clients = [gateway.connect() for _ in range(12)]
        ask_all(clients)
        served = 0
        waiting = list(clients)
        while waiting:
            eventually(lambda: len(answered(waiting)) >= min(4, len(waiting)), "answers")
            now = answered(waiting)
            # As many as allowed, whichever worker's queue they are in, and not one more.
            assert len(now) <= 4
            assert gateway.stat("downstream_cx_active") <= 4
            for client in now:
                assert client.read_response().body == b"ok"
                waiting.remove(client)
                client.close()
                served += 1
        assert served == 12
        gateway.reaches("downstream_cx_total", 12)
        assert gateway.stat("downstream_accept_paused") > 0


def test_a_listener_at_its_limit_leaves_the_others_alone() -> None:
    with serving(Setup(routes=ANSWERING)) as (gateway, _):
        gateway.apply_ir(limited(1))
        first, second = gateway.connect(), gateway.connect()
        ask_all([first, second])
        assert first.read_response().status == 200
        # The probe is another listener.
        gateway.settle()
        assert not second.is_readable()
        first.close()
        assert second.read_response().status == 200


def test_a_reload_changes_the_limit_and_forgets_no_connection() -> None:
    with serving(Setup(routes=ANSWERING)) as (gateway, _):
        gateway.apply_ir(limited(2))
        clients = [gateway.connect() for _ in range(4)]
        ask_all(clients)
        eventually(lambda: len(answered(clients)) == 2, "two answers")
        gateway.apply_ir(limited(3))
        eventually(lambda: len(answered(clients)) == 3, "three answers")
        gateway.apply_ir(limited(1))
        gateway.settle()
        assert len(answered(clients)) == 3
        for client in answered(clients)[:2]:
            client.close()
        eventually(lambda: gateway.stat("downstream_cx_active") == 2, "two ends")
        left = [client for client in clients if client.sock.fileno() >= 0]
        gateway.settle()
        assert len(answered(left)) == 1
        gateway.apply_ir(limited(0))
        eventually(lambda: len(answered(left)) == 2, "all answers")


def test_who_waits_at_the_limit_is_served_by_a_drain() -> None:
    with serving(Setup(routes=ANSWERING), max_connections=1, real_time=True) as (gateway, _):
        clients = [gateway.connect() for _ in range(20)]
        ask_all(clients)
        gateway.engine.drain()
        for client in clients:
            response = client.read_response()
            assert response.status == 200
            client.close()
        assert gateway.engine.join(5.0) is True


def test_a_limit_under_load_is_kept_and_serves_everybody() -> None:
    with serving(Setup(routes=ANSWERING), max_connections=3, workers=2) as (gateway, _):
        failures: list[BaseException] = []
        most: list[int] = []

        def load() -> None:
            try:
                for _ in range(50):
                    sock = socket.create_connection(("127.0.0.1", gateway.port), 5)
                    client = Peer(sock)
                    client.send(get())
                    assert client.read_response().status == 200
                    client.close()
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=load) for _ in range(8)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            most.append(gateway.stat("downstream_cx_active"))
        assert failures == []
        assert max(most) <= 3
        gateway.reaches("downstream_cx_total", 400)


def test_a_paused_listener_that_goes_away_serves_who_waits() -> None:
    with serving(Setup(routes=ANSWERING)) as (gateway, _):
        gateway.apply_ir(limited(1))
        clients = [gateway.connect() for _ in range(3)]
        ask_all(clients)
        assert clients[0].read_response().status == 200
        gone = limited(1)
        del gone["listeners"][0]
        gateway.apply_ir(gone)
        _close_one_after_the_other(gateway, clients)


def _close_one_after_the_other(gateway: Gateway, clients: list[Peer]) -> None:
    """Each end makes room for the next, who is told that the listener is gone by its close."""
    clients[0].close()
    for client in clients[1:]:
        assert client.is_closed()
        client.close()
    eventually(lambda: gateway.stat("downstream_cx_active") <= 1, "ended connections")
