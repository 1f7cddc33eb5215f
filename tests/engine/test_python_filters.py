"""Filters in Python, from the data plane's side: the test itself is the loop that calls them."""

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
from tests.engine.h2peer import h2_client
from tests.engine.harness import (
    WAIT,
    Gateway,
    Peer,
    direct,
    eventually,
    forward,
    get,
    ok,
    post,
    rule,
    serving,
)

from kgw._native.bridge import Bridge, Request, Response
from kgw.errors import ConfigError, FilterError, NotRunning

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# === Requests ===


def test_a_filter_sees_the_request() -> None:
    loop = Loop(declared())
    views: list[Request] = []
    loop.on_request(views.append)
    with stage(loop) as (gateway, _):
        client = asked(gateway, get("/a%20b/c?d=e&f", "X-A: 1", "x-a: 2", "X-B: \xfc", host="h:8"))
        loop.drain()
        [request] = views
        assert (request.method, request.version, request.scheme) == ("GET", "HTTP/1.1", "http")
        assert (request.target, request.path) == ("/a%20b/c?d=e&f", "/a%20b/c")
        assert (request.query, request.host) == ("d=e&f", "h:8")
        assert (request.client, request.principal) == ("127.0.0.1", None)
        assert request.peer == client.sock.getsockname()
        assert (request.route, request.metadata) == ("ns/r/0/0", {})
        assert repr(request) == "<kgw.Request GET /a%20b/c?d=e&f>"
        headers = request.headers
        assert headers["X-A"] == headers.get("x-a") == "1, 2"
        assert headers.all("x-a") == ["1", "2"]
        assert (headers["x-b"], headers.get("x-c"), headers.get("x-c", "d")) == ("ü", None, "d")
        assert "x-a" in headers
        assert "x-c" not in headers
        assert 5 not in headers
        assert headers.items()[:4] == [("host", "h:8"), ("x-a", "1"), ("x-a", "2"), ("x-b", "ü")]
        assert list(headers)[:3] == ["host", "x-a", "x-b"]
        assert len(headers) == len(list(headers))
        with pytest.raises(KeyError, match="x-c"):
            headers["x-c"]
        assert seen(client)["line"] == "GET /a%20b/c?d=e&f HTTP/1.1"
        assert filter_stats(gateway) == {"total": 1}


def test_text_that_is_no_utf_8_survives() -> None:
    loop = Loop(declared())

    def turn(request: Request) -> None:
        assert request.headers["x-a"] == "a\udcff"
        request.headers["x-b"] = request.headers["x-a"]

    loop.on_request(turn)
    with stage(loop) as (gateway, _):
        client = asked(gateway, b"GET / HTTP/1.1\r\nhost: h\r\nx-a: a\xff\r\n\r\n")
        loop.drain()
        assert seen(client)["headers"]["x-b"] == "a\xff"


def test_what_a_filter_changes_goes_on_changed_and_is_read_as_changed() -> None:
    loop = Loop(declared())

    def change(request: Request) -> None:
        headers = request.headers
        headers["X-A"] = "9"
        headers.append("x-new", "1")
        headers.append("X-New", "2")
        del headers["x-b"]
        request.method = "PUT"
        request.path = "/new path?"
        request.host = "other:81"
        assert headers.items()[-2:] == [("x-new", "1"), ("x-new", "2")]
        assert (headers["x-a"], headers.get("x-b"), headers["host"]) == ("9", None, "other:81")
        assert (request.method, request.target) == ("PUT", "/new%20path%3F?q=1")

    loop.on_request(change)
    with stage(loop) as (gateway, _):
        client = asked(gateway, get("/old?q=1", "x-a: 1", "x-b: 2", "x-a: 3"))
        loop.drain()
        found = seen(client)
        assert found["line"] == "PUT /new%20path%3F?q=1 HTTP/1.1"
        headers = found["headers"]
        assert (headers["x-a"], headers["x-new"], headers["host"]) == ("9", "2", "other:81")
        assert "x-b" not in headers


