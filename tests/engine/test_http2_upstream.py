"""HTTP/2 to upstreams, from clients of either version."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from tests.engine.h2peer import (
    CANCEL,
    ENHANCE_YOUR_CALM,
    INITIAL_WINDOW_SIZE,
    INTERNAL_ERROR,
    LARGEST_STREAM,
    MAX_CONCURRENT_STREAMS,
    NO_ERROR,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    WINDOW_UPDATE,
    H2Peer,
    h2_always,
    h2_client,
    h2_script,
    settled,
)
from tests.engine.harness import (
    PATTERN,
    Gateway,
    Peer,
    Setup,
    Upstream,
    always,
    deaf_address,
    eventually,
    get,
    ok,
    post,
    refused_address,
    serving,
)

from kgw.errors import NotRunning

if TYPE_CHECKING:
    from pathlib import Path

LOG = {
    "code": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "protocol": "%PROTOCOL%",
    "upstream": "%UPSTREAM_PROTOCOL%",
    "received": "%BYTES_RECEIVED%",
    "sent": "%BYTES_SENT%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
}


class Http2Setup(Setup):
    """A set-up whose upstream, cluster ``c``, speaks HTTP/2."""

    options: dict[str, Any]

    def ir(self) -> dict[str, Any]:
        ir = super().ir()
        ir["clusters"]["c"].update({"protocol": "http2"} | self.options)
        return ir


@pytest.fixture
def setup(tmp_path: Path) -> Http2Setup:
    setup = Http2Setup(log=LOG, log_path=str(tmp_path / "access.log"))
    setup.options = {}
    return setup


def accept(upstream: Upstream, settings: dict[int, int] | None = None) -> H2Peer:
    """The next connection that the gateway opens."""
    return H2Peer(upstream.accept(), client=False, settings=settings)


def outcome(gateway: Gateway, count: int = 1) -> list[tuple[int, str, str, int]]:
    return [
        (line["code"], line["flags"], line["details"], line["attempts"])
        for line in gateway.log_lines(count)
    ]


# Messages.


def test_a_request_of_http_1(setup: Http2Setup) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = gateway.connect()
        client.send(get("/path?q=1", "x-one: 1", "te: trailers", "x-two: 2"))
        server = accept(upstream)
        stream = server.accept()
        request = server.response(stream)
        assert dict(request.headers[:4]) == {
            ":method": "GET",
            ":scheme": "http",
            ":authority": "ollama",
            ":path": "/path?q=1",
        }
        names = request.names()
        assert names.index("x-one") < names.index("x-two")
        assert not {"host", "connection", "content-length", "transfer-encoding"} & set(names)
        assert request["x-envoy-expected-rq-timeout-ms"] == "15000"
        server.respond(stream, ("x-answer", "1"), ("content-length", "5"), body=b"hello")
        response = client.read_response()
        assert (response.status, response.body, response["x-answer"]) == (200, b"hello", "1")
        assert {"date", "server", "x-envoy-upstream-service-time"} < set(response.names())
        [line] = gateway.log_lines(1)
        assert (line["protocol"], line["upstream"]) == ("HTTP/1.1", "HTTP/2")
        assert (line["code"], line["received"], line["sent"]) == (200, 0, 5)


@pytest.mark.parametrize(
    "request_bytes",
    [
        post(b"body"),
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
        b"2\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n",
    ],
)
def test_a_body_of_http_1(setup: Http2Setup, request_bytes: bytes) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = gateway.connect()
        client.send(request_bytes)
        server = accept(upstream)
        stream = server.accept()
        request = server.response(stream)
        assert request.body == b"body"
        sized = b"content-length" in request_bytes
        assert request.get("content-length") == ("4" if sized else None)
        server.respond(stream, body=b"without a length")
        response = client.read_response()
        assert (response.body, response["transfer-encoding"]) == (b"without a length", "chunked")
        [line] = gateway.log_lines(1)
        assert (line["received"], line["sent"]) == (4, 16)


def test_trailers_both_ways(setup: Http2Setup) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = h2_client(gateway)
        stream = client.request(method="POST", body=b"body", end=False)
        client.headers(stream, [("x-sum", "1")], end=True)
        server = accept(upstream)
        there = server.accept()
        request = server.response(there)
        assert (request.body, request.trailers) == (b"body", [("x-sum", "1")])
        server.respond(there, body=b"answer", end=False)
        server.headers(there, [("grpc-status", "0"), ("x-other", "2")], end=True)
        answer = client.response(stream)
        assert answer.body == b"answer"
        assert answer.trailers == [("grpc-status", "0"), ("x-other", "2")]
        assert answer.reset is None


def test_trailers_without_a_body(setup: Http2Setup) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = h2_client(gateway)
        stream = client.request(end=False)
        client.headers(stream, [("x-sum", "1")], end=True)
        server = accept(upstream)
        there = server.accept()
        assert server.response(there).trailers == [("x-sum", "1")]
        server.respond(there, end=False)
        server.headers(there, [("grpc-status", "0")], end=True)
        assert client.response(stream).trailers == [("grpc-status", "0")]


def test_trailers_follow_the_last_chunk_to_http_1(setup: Http2Setup) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = gateway.connect()
        client.send(get("/", "te: trailers"))
        server = accept(upstream)
        there = server.accept()
        server.respond(there, body=b"answer", end=False)
        server.headers(there, [("x-trailer", "1"), ("content-length", "9")], end=True)
        client.read_head()
        end = b"6\r\nanswer\r\n0\r\nx-trailer: 1\r\n\r\n"
        assert client.read_exactly(len(end)) == end
        client.send(get())
        server.respond(server.accept())
        assert client.read_response().status == 200


@pytest.mark.parametrize("http2", [True, False])
@pytest.mark.parametrize(
    ("status", "fields", "method", "body"),
    [
        (200, [("content-length", "0")], "GET", None),
        (200, [], "GET", None),
        (200, [("content-length", "9")], "HEAD", None),
        (204, [], "GET", None),
        (304, [("content-length", "9")], "GET", None),
        (404, [], "GET", b"no"),
        (503, [("content-length", "2")], "GET", b"no"),
    ],
)
def test_answers(
    setup: Http2Setup,
    http2: bool,
    status: int,
    fields: list[tuple[str, str]],
    method: str,
    body: bytes | None,
) -> None:
    script = h2_script(lambda server, at: server.respond(at, *fields, status=status, body=body))
    with serving(setup, script) as (gateway, upstream):
        length = dict(fields).get("content-length")
        if http2:
            client = h2_client(gateway)
            for _ in range(2):
                answer = client.ask(method=method)
                assert (answer.status, answer.body) == (status, body or b"")
                assert answer.get("content-length") == length
        else:
            peer = gateway.connect()
            for _ in range(2):
                peer.send(get().replace(b"GET", method.encode()))
                response = peer.read_response(head=method == "HEAD")
                assert (response.status, response.body) == (status, body or b"")
                if length is not None:
                    assert response["content-length"] == length
        assert upstream.connections == 1


def test_interim_answers_are_not_the_answer(setup: Http2Setup) -> None:
    def serve(server: H2Peer, stream: int) -> None:
        for status in (100, 103, 103):
            server.headers(stream, [(":status", str(status)), ("link", "x")])
        server.respond(stream, body=b"final")

    with serving(setup, h2_script(serve)) as (gateway, _):
        assert gateway.get().body == b"final"
        answer = h2_client(gateway).ask()
        assert (answer.body, answer.get("link")) == (b"final", None)


def test_set_cookies_stay_apart(setup: Http2Setup) -> None:
    fields = [("set-cookie", "a=1"), ("set-cookie", "b=2")]
    with serving(setup, h2_always(*fields)) as (gateway, _):
        found = [value for name, value in gateway.get().headers if name == "set-cookie"]
        assert found == ["a=1", "b=2"]


@pytest.mark.parametrize("path", ["/a<b>c", "/a?q=<b>", "/a?q=`", "/a?q=a|b^c", "/a?q={x}"])
def test_paths_with_odd_characters(setup: Http2Setup, path: str) -> None:
    """They are passed on as they are, or escaped; Envoy's path normalisation escapes them too."""
    with serving(setup, None) as (gateway, upstream):
        client = gateway.connect()
        client.send(get(path))
        server = accept(upstream)
        there = server.accept()
        got = server.message(there)[":path"]
        for char in "<>`|^{}":
            got = got.replace(f"%{ord(char):02X}", char)
        assert got == path
        server.respond(there)
        assert client.read_response().status == 200


