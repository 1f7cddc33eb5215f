"""Time-outs, all of them with the clock turned by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.engine.harness import Gateway, Peer, Setup, deaf_address, forward, get, ok, rule, serving

if TYPE_CHECKING:
    from pathlib import Path

LOG = {
    "code": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
}


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup(
        log=LOG,
        log_path=str(tmp_path / "access.log"),
        routes={
            "default": {"name": "default", "action": forward("c")},
            "long": {"name": "long", "action": forward("c", timeout_ms=180_000)},
            "none": {"name": "none", "action": forward("c", timeout_ms=0)},
            "backend": {
                "name": "backend",
                "action": forward("c", timeout_ms=20_000, backend_request_timeout_ms=7_000),
            },
        },
        rules=[
            rule("/", "default"),
            rule("/long", "long"),
            rule("/none", "none"),
            rule("/backend", "backend"),
        ],
    )


def last_log(gateway: Gateway) -> tuple[int, str, str, int]:
    [line] = gateway.log_lines(1)
    return line["code"], line["flags"], line["details"], line["attempts"]


@pytest.mark.parametrize(("path", "seconds"), [("/", 15), ("/long", 180), ("/backend", 7)])
def test_a_route_has_its_time_before_the_answer(setup: Setup, path: str, seconds: int) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = gateway.connect()
        client.send(get(path))
        peer = upstream.accept()
        _, headers, _ = peer.read_request()
        assert dict(headers)["x-envoy-expected-rq-timeout-ms"] == str(seconds * 1000)
        gateway.advance(seconds - 0.1)
        assert not client.is_readable()
        gateway.advance(0.2)
        response = client.read_response()
        assert (response.status, response.body) == (504, b"upstream request timeout")
        assert response.get("connection") is None
        assert peer.is_closed()
        assert last_log(gateway) == (504, "UT", "response_timeout", 1)
        gateway.reaches("upstream_rq_timeout", 1)
        client.send(get("/next"))
        assert upstream.accept().read_head()[0] == "GET /next HTTP/1.1"


def test_an_answer_within_the_time_passes(setup: Setup) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = gateway.connect()
        client.send(get("/long"))
        peer = upstream.accept()
        peer.read_request()
        gateway.advance(179)
        peer.send(ok(b"late"))
        assert client.read_response().body == b"late"


def test_a_route_has_its_time_for_the_whole_answer(setup: Setup) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = gateway.connect()
        client.send(get())
        peer = upstream.accept()
        peer.read_request()
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n")
        client.read_head()
        gateway.advance(14)
        peer.send(b"part!")
        assert client.read_exactly(5) == b"part!"
        gateway.advance(1.1)
        assert client.is_closed()
        assert peer.is_closed()
        assert last_log(gateway) == (200, "UT", "response_timeout", 1)


def test_a_route_without_a_time_waits_and_promises_none(setup: Setup) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = gateway.connect()
        client.send(get("/none"))
        peer = upstream.accept()
        _, headers, _ = peer.read_request()
        assert "x-envoy-expected-rq-timeout-ms" not in dict(headers)
        gateway.advance(299)
        assert not client.is_readable()
        peer.send(ok())
        assert client.read_response().status == 200


def test_the_routes_time_starts_with_the_end_of_the_request(setup: Setup) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = gateway.connect()
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\n12")
        peer = upstream.accept()
        peer.read_until(b"12")
        gateway.advance(100)
        assert not client.is_readable()
        client.send(b"34")
        peer.read_until(b"34")
        gateway.advance(14.9)
        assert not client.is_readable()
        gateway.advance(0.2)
        assert client.read_response().status == 504


def test_the_routes_time_covers_connecting(setup: Setup) -> None:
    setup.clusters = {"slow": {"connect_timeout_ms": 60_000, "endpoints": []}}
    setup.routes["default"]["action"] = forward("slow", timeout_ms=2_000)
    with deaf_address() as address:
        setup.clusters["slow"]["endpoints"] = [address]
        with serving(setup, None) as (gateway, _):
            client = gateway.connect()
            client.send(get())
            gateway.advance(1.9)
            assert not client.is_readable()
            gateway.advance(0.2)
            assert client.read_response().status == 504
            assert last_log(gateway) == (504, "UT", "response_timeout", 1)


def test_a_stream_may_not_sit_idle_before_the_answer(setup: Setup) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = gateway.connect()
        client.send(get("/none"))
        peer = upstream.accept()
        peer.read_request()
        gateway.advance(299.9)
        assert not client.is_readable()
        gateway.advance(0.2)
        response = client.read_response()
        assert (response.status, response.body) == (504, b"stream timeout")
        assert response.get("connection") is None
        assert last_log(gateway) == (504, "SI", "stream_idle_timeout", 1)


def test_a_stream_may_not_sit_idle_in_the_request(setup: Setup) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = gateway.connect()
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\n12")
        peer = upstream.accept()
        peer.read_until(b"12")
        gateway.advance(299)
        client.send(b"3")
        peer.read_until(b"3")
        gateway.advance(299)
        assert not client.is_readable()
        gateway.advance(2)
        response = client.read_response()
        assert (response.status, response.body) == (408, b"stream timeout")
        assert response["connection"] == "close"
        assert client.is_closed()
        assert last_log(gateway) == (408, "SI", "stream_idle_timeout", 1)


def test_a_stream_may_not_sit_idle_in_the_answer(setup: Setup) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = gateway.connect()
        client.send(get("/none"))
        peer = upstream.accept()
        peer.read_request()
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\npart!")
        client.read_until(b"part!")
        gateway.advance(300.1)
        assert client.is_closed()
        assert last_log(gateway) == (200, "SI", "stream_idle_timeout", 1)


def test_a_request_head_has_its_time(setup: Setup) -> None:
    with serving(setup, None) as (gateway, _):
        client = gateway.connect()
        gateway.advance(100)
        client.send(b"GET / HT")
        gateway.advance(30)
        client.send(b"TP/1.1\r\nho")
        gateway.advance(29.9)
        assert not client.is_readable()
        gateway.advance(0.2)
        response = client.read_response()
        assert (response.status, response.body) == (408, b"request header timeout")
        assert response["connection"] == "close"
        assert client.is_closed()
        assert last_log(gateway) == (408, "-", "request_header_timeout", 0)


def test_a_request_has_its_time_until_its_answer_begins(setup: Setup) -> None:
    setup.http = {"request_timeout_ms": 10_000}
    with serving(setup, None) as (gateway, upstream):
        client = gateway.connect()
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\n12")
        peer = upstream.accept()
        peer.read_until(b"12")
        gateway.advance(9.9)
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n12")
        client.read_until(b"\r\n\r\n12")
        gateway.advance(10)
        client.send(b"34")
        peer.read_until(b"34")
        peer.send(b"34")
        assert client.read_exactly(2) == b"34"
        assert last_log(gateway) == (200, "-", "via_upstream", 1)


def test_a_request_that_takes_too_long(setup: Setup) -> None:
    setup.http = {"request_timeout_ms": 10_000}
    with serving(setup, None) as (gateway, upstream):
        client = gateway.connect()
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\n12")
        upstream.accept().read_until(b"12")
        gateway.advance(10.1)
        response = client.read_response()
        assert (response.status, response.body) == (408, b"request timeout")
        assert response["connection"] == "close"
        assert client.is_closed()


def test_the_time_of_a_request_begins_with_its_head(setup: Setup) -> None:
    setup.http = {"request_timeout_ms": 10_000}
    with serving(setup, None) as (gateway, _):
        client = gateway.connect()
        client.send(b"GET / HT")
        gateway.advance(9.9)
        assert not client.is_readable()
        gateway.advance(0.2)
        response = client.read_response()
        assert (response.status, response.body) == (408, b"request timeout")
        assert last_log(gateway) == (408, "-", "request_overall_timeout", 0)


def test_a_client_that_does_not_take_its_answer_does_not_hold_the_upstream(setup: Setup) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = gateway.connect(receive_buffer=4096)
        client.send(get("/none"))
        peer = upstream.accept()
        peer.read_request()
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n")
        assert peer.fill(50_000_000, gateway) < 50_000_000
        gateway.advance(300.1)
        gateway.advance(1.1)
        with pytest.raises((ConnectionError, BrokenPipeError)):
            peer.send(bytes(50_000_000))
        assert last_log(gateway) == (200, "SI", "stream_idle_timeout", 1)


def test_an_idle_upstream_connection_is_given_up_in_time(setup: Setup) -> None:
    def script(peer: Peer) -> None:
        while True:
            peer.read_request()
            peer.send(ok())

    with serving(setup, script) as (gateway, upstream):
        assert gateway.get().status == 200
        gateway.advance(54)
        assert gateway.get().status == 200
        assert upstream.connections == 1