def test_a_request_with_another_path_is_not_routed_again() -> None:
    loop = Loop(declared())

    def rewrite(request: Request) -> None:
        request.target = "/plain?x"

    loop.on_request(rewrite)
    setup = filtered(named("f"))
    setup.routes["plain"] = direct(418)
    with stage(loop, setup) as (gateway, _):
        assert gateway.get("/plain").status == 418
        client = asked(gateway, get("/old"))
        loop.drain()
        assert seen(client)["line"] == "GET /plain?x HTTP/1.1"


def test_changes_that_no_message_can_have_are_refused() -> None:
    loop = Loop(declared())
    refused: list[str] = []

    def attempt(change: Callable[[], object]) -> None:
        with pytest.raises(ValueError, match=r"cannot|not a") as info:
            change()
        refused.append(str(info.value))

    def check(request: Request) -> None:
        headers = request.headers
        for name in ("host", "Content-Length", "connection", "transfer-encoding", "a b", ""):
            attempt(lambda name=name: headers.append(name, "1"))  # type: ignore[misc]
            attempt(lambda name=name: headers.__setitem__(name, "1"))  # type: ignore[misc]
        attempt(lambda: headers.__delitem__("host"))
        for value in ("a\r\nx-b: 1", "a\0", " a"):
            attempt(lambda value=value: headers.append("x-a", value))  # type: ignore[misc]
        for attribute, value in (
            ("method", "HEAD"), ("method", "CONNECT"), ("method", "NONE"), ("method", "get"),
            ("host", "a b"), ("host", ""), ("target", ""), ("target", "*"), ("path", "a"),
        ):  # fmt: skip
            attempt(lambda a=attribute, v=value: setattr(request, a, v))  # type: ignore[misc]
        with pytest.raises(KeyError):
            del headers["x-none"]

    loop.on_request(check)
    with stage(loop) as (gateway, _):
        client = asked(gateway, get("/"))
        loop.drain()
        assert seen(client)["line"] == "GET / HTTP/1.1"
    assert loop.errors == []
    assert len(refused) == 12 + 1 + 3 + 9


def test_a_head_request_stays_one() -> None:
    loop = Loop(declared())

    def turn(request: Request) -> None:
        with pytest.raises(ValueError, match="the method cannot become"):
            request.method = "GET"

    loop.on_request(turn)
    with stage(loop) as (gateway, _):
        client = asked(gateway, get("/").replace(b"GET", b"HEAD"))
        loop.drain()
        assert client.read_response(head=True).status == 200
    assert loop.errors == []


def test_nothing_is_changed_after_the_decision() -> None:
    loop = Loop(declared())
    views: list[Request] = []
    loop.on_request(views.append)
    with stage(loop) as (gateway, _):
        client = asked(gateway, get("/", "x-a: 1"))
        loop.drain()
        [request] = views
        late: tuple[Callable[[], object], ...] = (
            lambda: request.headers.append("x-b", "1"),
            lambda: setattr(request, "path", "/b"),
            lambda: request.note("a", "b"),
        )
        for change in late:
            with pytest.raises(FilterError, match="the filter has decided"):
                change()
        assert request.headers["x-a"] == "1"
        assert "x-b" not in seen(client)["headers"]


def test_a_filter_answers_instead(tmp_path: Path) -> None:
    loop = Loop(declared())
    loop.on_request(
        lambda _: Response(403, b"\xff\x00", {"X-Why": "so", "content-type": "image/png"})
    )
    with stage(loop, log=tmp_path) as (gateway, upstream):
        client = asked(gateway, get("/"))
        loop.drain()
        response = client.read_response()
        assert (response.status, response.body, response["x-why"]) == (403, b"\xff\x00", "so")
        assert (response["content-type"], response["server"]) == ("image/png", "kgw")
        client.send(get("/again").replace(b"GET", b"HEAD"))
        loop.drain()
        response = client.read_response(head=True)
        assert (response.status, response["content-length"]) == (403, "2")
        assert upstream.connections == 0
        lines = gateway.log_lines(2)
        assert {(one["code"], one["flags"], one["details"]) for one in lines} == {
            (403, "-", "python_filter_response{f}")
        }
        assert filter_stats(gateway) == {"total": 2, "responded": 2}


