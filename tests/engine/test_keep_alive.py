"""Several requests on one client connection: reuse, pipelining, closing."""

from __future__ import annotations

import json

import pytest
from tests.engine.harness import (
    Setup,
    direct,
    forward,
    get,
    ok,
    post,
    refused_address,
    rule,
    serving,
)


def test_a_connection_carries_one_request_after_another() -> None:
    with serving() as (gateway, _):
        client = gateway.connect()
        for path in ("/1", "/2", "/3"):
            client.send(get(path))
            response = client.read_response()
            assert response.status == 200
            assert response.get("connection") is None
            assert json.loads(response.body)["line"] == f"GET {path} HTTP/1.1"
        assert not client.is_readable()


def test_pipelined_requests_are_answered_in_order() -> None:
    with serving() as (gateway, _):
        client = gateway.connect()
        client.send(b"".join(get(f"/{n}") + post(b"x" * n, path=f"/p{n}") for n in range(50)))
        for n in range(50):
            assert json.loads(client.read_response().body)["line"] == f"GET /{n} HTTP/1.1"
            seen = json.loads(client.read_response().body)
            assert (seen["line"], seen["body"]) == (f"POST /p{n} HTTP/1.1", "x" * n)


def test_a_slow_answer_is_not_overtaken_by_a_local_reply() -> None:
    setup = Setup(
        routes={
            "default": {
                "name": "default",
                "action": {
                    "type": "forward",
                    "backends": [{"cluster": "c", "weight": 1}],
                    "request_timeout_ms": 0,
                },
            },
            "direct": direct(203, "mine"),
        },
        rules=[rule("/", "default"), rule("/direct", "direct")],
    )
    with serving(setup, None) as (gateway, upstream):
        client = gateway.connect()
        client.send(get("/") + get("/direct"))
        peer = upstream.accept()
        peer.read_request()
        gateway.settle()
        assert not client.is_readable()
        peer.send(ok(b"theirs"))
        assert client.read_response().body == b"theirs"
        assert client.read_response().body == b"mine"


def test_many_pipelined_local_replies_are_all_sent() -> None:
    setup = Setup(routes={"d": direct(200, "mine")}, rules=[rule("/d", "d")])
    with serving(setup) as (gateway, _):
        client = gateway.connect()
        client.send(b"".join(get("/d" if n % 2 else "/nowhere") for n in range(1000)))
        for n in range(1000):
            assert client.read_response().status == (200 if n % 2 else 404)
        client.send(get("/d"))
        assert client.read_response().body == b"mine"


@pytest.mark.parametrize("path", ["/up", "/d"])
def test_a_client_that_asks_to_close_is_told_so_and_closed(path: str) -> None:
    setup = Setup(
        routes={
            "default": {
                "name": "default",
                "action": {
                    "type": "forward",
                    "backends": [{"cluster": "c", "weight": 1}],
                    "request_timeout_ms": 0,
                },
            },
            "d": direct(200, "mine"),
        },
        rules=[rule("/up", "default"), rule("/d", "d")],
    )
    with serving(setup) as (gateway, _):
        client = gateway.connect()
        client.send(get(path, "Connection: Close") + get("/never"))
        response = client.read_response()
        assert response.status == 200
        assert response["connection"] == "close"
        assert client.is_closed()


def test_an_idle_connection_is_closed_at_its_time_out() -> None:
    with serving(Setup(http={"idle_timeout_ms": 3_600_000})) as (gateway, _):
        fresh, used = gateway.connect(), gateway.connect()
        used.send(get())
        used.read_response()
        gateway.advance(3_599)
        assert not fresh.is_readable()
        assert not used.is_readable()
        # The probe of the harness sits on a connection of its own and is used all along.
        gateway.advance(2)
        assert fresh.is_closed()
        assert used.is_closed()


def test_idle_time_starts_anew_with_each_request() -> None:
    with serving(Setup(http={"idle_timeout_ms": 60_000})) as (gateway, _):
        client = gateway.connect()
        for _ in range(4):
            gateway.advance(59)
            client.send(get())
            assert client.read_response().status == 200
        gateway.advance(61)
        assert client.is_closed()


def test_the_clients_fin_on_an_idle_connection_closes_it_at_once() -> None:
    with serving() as (gateway, _):
        client = gateway.connect()
        client.send(get())
        client.read_response()
        client.finish_sending()
        assert client.is_closed()