@pytest.mark.parametrize("name", ["connection", "uppercase", "late status", "length", "no status"])
def test_a_malformed_answer_costs_its_request(setup: Http2Setup, name: str) -> None:
    answer = {
        "connection": [(":status", "200"), ("connection", "close")],
        "uppercase": [(":status", "200"), ("X-Upper", "1")],
        "late status": [("x", "1"), (":status", "200")],
        "length": [(":status", "200"), ("content-length", "5")],
        "no status": [("x", "1")],
    }[name]
    script = h2_script(lambda server, stream: server.headers(stream, answer, end=True))
    with serving(setup, script) as (gateway, _):
        response = gateway.get()
        assert response.status == 502
        assert response.body.endswith(b"reset reason: protocol error")
        details = "upstream_reset_before_response_started{protocol_error}"
        assert outcome(gateway) == [(502, "UPE", details, 1)]


def test_an_answer_whose_head_is_too_large(setup: Http2Setup) -> None:
    def serve(server: H2Peer, stream: int) -> None:
        if server.message(stream)[":path"] == "/large":
            server.respond(stream, *[(f"x-{at}", "x" * 1000) for at in range(90)])
        elif server.message(stream)[":path"] == "/many":
            server.respond(stream, *[(f"x-{at}", "1") for at in range(101)])
        else:
            server.respond(stream, ("x-large", "x" * 40_000))

    with serving(setup, h2_script(serve)) as (gateway, upstream):
        assert gateway.get("/large").status == 502
        assert gateway.get("/many").status == 502
        assert gateway.get("/").status == 200
        assert upstream.connections == 1


