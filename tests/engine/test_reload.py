"""New configurations under load: nothing is lost, bad ones change nothing."""

from __future__ import annotations

import json
import socket
import threading

import pytest
from tests.engine.harness import (
    Gateway,
    Peer,
    Setup,
    always,
    direct,
    free_port,
    get,
    ok,
    rule,
    serving,
)

from kgw.errors import ConfigError

THREADS = 4
APPLIES = 300


class Load(threading.Thread):
    """A client that sends one request after another on one connection until told to stop."""

    def __init__(self, gateway: Gateway) -> None:
        super().__init__(daemon=True)
        self.client = gateway.connect()
        self.ended = threading.Event()
        self.answers: list[bytes] = []
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.ended.is_set():
                self.client.send(get())
                response = self.client.read_response()
                assert response.status == 200, response
                assert response.get("connection") is None
                self.answers.append(response.body)
        except BaseException as error:
            self.error = error


def test_hundreds_of_reloads_lose_no_request() -> None:
    with (
        serving(script=always(ok(b"even"))) as (_, even),
        serving(script=always(ok(b"odd"))) as (_, odd),
        serving(Setup(endpoints=[even.address]), workers=2, real_time=True) as (gateway, _),
    ):
        loads = [Load(gateway) for _ in range(THREADS)]
        for load in loads:
            load.start()
        for n in range(1, APPLIES + 1):
            setup = Setup(endpoints=[(odd if n % 2 else even).address])
            setup.http = {"idle_timeout_ms": 1_000_000 + n}
            setup.rules = [rule("/", "default"), *[rule(f"/{m}", "default") for m in range(n % 7)]]
            generation = gateway.engine.apply(setup.encoded())
            assert generation == n + 1
            if n % 10 == 0:
                assert gateway.engine.wait_applied(generation, 5)
        for load in loads:
            load.ended.set()
        for load in loads:
            load.join(5)
            assert load.error is None
            assert len(load.answers) > 0
        answers = {body for load in loads for body in load.answers}
        assert answers == {b"even", b"odd"}
        assert gateway.stat("generation") == APPLIES + 1


def test_an_applied_configuration_serves_the_next_request_of_every_connection() -> None:
    with serving(Setup(routes={"d": direct(200, "0")}), workers=2) as (gateway, _):
        clients = [gateway.connect() for _ in range(8)]
        for n in range(20):
            gateway.apply(Setup(routes={"d": direct(200, str(n))}))
            for client in clients:
                client.send(get())
                assert client.read_response().body == str(n).encode()


def test_a_request_under_way_ends_as_it_began() -> None:
    with serving(script=None) as (gateway, upstream):
        client = gateway.connect()
        client.send(get())
        peer = upstream.accept()
        peer.read_request()
        gateway.apply(Setup(routes={"d": direct(403, "changed")}))
        peer.send(ok(b"as it began"))
        assert client.read_response().body == b"as it began"
        client.send(get())
        assert client.read_response().body == b"changed"


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"unknown": 1},
        {
            "listeners": [
                {
                    "id": "l",
                    "bind": ["127.0.0.1:0"],
                    "traffic": {"type": "http", "route_table": "nowhere"},
                }
            ]
        },
    ],
)
def test_a_bad_configuration_changes_nothing(change: dict[str, object]) -> None:
    with serving() as (gateway, _):
        client = gateway.connect()
        with pytest.raises(ConfigError):
            gateway.engine.apply(json.dumps(gateway.setup.ir() | change).encode())
        with pytest.raises(ConfigError):
            gateway.engine.apply(b"{")
        gateway.reaches("generation", 1)
        client.send(get())
        assert client.read_response().status == 200


def extra(port: int = 0) -> dict[str, object]:
    return {
        "id": "extra",
        "bind": [f"127.0.0.1:{port}"],
        "traffic": {"type": "http", "route_table": "t"},
    }


def test_a_listener_comes_and_goes_and_comes_back() -> None:
    with serving() as (gateway, upstream):
        port = free_port()
        plain = Setup(endpoints=[upstream.address])
        more = Setup(endpoints=[upstream.address], listeners=[extra(port)])
        for _ in range(3):
            gateway.apply(more)
            assert gateway.engine.addresses()["extra"] == [("127.0.0.1", port)]
            client = Peer(socket.create_connection(("127.0.0.1", port), 5))
            client.send(get())
            assert client.read_response().status == 200
            gateway.apply(plain)
            gateway.settle()
            assert "extra" not in gateway.engine.addresses()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), 5)
            # The connection is told with its next answer.
            client.send(get())
            assert client.read_response()["connection"] == "close"
            assert client.is_closed()
            client.close()
        assert gateway.get().status == 200


def test_a_listener_whose_address_is_taken_changes_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, serving() as (gateway, upstream):
        port = taken.getsockname()[1]
        setup = Setup(endpoints=[upstream.address], listeners=[extra(port)])
        with pytest.raises(OSError, match=str(port)):
            gateway.engine.apply(setup.encoded())
        assert gateway.get().status == 200
        gateway.reaches("generation", 1)


def test_the_same_address_stays_bound() -> None:
    with serving(workers=2) as (gateway, upstream):
        before = gateway.engine.addresses()
        waiting = [gateway.connect() for _ in range(20)]
        for n in range(20):
            gateway.apply(Setup(endpoints=[upstream.address], http={"max_fields": 50 + n}))
        assert gateway.engine.addresses() == before
        for client in waiting:
            client.send(get())
            assert client.read_response().status == 200