def test_an_answer_with_text_is_plain_text_and_a_grpc_call_is_told_in_its_terms() -> None:
    loop = Loop(declared())
    loop.on_request(lambda _: Response(403, "nö"))
    with stage(loop) as (gateway, _):
        client = asked(gateway, get("/"))
        loop.drain()
        response = client.read_response()
        assert (response.body.decode(), response["content-type"]) == ("nö", "text/plain")
        client.send(post(b"x", "content-type: application/grpc"))
        loop.drain()
        response = client.read_response()
        assert (response.status, response["grpc-status"]) == (200, "7")
        assert response["grpc-message"] == "n%C3%B6"


def test_a_body_passes_a_filter() -> None:
    loop = Loop(declared())
    loop.on_request(lambda request: request.headers.append("x-a", "1"))
    with stage(loop) as (gateway, _):
        body = os.urandom(1_000_000).hex().encode()
        client = asked(gateway, post(body)[:500_000])
        loop.drain()
        client.send(post(body)[500_000:])
        assert seen(client)["body"] == body.decode()


def test_a_response_of_ones_own_is_checked() -> None:
    assert repr(Response()) == "<kgw.Response 200>"
    own = Response(201, "a", [("x-a", "1"), ("x-a", "2")])
    assert (own.status, own.body, own.headers.all("x-a")) == (201, b"a", ["1", "2"])
    own.status = 500
    own.headers["x-a"] = "3"
    assert (own.status, own.headers.items()) == (500, [("x-a", "3")])
    for arguments in ((100,), (600,), (204, "a"), (200, "", {"connection": "x"})):
        with pytest.raises(ValueError, match=r"status|connection"):
            Response(*arguments)
    wrong: Any = 5
    with pytest.raises(TypeError):
        Response(200, wrong)


# === Failures ===


def wrong(*_: object) -> object:
    return "not a decision"


@pytest.mark.parametrize(
    ("handler", "word", "counter"),
    [(boom, "exception", "error"), (wrong, "invalid", "error")],
)
def test_a_filter_that_fails_has_its_declared_outcome(
    tmp_path: Path, handler: Callable[..., object], word: str, counter: str
) -> None:
    loop = Loop(declared("deny"), declared("allow", on_error="allow"))
    loop.on_request(handler, 0)
    loop.on_request(handler, 1)
    setup = filtered(named("deny"))
    setup.routes["plain"]["filters"] = named("allow")

    def run() -> None:
        loop.drain()
        for job, result in zip(loop.jobs, loop.results, strict=True):
            with pytest.raises(TypeError, match=r"returns None or a Response .*, not str"):
                job.finish(result)
        loop.jobs.clear()
        loop.results.clear()

    with stage(loop, setup, log=tmp_path) as (gateway, _):
        client = asked(gateway, get("/"))
        run()
        response = client.read_response()
        assert (response.status, response.body) == (500, b"")
        client.send(get("/plain"))
        run()
        assert seen(client)["line"] == "GET /plain HTTP/1.1"
        denied, allowed = gateway.log_lines(2)
        assert denied["details"] == f"python_filter_error_{word}{{deny}}"
        assert (allowed["code"], allowed["details"]) == (200, "via_upstream")
        assert denied["flags"] == allowed["flags"] == "PFE"
        assert denied["long"] == "PythonFilterError"
        assert filter_stats(gateway) == {"total": 2, counter: 2, "failure_allowed": 1}
    if handler is boom:
        assert [number for number, _ in loop.errors] == [0, 1]
        assert all(isinstance(error, RuntimeError) for _, error in loop.errors)


def test_what_no_filter_should_raise_ends_the_look_and_loses_nothing() -> None:
    loop = Loop(declared())

    def interrupted(request: Request) -> None:
        if request.path == "/stop":
            raise KeyboardInterrupt

    loop.on_request(interrupted)
    with stage(loop) as (gateway, _):
        first = asked(gateway, get("/stop"))
        eventually(lambda: loop.bridge.active == 1)
        second = asked(gateway, get("/go"))
        eventually(lambda: loop.bridge.active == 2)
        with pytest.raises(KeyboardInterrupt):
            loop.drain()
        assert first.read_response().status == 500
        loop.drain()
        assert seen(second)["line"] == "GET /go HTTP/1.1"
    assert loop.errors == []


