"""HTTP/1.0 and HTTP/0.9: refused unless a listener takes them, then answered as they need it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from tests.engine.harness import Peer, Setup, always, direct, ok, serving

if TYPE_CHECKING:
    from pathlib import Path

ACCEPTED = {"accept_http_10": True}
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"


def old(*fields: str, method: str = "GET") -> bytes:
    """A request of HTTP/1.0."""
    return "\r\n".join([f"{method} / HTTP/1.0", *fields, "", ""]).encode()


@pytest.mark.parametrize(
    "request_bytes", [old("host: h"), b"GET /\r\n", b"GET / HTTP/1.2\r\nhost: h\r\n\r\n"]
)
def test_old_versions_are_told_to_upgrade(request_bytes: bytes) -> None:
    with serving() as (gateway, upstream):
        client = gateway.connect()
        client.send(request_bytes)
        response = client.read_response()
        assert (response.status, response.body) == (426, b"Upgrade Required")
        assert client.is_closed()
        assert upstream.connections == 0


def test_one_without_a_version_stays_refused() -> None:
    with serving(Setup(http=ACCEPTED)) as (gateway, _):
        assert gateway.ask(b"GET /\r\n").status == 426


def test_the_answer_has_the_version_and_ends_the_connection() -> None:
    with serving(Setup(http=ACCEPTED), always(ok(b"abc"))) as (gateway, _):
        client = gateway.connect()
        client.send(old("host: h"))
        response = client.read_response()
        assert response.raw_head.startswith(b"HTTP/1.0 200 OK\r\n")
        assert response["connection"] == "close"
        assert response.body == b"abc"
        assert client.is_closed()


def test_a_client_that_asks_keeps_its_connection() -> None:
    with serving(Setup(http=ACCEPTED), always(ok(b"abc"))) as (gateway, _):
        client = gateway.connect()
        for _ in range(2):
            client.send(old("host: h", "connection: keep-alive"))
            response = client.read_response()
            assert response.raw_head.startswith(b"HTTP/1.0 200 OK\r\n")
            assert response["connection"] == "keep-alive"
            assert response.body == b"abc"


def test_the_upstream_gets_the_current_version() -> None:
    with serving(Setup(http=ACCEPTED)) as (gateway, _):
        seen = json.loads(gateway.ask(old("host: h", "connection: keep-alive")).body)
        assert seen["line"] == "GET / HTTP/1.1"
        assert "connection" not in {name.lower() for name, _ in seen["headers"]}


@pytest.mark.parametrize("connection", ["keep-alive", "close"])
def test_a_length_that_is_not_known_ends_with_the_connection(connection: str) -> None:
    with serving(Setup(http=ACCEPTED), always(CHUNKED)) as (gateway, _):
        client = gateway.connect()
        client.send(old("host: h", f"connection: {connection}"))
        first, headers, _ = client.read_head()
        fields = {name.lower(): value for name, value in headers}
        assert first == "HTTP/1.0 200 OK"
        assert fields["connection"] == "close"
        assert not fields.keys() & {"transfer-encoding", "content-length"}
        assert client.read_to_end() == b"abcde"


def test_a_body_that_is_cut_short_is_not_ended_properly() -> None:
    def cut(peer: Peer) -> None:
        peer.read_request()
        peer.send(CHUNKED[:-8])

    with serving(Setup(http=ACCEPTED), cut) as (gateway, _):
        client = gateway.connect()
        client.send(old("host: h"))
        client.read_head()
        with pytest.raises(ConnectionResetError):
            client.read_to_end()


def test_answers_of_the_proxy_itself_have_the_version_too() -> None:
    with serving(Setup(http=ACCEPTED, routes={"d": direct(200, "x")})) as (gateway, _):
        response = gateway.ask(old("host: h"))
        assert response.raw_head.startswith(b"HTTP/1.0 200 OK\r\n")
        assert (response["connection"], response.body) == ("close", b"x")


def test_a_request_without_a_host_gets_the_default_one() -> None:
    http = ACCEPTED | {"default_host_for_http_10": "d.test"}
    with serving(Setup(http=http)) as (gateway, _):
        seen = json.loads(gateway.ask(old()).body)
        assert {n.lower(): v for n, v in seen["headers"]}["host"] == "d.test"


def test_without_a_default_host_it_is_refused(tmp_path: Path) -> None:
    log = {"details": "%RESPONSE_CODE_DETAILS%", "protocol": "%PROTOCOL%"}
    setup = Setup(http=ACCEPTED, log=log, log_path=str(tmp_path / "log"))
    with serving(setup) as (gateway, upstream):
        assert gateway.ask(old()).status == 400
        line = gateway.log_lines(1)[0]
        assert line == {"details": "missing_host_header", "protocol": "HTTP/1.0"}
        assert upstream.connections == 0
