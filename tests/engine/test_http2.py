"""HTTP/2 from clients, to upstreams that speak HTTP/1.1."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from tests.engine.h2peer import (
    ACK,
    COMPRESSION_ERROR,
    DATA,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FRAME_SIZE_ERROR,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    INTERNAL_ERROR,
    LARGEST_STREAM,
    MAX_CONCURRENT_STREAMS,
    NO_ERROR,
    PING,
    PREFACE,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    H2Peer,
    Message,
    frame,
    h2_client,
    settled,
)
from tests.engine.harness import (
    PATTERN,
    VIP,
    Gateway,
    Peer,
    Setup,
    always,
    deaf_address,
    direct,
    eventually,
    forward,
    get,
    ok,
    refused_address,
    rule,
    serving,
)

from kgw.errors import NotRunning
from kgw.proxyproto import MeshIdentity, ProxyHeader

if TYPE_CHECKING:
    from pathlib import Path

LOG = {
    "method": "%REQ(:METHOD)%",
    "protocol": "%PROTOCOL%",
    "code": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "received": "%BYTES_RECEIVED%",
    "sent": "%BYTES_SENT%",
}

IDENTITY = MeshIdentity.parse("spiffe://cluster.local/ns/default/sa/curl")
TO_SERVICE = ProxyHeader(
    source=("10.244.0.24", 46238), destination=(VIP, 80), identity=IDENTITY
).encode()
TO_NOWHERE = ProxyHeader(identity=IDENTITY).encode()


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup(log=LOG, log_path=str(tmp_path / "access.log"))


@pytest.fixture(params=["plain", "waypoint", "waypoint without addresses"])
def opening(request: pytest.FixtureRequest, setup: Setup) -> bytes:
    """What comes before the preface on the listener."""
    setup.waypoint = request.param != "plain"
    return {"plain": b"", "waypoint": TO_SERVICE}.get(request.param, TO_NOWHERE)


def seen(message: Message) -> dict[str, Any]:
    """What the echoing upstream got."""
    found: dict[str, Any] = json.loads(message.body)
    return found


def fields_of(message: Message) -> list[tuple[str, str]]:
    return [(name, value) for name, value in seen(message)["headers"]]


def logged(gateway: Gateway, count: int = 1) -> list[tuple[int, str, str]]:
    lines = gateway.log_lines(count)
    return [(line["code"], line["flags"], line["details"]) for line in lines]


# How connections begin.


def test_a_request_without_a_body(setup: Setup, opening: bytes) -> None:
    with serving(setup) as (gateway, _):
        client = h2_client(gateway, opening)
        answer = client.ask("/path?q=1", ("accept", "x"))
        assert answer.status == 200
        assert answer["content-length"] == str(len(answer.body))
        assert answer["server"] == "kgw"
        assert {"date", "x-envoy-upstream-service-time"} < set(answer.names())
        assert not {"connection", "transfer-encoding", "keep-alive"} & set(answer.names())
        assert seen(answer)["line"] == "GET /path?q=1 HTTP/1.1"
        fields = dict(fields_of(answer))
        assert (fields["host"], fields["accept"]) == ("ollama", "x")
        assert not {"content-length", "transfer-encoding"} & set(fields)
        [line] = gateway.log_lines(1)
        assert line == {
            "method": "GET",
            "protocol": "HTTP/2",
            "code": 200,
            "flags": "-",
            "details": "via_upstream",
            "received": 0,
            "sent": len(answer.body),
        }


def test_requests_follow_each_other_on_a_connection(setup: Setup, opening: bytes) -> None:
    with serving(setup) as (gateway, upstream):
        client = h2_client(gateway, opening)
        for at in range(5):
            assert seen(client.ask(f"/{at}"))["line"] == f"GET /{at} HTTP/1.1"
        assert upstream.connections == 1


def test_both_versions_are_served_on_one_port(setup: Setup, opening: bytes) -> None:
    with serving(setup) as (gateway, _):
        first = h2_client(gateway, opening)
        second = gateway.connect()
        second.send(opening + get())
        assert second.read_response().status == 200
        assert first.ask().status == 200
        assert {line["protocol"] for line in gateway.log_lines(2)} == {"HTTP/1.1", "HTTP/2"}


def test_the_preface_may_come_in_any_two_pieces(setup: Setup) -> None:
    with serving(setup) as (gateway, _):
        for at in range(1, len(PREFACE)):
            peer = gateway.connect()
            peer.send(PREFACE[:at])
            gateway.settle()
            client = H2Peer(peer, preface=PREFACE[at:])
            assert client.ask().status == 200, at
            client.close()


def test_every_byte_may_come_alone(setup: Setup, opening: bytes) -> None:
    with serving(setup) as (gateway, _):
        client = h2_client(gateway, opening)
        sock = client.peer.sock
        double = Dripping(sock, gateway)
        client.peer.sock = double  # type: ignore[assignment]  # it has what a peer uses
        stream = client.request("/slow", method="POST", body=b"body")
        client.peer.sock = sock
        answer = client.response(stream)
        assert seen(answer)["body"] == "body"


@pytest.mark.parametrize("codec", ["http1", "http2"])
def test_a_listener_may_speak_one_version_only(setup: Setup, codec: str) -> None:
    setup.http = {"codec": codec}
    with serving(setup) as (gateway, upstream):
        wrong = gateway.connect()
        if codec == "http1":
            wrong.send(PREFACE)
            assert wrong.read_response().status == 426
            assert gateway.get().status == 200
        else:
            wrong.send(get())
            # It is not answered in another version than the listener's.
            with contextlib.suppress(ConnectionResetError):
                assert b"HTTP/1.1" not in wrong.read_to_end()
            assert h2_client(gateway).ask().status == 200
        assert upstream.connections == 1


def test_a_preface_that_never_ends_is_given_up(setup: Setup) -> None:
    setup.http = {"request_head_timeout_ms": 10_000}
    with serving(setup) as (gateway, _):
        part, bare = gateway.connect(), gateway.connect()
        part.send(PREFACE[:10])
        gateway.advance(10.1)
        # It has the time that any head has, once it cannot be a preface any more.
        gateway.advance(10.1)
        # The beginning of a preface is the beginning of a request.
        assert part.read_response().status == 408
        # A whole one without SETTINGS begins nothing: it is an idle connection.
        bare.send(PREFACE)
        gateway.settle()
        gateway.advance(3601)
        client = H2Peer(bare, preface=b"")
        client.pump(lambda: client.goaways)
        gateway.advance(1)
        gateway.advance(1.1)
        client.read_to_end()


def test_what_the_gateway_offers(setup: Setup) -> None:
    setup.http = {
        "http2": {
            "max_concurrent_streams": 7,
            "initial_stream_window_size": 70_000,
            "initial_connection_window_size": 200_000,
            "max_frame_size": 20_000,
        }
    }
    with serving(setup) as (gateway, _):
        client = h2_client(gateway)
        client.ping(b"firstone")
        client.ping(b"secondly")
        assert client.settings[MAX_CONCURRENT_STREAMS] == 7
        assert client.settings[INITIAL_WINDOW_SIZE] == 70_000
        assert client.settings[5] == 20_000
        assert client.settings[6] == 60 * 1024
        assert client.settings[8] == 1
        # Its SETTINGS are acknowledged, and the connection's window opened.
        assert any(each.kind == SETTINGS and each.flags & ACK for each in client.seen)
        assert [each.number() for each in client.seen if each.kind == WINDOW_UPDATE] == [
            200_000 - 65_535
        ]


def test_pings_are_answered_with_what_they_say(setup: Setup, opening: bytes) -> None:
    with serving(setup) as (gateway, _):
        client = h2_client(gateway, opening)
        for at in range(3):
            client.ping(b"%08d" % at)
        assert client.ask().status == 200


def test_a_larger_window_lets_an_answer_go_on(setup: Setup) -> None:
    with serving(setup, always(ok(PATTERN))) as (gateway, _):
        client = h2_client(gateway, settings={INITIAL_WINDOW_SIZE: 1000}, give_back=False)
        stream = client.request()
        assert client.body_of(stream, 1000) == PATTERN[:1000]
        client.ping()
        assert len(client.message(stream).body) == 1000
        # By a window update, and by a new initial size for all streams.
        client.window_update(stream, 500)
        assert client.body_of(stream, 1500) == PATTERN[:1500]
        client.frame(SETTINGS, payload=bytes.fromhex("0004") + (3000).to_bytes(4, "big"))
        assert client.body_of(stream, 3500) == PATTERN[:3500]
        client.give_back = True
        client.window_update(0, 1_000_000)
        client.window_update(stream, 1_000_000)
        assert client.response(stream).body == PATTERN


# Messages.


@pytest.mark.parametrize("with_length", [True, False])
def test_a_body_goes_to_http_1(setup: Setup, opening: bytes, with_length: bool) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = h2_client(gateway, opening)
        fields = [("content-length", "10")] if with_length else []
        stream = client.request("/", *fields, method="POST", body=b"01234", end=False)
        peer = upstream.accept()
        first, headers, _ = peer.read_head()
        assert first == "POST / HTTP/1.1"
        names = dict(headers)
        if with_length:
            assert (names.get("content-length"), names.get("transfer-encoding")) == ("10", None)
            assert peer.read_exactly(5) == b"01234"
        else:
            assert (names.get("content-length"), names.get("transfer-encoding")) == (
                None,
                "chunked",
            )
            assert peer.read_until(b"\r\n01234\r\n").startswith(b"5\r\n")
        client.data(stream, b"56789", end=True)
        rest = b"56789" if with_length else b"5\r\n56789\r\n0\r\n\r\n"
        assert peer.read_exactly(len(rest)) == rest
        peer.send(ok(b"done"))
        assert client.response(stream).body == b"done"
        [line] = gateway.log_lines(1)
        assert (line["received"], line["sent"]) == (10, 4)


def test_an_empty_body_that_ends_with_data(setup: Setup) -> None:
    with serving(setup) as (gateway, _):
        client = h2_client(gateway)
        answer = client.ask(method="POST", body=b"")
        assert seen(answer)["body"] == ""
        assert seen(client.ask(method="PUT"))["line"] == "PUT / HTTP/1.1"
        zero = client.ask("/", ("content-length", "0"), method="POST")
        assert ("content-length", "0") in fields_of(zero)


def test_trailers_of_a_request_follow_its_last_chunk(setup: Setup) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = h2_client(gateway)
        stream = client.request(method="POST", body=b"body", end=False)
        client.headers(stream, [("x-checksum", "1"), ("content-length", "9")], end=True)
        peer = upstream.accept()
        peer.read_head()
        # Fields that would be about the message's framing are none of a trailer's.
        end = b"4\r\nbody\r\n0\r\nx-checksum: 1\r\n\r\n"
        assert peer.read_exactly(len(end)) == end
        peer.send(ok())
        assert client.response(stream).status == 200


def test_trailers_of_an_answer_with_chunks(setup: Setup) -> None:
    chunks = b"2\r\nbo\r\n2\r\ndy\r\n0\r\nx-trailer: 1\r\n\r\n"
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    with serving(setup, always(head + chunks)) as (gateway, _):
        client = h2_client(gateway)
        for _ in range(2):
            answer = client.ask()
            assert (answer.body, answer.trailers) == (b"body", [("x-trailer", "1")])


@pytest.mark.parametrize(
    ("response", "body", "length"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbody", b"body", "4"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", b"", "0"),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n",
            b"body",
            None,
        ),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"", None),
        (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n", b"", "9"),
    ],
)
def test_answers_of_http_1(setup: Setup, response: bytes, body: bytes, length: str | None) -> None:
    with serving(setup, always(response)) as (gateway, upstream):
        client = h2_client(gateway)
        for _ in range(2):
            answer = client.ask()
            assert answer.status == int(response[9:12])
            assert (answer.body, answer.get("content-length")) == (body, length)
            assert answer.trailers is None
            assert answer.reset is None
            assert not {"connection", "transfer-encoding"} & set(answer.names())
        assert upstream.connections == 1


def test_an_answer_that_ends_with_its_connection(setup: Setup) -> None:
    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")

    with serving(setup, script) as (gateway, upstream):
        client = h2_client(gateway)
        for at in range(2):
            answer = client.ask()
            assert (answer.body, answer.get("content-length")) == (b"until the end", None)
            assert answer.ended
            assert upstream.connections == at + 1


def test_the_answer_to_head_has_a_length_and_no_body(setup: Setup) -> None:
    with serving(setup, always(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n")) as (gateway, _):
        client = h2_client(gateway)
        answer = client.ask(method="HEAD")
        assert (answer["content-length"], answer.body) == ("4", b"")


def test_a_client_that_waits_to_be_asked_for_its_body(setup: Setup) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = h2_client(gateway)
        stream = client.request("/", ("expect", "100-continue"), method="POST", end=False)
        peer = upstream.accept()
        _, headers, _ = peer.read_head()
        assert "expect" not in dict(headers)
        client.pump(lambda: client.message(stream).interim)
        assert client.message(stream).interim == [100]
        client.data(stream, b"body", end=True)
        assert peer.read_until(b"0\r\n\r\n") == b"4\r\nbody\r\n0\r\n\r\n"
        peer.send(ok(b"thanks"))
        assert client.response(stream).body == b"thanks"


def test_cookies_are_joined_and_the_rest_is_kept_apart(setup: Setup) -> None:
    with serving(setup) as (gateway, _):
        client = h2_client(gateway)
        fields = [("cookie", "a=1"), ("x", "1"), ("cookie", "b=2"), ("x", "2"), ("te", "trailers")]
        got = fields_of(client.ask("/", *fields))
        assert [value for name, value in got if name == "cookie"] == ["a=1; b=2"]
        assert [value for name, value in got if name == "x"] == ["1", "2"]


def test_values_are_passed_on_byte_for_byte(setup: Setup) -> None:
    with serving(setup) as (gateway, _):
        client = h2_client(gateway)
        value = '\u00e9\u00ff\t"quoted" ; , = \\'
        octets = ("x-value", value.encode("latin-1"))
        got = fields_of(client.ask("/", octets))  # type: ignore[arg-type]  # not text
        assert dict(got)["x-value"] == value


def test_the_host_may_stand_in_for_the_authority(setup: Setup) -> None:
    with serving(setup) as (gateway, _):
        client = h2_client(gateway)
        client.last_opened = 1
        head = [(":method", "GET"), (":scheme", "http"), (":path", "/"), ("host", "by.host")]
        client.headers(1, head, end=True)
        assert dict(fields_of(client.response(1)))["host"] == "by.host"
        both = client.ask("/", ("host", "ollama"))
        assert [value for name, value in fields_of(both) if name == "host"] == ["ollama"]


def test_answers_of_the_gateway_itself(setup: Setup) -> None:
    with refused_address() as nobody:
        setup.clusters = {"refused": {"endpoints": [nobody]}, "empty": {"endpoints": []}}
        names = {"refused": forward("refused"), "empty": forward("empty")}
        setup.routes = {name: {"name": name, "action": action} for name, action in names.items()}
        setup.routes["direct"] = direct(200, "hello")
        setup.rules = [rule(f"/{name}", name) for name in setup.routes]
        with serving(setup) as (gateway, _):
            client = h2_client(gateway)
            answers = {path: client.ask(path) for path in ("/direct", "/refused", "/empty", "/no")}
            answers["head"] = client.ask("/direct", method="HEAD")
            # A body that nobody reads is no reason to wait.
            upload = client.request("/direct", method="POST", body=b"part", end=False)
            answers["upload"] = client.response(upload)
            assert {
                name: (answer.status, len(answer.body)) for name, answer in answers.items()
            } == {
                "/direct": (200, 5),
                "/refused": (503, 98),
                "/empty": (503, 19),
                "/no": (404, 0),
                "head": (200, 0),
                "upload": (200, 5),
            }
            assert answers["/direct"]["content-length"] == "5"
            assert answers["/direct"]["content-type"] == "text/plain"
            assert answers["/no"].get("content-length") is None
            assert [flags for _, flags, _ in logged(gateway, 6)] == [
                "-",
                "UF",
                "UH",
                "NR",
                "-",
                "-",
            ]


def test_a_request_without_an_answer_in_time(setup: Setup) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = h2_client(gateway)
        stream = client.request()
        peer = upstream.accept()
        peer.read_request()
        gateway.advance(15.1)
        answer = client.response(stream)
        assert (answer.status, answer.body) == (504, b"upstream request timeout")
        assert peer.is_closed()
        assert logged(gateway) == [(504, "UT", "response_timeout")]


def test_a_request_that_takes_too_long(setup: Setup) -> None:
    setup.http = {"request_timeout_ms": 10_000}
    with serving(setup, None) as (gateway, upstream):
        client = h2_client(gateway)
        stream = client.request(method="POST", body=b"12", end=False)
        upstream.accept().read_until(b"12")
        gateway.advance(9.9)
        assert client.request("/other") == stream + 2
        gateway.advance(0.2)
        answer = client.head(stream)
        assert answer.status == 408
        client.pump(lambda: answer.over())
        assert answer.body == b"request timeout"
        # Another stream of the connection has its own time.
        peer = upstream.accept()
        assert peer.read_request()[0] == "GET /other HTTP/1.1"
        peer.send(ok(b"in time"))
        assert client.response(stream + 2).body == b"in time"


def test_connecting_takes_too_long(setup: Setup) -> None:
    with deaf_address() as deaf:
        setup.clusters = {"c": {"endpoints": [deaf], "connect_timeout_ms": 5000}}
        with serving(setup) as (gateway, _):
            client = h2_client(gateway)
            stream = client.request()
            settled(gateway, client)
            gateway.advance(5.1)
            answer = client.response(stream)
            assert answer.status == 503
            assert answer.body.endswith(b"reset reason: connection timeout")
            assert [flags for _, flags, _ in logged(gateway)] == ["UF"]


def test_routes_by_protocol_independent_things(setup: Setup) -> None:
    setup.routes = {"a": direct(200, "a"), "b": direct(200, "b")}
    setup.hosts = [
        {"hostname": "a.example", "rules": [rule("/", "a")]},
        {"hostname": "b.example", "rules": [rule("/", "b")]},
    ]
    with serving(setup) as (gateway, _):
        client = h2_client(gateway)
        assert client.ask(host="a.example").body == b"a"
        assert client.ask(host="b.example:8080").body == b"b"
        assert client.ask(host="B.EXAMPLE").body == b"b"
        assert client.ask(host="c.example").status == 404


# What is no request.


GOOD = [(":method", "GET"), (":scheme", "http"), (":authority", "ollama"), (":path", "/")]


def without(name: str) -> list[tuple[str, str]]:
    return [field for field in GOOD if field[0] != name]


MALFORMED = {
    "connection field": [*GOOD, ("connection", "close")],
    "keep-alive": [*GOOD, ("keep-alive", "1")],
    "proxy-connection": [*GOOD, ("proxy-connection", "close")],
    "transfer-encoding": [*GOOD, ("transfer-encoding", "chunked")],
    "upgrade field": [*GOOD, ("upgrade", "websocket")],
    "te": [*GOOD, ("te", "gzip")],
    "line feed in the path": [*without(":path"), (":path", "/ HTTP/1.1\r\nx: 1\r\n\r\nGET /")],
    "space in the path": [*without(":path"), (":path", "/a b")],
    "line feed in the authority": [*without(":authority"), (":authority", "a\r\nx: 1")],
    "authority with a user": [*without(":authority"), (":authority", "user@ollama")],
    "no method": without(":method"),
    "no scheme": without(":scheme"),
    "no path": without(":path"),
    "empty path": [*without(":path"), (":path", "")],
    "relative path": [*without(":path"), (":path", "path")],
    "two methods": [*GOOD, (":method", "GET")],
    "two paths": [*GOOD, (":path", "/b")],
    "two authorities": [*GOOD, (":authority", "b")],
    "answer's pseudo field": [*GOOD, (":status", "200")],
    "late pseudo field": [("x", "1"), *GOOD],
    "protocol without connect": [*GOOD, (":protocol", "websocket")],
    "no authority": without(":authority"),
    "another host": [*GOOD, ("host", "other")],
    "two hosts": [*GOOD, ("host", "ollama"), ("host", "ollama")],
    "two lengths": [*GOOD, ("content-length", "0"), ("content-length", "0")],
    "no length": [*GOOD, ("content-length", "+0")],
    "length without a body": [*GOOD, ("content-length", "5")],
    "connect with a path": [(":method", "CONNECT"), *without(":method")],
}

UNREADABLE = {
    "uppercase": [*GOOD, ("X-Upper", "1")],
    "space in a name": [*GOOD, ("x y", "1")],
    "colon in a name": [*GOOD, ("x:y", "1")],
    "empty name": [*GOOD, ("", "1")],
    "line feed": [*GOOD, ("x", "1\nsmuggled: 1")],
    "carriage return": [*GOOD, ("x", "1\r\nsmuggled: 1")],
    "nul": [*GOOD, ("x", "1\0")],
    "line feed in the method": [*without(":method"), (":method", "GET / HTTP/1.1\r\nx: 1\r\n")],
    "unknown pseudo field": [*GOOD, (":unknown", "1")],
}
"""What no header field can be: the block does not decode, so later ones would not either."""


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_request_costs_only_its_stream(setup: Setup, name: str) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = h2_client(gateway)
        under_way = client.request("/first")
        peer = upstream.accept()
        peer.read_request()
        client.last_opened += 2
        client.headers(client.last_opened, MALFORMED[name], end=True)
        answer = client.response(client.last_opened)
        # The library resets what breaks the rules of HTTP/2, the gateway answers the rest.
        assert answer.reset == PROTOCOL_ERROR or answer.status == 400
        peer.send(ok(b"first"))
        assert client.response(under_way).body == b"first"
        second = client.request("/second")
        assert peer.read_request()[0] == "GET /second HTTP/1.1"
        peer.send(ok(b"second"))
        assert client.response(second).body == b"second"
        assert upstream.connections == 1
        assert not client.goaways


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_is_no_field_ends_the_connection(setup: Setup, name: str) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = h2_client(gateway)
        client.headers(1, UNREADABLE[name], end=True)
        client.read_to_end()
        assert [code for _, code in client.goaways] == [PROTOCOL_ERROR]
        assert upstream.connections == 0


@pytest.mark.parametrize("length", ["0", "3", "5"])
def test_a_body_of_another_length_than_was_said(setup: Setup, length: str) -> None:
    whole = []

    def script(peer: Peer) -> None:
        while True:
            whole.append(peer.read_request()[2])
            peer.send(ok())

    with serving(setup, script) as (gateway, _):
        client = h2_client(gateway)
        answer = client.ask("/", ("content-length", length), method="POST", body=b"four")
        # What has no body may be answered before the data comes that should not be there.
        assert answer.reset == PROTOCOL_ERROR or answer.status == (200 if length == "0" else 400)
        assert client.ask(method="POST", body=b"other").status == 200
        # No body was cut or padded to the length that was said.
        assert set(whole) <= {b"", b"other"}
        assert not client.goaways


def test_a_head_that_is_too_large_or_has_too_many_fields(setup: Setup) -> None:
    with serving(setup) as (gateway, upstream):
        client = h2_client(gateway)
        assert client.ask("/", *[(f"x-{at}", "1") for at in range(120)]).status == 431
        assert client.ask("/", ("x-large", "x" * 62_000)).status == 431
        assert client.ask("/", ("x-many", "x" * 20_000), ("y-many", "y" * 20_000)).status == 200
        assert upstream.connections == 1


def test_a_path_that_is_too_long(setup: Setup) -> None:
    setup.http = {"max_target_bytes": 100}
    with serving(setup) as (gateway, _):
        client = h2_client(gateway)
        assert client.ask("/" + "x" * 100).status == 414
        assert client.ask("/" + "x" * 99).status == 200


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(frame(DATA, 0, 0, b"x"), id="data of no stream"),
        pytest.param(frame(DATA, 0, 5, b"x"), id="data of an idle stream"),
        pytest.param(frame(HEADERS, END_HEADERS | END_STREAM, 2, b"\x82"), id="an even stream"),
        pytest.param(frame(HEADERS, END_HEADERS, 1, b"\xff" * 6), id="no hpack"),
        pytest.param(frame(PING, 0, 0, b"short"), id="a short ping"),
        pytest.param(frame(SETTINGS, ACK, 0, b"123456"), id="settings in an acknowledgement"),
        pytest.param(frame(WINDOW_UPDATE, 0, 0, bytes(4)), id="an increment of nothing"),
        pytest.param(b"\xff\xff\xff" + frame(DATA, 0, 1)[3:], id="an enormous frame"),
    ],
)
def test_a_broken_connection_is_told_so_and_closed(setup: Setup, broken: bytes) -> None:
    with serving(setup) as (gateway, _):
        client = h2_client(gateway)
        client.ping()
        client.peer.send(broken)
        client.read_to_end()
        assert len(client.goaways) == 1
        assert client.goaways[0][1] in (PROTOCOL_ERROR, FRAME_SIZE_ERROR, COMPRESSION_ERROR)
        assert h2_client(gateway).ask().status == 200


# Streams beside each other.


def test_many_streams_at_a_time(setup: Setup, opening: bytes) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = h2_client(gateway, opening)
        streams = [client.request(f"/{at}") for at in range(50)]
        peers = {}
        for _ in streams:
            peer = upstream.accept()
            peers[peer.read_request()[0].split()[1]] = peer
        # The last are answered first.
        for at in reversed(range(50)):
            peers[f"/{at}"].send(ok(f"answer {at}".encode()))
            assert client.response(streams[at]).body == f"answer {at}".encode()
        assert gateway.stat("downstream_rq_total") >= 50


def test_streams_above_the_limit_are_refused(setup: Setup) -> None:
    setup.http = {"http2": {"max_concurrent_streams": 3}}
    with serving(setup, None) as (gateway, upstream):
        client = h2_client(gateway)
        streams = [client.request() for _ in range(4)]
        assert client.response(streams[3]).reset == REFUSED_STREAM
        peers = [upstream.accept() for _ in range(3)]
        for peer in peers:
            peer.read_request()
            peer.send(ok())
        assert [client.response(stream).status for stream in streams[:3]] == [200] * 3
        stream = client.request()
        again = peers[-1]
        eventually(lambda: any(peer.is_readable() for peer in peers))
        again = next(peer for peer in peers if peer.is_readable())
        again.read_request()
        again.send(ok())
        assert client.response(stream).status == 200


def test_a_stream_that_stands_still_does_not_hold_up_others(setup: Setup) -> None:
    with serving(setup, always(ok(PATTERN))) as (gateway, _):
        client = h2_client(gateway, settings={INITIAL_WINDOW_SIZE: 100}, give_back=False)
        stalled = client.request("/stalled")
        client.body_of(stalled, 100)
        for _ in range(3):
            stream = client.request("/other")
            client.window_update(stream, 1_000_000)
            client.window_update(0, len(PATTERN))
            assert client.response(stream).body == PATTERN
        assert len(client.message(stalled).body) == 100


def test_uploads_that_stand_still_do_not_hold_up_others(setup: Setup) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = h2_client(gateway)
        stalled = [client.request(f"/{at}", method="POST", end=False) for at in range(4)]
        peers = [upstream.accept() for _ in stalled]
        for stream in stalled:
            # A stream's whole window; nobody reads it.
            client.data(stream, bytes(60_000))
        stream = client.request("/free", method="POST", body=b"x" * 50_000)
        peer = upstream.accept()
        assert peer.read_request()[2] == b"x" * 50_000
        peer.send(ok(b"free"))
        assert client.response(stream).body == b"free"
        for peer in peers:
            assert peer.read_head()[0].startswith("POST")


# Flow control.


BIG = PATTERN * 400
"""More than all the buffers on the way hold together: 52 MB."""


def test_a_client_that_does_not_read_slows_the_upstream_down(setup: Setup) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = h2_client(gateway, settings={INITIAL_WINDOW_SIZE: 10_000}, give_back=False)
        stream = client.request()
        peer = upstream.accept()
        peer.read_request()
        peer.send(f"HTTP/1.1 200 OK\r\ncontent-length: {len(BIG)}\r\n\r\n".encode())
        taken = peer.fill(len(BIG), gateway)
        # Two sockets' buffers, and little of the gateway's own.
        assert taken < 20_000_000
        client.body_of(stream, 10_000)
        client.give_back = True
        client.window_update(0, LARGEST_STREAM - 65_535)
        client.window_update(stream, LARGEST_STREAM - 10_000)
        client.give_back = False
        client.body_of(stream, taken)
        assert client.message(stream).body == BIG[:taken]


def test_an_upstream_that_does_not_read_slows_the_client_down(setup: Setup) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = h2_client(gateway)
        stream = client.request(method="POST", end=False)
        peer = upstream.accept()
        peer.read_head()
        window, sent = 65_535, 0
        # Until a window's worth stays unacknowledged although the gateway is done with all else.
        while window >= 16_384 and sent < len(BIG):
            client.data(stream, BIG[sent : sent + 16_384])
            sent, window = sent + 16_384, window - 16_384
            settled(gateway, client)
            window += sum(
                each.number() for each in client.seen if each[::2] == (WINDOW_UPDATE, stream)
            )
            client.seen.clear()
        assert sent < 20_000_000
        assert client.message(stream).reset is None
        client.reset(stream)


def test_uploads_that_are_left_give_the_connections_window_back(setup: Setup) -> None:
    setup.http = {"http2": {"initial_connection_window_size": 100_000}}
    with serving(setup, None) as (gateway, upstream):
        client = h2_client(gateway)
        for _ in range(10):
            stream = client.request(method="POST", end=False)
            peer = upstream.accept()
            client.data(stream, bytes(50_000))
            client.reset(stream)
            settled(gateway, client)
            peer.close()
        stream = client.request(method="POST", body=b"x" * 50_000)
        peer = upstream.accept()
        assert peer.read_request()[2] == b"x" * 50_000
        peer.send(ok())
        assert client.response(stream).status == 200
        assert not client.goaways


def test_a_client_that_takes_nothing_for_too_long(setup: Setup) -> None:
    setup.http = {"stream_idle_timeout_ms": 20_000}
    with serving(setup, None) as (gateway, upstream):
        client = h2_client(gateway, settings={INITIAL_WINDOW_SIZE: 0})
        stream = client.request()
        peer = upstream.accept()
        peer.read_request()
        peer.send(ok(b"x" * 1_000_000)[:-1])
        client.head(stream)
        gateway.advance(14)
        gateway.settle()
        gateway.advance(6.1)
        gateway.advance(1.1)
        assert client.response(stream).reset == INTERNAL_ERROR
        assert peer.is_closed()


# Answers that do not wait for the request.


def test_an_answer_before_the_request_has_ended(setup: Setup) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = h2_client(gateway)
        stream = client.request(method="POST", body=b"part", end=False)
        peer = upstream.accept()
        peer.read_head()
        peer.send(ok(b"early"))
        answer = client.response(stream)
        assert answer.body == b"early"
        client.pump(lambda: answer.reset is not None)
        assert answer.reset == NO_ERROR
        # What was on its way is dropped.
        client.data(stream, b"late", end=True)
        assert gateway.log_lines(1)[0]["code"] == 200
        other = client.request()
        second = upstream.accept()
        second.read_request()
        second.send(ok())
        assert client.response(other).status == 200


def test_an_answer_that_begins_early_goes_on_beside_the_request(setup: Setup) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = h2_client(gateway)
        stream = client.request(method="POST", body=b"ping", end=False)
        peer = upstream.accept()
        peer.read_head()
        peer.read_until(b"ping\r\n")
        peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npong\r\n")
        assert client.body_of(stream, 4) == b"pong"
        for _ in range(3):
            client.data(stream, b"ping")
            peer.read_until(b"ping\r\n")
            peer.send(b"4\r\npong\r\n")
        client.data(stream, end=True)
        peer.read_until(b"0\r\n\r\n")
        peer.send(b"0\r\n\r\n")
        assert client.response(stream).body == b"pong" * 4
        assert client.message(stream).reset is None
        [line] = gateway.log_lines(1)
        assert (line["received"], line["sent"]) == (16, 16)


# Losses.


def test_an_upstream_that_dies_before_its_answer(setup: Setup) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = h2_client(gateway)
        stream = client.request(method="POST", body=b"x")
        peer = upstream.accept()
        peer.read_request()
        peer.close()
        answer = client.response(stream)
        assert answer.status == 503
        assert answer.body.endswith(b"reset reason: connection termination")
        assert [flags for _, flags, _ in logged(gateway)] == ["UC"]


@pytest.mark.parametrize("reset", [True, False])
def test_an_upstream_that_dies_in_its_answer(setup: Setup, reset: bool) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = h2_client(gateway)
        stream, other = client.request(), client.request()
        first, second = upstream.accept(), upstream.accept()
        for peer in (first, second):
            peer.read_request()
        peers = [first, second]
        first.send(ok(b"x" * 100)[:-50])
        client.pump(lambda: any(client.message(each).headers for each in (stream, other)))
        if not client.message(stream).headers:
            stream, other = other, stream
        client.body_of(stream, 50)
        if reset:
            first.reset()
        else:
            first.close()
        answer = client.response(stream)
        # What came before is there, and that it is not all can be seen.
        assert (answer.body, answer.ended, answer.reset) == (b"x" * 50, False, INTERNAL_ERROR)
        peers[1].send(ok(b"other"))
        assert client.response(other).body == b"other"
        assert [flags for _, flags, _ in logged(gateway, 2)] == ["UPE", "-"]


def test_what_came_before_a_loss_is_delivered_with_it(setup: Setup) -> None:
    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(ok(b"x" * 100_000)[:-50_000])

    with serving(setup, script) as (gateway, _):
        client = h2_client(gateway)
        for _ in range(10):
            answer = client.ask()
            assert (len(answer.body), answer.reset) == (50_000, INTERNAL_ERROR)


def test_an_upstream_that_does_not_speak_http(setup: Setup) -> None:
    with serving(setup, always(b"220 mail.example ESMTP\r\n")) as (gateway, _):
        answer = h2_client(gateway).ask()
        assert answer.status == 502
        assert [flags for _, flags, _ in logged(gateway)] == ["UPE"]


@pytest.mark.parametrize("stage", ["connecting", "sent", "body", "answer", "answer body"])
def test_a_reset_by_the_client_releases_the_upstream(setup: Setup, stage: str) -> None:
    with deaf_address() as deaf:
        if stage == "connecting":
            setup.clusters = {"c": {"endpoints": [deaf]}}
        with serving(setup, None) as (gateway, upstream):
            client = h2_client(gateway)
            upload = stage == "body"
            stream = client.request(method="POST" if upload else "GET", end=not upload)
            peer = None
            if stage != "connecting":
                peer = upstream.accept()
                peer.read_head()
            if upload:
                client.data(stream, b"part")
            if stage.startswith("answer") and peer is not None:
                body = b"x" * 10 if stage == "answer body" else b""
                peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n" + body)
                client.head(stream)
                client.body_of(stream, len(body))
            settled(gateway, client)
            client.reset(stream)
            settled(gateway, client)
            code = 200 if stage.startswith("answer") else 0
            assert logged(gateway) == [(code, "DR", "http2.remote_reset")]
            if peer is not None:
                # Chunks may have come before.
                assert not peer.read_to_end().endswith(b"0\r\n\r\n")
            eventually(lambda: gateway.stat("downstream_rq_active") == 0)
            assert not client.goaways


def test_a_reset_is_noticed_while_the_upstream_does_not_read(setup: Setup) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = h2_client(gateway)
        stream = client.request(method="POST", end=False)
        peer = upstream.accept()
        peer.read_head()
        window = 65_535
        while window >= 16_384:
            client.data(stream, bytes(16_384))
            window -= 16_384
            settled(gateway, client)
            window += sum(
                each.number() for each in client.seen if each[::2] == (WINDOW_UPDATE, stream)
            )
            client.seen.clear()
        client.reset(stream)
        settled(gateway, client)
        assert logged(gateway) == [(0, "DR", "http2.remote_reset")]
        peer.close()


@pytest.mark.parametrize("reset", [True, False])
def test_a_connection_that_goes_away_takes_its_streams_along(setup: Setup, reset: bool) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = h2_client(gateway)
        for _ in range(5):
            client.request()
        peers = [upstream.accept() for _ in range(5)]
        for peer in peers:
            peer.read_request()
        settled(gateway, client)
        if reset:
            client.peer.reset()
        else:
            client.close()
        expected = (0, "DC", "downstream_remote_disconnect")
        assert logged(gateway, 5) == [expected] * 5
        assert all(peer.is_closed() for peer in peers)
        eventually(lambda: gateway.stat("downstream_cx_active") == 1, "only the probe's connection")
        eventually(lambda: gateway.stat("downstream_rq_active") == 0)


def test_a_client_that_says_it_goes_still_gets_its_answers(setup: Setup) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = h2_client(gateway)
        stream = client.request()
        peer = upstream.accept()
        peer.read_request()
        client.goaway(0)
        settled(gateway, client)
        peer.send(ok(b"answer"))
        assert client.response(stream).body == b"answer"
        client.read_to_end()


def test_a_flood_of_resets_ends_the_connection(setup: Setup) -> None:
    with serving(setup, None) as (gateway, _):
        client = h2_client(gateway)
        # The rest is written to a connection that is over.
        with contextlib.suppress(ConnectionError):
            for _ in range(2000):
                client.reset(client.request())
        client.read_to_end()
        assert client.goaways[-1][1] == ENHANCE_YOUR_CALM
        eventually(lambda: gateway.stat("downstream_rq_active") == 0)


# Ends of connections.


def ends_well(client: H2Peer, last: int) -> None:
    """The connection ends by a pair of GOAWAYs: the first takes what is on its way."""
    client.read_to_end()
    assert client.goaways == [(LARGEST_STREAM, NO_ERROR), (last, NO_ERROR)]


def ends(gateway: Gateway) -> None:
    """The engine has nothing left to wait for but the idle connections of others."""

    def ended() -> bool:
        with contextlib.suppress(NotRunning):
            gateway.engine.advance(0.5)
        return gateway.engine.join(0.01)

    eventually(ended, "the engine's end")


def test_draining_ends_an_idle_connection(setup: Setup, opening: bytes) -> None:
    with serving(setup) as (gateway, _):
        client = h2_client(gateway, opening)
        assert client.ask().status == 200
        gateway.settle()
        gateway.engine.drain()
        ends_well(client, 1)
        client.close()
        ends(gateway)


def test_draining_lets_streams_end(setup: Setup, opening: bytes) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = h2_client(gateway, opening)
        stream = client.request("/under-way")
        peer = upstream.accept()
        peer.read_request()
        client.answer_pings = False
        gateway.engine.drain()
        client.pump(lambda: client.goaways)
        assert client.goaways == [(LARGEST_STREAM, NO_ERROR)]
        # This one was on its way when the client could not know.
        late = client.request("/late")
        other = upstream.accept()
        assert other.read_request()[0] == "GET /late HTTP/1.1"
        client.pump(lambda: any(each.kind == PING for each in client.seen))
        for held in [each for each in client.seen if each.kind == PING]:
            client.frame(PING, ACK, 0, held.payload)
        peer.send(ok(b"whole"))
        other.send(ok(b"late"))
        assert client.response(stream).body == b"whole"
        assert client.response(late).body == b"late"
        ends_well(client, late)
        client.close()
        ends(gateway)


def test_a_client_that_ignores_the_end_is_left(setup: Setup) -> None:
    with serving(setup) as (gateway, _):
        client = h2_client(gateway)
        assert client.ask().status == 200
        client.answer_pings = False
        gateway.settle()
        gateway.engine.drain()
        client.pump(lambda: client.goaways)

        def closed() -> bool:
            gateway.engine.advance(0.5)
            return client.peer.is_readable()

        eventually(closed, "a closed connection")
        ends(gateway)


def test_what_is_cut_is_told_so_and_logged(setup: Setup) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = h2_client(gateway)
        stream = client.request()
        peer = upstream.accept()
        peer.read_request()
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhe")
        assert client.head(stream).status == 200
        assert gateway.engine.join(0.0) is False
        client.read_to_end()
        # The first may have had no time to leave by itself.
        assert client.goaways[-1] == (stream, NO_ERROR)
        assert setup.log_path is not None
        with open(setup.log_path, encoding="utf-8") as log:
            assert len(log.readlines()) == 1


def test_an_idle_connection_ends(setup: Setup) -> None:
    setup.http = {"idle_timeout_ms": 30_000}
    with serving(setup) as (gateway, _):
        client = h2_client(gateway)
        gateway.advance(29)
        assert client.ask().status == 200
        gateway.advance(29)
        assert client.ask().status == 200
        gateway.advance(30.1)
        ends_well(client, 3)


def test_a_connection_is_not_idle_while_it_has_streams(setup: Setup) -> None:
    setup.http = {"idle_timeout_ms": 10_000}
    setup.routes = {"default": {"name": "default", "action": forward("c", timeout_ms=0)}}
    with serving(setup, None) as (gateway, upstream):
        client = h2_client(gateway)
        stream = client.request()
        peer = upstream.accept()
        peer.read_request()
        gateway.advance(12)
        gateway.advance(12)
        peer.send(ok(b"slow"))
        assert client.response(stream).body == b"slow"
        # Its idle time begins now.
        gateway.advance(9)
        settled(gateway, client)
        assert not client.goaways
        gateway.advance(1.1)
        ends_well(client, 1)


def test_a_connection_has_its_number_of_requests(setup: Setup) -> None:
    setup.http = {"max_requests_per_connection": 3}
    with serving(setup) as (gateway, _):
        client = h2_client(gateway)
        answers = [client.ask() for _ in range(3)]
        assert [answer.status for answer in answers] == [200] * 3
        ends_well(client, 5)


def test_a_connection_has_its_time(setup: Setup) -> None:
    setup.http = {"max_connection_duration_ms": 60_000}
    with serving(setup, None) as (gateway, upstream):
        client = h2_client(gateway)
        settled(gateway, client)
        gateway.advance(50)
        stream = client.request()
        peer = upstream.accept()
        peer.read_request()
        gateway.advance(10.1)
        client.pump(lambda: client.goaways)
        peer.send(ok(b"whole"))
        assert client.response(stream).body == b"whole"
        ends_well(client, 1)


def test_a_reload_applies_to_the_next_stream(setup: Setup) -> None:
    setup.routes = {"default": direct(200, "old")}
    with serving(setup) as (gateway, _):
        client = h2_client(gateway)
        assert client.ask().body == b"old"
        setup.routes = {"default": direct(200, "new")}
        gateway.apply(setup)
        assert client.ask().body == b"new"
        assert not client.goaways


def test_a_listener_that_is_removed_ends_its_connections(setup: Setup) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = h2_client(gateway)
        stream = client.request()
        peer = upstream.accept()
        peer.read_request()
        ir = setup.ir()
        del ir["listeners"][0]
        gateway.apply_ir(ir)
        peer.send(ok(b"whole"))
        assert client.response(stream).body == b"whole"
        ends_well(client, 1)


# Waypoints.


def test_streams_of_a_connection_without_addresses_go_by_their_authority(setup: Setup) -> None:
    setup.waypoint = True
    setup.routes = {"default": direct(200, "ollama")}
    with serving(setup) as (gateway, _):
        ir = setup.ir()
        twin = {"address": "10.96.0.9", "port": 80, "service": "prod/other", "route_table": "t2"}
        ir["listeners"][0]["traffic"]["destinations"].append(twin)
        ir["routes"]["second"] = direct(200, "other") | {"name": "second"}
        ir["route_tables"]["t2"] = {"hosts": [{"hostname": "*", "rules": [rule("/", "second")]}]}
        gateway.apply_ir(ir)
        client = h2_client(gateway, TO_NOWHERE)
        for _ in range(2):
            assert client.ask(host="ollama").body == b"ollama"
            assert client.ask(host="other.prod").body == b"other"
        lost = client.ask(host="nowhere.example")
        assert lost.reset is not None or lost.status == 421
        assert client.ask(host="ollama.default.svc.cluster.local").body == b"ollama"
        gateway.reaches("proxy_header_no_destination", 1)


def test_a_waypoint_logs_whom_a_stream_is_from(setup: Setup, opening: bytes) -> None:
    setup.log = {"who": "%FILTER_STATE(io.istio.peer_principal:PLAIN)%"}
    with serving(setup) as (gateway, _):
        h2_client(gateway, opening).ask()
        assert gateway.log_lines(1) == [{"who": str(IDENTITY) if setup.waypoint else None}]


class Dripping:
    """A socket that sends byte by byte, each read before the next is sent."""

    def __init__(self, sock: Any, gateway: Gateway) -> None:
        self.sock, self.gateway = sock, gateway

    def sendall(self, data: bytes) -> None:
        for at in range(len(data)):
            self.sock.sendall(data[at : at + 1])
            self.gateway.settle()