@pytest.mark.parametrize("taken", [False, True])
def test_a_filter_has_its_time(tmp_path: Path, taken: bool) -> None:
    loop = Loop(declared("deny", timeout_ms=250), declared("allow", on_error="allow"))
    setup = filtered(named("deny"))
    setup.routes["plain"]["filters"] = named("allow")
    loop.handlers[0] = loop.handlers[4] = lambda _: "later"
    with stage(loop, setup, log=tmp_path) as (gateway, _):
        denied, allowed = asked(gateway, get("/")), asked(gateway, get("/plain"))
        eventually(lambda: loop.bridge.active == 2)
        if taken:
            loop.drain()
            assert len(loop.jobs) == 2
        gateway.advance(0.2)
        assert not denied.is_readable()
        gateway.advance(0.1)
        assert (denied.read_response().status, allowed.is_readable()) == (504, False)
        gateway.advance(0.8)
        assert seen(allowed)["line"] == "GET /plain HTTP/1.1"
        lines = gateway.log_lines(2)
        assert [one["details"] for one in lines] == [
            "python_filter_error_timeout{deny}",
            "via_upstream",
        ]
        assert [one["flags"] for one in lines] == ["PFE", "PFE"]
        loop.drain()
        assert sorted(loop.cancelled) == [0, 1]
        for job in loop.jobs:
            job.finish(None)
            job.finish(None)
        loop.jobs.clear()
        assert filter_stats(gateway) == {"total": 2, "timeout": 2, "failure_allowed": 1}


def test_a_filter_that_takes_its_time_decides_in_the_end() -> None:
    loop = Loop(declared())
    views: list[Request] = []
    loop.on_request(lambda request: views.append(request) or "later")  # type: ignore[func-returns-value]
    with stage(loop) as (gateway, _):
        client = asked(gateway, get("/"))
        loop.drain()
        [job] = loop.jobs
        assert (job.id, job.filter) == (0, 0)
        views[0].headers["x-late"] = "1"
        gateway.settle()
        assert not client.is_readable()
        job.finish(None)
        assert seen(client)["headers"]["x-late"] == "1"
        client.send(get("/"))
        loop.drain()
        loop.jobs[1].fail()
        assert client.read_response().status == 500


def test_more_calls_than_may_be_are_refused_at_once(tmp_path: Path) -> None:
    loop = Loop(declared(), capacity=3)
    loop.on_request(lambda _: "later")
    with stage(loop, log=tmp_path) as (gateway, _):
        waiting = [asked(gateway, get("/")) for _ in range(3)]
        eventually(lambda: loop.bridge.active == 3)
        assert gateway.get("/").status == 503
        loop.drain()
        assert gateway.get("/").status == 503
        assert gateway.get("/plain").status == 200
        loop.jobs.pop().finish(None)
        waiting.append(asked(gateway, get("/")))
        loop.drain()
        while loop.jobs:
            loop.jobs.pop().finish(None)
        assert [client.read_response().status for client in waiting] == [200] * 4
        [first] = [one for one in gateway.log_lines(7) if one["code"] == 503][:1]
        assert (first["flags"], first["details"]) == ("PFE", "python_filter_error_overflow{f}")
        assert filter_stats(gateway) == {"total": 6, "overflow": 2}


def test_a_bridge_that_is_closed_fails_what_is_in_flight_and_what_comes(tmp_path: Path) -> None:
    loop = Loop(declared())
    loop.on_request(lambda _: "later")
    with stage(loop, log=tmp_path) as (gateway, _):
        taken = asked(gateway, get("/"))
        loop.drain()
        queued = asked(gateway, get("/"))
        eventually(lambda: loop.bridge.active == 2)
        loop.bridge.close()
        assert queued.read_response().status == 503
        loop.drain()
        assert loop.stopped
        loop.jobs.clear()
        assert taken.read_response().status == 503
        assert gateway.get("/").status == 503
        assert gateway.get("/plain").status == 200
        assert filter_stats(gateway) == {"total": 3, "closed": 3}
        details = {one["details"] for one in gateway.log_lines(4)}
        assert details == {"python_filter_error_closed{f}", "via_upstream"}