def test_a_client_that_sent_fin_after_its_request_still_gets_the_answer() -> None:
    with serving(script=None) as (gateway, upstream):
        client = gateway.connect()
        client.send(post(b"question"))
        client.finish_sending()
        peer = upstream.accept()
        peer.read_request()
        gateway.settle()
        assert not client.is_readable()
        peer.send(ok(b"answer"))
        assert client.read_response().body == b"answer"
        assert client.is_closed()


def test_pipelined_requests_before_a_fin_are_all_answered() -> None:
    with serving() as (gateway, _):
        client = gateway.connect()
        client.send(get("/1") + get("/2") + get("/3"))
        client.finish_sending()
        for n in (1, 2, 3):
            assert json.loads(client.read_response().body)["line"] == f"GET /{n} HTTP/1.1"
        assert client.is_closed()


def test_empty_lines_before_a_request_are_skipped() -> None:
    with serving() as (gateway, _):
        client = gateway.connect()
        client.send(b"\r\n" + get("/1") + b"\r\n" + get("/2"))
        assert json.loads(client.read_response().body)["line"] == "GET /1 HTTP/1.1"
        assert json.loads(client.read_response().body)["line"] == "GET /2 HTTP/1.1"


def test_a_limit_of_requests_that_a_reload_lowers_applies_at_once() -> None:
    with serving() as (gateway, _):
        client = gateway.connect()
        for _ in range(3):
            client.send(get())
            assert client.read_response().get("connection") is None
        gateway.setup.http["max_requests_per_connection"] = 2
        gateway.apply(gateway.setup)
        client.send(get())
        assert client.read_response()["connection"] == "close"
        assert client.is_closed()


def test_a_connection_that_has_lived_its_time_ends_with_its_next_answer() -> None:
    setup = Setup(http={"max_connection_duration_ms": 60_000})
    with serving(setup, None) as (gateway, upstream):
        client = gateway.connect()
        client.send(get())
        peer = upstream.accept()
        peer.read_request()
        # Its time passes in the exchange, which is not disturbed.
        gateway.advance(14)
        peer.send(ok(b"whole"))
        response = client.read_response()
        assert (response.body, response.get("connection")) == (b"whole", None)
        gateway.advance(46.1)
        client.send(get())
        peer.read_request()
        peer.send(ok(b"last"))
        response = client.read_response()
        assert (response.body, response.get("connection")) == (b"last", "close")
        assert client.is_closed()


def test_a_connection_that_has_lived_its_time_and_idles_ends() -> None:
    with serving(Setup(http={"max_connection_duration_ms": 60_000})) as (gateway, _):
        silent, client = gateway.connect(), gateway.connect()
        client.send(get())
        assert client.read_response().status == 200
        gateway.advance(60.5)
        # Whoever asks now is still answered, and told.
        assert not silent.is_readable()
        assert not client.is_readable()
        gateway.advance(0.5)
        assert silent.is_closed()
        assert client.is_closed()


@pytest.mark.parametrize("field", ["x-is: 1", "content-type: application/grpc"])
@pytest.mark.parametrize("why", ["refused", "answered", "elsewhere"])
def test_what_follows_a_connect_that_fails_is_no_request(why: str, field: str) -> None:
    # A client may send what is for the other end of the tunnel before it knows that there is none.
    routes = {
        "refused": {"name": "refused", "action": forward("c", upgrades=["connect"])},
        "answered": direct(200, "no tunnel"),
        "other": direct(200, "smuggled"),
    }
    rules = [] if why == "elsewhere" else [rule("/", why)]
    hosts = [
        {"hostname": "db.example", "rules": rules},
        {"hostname": "other", "rules": [rule("/", "other")]},
    ]
    with refused_address() as nobody:
        http = {"upgrades": ["connect"]}
        setup = Setup(endpoints=[nobody], routes=routes, hosts=hosts, http=http)
        with serving(setup) as (gateway, _):
            client = gateway.connect()
            connect = ["CONNECT db.example:5432 HTTP/1.1", "host: db.example:5432", field, "", ""]
            client.send("\r\n".join(connect).encode() + get(host="other"))
            response = client.read_response()
            assert response.status == (503 if why == "refused" else 404)
            assert response["connection"] == "close"
            assert client.is_closed()
