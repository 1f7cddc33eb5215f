"""Requests that switch to another protocol, WebSocket mostly, between all versions of HTTP."""

from __future__ import annotations

import base64
import contextlib
import hashlib
from typing import TYPE_CHECKING

import pytest
from tests.engine.h2peer import (
    CANCEL,
    ENABLE_CONNECT_PROTOCOL,
    INITIAL_WINDOW_SIZE,
    H2Peer,
    h2_client,
    settled,
)
from tests.engine.harness import (
    PATTERN,
    Gateway,
    Peer,
    Setup,
    Upstream,
    always,
    direct,
    eventually,
    forward,
    get,
    ok,
    refused_address,
    rule,
    serving,
)

if TYPE_CHECKING:
    from pathlib import Path

LOG = {
    "method": "%REQ(:METHOD)%",
    "protocol": "%PROTOCOL%",
    "upstream": "%UPSTREAM_PROTOCOL%",
    "code": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "received": "%BYTES_RECEIVED%",
    "sent": "%BYTES_SENT%",
}

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
ASKING = (
    "connection: keep-alive, Upgrade",
    "upgrade: websocket",
    f"sec-websocket-key: {KEY}",
    "sec-websocket-version: 13",
    "sec-websocket-protocol: chat",
)
SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
    b"sec-websocket-accept: " + ACCEPT.encode() + b"\r\nsec-websocket-protocol: chat\r\n\r\n"
)
FIELDS = (("sec-websocket-version", "13"), ("sec-websocket-protocol", "chat"))


def accept_of(key: str) -> str:
    digest = hashlib.sha1(
        f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode(), usedforsecurity=False
    )
    return base64.b64encode(digest.digest()).decode()


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup(
        log=LOG,
        log_path=str(tmp_path / "access.log"),
        routes={
            "default": {"name": "default", "action": forward("c", upgrades=["websocket"])},
            "plain": {"name": "plain", "action": forward("c")},
        },
        rules=[rule("/", "default"), rule("/plain", "plain")],
    )


def over_http2(setup: Setup, *endpoints: str) -> Setup:
    setup.clusters = {"c": {"endpoints": list(endpoints), "protocol": "http2"}}
    return setup


def open_http1(gateway: Gateway, upstream: Upstream, behind: bytes = b"") -> tuple[Peer, Peer]:
    """A WebSocket from a client to an upstream, both of HTTP/1.1."""
    client = gateway.connect()
    client.send(get("/chat", *ASKING) + behind)
    server = upstream.accept()
    server.read_head()
    server.send(SWITCHING)
    assert client.read_head()[0] == "HTTP/1.1 101 Switching Protocols"
    return client, server


def know(gateway: Gateway, upstream: Upstream, *, offers: bool = True) -> H2Peer:
    """A connection to an upstream of HTTP/2 whose SETTINGS the gateway has seen."""
    client = gateway.connect()
    client.send(get("/plain"))
    settings = {ENABLE_CONNECT_PROTOCOL: 1} if offers else {}
    server = H2Peer(upstream.accept(), client=False, settings=settings)
    server.respond(server.accept())
    assert client.read_response().status == 200
    settled(gateway, server)
    return server


# HTTP/1.1 to HTTP/1.1.


def test_bytes_go_both_ways(setup: Setup) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = gateway.connect()
        client.send(get("/chat", *ASKING, "x-other: 1"))
        server = upstream.accept()
        first, pairs, _ = server.read_head()
        fields = {name.lower(): value for name, value in pairs}
        assert first == "GET /chat HTTP/1.1"
        assert fields["upgrade"] == "websocket"
        assert fields["connection"].lower() == "upgrade"
        assert fields["sec-websocket-key"] == KEY
        assert fields["x-other"] == "1"
        server.send(SWITCHING)
        line, pairs, _ = client.read_head()
        assert line == "HTTP/1.1 101 Switching Protocols"
        fields = {name.lower(): value for name, value in pairs}
        assert fields["upgrade"] == "websocket"
        assert fields["connection"].lower() == "upgrade"
        assert fields["sec-websocket-accept"] == ACCEPT
        assert fields["sec-websocket-protocol"] == "chat"
        assert not {"content-length", "transfer-encoding"} & set(fields)
        for at in range(10):
            client.send(b"ping %d" % at)
            assert server.read_exactly(6) == b"ping %d" % at
            server.send(b"pong! %d" % at)
            assert client.read_exactly(7) == b"pong! %d" % at
        client.finish_sending()
        assert server.read_to_end() == b""
        server.send(b"last")
        server.close()
        assert client.read_to_end() == b"last"
        [line_] = gateway.log_lines(1)
        assert line_ == {
            "method": "GET",
            "protocol": "HTTP/1.1",
            "upstream": "HTTP/1.1",
            "code": 101,
            "flags": "-",
            "details": "via_upstream",
            "received": 60,
            "sent": 74,
        }