def test_a_bridge_that_is_forgotten_is_closed() -> None:
    gateway = Gateway(filtered(named("f")), bridge=Loop(declared()).bridge)
    try:
        assert gateway.get("/").status == 503
        assert filter_stats(gateway) == {"total": 1, "closed": 1}
    finally:
        gateway.close()


def test_a_client_that_leaves_takes_its_call_with_it(tmp_path: Path) -> None:
    loop = Loop(declared())
    loop.on_request(lambda _: "later")
    with stage(loop, log=tmp_path) as (gateway, upstream):
        taken, queued = asked(gateway, get("/")), gateway.connect()
        loop.drain()
        queued.send(get("/"))
        eventually(lambda: loop.bridge.active == 2)
        taken.reset()
        queued.reset()
        lines = gateway.log_lines(2)
        assert [(one["code"], one["flags"]) for one in lines] == [(0, "DC"), (0, "DC")]
        loop.drain()
        assert 0 in loop.cancelled
        assert len(loop.jobs) == 1
        loop.jobs.pop().finish(None)
        assert filter_stats(gateway) == {"total": 2, "abandoned": 2}
        assert upstream.connections == 0


def test_streams_wait_for_filters_on_their_own(tmp_path: Path) -> None:
    loop = Loop(declared())
    loop.on_request(lambda request: Response(200, request.path) if "x" in request.path else "later")
    with stage(loop, log=tmp_path) as (gateway, upstream):
        client = h2_client(gateway)
        slow, abandoned, quick = (client.request(path) for path in ("/a", "/b", "/x"))
        assert client.response(client.request("/plain")).status == 200
        eventually(lambda: loop.bridge.active == 3)
        loop.drain()
        assert client.response(quick).body == b"/x"
        client.reset(abandoned)
        assert gateway.log_lines(3)[-1]["flags"] == "DR"
        loop.drain()
        assert loop.cancelled == [loop.jobs[1].id]
        loop.jobs[0].finish(None)
        assert json.loads(client.response(slow).body)["line"] == "GET /a HTTP/1.1"
        assert filter_stats(gateway)["abandoned"] == 1
        assert upstream.connections == 1


def test_other_requests_go_on_while_a_filter_does_not() -> None:
    loop = Loop(declared())
    with stage(loop) as (gateway, _):
        waiting = [asked(gateway, get("/")) for _ in range(20)]
        for _ in range(20):
            assert gateway.get("/plain").status == 200
        assert not any(client.is_readable() for client in waiting)
        loop.on_request(lambda _: None)
        loop.drain()
        while loop.is_woken():
            loop.drain()
        assert [seen(client)["line"] for client in waiting] == ["GET / HTTP/1.1"] * 20


def test_an_engine_that_is_stopped_waits_for_no_filter() -> None:
    loop = Loop(declared())
    with stage(loop) as (gateway, _):
        client = asked(gateway, get("/"))
        eventually(lambda: loop.bridge.active == 1)
        gateway.engine.drain()
        assert not gateway.engine.join(0.0)
        assert client.is_closed()
        loop.drain()
        assert loop.bridge.active == 0


def test_a_draining_engine_waits_for_filters() -> None:
    loop = Loop(declared())
    loop.on_request(lambda _: None)
    with stage(loop) as (gateway, _):
        client = asked(gateway, get("/"))
        eventually(lambda: loop.bridge.active == 1)
        gateway.engine.drain()
        loop.drain()
        response = client.read_response()
        assert (response.status, response["connection"]) == (200, "close")
        client.close()
        assert gateway.engine.join(WAIT)


# === Which filters, and in which order ===