def test_a_body_of_another_length_than_was_said(setup: Http2Setup) -> None:
    script = h2_script(lambda server, at: server.respond(at, ("content-length", "9"), body=b"four"))
    with serving(setup, script) as (gateway, _):
        client = gateway.connect()
        client.send(get())
        assert client.read_head()[0] == "HTTP/1.1 200 OK"
        # The client can see that it is not whole.
        assert len(client.read_to_end()) < 9
        answer = h2_client(gateway).ask()
        assert (answer.ended, answer.reset) == (False, INTERNAL_ERROR)
        assert [flags for _, flags, _, _ in outcome(gateway, 2)] == ["UPE", "UPE"]


# Connections.


def test_one_connection_carries_all(setup: Http2Setup) -> None:
    with serving(setup, None) as (gateway, upstream):
        clients = [gateway.connect() for _ in range(10)]
        for at, client in enumerate(clients):
            client.send(get(f"/{at}"))
        second = h2_client(gateway)
        streams = [second.request(f"/{at}") for at in range(10, 20)]
        server = accept(upstream)
        there = {}
        for _ in range(20):
            stream = server.accept()
            there[server.message(stream)[":path"]] = stream
        for at in reversed(range(20)):
            server.respond(there[f"/{at}"], body=f"{at}".encode())
        for at, client in enumerate(clients):
            assert client.read_response().body == f"{at}".encode()
        for at, stream in enumerate(streams, 10):
            assert second.response(stream).body == f"{at}".encode()
        gateway.settle()
        assert upstream.connections == 1