def test_what_comes_right_behind_the_heads_is_not_lost(setup: Setup) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = gateway.connect()
        client.send(get("/chat", *ASKING) + b"early request")
        server = upstream.accept()
        server.read_head()
        server.send(SWITCHING + b"early answer")
        client.read_head()
        assert client.read_exactly(12) == b"early answer"
        assert server.read_exactly(13) == b"early request"


def test_a_server_that_finishes_first(setup: Setup) -> None:
    with serving(setup, None) as (gateway, upstream):
        client, server = open_http1(gateway, upstream)
        server.send(b"bye")
        server.finish_sending()
        assert client.read_to_end() == b"bye"
        client.send(b"still here")
        assert server.read_exactly(10) == b"still here"
        client.close()
        assert server.read_to_end() == b""
        assert gateway.log_lines(1)[0]["flags"] == "-"


@pytest.mark.parametrize("side", ["client", "server"])
def test_a_side_that_breaks_breaks_the_other(setup: Setup, side: str) -> None:
    with serving(setup, None) as (gateway, upstream):
        client, server = open_http1(gateway, upstream)
        broken, other = (client, server) if side == "client" else (server, client)
        broken.send(b"last words")
        assert other.read_exactly(10) == b"last words"
        broken.reset()
        with pytest.raises(ConnectionResetError):
            other.read_to_end()
        [line] = gateway.log_lines(1)
        assert (line["code"], line["flags"]) == (101, "DC" if side == "client" else "UC")


def test_a_tunnel_where_nothing_moves_ends(setup: Setup) -> None:
    setup.http = {"stream_idle_timeout_ms": 20_000}
    with serving(setup, None) as (gateway, upstream):
        client, server = open_http1(gateway, upstream)
        gateway.advance(19)
        client.send(b"x")
        server.read_exactly(1)
        gateway.advance(19)
        server.send(b"y")
        client.read_exactly(1)
        gateway.advance(19)
        assert not client.is_readable()
        gateway.advance(1.1)
        assert client.is_closed()
        assert server.is_closed()
        [line] = gateway.log_lines(1)
        assert (line["code"], line["flags"]) == (101, "SI")
        assert (line["received"], line["sent"]) == (1, 1)


def test_a_route_s_time_is_for_the_answer_only(setup: Setup) -> None:
    with serving(setup, None) as (gateway, upstream):
        client, server = open_http1(gateway, upstream)
        gateway.advance(200)
        client.send(b"x")
        assert server.read_exactly(1) == b"x"


def test_no_request_follows_a_tunnel(setup: Setup) -> None:
    with serving(setup, None) as (gateway, upstream):
        client, server = open_http1(gateway, upstream)
        server.close()
        assert client.read_to_end() == b""
        client.send(get("/another"))
        client.finish_sending()
        eventually(lambda: gateway.stat("downstream_cx_active") == 0)
        assert upstream.connections == 1
        gateway.reaches("downstream_rq_total", 1)


def test_no_request_follows_a_tunnel_that_was_idle(setup: Setup) -> None:
    setup.http = {"stream_idle_timeout_ms": 20_000}
    with serving(setup, None) as (gateway, upstream):
        client, _ = open_http1(gateway, upstream)
        gateway.advance(20.1)
        with contextlib.suppress(ConnectionError):
            client.send(get("/plain"))
            assert client.read_to_end() == b""
        assert [line["code"] for line in gateway.log_lines(1)] == [101]