def test_filters_are_asked_in_order_between_limits_and_header_changes() -> None:
    loop = Loop(declared("a"), declared("b"), declared("c", routes=["ns/r"]), declared("other"))
    called: list[str] = []

    def note(name: str) -> Callable[[Request], None]:
        def call(request: Request) -> None:
            assert request.headers.get("x-set") is None
            called.append(name)

        return call

    for number, name in enumerate("abc"):
        loop.on_request(note(name), number)
    limit = {
        "type": "local_rate_limit", "bucket": "b", "max_tokens": 1, "tokens_per_fill": 1,
        "fill_interval_ns": 60_000_000_000,
    }  # fmt: skip
    change = {"type": "request_headers", "set": [["x-set", "1"]]}
    with stage(loop, filtered([limit, *named("b", "a"), change])) as (gateway, _):
        client = asked(gateway, get("/"))
        # One look may see two of them.
        loop.drain_until(lambda: len(called) == 3)
        assert seen(client)["headers"]["x-set"] == "1"
        assert called == ["b", "a", "c"]
        assert gateway.get("/").status == 429
        assert filter_stats(gateway) == {"total": 3}


def test_a_filter_sees_what_the_one_before_did(tmp_path: Path) -> None:
    loop = Loop(declared("a"), declared("b"))

    def first(request: Request) -> None:
        request.headers["x-a"] = "1"
        request.note("user", "ann")
        request.note("user", "eve")
        assert request.metadata == {"user": "eve"}

    answers: list[Response] = []

    def second(request: Request) -> Response:
        answers.append(Response(200, request.headers["x-a"] + request.metadata["user"]))
        return answers[0]

    loop.on_request(first, 0)
    loop.on_request(second, 1)
    with stage(loop, filtered(named("a", "b")), log=tmp_path) as (gateway, _):
        client = asked(gateway, get("/"))
        loop.drain_until(lambda: answers)
        assert client.read_response().body == b"1eve"
        assert gateway.log_lines(1)[0]["user"] == "eve"


@pytest.mark.parametrize("where", ["declared", "configured"])
def test_a_predicate_spares_the_call(where: str) -> None:
    predicate = {"path_prefix": "/a", "methods": ["GET"], "headers": [{"name": "x-a"}]}
    more: dict[str, Any] = {"predicate": predicate}
    loop = Loop(declared(**(more if where == "declared" else {})))
    loop.on_request(lambda _: Response(418))
    setup = filtered(named("f", **(more if where == "configured" else {})))
    with stage(loop, setup) as (gateway, _):
        for request in (get("/b", "x-a: 1"), get("/a"), post(b"", "x-a: 1", path="/a")):
            assert gateway.ask(request).status == 200
        assert not loop.is_woken()
        client = asked(gateway, get("/a/b", "x-a: 1"))
        loop.drain()
        assert client.read_response().status == 418
        assert filter_stats(gateway) == {"total": 1, "skipped": 3, "responded": 1}


def test_a_route_says_what_a_filter_leaves_open() -> None:
    loop = Loop(declared("f", on_response=True))
    setup = filtered(named("f", phases=["request"], timeout_ms=5_000, on_error="allow"))
    with stage(loop, setup) as (gateway, _):
        client = asked(gateway, get("/"))
        eventually(lambda: loop.bridge.active == 1)
        gateway.advance(4)
        assert not client.is_readable()
        gateway.advance(2)
        assert client.read_response().status == 200


@pytest.mark.parametrize(
    ("filters", "problem"),
    [
        (named("none"), 'no Python filter "none" is registered'),
        (named("f", timeout_ms=0), 'Python filter "f" has no time to decide'),
        (named("f", predicate={"path_prefix": "a"}), '"a" is not a path'),
    ],
)
def test_a_route_whose_filter_cannot_be_asked_answers_500(
    filters: list[dict[str, Any]], problem: str
) -> None:
    with stage(Loop(declared()), filtered(filters)) as (gateway, _):
        assert gateway.engine.problems() == [f"route r: {problem}"]
        assert gateway.get("/").status == 500
        assert gateway.get("/plain").status == 200


def test_without_any_filter_the_engine_says_so_too() -> None:
    with serving(filtered(named("f"))) as (gateway, _):
        assert gateway.engine.problems() == ['route r: no Python filter "f" is registered']