def test_first_requests_wait_for_one_connection(setup: Http2Setup) -> None:
    with serving(setup, h2_always()) as (gateway, upstream):
        client = h2_client(gateway)
        # All in one write, so that they are there before any connection is.
        held: list[bytes] = []
        # A double that sends nothing yet.
        client.peer.send = lambda data: held.append(data)  # type: ignore[method-assign]  # a double
        streams = [client.request() for _ in range(30)]
        del client.peer.send
        client.peer.send(b"".join(held))
        assert [client.response(stream).status for stream in streams] == [200] * 30
        assert upstream.connections == 1


def test_streams_above_what_the_peer_allows_get_another_connection(setup: Http2Setup) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = h2_client(gateway)
        streams = [client.request()]
        first = accept(upstream, {MAX_CONCURRENT_STREAMS: 2})
        there = [first.accept()]
        # Its limit is known once it has said so.
        settled(gateway, first)
        streams += [client.request() for _ in range(2)]
        second = accept(upstream)
        there += [first.accept()]
        second.respond(second.accept())
        for stream in there:
            first.respond(stream)
        assert [client.response(stream).status for stream in streams] == [200] * 3
        assert (len(first.messages), len(second.messages)) == (2, 1)


def test_connections_to_an_endpoint_are_bounded(setup: Http2Setup) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = h2_client(gateway)
        servers = []
        for _ in range(32):
            client.request()
            servers.append(accept(upstream, {MAX_CONCURRENT_STREAMS: 1}))
            first = servers[-1].accept()
            settled(gateway, servers[-1])
        waiting = client.request("/waiting")
        gateway.settle()
        # All are equally busy: it waits on the first.
        servers[0].respond(first)
        there = servers[0].accept()
        servers[0].respond(there)
        assert client.response(waiting).status == 200
        assert gateway.stats()["upstream_cx_total"] == 32


def test_auto_speaks_what_the_client_speaks(setup: Http2Setup) -> None:
    setup.options = {"protocol": "auto"}

    def script(peer: Peer) -> None:
        if peer.read_exactly(3) == b"PRI":
            peer.buffer[:0] = b"PRI"
            h2_always(body=b"two")(peer)
        else:
            peer.buffer[:0] = b"GET"
            always(ok(b"one"))(peer)

    with serving(setup, script) as (gateway, upstream):
        for _ in range(2):
            assert gateway.get().body == b"one"
            assert h2_client(gateway).ask().body == b"two"
        assert upstream.connections == 2
        lines = gateway.log_lines(4)
        assert sorted(line["upstream"] for line in lines) == ["HTTP/1.1"] * 2 + ["HTTP/2"] * 2


def test_a_connection_has_its_number_of_requests(setup: Http2Setup) -> None:
    setup.options = {"max_requests_per_connection": 3}
    with serving(setup, h2_always()) as (gateway, upstream):
        for _ in range(7):
            assert gateway.get().status == 200
        assert upstream.connections == 3


def test_an_idle_connection_ends(setup: Http2Setup) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = gateway.connect()
        client.send(get())
        server = accept(upstream)
        server.respond(server.accept())
        assert client.read_response().status == 200
        gateway.advance(30)
        client.send(get())
        server.respond(server.accept())
        assert client.read_response().status == 200
        gateway.advance(61)
        client.send(get())
        again = accept(upstream)
        again.respond(again.accept())
        server.read_to_end()
        assert client.read_response().status == 200


def test_an_endpoint_that_a_reload_removes(setup: Http2Setup) -> None:
    other = Upstream(h2_always(body=b"other"))
    try:
        with serving(setup, None) as (gateway, upstream):
            client = h2_client(gateway)
            stream = client.request()
            server = accept(upstream)
            there = server.accept()
            setup.endpoints = [other.address]
            gateway.apply(setup)
            assert client.ask().body == b"other"
            # What is under way ends well, and then the connection does.
            server.respond(there, body=b"old")
            assert client.response(stream).body == b"old"
            server.read_to_end()
    finally:
        other.close()