def test_a_slow_reader_slows_the_writer_down(setup: Setup) -> None:
    with serving(setup, None) as (gateway, upstream):
        client, server = open_http1(gateway, upstream)
        taken = client.fill(50_000_000, gateway)
        assert taken < 20_000_000
        assert server.read_exactly(taken) == (PATTERN * (taken // len(PATTERN) + 1))[:taken]


@pytest.mark.parametrize("path", ["/plain", "/nowhere"])
def test_a_route_that_does_not_allow_it(setup: Setup, path: str) -> None:
    setup.rules = [rule("/chat", "default"), rule("/plain", "plain")]
    with serving(setup, None) as (gateway, upstream):
        client = gateway.connect()
        client.send(get(path, *ASKING))
        response = client.read_response()
        assert response.status == (403 if path == "/plain" else 404)
        if path == "/plain":
            assert (response["connection"], response.body) == ("close", b"")
            assert client.is_closed()
            assert gateway.log_lines(1)[0]["details"] == "upgrade_failed"
        assert upstream.connections == 0


def test_a_listener_may_allow_it_for_all_routes(setup: Setup) -> None:
    setup.http = {"upgrades": ["websocket"]}
    with serving(setup, None) as (gateway, upstream):
        client = gateway.connect()
        client.send(get("/plain", *(field.replace("websocket", "WebSocket") for field in ASKING)))
        server = upstream.accept()
        server.read_head()
        server.send(SWITCHING)
        assert client.read_head()[0] == "HTTP/1.1 101 Switching Protocols"


def test_an_upstream_that_does_not_switch(setup: Setup) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = gateway.connect()
        client.send(get("/chat", *ASKING))
        server = upstream.accept()
        server.read_head()
        server.send(ok(b"not here", status="404 Not Found"))
        response = client.read_response()
        # Envoy drops such bodies; they say why.
        assert (response.status, response.body) == (404, b"not here")
        client.send(get("/plain"))
        server.read_request()
        server.send(ok())
        assert client.read_response().status == 200
        assert [line["code"] for line in gateway.log_lines(2)] == [404, 200]


def test_a_switch_that_nobody_asked_for(setup: Setup) -> None:
    with serving(setup, always(SWITCHING)) as (gateway, _):
        assert gateway.get("/plain").status == 502
        assert gateway.get("/chat").status == 502


def test_draining_lets_tunnels_go_on(setup: Setup) -> None:
    with serving(setup, None) as (gateway, upstream):
        client, server = open_http1(gateway, upstream)
        gateway.engine.drain()
        client.send(b"still")
        assert server.read_exactly(5) == b"still"
        server.close()
        assert client.read_to_end() == b""
        client.close()
        assert gateway.engine.join(5.0) is True


# HTTP/2 to HTTP/1.1.


def test_http_2_to_http_1(setup: Setup) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = h2_client(gateway)
        stream = client.extended_connect("websocket", *FIELDS, path="/chat")
        server = upstream.accept()
        first, pairs, _ = server.read_head()
        fields = {name.lower(): value for name, value in pairs}
        assert first == "GET /chat HTTP/1.1"
        assert fields["host"] == "ollama"
        assert fields["upgrade"] == "websocket"
        assert fields["connection"].lower() == "upgrade"
        assert not {"content-length", "transfer-encoding"} & set(fields)
        assert len(base64.b64decode(fields["sec-websocket-key"])) == 16
        # What was sent behind the request waits for the switch.
        client.data(stream, b"early")
        accept = accept_of(fields["sec-websocket-key"])
        server.send(SWITCHING.replace(ACCEPT.encode(), accept.encode()) + b"early too")
        answer = client.head(stream)
        assert answer.status == 200
        assert answer["sec-websocket-protocol"] == "chat"
        absent = {"sec-websocket-accept", "upgrade", "connection", "content-length"}
        assert not absent & set(answer.names())
        assert client.body_of(stream, 9) == b"early too"
        assert server.read_exactly(5) == b"early"
        client.data(stream, b"more")
        assert server.read_exactly(4) == b"more"
        # Each side ends for itself.
        client.data(stream, end=True)
        assert server.read_to_end() == b""
        server.send(b"last")
        server.close()
        assert client.response(stream).body == b"early toolast"
        assert client.message(stream).reset is None
        [line] = gateway.log_lines(1)
        assert (line["code"], line["flags"], line["protocol"]) == (101, "-", "HTTP/2")
        assert (line["received"], line["sent"]) == (9, 13)


def test_many_bytes_before_the_end_of_a_tunnel_over_http_2(setup: Setup) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = h2_client(gateway)
        stream = client.extended_connect("websocket", *FIELDS, path="/chat")
        server = upstream.accept()
        server.read_head()
        server.send(SWITCHING)
        client.data(stream, end=True)
        server.read_to_end()
        server.send(PATTERN)
        server.close()
        answer = client.response(stream)
        assert (len(answer.body), answer.ended, answer.reset) == (len(PATTERN), True, None)


@pytest.mark.parametrize("how", ["reset", "gone", "upstream"])
def test_a_tunnel_over_http_2_that_breaks(setup: Setup, how: str) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = h2_client(gateway)
        stream = client.extended_connect("websocket", *FIELDS, path="/chat")
        server = upstream.accept()
        server.read_head()
        server.send(SWITCHING)
        assert client.head(stream).status == 200
        if how == "reset":
            client.reset(stream)
        elif how == "gone":
            client.close()
        else:
            server.send(b"x" * 1000)
            client.body_of(stream, 1000)
            server.reset()
        if how == "upstream":
            answer = client.response(stream)
            assert not answer.ended
            assert answer.reset is not None
        else:
            with pytest.raises(ConnectionResetError):
                server.read_to_end()
        [line] = gateway.log_lines(1)
        flags = {"reset": "DR", "gone": "DC", "upstream": "UC"}
        assert line["flags"] == flags[how]


def test_http_2_to_an_upstream_that_does_not_switch(setup: Setup) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = h2_client(gateway)
        stream = client.extended_connect("websocket", *FIELDS, path="/chat")
        server = upstream.accept()
        server.read_head()
        server.send(ok(b"not here", status="404 Not Found"))
        answer = client.response(stream)
        assert (answer.status, answer.body) == (404, b"not here")


def test_an_answer_of_success_is_no_switch(setup: Setup) -> None:
    """A client of HTTP/2 would take it for one (RFC 8441 5)."""
    with serving(setup, always(ok(b"page"))) as (gateway, _):
        client = h2_client(gateway)
        stream = client.extended_connect("websocket", *FIELDS, path="/chat")
        assert client.response(stream).status == 502
        # HTTP/1.1 tells them apart.
        assert gateway.get("/chat", *ASKING).status == 200


def test_http_2_on_a_route_that_does_not_allow_it(setup: Setup) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = h2_client(gateway)
        refused = client.response(client.extended_connect("websocket", *FIELDS, path="/plain"))
        assert refused.status == 403
        unknown = client.response(client.extended_connect("connect-udp", path="/chat"))
        assert unknown.status == 403
        assert upstream.connections == 0
        assert not client.goaways


def test_only_an_upstream_says_that_a_tunnel_over_http_2_is_there(setup: Setup) -> None:
    # Any 2xx would say so (RFC 8441 5): a fixed answer, a failure in gRPC's terms, an upstream that
    # does not know of the switch.
    setup.http = {"upgrades": ["websocket"]}
    setup.routes["fixed"] = direct(200, "no tunnel")
    setup.routes["nowhere"] = {"name": "nowhere", "action": forward("nowhere")}
    setup.rules += [rule("/fixed", "fixed"), rule("/nowhere", "nowhere")]
    with refused_address() as nobody:
        setup.clusters = {"nowhere": {"endpoints": [nobody]}}
        with serving(setup, always(ok())) as (gateway, _):
            client = h2_client(gateway)
            for protocol, path, status in [
                ("websocket", "/fixed", 403),
                ("h2c", "/plain", 403),
                ("websocket", "/nowhere", 503),
                ("websocket", "/plain", 502),
            ]:
                field = ("content-type", "application/grpc")
                stream = client.extended_connect(protocol, *FIELDS, field, path=path)
                assert client.response(stream).status == status, path


def test_a_tunnel_over_http_2_is_slowed_down(setup: Setup) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = h2_client(gateway, settings={INITIAL_WINDOW_SIZE: 1000}, give_back=False)
        stream = client.extended_connect("websocket", *FIELDS, path="/chat")
        server = upstream.accept()
        server.read_head()
        server.send(SWITCHING)
        assert client.body_of(stream, 0) == b""
        taken = server.fill(50_000_000, gateway)
        assert taken < 20_000_000
        client.body_of(stream, 1000)
        client.window_update(0, 100_000_000)
        client.window_update(stream, 100_000_000)
        client.body_of(stream, taken)
        assert client.message(stream).body == (PATTERN * (taken // len(PATTERN) + 1))[:taken]


# To HTTP/2.


def test_http_1_to_http_2(setup: Setup) -> None:
    with serving(over_http2(setup), None) as (gateway, upstream):
        setup.clusters["c"]["endpoints"] = [upstream.address]
        gateway.apply(setup)
        server = know(gateway, upstream)
        client = gateway.connect()
        client.send(get("/chat", *ASKING) + b"early")
        there = server.accept()
        request = server.head(there)
        assert request[":method"] == "CONNECT"
        assert request[":protocol"] == "websocket"
        assert (request[":scheme"], request[":path"]) == ("http", "/chat")
        assert request[":authority"] == "ollama"
        assert request["sec-websocket-protocol"] == "chat"
        absent = {"sec-websocket-key", "upgrade", "connection", "host", "content-length"}
        assert not absent & set(request.names())
        server.respond(there, ("sec-websocket-protocol", "chat"), body=b"early too", end=False)
        line, pairs, _ = client.read_head()
        fields = {name.lower(): value for name, value in pairs}
        assert line == "HTTP/1.1 101 Switching Protocols"
        assert fields["sec-websocket-accept"] == ACCEPT
        assert fields["upgrade"] == "websocket"
        assert fields["connection"].lower() == "upgrade"
        assert fields["sec-websocket-protocol"] == "chat"
        assert client.read_exactly(9) == b"early too"
        assert server.body_of(there, 5) == b"early"
        client.send(b"more")
        assert server.body_of(there, 9) == b"earlymore"
        client.finish_sending()
        assert server.response(there).ended
        server.data(there, b"last", end=True)
        assert client.read_to_end() == b"last"
        line_ = gateway.log_lines(2)[1]
        assert (line_["code"], line_["flags"], line_["upstream"]) == (101, "-", "HTTP/2")
        assert (line_["received"], line_["sent"]) == (9, 13)


def test_http_2_to_http_2(setup: Setup) -> None:
    with serving(over_http2(setup), None) as (gateway, upstream):
        setup.clusters["c"]["endpoints"] = [upstream.address]
        gateway.apply(setup)
        server = know(gateway, upstream)
        client = h2_client(gateway)
        stream = client.extended_connect("websocket", *FIELDS, path="/chat")
        there = server.accept()
        request = server.head(there)
        assert (request[":method"], request[":protocol"]) == ("CONNECT", "websocket")
        assert "sec-websocket-key" not in request.names()
        server.respond(there, ("sec-websocket-protocol", "chat"), end=False)
        answer = client.head(stream)
        assert (answer.status, answer["sec-websocket-protocol"]) == (200, "chat")
        for at in range(5):
            client.data(stream, b"ping")
            assert server.body_of(there, 4 * at + 4) == b"ping" * (at + 1)
            server.data(there, b"pong")
            assert client.body_of(stream, 4 * at + 4) == b"pong" * (at + 1)
        client.reset(stream)
        assert server.reset_of(there) == CANCEL
        assert gateway.log_lines(2)[1]["flags"] == "DR"


def test_an_upstream_of_http_2_that_refuses(setup: Setup) -> None:
    with serving(over_http2(setup), None) as (gateway, upstream):
        setup.clusters["c"]["endpoints"] = [upstream.address]
        gateway.apply(setup)
        server = know(gateway, upstream)
        client = gateway.connect()
        client.send(get("/chat", *ASKING))
        there = server.accept()
        server.respond(there, status=403, body=b"no")
        response = client.read_response()
        assert (response.status, response.body) == (403, b"no")
        assert "upgrade" not in response.names()


def test_an_upstream_of_http_2_that_does_not_offer_it(setup: Setup) -> None:
    with serving(over_http2(setup), None) as (gateway, upstream):
        setup.clusters["c"]["endpoints"] = [upstream.address]
        gateway.apply(setup)
        server = know(gateway, upstream, offers=False)
        assert gateway.get("/chat", *ASKING).status == 502
        assert len(server.messages) == 1


def test_the_first_request_on_a_connection_may_switch(setup: Setup) -> None:
    """Whether the upstream offers it is known only with its SETTINGS, which are waited for."""
    with serving(over_http2(setup), None) as (gateway, upstream):
        setup.clusters["c"]["endpoints"] = [upstream.address]
        gateway.apply(setup)
        client = gateway.connect()
        client.send(get("/chat", *ASKING))
        server = H2Peer(upstream.accept(), client=False, settings={ENABLE_CONNECT_PROTOCOL: 1})
        there = server.accept()
        assert server.head(there)[":protocol"] == "websocket"
        server.respond(there, end=False)
        assert client.read_head()[0] == "HTTP/1.1 101 Switching Protocols"