def test_declarations_are_checked() -> None:
    for wrong in (b"{", b"[{}]", b'[{"name": 5}]'):
        with pytest.raises(ConfigError, match="the declarations of filters"):
            Bridge(wrong, 1, 1)
    with pytest.raises(ValueError, match="capacity must be at least 1"):
        Bridge(b"[]", 0, 1)


def test_a_forked_child_takes_no_call_from_its_parent() -> None:
    loop = Loop(declared())
    loop.on_request(lambda _: None)
    with stage(loop) as (gateway, _):
        client = asked(gateway, get("/"))
        eventually(loop.is_woken)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                loop.bridge.close()
                loop.bridge.drain(loop.handlers, loop)
            except NotRunning as error:
                code = 0 if "parent" in str(error) else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        loop.drain()
        assert client.read_response().status == 200


# === Responses ===

RESPONSES = declared(on_request=False, on_response=True)


def test_a_response_filter_sees_and_changes_the_head() -> None:
    loop = Loop(RESPONSES)
    views: list[tuple[Request, Response]] = []

    def change(request: Request, response: Response) -> None:
        views.append((request, response))
        assert (request.path, request.headers["x-q"]) == ("/p", "1")
        assert (response.status, response.body) == (200, None)
        assert response.headers["x-up"] == "1"
        assert response.headers["x-route"] == "2"
        assert "transfer-encoding" not in response.headers
        with pytest.raises(FilterError):
            request.path = "/late"
        for status in (99, 204, 304, 600):
            with pytest.raises(ValueError, match="the status cannot become"):
                response.status = status
        with pytest.raises(ValueError, match="content-length cannot be changed"):
            response.headers["content-length"] = "1"
        response.status = 503
        response.headers["x-up"] = "3"
        response.headers.append("set-cookie", "a=b")

    def script(peer: Peer) -> None:
        while True:
            peer.read_request()
            head = b"HTTP/1.1 200 OK\r\nx-up: 1\r\ntransfer-encoding: chunked\r\n\r\n"
            peer.send(head + b"3\r\nabc\r\n0\r\n\r\n")

    loop.on_response(change)
    setup = filtered(
        [{"type": "response_headers", "add": [["x-route", "2"]]}, *named("f")],
    )
    with stage(loop, setup, script) as (gateway, _):
        client = asked(gateway, get("/p", "x-q: 1"))
        loop.drain()
        response = client.read_response()
        assert loop.errors == []
        assert (response.status, response.body) == (503, b"abc")
        assert (response["x-up"], response["set-cookie"]) == ("3", "a=b")
        assert response.names().count("x-route") == 1
        assert response.names().count("x-envoy-upstream-service-time") == 1
        with pytest.raises(FilterError):
            views[0][1].status = 200
        # The exchange ends, and is counted, once its answer has been sent.
        eventually(lambda: gateway.stat("downstream_rq_5xx") == 1)


def test_response_filters_are_asked_the_way_back() -> None:
    both = {"on_response": True}
    loop = Loop(declared("a", **both), declared("b", **both))
    called: list[str] = []
    for number, name in enumerate("ab"):
        loop.on_request(lambda _, name=name: called.append(name), number)  # type: ignore[misc]
        loop.on_response(lambda *_, name=name: called.append(name), number)
    with stage(loop, filtered(named("a", "b"))) as (gateway, _):
        client = asked(gateway, get("/"))
        loop.drain_until(lambda: len(called) == 4)
        assert client.read_response().status == 200
    assert called == ["a", "b", "b", "a"]


def test_a_response_filter_answers_instead_and_the_others_do_not_see_it(tmp_path: Path) -> None:
    loop = Loop(RESPONSES | {"name": "a"}, RESPONSES | {"name": "b"})
    loop.on_response(boom, 0)
    loop.on_response(lambda *_: Response(502, "hidden"), 1)
    with stage(loop, filtered(named("a", "b")), log=tmp_path) as (gateway, _):
        client = asked(gateway, get("/"))
        loop.drain()
        response = client.read_response()
        assert (response.status, response.body) == (502, b"hidden")
        client.send(get("/plain"))
        assert client.read_response().status == 200
        assert gateway.log_lines(2)[0]["details"] == "python_filter_response{b}"
    assert loop.errors == []


