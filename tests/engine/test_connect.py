"""CONNECT: requests that become connections, where the route allows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.engine.h2peer import INTERNAL_ERROR, h2_client, settled
from tests.engine.harness import (
    PATTERN,
    Setup,
    deaf_address,
    forward,
    get,
    refused_address,
    rule,
    serving,
)

if TYPE_CHECKING:
    from pathlib import Path

LOG = {
    "method": "%REQ(:METHOD)%",
    "protocol": "%PROTOCOL%",
    "code": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "received": "%BYTES_RECEIVED%",
    "sent": "%BYTES_SENT%",
}

CONNECT = b"CONNECT db.example:5432 HTTP/1.1\r\nhost: db.example:5432\r\n\r\n"


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup(
        log=LOG,
        log_path=str(tmp_path / "access.log"),
        routes={"default": {"name": "default", "action": forward("c", upgrades=["connect"])}},
        hosts=[{"hostname": "db.example", "rules": [rule("/", "default")]}],
    )


def test_a_tunnel_over_http_1(setup: Setup) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = gateway.connect()
        client.send(CONNECT + b"early")
        first, pairs, _ = client.read_head()
        assert first == "HTTP/1.1 200 OK"
        # RFC 9110 9.3.6.
        names = {name.lower() for name, _ in pairs}
        assert not {"content-length", "transfer-encoding", "connection"} & names
        assert {"date", "server"} <= names
        server = upstream.accept()
        # Nothing of the request reaches the upstream.
        assert server.read_exactly(5) == b"early"
        server.send(b"hello")
        assert client.read_exactly(5) == b"hello"
        client.send(get())
        assert server.read_exactly(len(get())) == get()
        client.finish_sending()
        assert server.read_to_end() == b""
        server.send(b"bye")
        server.close()
        assert client.read_to_end() == b"bye"
        assert gateway.log_lines(1) == [
            {
                "method": "CONNECT",
                "protocol": "HTTP/1.1",
                "code": 200,
                "flags": "-",
                "received": 5 + len(get()),
                "sent": 8,
            }
        ]


def test_tunnels_over_http_2(setup: Setup) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = h2_client(gateway)
        streams = []
        for at in range(3):
            stream = client.connect("db.example:5432")
            client.data(stream, b"early %d" % at)
            server = upstream.accept()
            assert client.head(stream).status == 200
            assert "content-length" not in client.message(stream).names()
            assert server.read_exactly(7) == b"early %d" % at
            streams.append((stream, server))
        for stream, server in streams:
            server.send(PATTERN[:50_000])
            assert client.body_of(stream, 50_000) == PATTERN[:50_000]
            client.data(stream, b"bye", end=True)
            assert server.read_to_end() == b"bye"
            server.close()
            answer = client.response(stream)
            assert (answer.ended, answer.reset) == (True, None)
        assert (
            gateway.log_lines(3)
            == [
                {
                    "method": "CONNECT",
                    "protocol": "HTTP/2",
                    "code": 200,
                    "flags": "-",
                    "received": 10,
                    "sent": 50_000,
                }
            ]
            * 3
        )


@pytest.mark.parametrize("http2", [True, False])
@pytest.mark.parametrize("why", ["host", "not allowed"])
def test_a_connect_that_leads_nowhere(setup: Setup, http2: bool, why: str) -> None:
    if why == "not allowed":
        setup.routes = {"default": {"name": "default", "action": forward("c")}}
    host = "db.example" if why == "not allowed" else "other.example"
    with serving(setup, None) as (gateway, upstream):
        if http2:
            h2 = h2_client(gateway)
            assert h2.response(h2.connect(f"{host}:5432")).status == 404
            # Only the stream is refused.
            assert h2.response(h2.connect(f"{host}:5432")).status == 404
            assert not h2.goaways
        else:
            client = gateway.connect()
            request = f"CONNECT {host}:5432 HTTP/1.1\r\nhost: {host}:5432\r\n\r\n".encode()
            client.send(request + get())
            response = client.read_response()
            assert (response.status, response["connection"]) == (404, "close")
            # What follows was for the other end of the tunnel, not for the gateway.
            assert client.is_closed()
        assert upstream.connections == 0
        assert {line["flags"] for line in gateway.log_lines(2 if http2 else 1)} == {"NR"}


def test_a_listener_may_allow_it_for_all_routes(setup: Setup) -> None:
    setup.routes = {"default": {"name": "default", "action": forward("c")}}
    setup.http = {"upgrades": ["connect"]}
    with serving(setup, None) as (gateway, upstream):
        client = gateway.connect()
        client.send(CONNECT)
        upstream.accept()
        assert client.read_head()[0] == "HTTP/1.1 200 OK"


@pytest.mark.parametrize("http2", [True, False])
def test_an_upstream_that_refuses_the_connection(setup: Setup, http2: bool) -> None:
    with refused_address() as nobody:
        setup.endpoints = [nobody]
        with serving(setup) as (gateway, _):
            if http2:
                h2 = h2_client(gateway)
                assert h2.response(h2.connect("db.example:5432")).status == 503
            else:
                client = gateway.connect()
                client.send(CONNECT)
                assert client.read_response().status == 503
            assert gateway.log_lines(1)[0]["flags"] == "UF"


def test_an_upstream_that_takes_no_connection(setup: Setup) -> None:
    with deaf_address() as deaf:
        setup.clusters = {"c": {"endpoints": [deaf], "connect_timeout_ms": 5000}}
        with serving(setup) as (gateway, _):
            h2 = h2_client(gateway)
            stream = h2.connect("db.example:5432")
            h2.data(stream, b"early")
            settled(gateway, h2)
            gateway.advance(5.1)
            assert h2.response(stream).status == 503


@pytest.mark.parametrize("side", ["client", "upstream"])
@pytest.mark.parametrize("http2", [True, False])
def test_a_side_that_breaks_breaks_the_other(setup: Setup, side: str, http2: bool) -> None:
    with serving(setup, None) as (gateway, upstream):
        h2 = h2_client(gateway) if http2 else None
        client = gateway.connect()
        stream = 0
        if h2 is not None:
            stream = h2.connect("db.example:5432")
            assert h2.head(stream).status == 200
        else:
            client.send(CONNECT)
            client.read_head()
        server = upstream.accept()
        if side == "upstream":
            server.reset()
            if h2 is not None:
                assert h2.response(stream).reset == INTERNAL_ERROR
            else:
                with pytest.raises(ConnectionResetError):
                    client.read_to_end()
        else:
            if h2 is not None:
                h2.reset(stream)
            else:
                client.reset()
            with pytest.raises(ConnectionResetError):
                server.read_to_end()
        [line] = gateway.log_lines(1)
        gone = "DR" if http2 else "DC"
        assert (line["code"], line["flags"]) == (200, "UC" if side == "upstream" else gone)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"CONNECT / HTTP/1.1\r\nhost: db.example:5432\r\n\r\n",
        b"CONNECT http://db.example/ HTTP/1.1\r\nhost: db.example\r\n\r\n",
        b"CONNECT db.example HTTP/1.1\r\nhost: db.example\r\n\r\n",
    ],
)
def test_a_target_that_is_no_authority(setup: Setup, request_bytes: bytes) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = gateway.connect()
        client.send(request_bytes)
        assert client.read_response().status == 400
        assert client.is_closed()
        assert upstream.connections == 0
