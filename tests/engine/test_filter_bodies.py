"""Bodies in filters: whole or in chunks, from clients and from upstreams."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from tests.engine.filterloop import (
    Loop,
    asked,
    boom,
    declared,
    filter_stats,
    filtered,
    named,
    seen,
    stage,
)
from tests.engine.h2peer import REFUSED_STREAM, h2_client, h2_script
from tests.engine.harness import (
    Peer,
    Setup,
    Upstream,
    always,
    direct,
    eventually,
    forward,
    get,
    ok,
    post,
    rule,
)

from kgw._native.bridge import Request, Response

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.engine.h2peer import H2Peer

WHOLE = declared(request_body=True, max_body=1_000)
CHUNKS = declared(on_request=False, on_request_chunk=True)
WHOLE_RESPONSE = declared(on_request=False, on_response=True, response_body=True, max_body=100_000)
RESPONSE_CHUNKS = declared(on_request=False, on_response_chunk=True)

CHUNK = 16 * 1024


def chunked(*pieces: bytes, trailers: bytes = b"") -> bytes:
    """A body in chunks."""
    framed = [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces]
    return b"".join(framed) + b"0\r\n" + trailers + b"\r\n"


def read_chunked(peer: Peer) -> tuple[bytes, bytes]:
    """Data and trailer section of a chunked body."""
    data = b""
    while length := int(peer.read_until(b"\r\n").strip(), 16):
        data += peer.read_exactly(length)
        peer.read_exactly(2)
    trailers = b""
    while (line := peer.read_until(b"\r\n")) != b"\r\n":
        trailers += line
    return data, trailers


class Http2Setup(Setup):
    """A set-up whose upstream speaks HTTP/2."""

    def ir(self) -> dict[str, Any]:
        ir = super().ir()
        ir["clusters"]["c"]["protocol"] = "http2"
        return ir


def filtered_http2(*names: str) -> Setup:
    """The same as :func:`filtered`, with such an upstream."""
    setup = filtered(named(*names))
    return Http2Setup(log=setup.log, routes=setup.routes, rules=setup.rules)


POST_CHUNKED = b"POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n"


# === Whole requests ===


def test_a_filter_has_the_whole_body_and_may_change_it() -> None:
    loop = Loop(WHOLE)
    bodies: list[bytes | None] = []

    def change(request: Request) -> None:
        bodies.append(request.body)
        request.headers["x-length"] = str(len(request.body or b""))
        if request.path == "/change":
            request.body = b"another"
            assert request.body == b"another"
        elif request.path == "/text":
            request.body = "n\u00f6"
        elif request.path == "/empty":
            request.body = b""

    loop.on_request(change)
    with stage(loop) as (gateway, _):
        for path, sent, got in (
            ("/keep", b"abc", "abc"),
            ("/change", b"abc", "another"),
            ("/text", b"abc", "n\u00c3\u00b6"),
            ("/empty", b"abc", ""),
            ("/keep", b"", ""),
            ("/change", b"", "another"),
        ):
            client = asked(gateway, post(sent, path=path))
            loop.drain()
            found = seen(client)
            assert (found["body"], found["headers"]["x-length"]) == (got, str(len(sent)))
            assert found["headers"]["content-length"] == str(len(got))
        client = asked(gateway, get("/change"))
        loop.drain()
        assert seen(client)["body"] == "another"
        client = asked(gateway, POST_CHUNKED + chunked(b"ab", b"c"))
        loop.drain()
        found = seen(client)
        assert found["headers"]["transfer-encoding"] == "chunked"
        eventually(lambda: filter_stats(gateway) == {"total": 8})
    assert bodies == [b"abc"] * 4 + [b"", b"", b"", b"abc"]
    assert loop.bridge.held == 0


def test_the_filter_is_asked_once_the_body_is_there() -> None:
    loop = Loop(WHOLE)
    loop.on_request(lambda request: Response(403, request.body))
    with stage(loop) as (gateway, upstream):
        request = post(b"x" * 500)
        client = asked(gateway, request[:-1])
        gateway.settle()
        assert not loop.is_woken()
        eventually(lambda: loop.bridge.held == 499)
        client.send(request[-1:])
        loop.drain()
        response = client.read_response()
        assert (response.status, response.body) == (403, b"x" * 500)
        # All of the request was taken: the connection goes on.
        client.send(get("/plain"))
        assert client.read_response().status == 200
        assert upstream.connections == 1


@pytest.mark.parametrize("stated", [True, False])
def test_a_body_that_is_too_large_has_its_declared_outcome(tmp_path: Path, stated: bool) -> None:
    loop = Loop(WHOLE | {"name": "deny"}, WHOLE | {"name": "allow", "on_error": "allow"})
    loop.on_request(boom, 0)
    loop.on_request(boom, 1)
    setup = filtered(named("deny"))
    setup.routes["plain"]["filters"] = named("allow")
    body = os.urandom(100_000).hex().encode()

    def request(path: str) -> bytes:
        if stated:
            return post(body, path=path)
        return POST_CHUNKED.replace(b"/", path.encode(), 1) + chunked(*[body[:5_000]] * 40)

    with stage(loop, setup, log=tmp_path) as (gateway, _):
        client = gateway.connect()
        client.send(request("/")[:1_500])
        response = client.read_response() if stated else None
        if response is None:
            client.send(request("/")[1_500:5_200])
            response = client.read_response()
        assert (response.status, response["connection"]) == (413, "close")
        allowed = asked(gateway, request("/plain"))
        found = allowed.read_response()
        assert found.status == 200
        denied, passed = gateway.log_lines(2)
        assert (denied["code"], denied["flags"]) == (413, "PFE")
        assert denied["details"] == "python_filter_error_too_large{deny}"
        assert (passed["code"], passed["flags"]) == (200, "PFE")
        assert filter_stats(gateway) == {"too_large": 2, "failure_allowed": 1}
        if stated:
            assert json.loads(found.body)["body"] == body.decode()
    assert (loop.errors, loop.bridge.held) == ([], 0)


def test_bodies_together_are_bounded() -> None:
    loop = Loop(WHOLE, max_bytes=1_500)
    loop.on_request(lambda _: None)
    with stage(loop) as (gateway, _):
        first = asked(gateway, post(b"x" * 1_000)[:-1])
        eventually(lambda: loop.bridge.held == 999)
        assert gateway.ask(post(b"x" * 600)).status == 503
        assert filter_stats(gateway) == {"overflow": 1}
        first.send(b"x")
        loop.drain()
        assert seen(first)["body"] == "x" * 1_000
        eventually(lambda: loop.bridge.held == 0)


def test_a_client_that_waits_to_be_asked_is_asked() -> None:
    loop = Loop(WHOLE)
    loop.on_request(lambda _: None)
    with stage(loop) as (gateway, _):
        head, body = post(b"abc", "expect: 100-continue").split(b"\r\n\r\n")
        client = asked(gateway, head + b"\r\n\r\n")
        assert client.read_response().status == 100
        client.send(body)
        loop.drain()
        found = seen(client)
        assert found["body"] == "abc"
        assert "expect" not in found["headers"]


def test_each_filter_has_the_body_that_the_one_before_left() -> None:
    loop = Loop(WHOLE | {"name": "a"}, WHOLE | {"name": "b"}, CHUNKS | {"name": "c"})

    def first(request: Request) -> None:
        request.body = (request.body or b"") + b"1"

    def second(request: Request) -> None:
        request.body = (request.body or b"") + b"2"

    loop.on_request(first, 0)
    loop.on_request(second, 1)
    loop.on_request_chunk(lambda _, data, end: data + b"3" if end else None, 2)
    for order, expected in (("abc", "x123"), ("bca", "x231"), ("cab", "x312")):
        with stage(loop, filtered(named(*order))) as (gateway, _):
            client = asked(gateway, post(b"x"))
            loop.drain_until(client.is_readable)
            assert seen(client)["body"] == expected


def test_a_body_that_is_held_is_sent_again() -> None:
    loop = Loop(WHOLE)
    loop.on_request(lambda _: None)
    bodies: list[bytes] = []

    def serve(server: H2Peer, stream: int) -> None:
        bodies.append(server.message(stream).body)
        if len(bodies) == 1:
            server.reset(stream, REFUSED_STREAM)
        else:
            server.respond(stream)

    with stage(loop, filtered_http2("f"), h2_script(serve)) as (gateway, _):
        client = asked(gateway, post(b"again"))
        loop.drain()
        assert client.read_response().status == 200
    assert bodies == [b"again", b"again"]


# === Requests in chunks ===


def test_a_filter_sees_changes_drops_and_adds_chunks() -> None:
    loop = Loop(CHUNKS | {"on_request": True})
    calls: list[tuple[bytes, bool]] = []

    def head(request: Request) -> None:
        request.state["count"] = 0
        request.headers["x-seen"] = "1"

    def chunk(request: Request, data: bytes, end: bool) -> bytes | None:
        request.state["count"] += 1
        calls.append((data, end))
        if data == b"drop":
            return b""
        if data == b"keep":
            return None
        if end:
            request.note("user", str(request.state["count"]))
            return data + b"end"
        return data.upper()

    loop.on_request(head)
    loop.on_request_chunk(chunk)

    def script(peer: Peer) -> None:
        _, fields, _ = peer.read_head()
        assert ("x-seen", "1") in fields
        data, trailers = read_chunked(peer)
        peer.send(ok(data + b"|" + trailers))

    with stage(loop, script=script) as (gateway, _):
        client = asked(gateway, POST_CHUNKED)
        loop.drain()
        for piece in (b"abc", b"drop", b"keep"):
            client.send(b"%x\r\n%s\r\n" % (len(piece), piece))
            loop.drain()
        client.send(b"0\r\nx-trailer: 1\r\n\r\n")
        loop.drain()
        assert client.read_response().body == b"ABCkeepend|x-trailer: 1\r\n"
        assert loop.bridge.sessions == 0
    assert calls == [(b"abc", False), (b"drop", False), (b"keep", False), (b"", True)]
    assert loop.errors == []


def test_a_body_with_a_length_becomes_one_in_chunks() -> None:
    loop = Loop(CHUNKS)
    loop.on_request_chunk(lambda _, data, end: None)
    with stage(loop) as (gateway, _):
        client = asked(gateway, post(b"abc"))
        loop.drain_until(client.is_readable)
        response = client.read_response()
        headers = {name.lower(): value for name, value in json.loads(response.body)["headers"]}
        assert headers.get("transfer-encoding") == "chunked"
        assert "content-length" not in headers
        # What has no body is not asked about.
        before = filter_stats(gateway)["total"]
        client.send(get("/"))
        assert seen(client)["line"] == "GET / HTTP/1.1"
        assert filter_stats(gateway)["total"] == before


def test_chunks_are_taken_no_faster_than_the_filter_decides() -> None:
    loop = Loop(CHUNKS)
    loop.on_request_chunk(lambda *_: "later")
    with stage(loop) as (gateway, _):
        length = 64 * 1024 * 1024
        client = gateway.connect()
        client.send(f"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: {length}\r\n\r\n".encode())
        taken = client.fill(length, gateway)
        assert taken < length
        loop.drain()
        assert len(loop.jobs) == 1
        gateway.settle()
        assert not loop.is_woken()
        for _ in range(20):
            loop.jobs.pop().finish(None)
            loop.drain()
            assert len(loop.jobs) == 1


def test_a_chunk_has_at_most_so_many_bytes() -> None:
    loop = Loop(CHUNKS)
    lengths: list[int] = []
    loop.on_request_chunk(lambda _, data, end: lengths.append(len(data)))
    body = os.urandom(150_000).hex().encode()
    with stage(loop) as (gateway, _):
        client = asked(gateway, post(body))
        loop.drain_until(client.is_readable)
        assert client.read_response().status == 200
    assert sum(lengths) == len(body)
    assert max(lengths) <= CHUNK


def test_a_filter_answers_in_the_middle_of_a_body(tmp_path: Path) -> None:
    loop = Loop(CHUNKS)
    loop.on_request_chunk(lambda _, data, end: Response(403, "no") if b"bad" in data else None)
    with stage(loop, log=tmp_path) as (gateway, _):
        client = asked(gateway, POST_CHUNKED + b"4\r\ngood\r\n")
        loop.drain()
        gateway.settle()
        client.send(b"3\r\nbad\r\n")
        loop.drain()
        response = client.read_response()
        assert (response.status, response.body) == (403, b"no")
        assert response["connection"] == "close"
        [line] = gateway.log_lines(1)
        assert line["details"] == "python_filter_response{f}"


def test_an_answer_that_has_begun_is_cut_short() -> None:
    loop = Loop(CHUNKS)
    loop.on_request_chunk(lambda _, data, end: Response(403, "no"))
    with stage(loop, script=None) as (gateway, upstream):
        client = asked(gateway, POST_CHUNKED)
        peer = upstream.accept()
        peer.read_head()
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")
        assert client.read_until(b"abc").startswith(b"HTTP/1.1 200")
        client.send(b"3\r\nbad\r\n")
        loop.drain()
        assert client.read_to_end() == b""


# === Responses ===


def test_a_filter_has_the_whole_response_and_may_change_it() -> None:
    loop = Loop(WHOLE_RESPONSE)

    def change(request: Request, response: Response) -> Response | None:
        assert response.body is not None
        if request.path == "/keep":
            return None
        if request.path == "/instead":
            return Response(502, response.body[::-1])
        response.status = 201
        response.headers["x-length"] = str(len(response.body))
        response.body = response.body.upper()
        return None

    def script(peer: Peer) -> None:
        while True:
            peer.read_request()
            head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
            peer.send(head + chunked(b"abc", b"def", trailers=b"x-trailer: 1\r\n"))

    loop.on_response(change)
    with stage(loop, script=script) as (gateway, upstream):
        client = asked(gateway, get("/keep"))
        loop.drain()
        client.read_head()
        assert read_chunked(client) == (b"abcdef", b"x-trailer: 1\r\n")
        client.send(get("/change"))
        loop.drain()
        first, fields, _ = client.read_head()
        assert ("x-length", "6") in fields
        assert first == "HTTP/1.1 201 Created"
        assert read_chunked(client) == (b"ABCDEF", b"x-trailer: 1\r\n")
        client.send(get("/instead"))
        loop.drain()
        response = client.read_response()
        assert (response.status, response.body) == (502, b"fedcba")
        assert upstream.connections == 1
    assert loop.errors == []


@pytest.mark.parametrize("end", ["length", "close"])
def test_the_length_of_a_response_is_that_of_its_new_body(end: str) -> None:
    loop = Loop(WHOLE_RESPONSE)

    def change(_: Request, response: Response) -> None:
        response.body = (response.body or b"") * 2

    loop.on_response(change)

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(ok(b"abc") if end == "length" else b"HTTP/1.1 200 OK\r\n\r\nabc")

    with stage(loop, script=script) as (gateway, _):
        client = asked(gateway, get("/"))
        loop.drain()
        response = client.read_response()
        assert (response.body, response["content-length"]) == (b"abcabc", "6")
        assert "connection" not in response.names()


def test_a_response_that_can_have_no_body_gets_none() -> None:
    loop = Loop(WHOLE_RESPONSE)

    def change(_: Request, response: Response) -> None:
        assert response.body == b""
        with pytest.raises(ValueError, match="the body cannot be changed"):
            response.body = b"x"

    loop.on_response(change)

    def script(peer: Peer) -> None:
        first, _, _ = peer.read_head()
        empty = b"HTTP/1.1 204 No Content\r\n\r\n"
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n" if "HEAD" in first else empty)

    with stage(loop, script=script) as (gateway, _):
        client = asked(gateway, get("/").replace(b"GET", b"HEAD"))
        loop.drain()
        response = client.read_response(head=True)
        assert response.status == 200
        # Nobody knows what the filter would have made of the body.
        assert response.get("content-length") is None
        client = asked(gateway, get("/"))
        loop.drain()
        assert client.read_response().status == 204
    assert loop.errors == []


def test_a_response_that_is_too_large_has_its_declared_outcome(tmp_path: Path) -> None:
    large = WHOLE_RESPONSE | {"max_body": 1_000}
    loop = Loop(large | {"name": "deny"}, large | {"name": "allow", "on_error": "allow"})
    setup = filtered(named("deny"))
    setup.routes["plain"]["filters"] = named("allow")
    body = os.urandom(100_000).hex().encode()

    def script(peer: Peer) -> None:
        while True:
            peer.read_request()
            peer.send(ok(body))

    with stage(loop, setup, script, log=tmp_path) as (gateway, _):
        response = gateway.get("/")
        assert (response.status, response.body) == (500, b"")
        response = gateway.get("/plain")
        assert (response.status, response.body) == (200, body)
        lines = gateway.log_lines(2)
        assert lines[0]["details"] == "python_filter_error_too_large{deny}"
        assert [line["flags"] for line in lines] == ["PFE", "PFE"]
        assert filter_stats(gateway) == {"too_large": 2, "failure_allowed": 1}
        eventually(lambda: loop.bridge.held == 0)


def test_chunks_of_a_response_are_seen_and_changed() -> None:
    loop = Loop(RESPONSE_CHUNKS | {"on_response": True, "on_request": True})
    views: list[object] = []
    loop.on_request(views.append)

    def head(request: Request, response: Response) -> None:
        views.append(request)
        request.state["bytes"] = 0
        response.headers["x-seen"] = "1"

    def chunk(request: Request, response: Response, data: bytes, end: bool) -> bytes | None:
        assert response.headers["x-seen"] == "1"
        request.state["bytes"] += len(data)
        if end:
            request.note("user", str(request.state["bytes"]))
            return data + b"!"
        return data.upper()

    loop.on_response(head)
    loop.on_response_chunk(chunk)
    with stage(loop, script=None) as (gateway, upstream):
        client = asked(gateway, get("/"))
        loop.drain()
        peer = upstream.accept()
        peer.read_request()
        peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        loop.drain()
        first, fields, _ = client.read_head()
        assert first == "HTTP/1.1 200 OK"
        assert ("x-seen", "1") in fields
        peer.send(b"3\r\nabc\r\n")
        loop.drain()
        assert client.read_exactly(8) == b"3\r\nABC\r\n"
        peer.send(b"0\r\nx-trailer: 1\r\n\r\n")
        loop.drain()
        assert read_chunked(client) == (b"!", b"x-trailer: 1\r\n")
        assert loop.bridge.sessions == 0
        client.send(get("/plain"))
        peer.read_request()
        peer.send(ok())
        assert client.read_response().status == 200
    assert loop.errors == []
    assert views[0] is views[1]


def test_a_slow_client_slows_the_filter_down() -> None:
    loop = Loop(RESPONSE_CHUNKS)
    got: list[int] = []
    loop.on_response_chunk(lambda _, response, data, end: got.append(len(data)))

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (1 << 28))
        while True:
            peer.send(bytes(1 << 20))

    with stage(loop, script=script) as (gateway, _):
        client = gateway.connect(receive_buffer=4096)
        client.send(get("/"))
        loop.drain()
        quiet = 0
        while quiet < 50:
            if loop.is_woken():
                loop.drain()
                quiet = 0
            else:
                gateway.settle()
                quiet += 1
        assert 0 < sum(got) < 1 << 26
        assert max(got) <= CHUNK


def test_filters_see_the_bodies_of_the_proxys_own_answers() -> None:
    loop = Loop(WHOLE_RESPONSE, RESPONSE_CHUNKS | {"name": "g"})

    def change(_: Request, response: Response) -> None:
        response.body = b"sorry: " + (response.body or b"")

    loop.on_response(change)
    loop.on_response_chunk(lambda _, response, data, end: data + b"!" if end else None, 1)
    setup = filtered(named("g", "f"))
    setup.routes |= {"fixed": {"name": "fixed", "filters": named("g", "f")} | direct(404, "gone")}
    setup.routes["empty"] = {"name": "e", "filters": named("g", "f"), "action": forward("empty")}
    setup.clusters["empty"] = {"endpoints": []}
    setup.rules += [rule("/fixed", "fixed"), rule("/empty", "empty")]
    with stage(loop, setup) as (gateway, _):
        client = asked(gateway, get("/fixed"))
        loop.drain_until(client.is_readable)
        response = client.read_response()
        assert (response.status, response.body) == (404, b"sorry: gone!")
        client.send(get("/empty"))
        loop.drain_until(client.is_readable)
        response = client.read_response()
        assert (response.status, response.body) == (503, b"sorry: no healthy upstream!")
    assert loop.errors == []


# === Failures ===


def wrong(*_: object) -> object:
    return 5


@pytest.mark.parametrize(
    ("handler", "word", "status"),
    [(boom, "exception", 500), (wrong, "invalid", 500), (None, "timeout", 504)],
)
def test_a_chunk_that_is_not_decided_about_has_the_declared_outcome(
    tmp_path: Path, handler: Callable[..., object] | None, word: str, status: int
) -> None:
    loop = Loop(CHUNKS | {"name": "deny"}, CHUNKS | {"name": "allow", "on_error": "allow"})
    setup = filtered(named("deny"))
    setup.routes["plain"]["filters"] = named("allow")
    calls: list[bytes] = []

    def call(request: Request, data: bytes, end: bool) -> object:
        calls.append(data)
        return "later" if handler is None else handler()

    for number in (0, 1):
        loop.on_request_chunk(call, number)

    def fail() -> None:
        before = len(calls)
        loop.drain_until(lambda: len(calls) > before)
        for job in loop.jobs:
            if handler is None:
                gateway.advance(1.1)
                continue
            with pytest.raises(TypeError, match=r"returns None, bytes or a Response .*, not int"):
                job.finish(5)
        loop.jobs.clear()

    with stage(loop, setup, log=tmp_path) as (gateway, _):
        denied = asked(gateway, POST_CHUNKED + b"3\r\nabc\r\n")
        fail()
        assert denied.read_response().status == status
        allowed = asked(gateway, POST_CHUNKED.replace(b"/", b"/plain", 1) + b"3\r\nabc\r\n")
        fail()
        # It is not asked about the rest.
        allowed.send(b"3\r\ndef\r\n0\r\n\r\n")
        assert allowed.read_response().status == 200
        lines = gateway.log_lines(2)
        assert lines[0]["details"] == f"python_filter_error_{word}{{deny}}"
        assert [line["flags"] for line in lines] == ["PFE", "PFE"]
        stats = filter_stats(gateway)
        counter = "timeout" if handler is None else "error"
        assert stats == {"total": 2, counter: 2, "failure_allowed": 1}
    assert calls == [b"abc", b"abc"]


def test_a_response_whose_chunk_is_not_decided_about_is_cut_short_or_goes_on(
    tmp_path: Path,
) -> None:
    loop = Loop(
        RESPONSE_CHUNKS | {"name": "deny"}, RESPONSE_CHUNKS | {"name": "allow", "on_error": "allow"}
    )
    setup = filtered(named("deny"))
    setup.routes["plain"]["filters"] = named("allow")
    loop.on_response_chunk(boom, 0)
    loop.on_response_chunk(lambda *_: Response(403), 1)
    with stage(loop, setup, log=tmp_path) as (gateway, _):
        denied = asked(gateway, get("/"))
        loop.drain()
        raw = denied.read_to_end()
        assert raw.startswith(b"HTTP/1.1 200")
        assert not raw.endswith(b"0\r\n\r\n")
        allowed = asked(gateway, get("/plain"))
        loop.drain()
        assert len(loop.jobs) == 1
        with pytest.raises(TypeError, match=r"returns None or bytes, not .*Response"):
            loop.jobs.pop().finish(loop.results.pop())
        allowed.read_head()
        assert b"GET /plain" in read_chunked(allowed)[0]
        lines = gateway.log_lines(2)
        assert lines[0]["details"] == "python_filter_error_exception{deny}"
        assert [line["flags"] for line in lines] == ["PFE", "PFE"]
        assert filter_stats(gateway) == {"total": 2, "error": 2, "failure_allowed": 1}


def test_a_full_queue_and_a_closed_bridge_fail_chunks(tmp_path: Path) -> None:
    loop = Loop(CHUNKS, capacity=1)
    loop.on_request_chunk(lambda *_: "later")
    with stage(loop, log=tmp_path) as (gateway, _):
        waiting = asked(gateway, post(b"x"))
        eventually(lambda: loop.bridge.active == 1)
        assert gateway.ask(post(b"x")).status == 503
        loop.drain()
        assert gateway.get("/plain").status == 200
        loop.bridge.close()
        loop.drain()
        loop.jobs.clear()
        assert waiting.read_response().status == 503
        assert filter_stats(gateway) == {"total": 2, "overflow": 1, "closed": 1}
        details = [line["details"] for line in gateway.log_lines(3)]
        assert details[0] == "python_filter_error_overflow{f}"
        assert details[2] == "python_filter_error_closed{f}"
        assert loop.bridge.sessions == 0


def test_a_client_that_leaves_in_the_middle_of_a_body_takes_its_call_with_it(
    tmp_path: Path,
) -> None:
    loop = Loop(WHOLE, CHUNKS | {"name": "g"})
    loop.on_request_chunk(lambda *_: "later", 1)
    setup = filtered(named("f"))
    setup.routes["plain"]["filters"] = named("g")
    with stage(loop, setup, log=tmp_path) as (gateway, _):
        collecting = asked(gateway, post(b"x" * 500)[:-1])
        eventually(lambda: loop.bridge.held > 0)
        streaming = asked(gateway, POST_CHUNKED.replace(b"/", b"/plain", 1) + b"3\r\nabc\r\n")
        loop.drain()
        collecting.reset()
        assert gateway.log_lines(1)[0]["flags"] == "DC"
        assert loop.bridge.held == 0
        streaming.reset()
        assert gateway.log_lines(2)[1]["flags"] == "DC"
        loop.drain()
        assert loop.cancelled == [loop.jobs[0].id]
        assert loop.bridge.sessions == 0
        loop.jobs.clear()
        assert filter_stats(gateway) == {"total": 1, "abandoned": 1}
        assert loop.bridge.active == 0


def test_other_requests_go_on_while_a_body_waits() -> None:
    loop = Loop(CHUNKS)
    with stage(loop) as (gateway, _):
        waiting = [asked(gateway, post(b"x")) for _ in range(10)]
        eventually(lambda: loop.bridge.active == 10)
        for _ in range(10):
            assert gateway.get("/plain").status == 200
        loop.on_request_chunk(lambda *_: None)
        loop.drain_until(lambda: all(client.is_readable() for client in waiting))
        assert [client.read_response().status for client in waiting] == [200] * 10


def test_a_body_that_is_not_sent_in_time_is_no_filters_fault(tmp_path: Path) -> None:
    loop = Loop(WHOLE)
    with stage(loop, log=tmp_path) as (gateway, _):
        client = asked(gateway, post(b"abc")[:-1])
        eventually(lambda: loop.bridge.held == 2)
        gateway.advance(301)
        assert client.read_response().status == 408
        [line] = gateway.log_lines(1)
        assert (line["details"], line["flags"]) == ("stream_idle_timeout", "SI")


# === HTTP/2 ===


def test_bodies_of_streams_are_filtered_on_their_own() -> None:
    loop = Loop(WHOLE, CHUNKS | {"name": "g"}, RESPONSE_CHUNKS | {"name": "h"})

    def double(request: Request) -> None:
        request.body = (request.body or b"") * 2

    loop.on_request(double, 0)
    loop.on_request_chunk(lambda _, data, end: data.upper(), 1)
    loop.on_response_chunk(lambda _, response, data, end: data.replace(b"X", b"Y"), 2)

    def serve(server: H2Peer, stream: int) -> None:
        message = server.message(stream)
        length = (message.get("content-length") or "none").encode()
        server.respond(stream, body=message.body + b" " + length)

    setup = filtered_http2("f")
    setup.routes["plain"]["filters"] = named("g", "h")
    with stage(loop, setup, h2_script(serve)) as (gateway, _):
        client = h2_client(gateway)
        whole = client.request("/", method="POST", body=b"ax")
        chunks = client.request("/plain", method="POST", body=b"bx")
        loop.drain_until(lambda: gateway.stat("downstream_rq_2xx") == 2)
        assert client.response(whole).body == b"axax 4"
        assert client.response(chunks).body == b"BY none"
        assert loop.bridge.sessions == 0
    assert loop.errors == []


# === Where a request goes, and what it is counted by ===


def test_a_filter_chooses_among_the_backends_of_its_route() -> None:
    loop = Loop(declared())
    chosen: list[Any] = []

    def choose(request: Request) -> None:
        chosen.append((request.upstream, request.upstreams))
        with pytest.raises(ValueError, match='"elsewhere" is not a backend of the route'):
            request.upstream = "elsewhere"
        request.upstream = request.headers["x-to"]
        assert request.upstream == request.headers["x-to"]

    loop.on_request(choose)
    other = Upstream(always(ok(b"other")))
    action = forward("c", "kube_ns_other_80@gw/w")
    action["backends"][1]["weight"] = 0
    setup = filtered(named("f"), action)
    setup.clusters["kube_ns_other_80@gw/w"] = {"endpoints": [other.address]}
    try:
        with stage(loop, setup, always(ok(b"one"))) as (gateway, _):
            for name, body in (("c", b"one"), ("ns/other:80", b"other")):
                client = asked(gateway, get("/", f"x-to: {name}"))
                loop.drain()
                assert client.read_response().body == body
    finally:
        other.close()
    assert chosen == [(None, ("c", "ns/other:80"))] * 2
    assert loop.errors == []


def test_a_filter_says_what_a_request_is_counted_by() -> None:
    loop = Loop(declared())

    def count(request: Request) -> None:
        for bad in ("", "x" * 257):
            with pytest.raises(ValueError, match="a rate limit's key has 1 to 256 bytes"):
                request.rate_limit_key = bad
        if user := request.headers.get("x-user"):
            request.rate_limit_key = user
            assert request.rate_limit_key == user

    loop.on_request(count)
    limit = {
        "type": "local_rate_limit", "bucket": "b", "max_tokens": 1, "tokens_per_fill": 1,
        "fill_interval_ns": 60_000_000_000,
    }  # fmt: skip
    with stage(loop, filtered([*named("f"), limit])) as (gateway, _):

        def status(*fields: str) -> int:
            client = asked(gateway, get("/", *fields))
            loop.drain()
            return client.read_response().status

        users = ("ann", "eve", "ann", "eve")
        assert [status(f"x-user: {user}") for user in users] == [200, 200, 429, 429]
        assert [status(), status()] == [200, 429]
        gateway.advance(60)
        assert status("x-user: ann") == 200
    assert loop.errors == []