def test_a_drain_ends_upstream_connections(setup: Http2Setup) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = h2_client(gateway)
        stream = client.request()
        server = accept(upstream)
        there = server.accept()
        gateway.engine.drain()
        server.respond(there, body=b"last")
        assert client.response(stream).body == b"last"
        client.read_to_end()
        server.read_to_end()
        client.close()

        def ended() -> bool:
            with contextlib.suppress(NotRunning):
                gateway.engine.advance(0.5)
            return gateway.engine.join(0.01)

        eventually(ended, "the engine's end")


def test_a_proxy_header_goes_before_the_preface(setup: Http2Setup) -> None:
    setup.options = {"proxy_protocol": {"version": 1}}

    def script(peer: Peer) -> None:
        assert peer.read_until(b"\r\n").startswith(b"PROXY TCP4 127.0.0.1 127.0.0.1 ")
        h2_always()(peer)

    with serving(setup, script) as (gateway, upstream):
        client = h2_client(gateway)
        assert [client.ask().status for _ in range(2)] == [200, 200]
        # Each has its own: the header is about one client.
        assert upstream.connections == 2


# Refusals and losses.


@pytest.mark.parametrize("body", [None, b"body"])
def test_a_refused_stream_is_tried_once_more(setup: Http2Setup, body: bytes | None) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = h2_client(gateway)
        stream = client.request(method="POST", body=body, end=body is None)
        server = accept(upstream)
        there = server.accept()
        if body is not None:
            server.body_of(there, len(body))
        server.reset(there, REFUSED_STREAM)
        if body is not None:
            # Part of it is gone: nobody can send it again.
            answer = client.response(stream)
            assert answer.status == 503
            assert answer.body.endswith(b"reset reason: remote refused stream reset")
            assert outcome(gateway)[0][1:2] == ("UR",)
            return
        server.respond(server.accept(), body=b"second")
        assert client.response(stream).body == b"second"
        assert outcome(gateway) == [(200, "-", "via_upstream", 2)]
        assert upstream.connections == 1


def test_a_stream_refused_twice_is_given_up(setup: Http2Setup) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = gateway.connect()
        client.send(get())
        server = accept(upstream)
        for _ in range(2):
            server.reset(server.accept(), REFUSED_STREAM)
        response = client.read_response()
        assert response.status == 503
        assert response.body.endswith(b"reset reason: remote refused stream reset")
        assert outcome(gateway)[0][:2] == (503, "UR")
        assert client.buffer == b""


def test_streams_above_the_last_of_a_goaway_are_tried_once_more(setup: Http2Setup) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = h2_client(gateway)
        streams = [client.request(f"/{at}", method="POST") for at in range(3)]
        server = accept(upstream)
        there = [server.accept() for _ in range(3)]
        server.goaway(there[0])
        again = accept(upstream)
        for _ in range(2):
            stream = again.accept()
            again.respond(stream, body=again.message(stream)[":path"].encode())
        server.respond(there[0], body=server.message(there[0])[":path"].encode())
        assert {client.response(stream).body for stream in streams} == {b"/0", b"/1", b"/2"}
        server.read_to_end()
        lines = outcome(gateway, 3)
        assert sorted(attempts for _, _, _, attempts in lines) == [1, 2, 2]


def test_a_pair_of_goaways_loses_nothing(setup: Http2Setup) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = h2_client(gateway)
        first = client.request()
        server = accept(upstream)
        there = server.accept()
        server.goaway(LARGEST_STREAM)
        settled(gateway, server)
        second = client.request()
        again = accept(upstream)
        again.respond(again.accept(), body=b"new")
        assert client.response(second).body == b"new"
        server.goaway(there)
        server.respond(there, body=b"old")
        assert client.response(first).body == b"old"
        server.read_to_end()