def test_a_response_filter_that_fails_has_its_declared_outcome(tmp_path: Path) -> None:
    loop = Loop(RESPONSES | {"name": "deny"}, RESPONSES | {"name": "allow", "on_error": "allow"})
    loop.on_response(boom, 0)
    loop.on_response(boom, 1)
    setup = filtered(named("deny"))
    setup.routes["plain"]["filters"] = named("allow")
    with stage(loop, setup, log=tmp_path) as (gateway, _):
        client = asked(gateway, get("/"))
        loop.drain()
        assert client.read_response().status == 500
        client.send(get("/plain"))
        loop.drain()
        assert client.read_response().status == 200
        client.send(get("/"))
        eventually(lambda: loop.bridge.active == 1)
        gateway.advance(1.1)
        assert client.read_response().status == 504
        lines = gateway.log_lines(3)
        assert [(one["code"], one["flags"]) for one in lines] == [
            (500, "PFE"),
            (200, "PFE"),
            (504, "PFE"),
        ]
        assert lines[2]["details"] == "python_filter_error_timeout{deny}"


def test_response_filters_see_the_proxys_own_answers() -> None:
    loop = Loop(RESPONSES, declared("no"))
    loop.on_request(lambda _: Response(403), 1)
    marked: list[int] = []

    def mark(request: Request, response: Response) -> None:
        marked.append(response.status)
        response.headers["x-seen"] = f"{response.status}"
        if response.status == 403:
            response.status = 401

    loop.on_response(mark)
    setup = filtered(named("f"))
    setup.routes |= {
        "none": {"name": "none", "filters": named("f"), "action": forward("empty")},
        "fixed": {"name": "fixed", "filters": named("f")} | {"action": direct(204)["action"]},
        "no": {"name": "no", "filters": named("f", "no"), "action": forward("c")},
    }
    setup.clusters["empty"] = {"endpoints": []}
    setup.rules += [rule("/none", "none"), rule("/fixed", "fixed"), rule("/no", "no")]
    with stage(loop, setup) as (gateway, _):
        client = asked(gateway, get("/none"))
        loop.drain()
        response = client.read_response()
        assert (response.status, response["x-seen"]) == (503, "503")
        client.send(get("/fixed"))
        loop.drain()
        assert client.read_response()["x-seen"] == "204"
        client.send(get("/no"))
        loop.drain_until(lambda: 403 in marked)
        response = client.read_response()
        assert (response.status, response["x-seen"]) == (401, "403")


def test_a_client_that_leaves_takes_the_call_about_its_response_with_it(tmp_path: Path) -> None:
    loop = Loop(RESPONSES)
    with stage(loop, log=tmp_path) as (gateway, upstream):
        client = asked(gateway, get("/"))
        eventually(lambda: loop.bridge.active == 1)
        client.reset()
        assert gateway.log_lines(1)[0]["flags"] == "DC"
        assert filter_stats(gateway)["abandoned"] == 1
        loop.drain()
        assert loop.bridge.active == 0
        assert upstream.connections == 1


def test_an_answer_that_comes_early_waits_for_the_filter() -> None:
    loop = Loop(RESPONSES)
    loop.on_response(lambda *_: None)
    with stage(loop, script=None) as (gateway, upstream):
        client = gateway.connect()
        client.send(post(b"x" * 100_000)[:50_000])
        peer = upstream.accept()
        peer.read_head()
        peer.send(ok(b"early"))
        loop.drain()
        assert client.read_response().body == b"early"


def test_a_switch_of_protocols_passes_response_filters_by() -> None:
    loop = Loop(RESPONSES)

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n")
        peer.send(peer.read_exactly(4))

    setup = filtered(named("f"), forward("c", upgrades=["x"]))
    with stage(loop, setup, script) as (gateway, _):
        client = asked(gateway, get("/", "connection: upgrade", "upgrade: x"))
        assert client.read_response().status == 101
        client.send(b"ping")
        assert client.read_exactly(4) == b"ping"