@pytest.mark.parametrize("code", [CANCEL, INTERNAL_ERROR, PROTOCOL_ERROR, NO_ERROR])
def test_a_reset_before_the_answer(setup: Http2Setup, code: int) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = gateway.connect()
        client.send(get())
        server = accept(upstream)
        server.reset(server.accept(), code)
        response = client.read_response()
        assert response.status == 503
        assert response.body.endswith(b"reset reason: remote reset")
        details = "upstream_reset_before_response_started{remote_reset}"
        assert outcome(gateway) == [(503, "UR", details, 1)]
        # The connection is as good as before.
        client.send(get())
        server.respond(server.accept())
        assert client.read_response().status == 200


@pytest.mark.parametrize("goaway", [True, False])
def test_a_loss_before_the_answer(setup: Http2Setup, goaway: bool) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = gateway.connect()
        client.send(get())
        server = accept(upstream)
        stream = server.accept()
        if goaway:
            server.goaway(stream)
        server.close()
        response = client.read_response()
        assert response.status == 503
        assert response.body.endswith(b"reset reason: connection termination")
        details = "upstream_reset_before_response_started{connection_termination}"
        assert outcome(gateway) == [(503, "UC", details, 1)]


@pytest.mark.parametrize(("method", "attempts"), [("GET", 2), ("POST", 1)])
def test_a_loss_of_a_used_connection(setup: Http2Setup, method: str, attempts: int) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = h2_client(gateway)
        first = client.request()
        server = accept(upstream)
        server.respond(server.accept())
        assert client.response(first).status == 200
        stream = client.request(method=method)
        server.accept()
        server.close()
        if attempts == 2:
            again = accept(upstream)
            again.respond(again.accept(), body=b"again")
            assert client.response(stream).body == b"again"
        else:
            # It may have been served: it is not sent twice.
            assert client.response(stream).status == 503
            assert upstream.connections == 1
        assert outcome(gateway, 2)[1][3] == attempts


@pytest.mark.parametrize("how", ["reset", "close", "goaway"])
def test_a_loss_in_the_answer(setup: Http2Setup, how: str) -> None:
    with serving(setup, None) as (gateway, upstream):
        first, second = h2_client(gateway), gateway.connect()
        stream = first.request()
        second.send(get())
        server = accept(upstream)
        for _ in range(2):
            server.respond(server.accept(), body=b"x" * 50, end=False)
        first.body_of(stream, 50)
        second.read_until(b"x" * 50 + b"\r\n")
        if how == "reset":
            for there in list(server.messages):
                server.reset(there, INTERNAL_ERROR)
        elif how == "goaway":
            server.goaway(LARGEST_STREAM, ENHANCE_YOUR_CALM)
            server.close()
        else:
            server.close()
        answer = first.response(stream)
        assert (answer.body, answer.ended, answer.reset) == (b"x" * 50, False, INTERNAL_ERROR)
        # No last chunk: it can be seen that there should be more.
        assert second.read_to_end() == b""
        flag, reason = (
            ("UR", "remote_reset") if how == "reset" else ("UC", "connection_termination")
        )
        details = f"upstream_reset_after_response_started{{{reason}}}"
        assert outcome(gateway, 2) == [(200, flag, details, 1)] * 2


def test_what_came_before_a_reset_is_delivered(setup: Http2Setup) -> None:
    def serve(server: H2Peer, stream: int) -> None:
        server.respond(stream, body=b"x" * 30_000, end=False)
        server.reset(stream, INTERNAL_ERROR)

    with serving(setup, h2_script(serve)) as (gateway, _):
        client = gateway.connect()
        client.send(get())
        client.read_head()
        taken = client.read_to_end()
        assert not taken.endswith(b"0\r\n\r\n")


def test_an_early_answer_and_a_reset_without_error(setup: Http2Setup) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = gateway.connect()
        client.send(post(b"x" * 100)[:-50])
        server = accept(upstream)
        there = server.accept()
        server.respond(there, body=b"enough")
        server.reset(there, NO_ERROR)
        response = client.read_response()
        assert (response.status, response.body) == (200, b"enough")
        assert client.is_closed()
        assert outcome(gateway)[0][:2] == (200, "-")


def test_a_peer_that_does_not_speak_http_2(setup: Http2Setup) -> None:
    def script(peer: Peer) -> None:
        peer.read_until(b"\r\n\r\n")
        peer.send(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n")

    with serving(setup, script) as (gateway, _):
        for _ in range(2):
            response = gateway.get()
            assert response.status == 502
            assert response.body.endswith(b"reset reason: protocol error")
        assert [flags for _, flags, _, _ in outcome(gateway, 2)] == ["UPE", "UPE"]


def test_a_peer_that_closes_at_once(setup: Http2Setup) -> None:
    with serving(setup, lambda peer: None) as (gateway, _):
        response = gateway.get()
        assert response.status == 503
        assert [flags for _, flags, _, _ in outcome(gateway)] == ["UC"]


def test_a_peer_that_refuses_the_connection(setup: Http2Setup) -> None:
    with refused_address() as nobody:
        setup.endpoints = [nobody]
        with serving(setup) as (gateway, _):
            client = h2_client(gateway)
            streams = [client.request() for _ in range(5)]
            for stream in streams:
                answer = client.response(stream)
                assert (answer.status, len(answer.body)) == (503, 98)
            assert {flags for _, flags, _, _ in outcome(gateway, 5)} == {"UF"}


def test_a_peer_that_takes_no_connection(setup: Http2Setup) -> None:
    with deaf_address() as deaf:
        setup.options = {"endpoints": [deaf], "connect_timeout_ms": 5000}
        with serving(setup) as (gateway, _):
            client = h2_client(gateway)
            streams = [client.request() for _ in range(3)]
            settled(gateway, client)
            gateway.advance(5.1)
            for stream in streams:
                answer = client.response(stream)
                assert answer.status == 503
                assert answer.body.endswith(b"reset reason: connection timeout")
            assert {flags for _, flags, _, _ in outcome(gateway, 3)} == {"UF"}


def test_a_peer_that_lives_and_never_answers(setup: Http2Setup) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = gateway.connect()
        client.send(get())
        server = accept(upstream)
        there = server.accept()
        gateway.advance(1)
        settled(gateway, server)
        gateway.advance(14.1)
        assert client.read_response().status == 504
        # Only the stream is given up.
        assert server.reset_of(there) == CANCEL
        client.send(get())
        server.respond(server.accept())
        assert client.read_response().status == 200
        assert upstream.connections == 1


def test_a_peer_that_is_gone_without_a_word_gets_no_more_requests(setup: Http2Setup) -> None:
    with serving(setup, None) as (gateway, upstream):
        silent, slow = gateway.connect(), gateway.connect()
        slow.send(get("/slow"))
        server = accept(upstream)
        there = server.accept()
        settled(gateway, server)
        gateway.advance(10)
        silent.send(get())
        server.accept()
        # The other one has waited as long, but the peer is alive.
        server.ping()
        gateway.settle()
        gateway.advance(5.1)
        assert slow.read_response().status == 504
        slow.send(get())
        server.accept()
        assert upstream.connections == 1
        gateway.advance(10)
        assert silent.read_response().status == 504
        silent.send(get())
        accept(upstream).accept()
        assert server.reset_of(there) == CANCEL


@pytest.mark.parametrize("stage", ["request", "body", "answer"])
@pytest.mark.parametrize("http2", [True, False])
def test_a_client_that_goes_away_takes_its_stream_along(
    setup: Http2Setup, stage: str, http2: bool
) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = h2_client(gateway) if http2 else None
        peer = gateway.connect()
        if client is not None:
            stream = client.request(method="POST", body=b"half", end=stage != "body")
        else:
            peer.send(post(b"halfhalf")[: -4 if stage == "body" else None])
        server = accept(upstream)
        there = server.accept()
        server.body_of(there, 4)
        if stage == "answer":
            server.respond(there, body=b"part", end=False)
            if client is not None:
                client.body_of(stream, 4)
            else:
                peer.read_until(b"part")
        if client is not None:
            client.reset(stream)
        else:
            peer.reset()
        assert server.reset_of(there) == CANCEL
        code = 200 if stage == "answer" else 0
        assert outcome(gateway)[0][:2] == (code, "DR" if http2 else "DC")
        # The connection goes on.
        other = gateway.connect()
        other.send(get())
        server.respond(server.accept())
        assert other.read_response().status == 200


# Flow control.

BIG = PATTERN * 400


def test_a_slow_client_slows_its_stream_down_and_no_other(setup: Http2Setup) -> None:
    with serving(setup, None) as (gateway, upstream):
        slow = h2_client(gateway, settings={INITIAL_WINDOW_SIZE: 1000}, give_back=False)
        stream = slow.request("/slow")
        server = accept(upstream)
        there = server.accept()
        server.respond(there, end=False)
        window, sent = server.settings.get(INITIAL_WINDOW_SIZE, 65_535), 0
        while window >= 16_384 and sent < 5_000_000:
            server.data(there, BIG[sent : sent + 16_384])
            sent, window = sent + 16_384, window - 16_384
            settled(gateway, server)
            window += increments(server, there)
        assert sent < 1_000_000
        other = gateway.connect()
        other.send(get("/other"))
        server.respond(server.accept(), body=b"y" * 10_000)
        assert other.read_response().body == b"y" * 10_000
        slow.window_update(0, 10_000_000)
        slow.window_update(stream, 10_000_000)
        assert slow.body_of(stream, sent) == BIG[:sent]


def test_a_slow_upstream_slows_its_client_down_and_no_other(setup: Http2Setup) -> None:
    with serving(setup, None) as (gateway, upstream):
        client = h2_client(gateway)
        first = client.request("/slow", method="POST", end=False)
        peer = upstream.accept()
        server = H2Peer(peer, client=False, give_back=False)
        server.accept()
        window, sent = 65_535, 0
        while window >= 16_384 and sent < 5_000_000:
            client.data(first, BIG[sent : sent + 16_384])
            sent, window = sent + 16_384, window - 16_384
            settled(gateway, client)
            window += increments(client, first)
        assert sent < 1_000_000
        server.window_update(0, 1_000_000)
        second = client.request("/other", method="POST", body=b"y" * 10_000)
        there = server.accept()
        assert server.response(there).body == b"y" * 10_000
        server.respond(there)
        assert client.response(second).status == 200


def increments(peer: H2Peer, stream: int) -> int:
    """What the windows of a stream grew by since the last call."""
    found = sum(each.number() for each in peer.seen if each[::2] == (WINDOW_UPDATE, stream))
    peer.seen.clear()
    return found


@pytest.mark.parametrize("http2", [True, False])
def test_large_bodies_both_ways(setup: Http2Setup, http2: bool) -> None:
    body = PATTERN * 8

    def serve(server: H2Peer, stream: int) -> None:
        assert server.message(stream).body == body
        server.headers(stream, [(":status", "200")])
        send_all(server, stream, body)

    with serving(setup, h2_script(serve)) as (gateway, _):
        if not http2:
            assert gateway.ask(post(body)).body == body
            return
        client = h2_client(gateway)
        stream = client.request(method="POST", end=False)
        send_all(client, stream, body)
        assert client.response(stream).body == body


def send_all(peer: H2Peer, stream: int, body: bytes) -> None:
    """Sends a body as the windows allow it."""
    windows = {0: 65_535, stream: peer.settings.get(INITIAL_WINDOW_SIZE, 65_535)}
    sent = 0
    while sent < len(body):
        for each in peer.seen:
            if each.kind == WINDOW_UPDATE and each.stream in windows:
                windows[each.stream] += each.number()
        peer.seen.clear()
        count = min(16_384, *windows.values(), len(body) - sent)
        if count == 0:
            peer.pump(lambda: peer.seen)
            continue
        peer.data(stream, body[sent : sent + count])
        sent += count
        windows = {key: window - count for key, window in windows.items()}
    peer.data(stream, end=True)
