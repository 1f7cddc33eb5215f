"""`kgw.asgi.GatewayMiddleware`: every policy, in front of applications."""

from __future__ import annotations

import contextvars
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route
from tests.asgi.apps import answer, echo, gateway, http_only, limited, path, resources
from tests.asgi.server import ask, exchange, living, scope_for
from tests.asgi.test_httpx_transport import access_log
from tests.embed.upstream import TIMEOUT

import kgw
from kgw.asgi import GatewayMiddleware, ResponseCut
from kgw.proxy import ManualClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from starlette.requests import Request

    from kgw.asgi.types import Headers, Message, Receive, Scope, Send

pytestmark = pytest.mark.anyio


def modifier(kind: str, **fields: str) -> dict[str, Any]:
    """A filter that sets header fields."""
    named = [{"name": name.replace("_", "-"), "value": value} for name, value in fields.items()]
    key = kind[0].lower() + kind[1:]
    return {"type": kind, key: {"set": named}}


def fields(headers: Headers) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in headers}


# === Policies ===


async def test_requests_reach_the_application_with_edits_both_ways() -> None:
    rule = {
        "filters": [
            modifier("RequestHeaderModifier", x_to_app="1"),
            modifier("ResponseHeaderModifier", x_to_client="2"),
        ]
    }
    app = GatewayMiddleware(echo, resources(rules=(rule,)))
    async with living(app):
        status, headers, body = await ask(app, "POST", "/a%20b?q=1", b"hello")
    assert (status, body) == (200, b"POST /a b 5")
    seen = fields(headers)
    assert seen["x-seen-x-to-app"] == "1"
    assert seen["x-to-client"] == "2"
    assert not any("x-kgw" in name for name in seen)


async def test_what_has_no_route_never_reaches_the_application() -> None:
    app = GatewayMiddleware(echo, resources(rules=(path("/in"),)))
    async with living(app):
        assert (await ask(app, path="/in"))[0] == 200
        assert (await ask(app, path="/out"))[0] == 404


async def test_a_rate_limit_answers_429() -> None:
    app = GatewayMiddleware(echo, resources(limited(2)))
    async with living(app):
        codes = [(await ask(app))[0] for _ in range(3)]
    assert codes == [200, 200, 429]


async def test_redirects_and_rewrites() -> None:
    redirect = {"type": "RequestRedirect", "requestRedirect": {"hostname": "new.example"}}
    rewrite = {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/new"}}
    rules = (
        {**path("/moved"), "filters": [redirect], "backendRefs": []},
        {**path("/old"), "filters": [{"type": "URLRewrite", "urlRewrite": rewrite}]},
    )
    app = GatewayMiddleware(echo, resources(rules=rules), backend="default/app:8080")
    async with living(app):
        moved = await ask(app, path="/moved/x")
        rewritten = await ask(app, path="/old/x")
    assert moved[0] == 302
    assert fields(moved[1])["location"] == "http://new.example/moved/x"
    assert rewritten[2] == b"GET /new/x 0"


async def test_a_time_out_answers_504_and_tells_the_application() -> None:
    told = anyio.Event()
    arrived = anyio.Event()

    @http_only
    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        arrived.set()
        assert (await receive())["type"] == "http.disconnect"
        told.set()

    clock = ManualClock()
    objects = resources(rules=({"timeouts": {"request": "1s"}},))
    app = GatewayMiddleware(slow, kgw.Proxy(objects, listen=False, clock=clock))
    async with living(app), exchange(app, scope_for()) as one:
        one.body()
        with anyio.fail_after(TIMEOUT):
            await arrived.wait()
        clock.advance(1.1)
        status, _, _ = await one.answer()
        with anyio.fail_after(TIMEOUT):
            await told.wait()
    assert status == 504


async def test_the_access_log_names_the_client(tmp_path: Path) -> None:
    log = tmp_path / "log"
    app = GatewayMiddleware(echo, resources(access_log(log)))
    async with living(app):
        await ask(app, path="/x")
    assert log.read_text() == "GET /x 200 192.0.2.9:5000\n"


async def test_https_of_the_server_is_https_to_the_application() -> None:
    @http_only
    async def scheme(scope: Scope, receive: Receive, send: Send) -> None:
        said = fields(scope["headers"])
        await answer(send, f"{scope['scheme']} {said['x-forwarded-proto']}".encode())

    app = GatewayMiddleware(scheme, resources())
    async with living(app):
        assert (await ask(app, scheme="https"))[2] == b"https https"
        assert (await ask(app))[2] == b"http http"


async def test_filters_of_a_proxy_that_was_made_for_it() -> None:
    proxy = kgw.Proxy(resources(), listen=False)

    @proxy.filter("auth", routes="*")
    async def auth(request: kgw.Request) -> kgw.Response | None:
        return None if "authorization" in request.headers else kgw.Response(401, "who?")

    app = GatewayMiddleware(echo, proxy)
    headers = [(b"host", b"a"), (b"authorization", b"me")]
    async with living(app):
        assert (await ask(app))[0] == 401
        assert (await ask(app, headers=headers))[0] == 200


async def test_a_new_configuration_holds_from_then_on() -> None:
    app = GatewayMiddleware(echo, resources(rules=(path("/a"),)))
    async with living(app):
        assert (await ask(app, path="/b"))[0] == 404
        await app.apply(resources(rules=(path("/b"),)))
        assert (await ask(app, path="/b"))[0] == 200
        await app.apply(resources(limited(1), rules=(path("/b"),)))
        codes = [(await ask(app, path="/b"))[0] for _ in range(2)]
    assert codes == [200, 429]


# === The application's scope ===


async def test_the_scope_is_the_request_s_own() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    seen: list[Any] = []

    @http_only
    async def look(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append((scope["client"], scope["state"], scope["x_other"], variable.get()))
        await answer(send)

    app = GatewayMiddleware(look, resources())
    async with living(app):
        variable.set("set by who called")
        state = {"pool": object()}
        await ask(app, state=state, x_other=1)
    assert seen == [(("192.0.2.9", 5000), state, 1, "set by who called")]


async def test_a_client_cannot_name_another_s_scope() -> None:
    seen: list[Headers] = []

    @http_only
    async def look(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["headers"])
        await answer(send)

    app = GatewayMiddleware(look, resources())
    async with living(app):
        status, _, _ = await ask(app, headers=[(b"host", b"a"), (b"x-kgw-exchange", b"0-0")])
    assert status == 200
    assert not any(name == b"x-kgw-exchange" for name, _ in seen[0])


# === Bodies ===


async def test_bodies_stream_both_ways_at_once() -> None:
    @http_only
    async def upper(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        more = True
        while more:
            message = await receive()
            more = message["more_body"]
            body = message["body"].upper()
            await send({"type": "http.response.body", "body": body, "more_body": more})

    app = GatewayMiddleware(upper, resources())
    headers = [(b"host", b"a"), (b"transfer-encoding", b"chunked")]
    async with living(app), exchange(app, scope_for("POST", headers=headers)) as one:
        one.body(b"one", more=True)
        assert (await one.next())["status"] == 200
        assert (await one.next())["body"] == b"ONE"
        one.body(b"two", more=True)
        assert (await one.next())["body"] == b"TWO"
        one.body(b"three")
        rest, more = b"", True
        while more:
            part = await one.next()
            rest += part["body"]
            more = part["more_body"]
        assert rest == b"THREE"


async def test_what_the_application_does_not_take_is_not_taken_from_the_client() -> None:
    go = anyio.Event()
    size = 64 * 1024
    total = 400

    @http_only
    async def late(scope: Scope, receive: Receive, send: Send) -> None:
        await go.wait()
        count, more = 0, True
        while more:
            message = await receive()
            count += len(message["body"])
            more = message["more_body"]
        await answer(send, str(count).encode())

    taken = 0

    async def receive() -> Message:
        nonlocal taken
        if taken == total:
            await anyio.sleep_forever()
        taken += 1
        return {"type": "http.request", "body": b"x" * size, "more_body": taken < total}

    got: list[Message] = []

    async def send(message: Message) -> None:
        got.append(message)

    app = GatewayMiddleware(late, resources())
    scope = scope_for("POST", headers=[(b"host", b"a"), (b"transfer-encoding", b"chunked")])
    async with living(app), anyio.create_task_group() as tasks:
        tasks.start_soon(app, scope, receive, send)
        # It has settled when other requests are served and nothing more was taken.
        before = -1
        while taken != before or taken == 0:
            before = taken
            for _ in range(20):
                await ask(GatewayProbe(app), path="/")
        assert taken * size < 8 * 1024 * 1024
        go.set()
    assert got[-1]["body"] == str(size * total).encode()


class GatewayProbe:
    """Asks for what the data plane answers by itself."""

    def __init__(self, app: GatewayMiddleware) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["headers"] = [(b"host", b"a"), (b"content-length", b"0")]
        scope["method"] = "OPTIONS"
        scope["raw_path"] = b"*"
        await self._app(scope, receive, send)


async def test_a_head_request_has_the_length_and_no_body() -> None:
    app = GatewayMiddleware(echo, resources())
    async with living(app):
        status, headers, body = await ask(app, "HEAD")
    assert (status, body, fields(headers)["content-length"]) == (200, b"", "8")


# === Ends ===


async def test_a_client_that_leaves_is_passed_on() -> None:
    arrived, told = anyio.Event(), anyio.Event()

    @http_only
    async def waiting(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        arrived.set()
        assert (await receive())["type"] == "http.disconnect"
        with pytest.raises(OSError, match="gone"):
            await answer(send)
        told.set()

    app = GatewayMiddleware(waiting, resources())
    async with living(app):
        async with exchange(app, scope_for()) as one:
            one.body()
            with anyio.fail_after(TIMEOUT):
                await arrived.wait()
            one.leave()
        with anyio.fail_after(TIMEOUT):
            await told.wait()


async def test_an_application_that_does_not_listen_is_cancelled() -> None:
    arrived, cancelled = anyio.Event(), anyio.Event()

    @http_only
    async def deaf(scope: Scope, receive: Receive, send: Send) -> None:
        arrived.set()
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.set()

    app = GatewayMiddleware(deaf, resources(), disconnect_grace=0)
    async with living(app):
        async with exchange(app, scope_for()) as one:
            one.body()
            with anyio.fail_after(TIMEOUT):
                await arrived.wait()
            one.leave()
        with anyio.fail_after(TIMEOUT):
            await cancelled.wait()


async def test_an_exception_before_the_answer_is_500(caplog: pytest.LogCaptureFixture) -> None:
    @http_only
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise ZeroDivisionError

    app = GatewayMiddleware(broken, resources())
    async with living(app):
        status, _, body = await ask(app)
        assert (await ask(app))[0] == 500
    assert (status, body) == (500, b"Internal Server Error")
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert errors[0].exc_info is not None
    assert errors[0].exc_info[0] is ZeroDivisionError


async def test_an_exception_within_the_answer_cuts_it(caplog: pytest.LogCaptureFixture) -> None:
    @http_only
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise ZeroDivisionError

    app = GatewayMiddleware(broken, resources())
    async with living(app):
        async with exchange(app, scope_for()) as one:
            one.body()
            assert (await one.next())["status"] == 200
        assert isinstance(one.error, ResponseCut)


async def test_an_application_without_an_answer_is_500() -> None:
    @http_only
    async def silent(scope: Scope, receive: Receive, send: Send) -> None:
        pass

    app = GatewayMiddleware(silent, resources())
    async with living(app):
        assert (await ask(app))[0] == 500


async def test_a_shutdown_lets_requests_end() -> None:
    arrived, go = anyio.Event(), anyio.Event()

    @http_only
    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        arrived.set()
        await go.wait()
        await answer(send, b"whole")

    app = GatewayMiddleware(slow, resources())
    async with living(app):
        proxy = app.proxy
        assert proxy is not None
        async with anyio.create_task_group() as tasks, exchange(app, scope_for()) as one:
            one.body()
            with anyio.fail_after(TIMEOUT):
                await arrived.wait()
            tasks.start_soon(proxy.drain)
            while proxy.state is kgw.proxy.State.RUNNING:  # noqa: ASYNC110 - it is in a thread
                await anyio.sleep(0.002)
            go.set()
            assert (await one.answer())[::2] == (200, b"whole")


# === Lifespans ===


async def test_the_application_s_lifespan_passes_through() -> None:
    said: list[str] = []

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[dict[str, int]]:
        said.append("start")
        yield {"number": 7}
        said.append("end")

    async def number(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(request.state.number))

    inner = Starlette(routes=[Route("/", number)], lifespan=lifespan)
    app = GatewayMiddleware(inner, resources())
    async with living(app) as state:
        assert said == ["start"]
        assert (await ask(app, state=state.copy()))[2] == b"7"
        assert app.proxy is not None
    assert said == ["start", "end"]
    assert app.proxy is None


async def test_a_configuration_that_cannot_be_used_fails_the_start() -> None:
    app = GatewayMiddleware(echo, [gateway()])
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    async with exchange(app, scope) as one:
        one.give({"type": "lifespan.startup"})
        message = await one.next()
    assert message["type"] == "lifespan.startup.failed"
    assert "which backend the application is" in message["message"]


async def test_a_backend_that_no_route_leads_to_fails_the_start() -> None:
    app = GatewayMiddleware(echo, resources(), backend="default/other:1")
    with pytest.raises(kgw.ConfigError, match=r"no route leads to default/other:1.*app:8080"):
        await app(scope_for(), never, never)


async def never(*_: Any) -> Any:
    raise AssertionError


async def test_a_server_without_lifespan_starts_it_with_the_first_request() -> None:
    app = GatewayMiddleware(echo, resources())
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://app.example") as client:
        assert (await client.post("/a", content=b"abc")).text == "POST /a 3"
    await app.aclose()
    assert app.proxy is None


def test_it_goes_on_in_another_event_loop() -> None:
    app = GatewayMiddleware(echo, resources())

    async def once() -> int:
        return (await ask(app))[0]

    assert [anyio.run(once), anyio.run(once), anyio.run(once, backend="trio")] == [200] * 3
    assert app.proxy is not None
    anyio.run(app.aclose)
    assert app.proxy is None


# === Frameworks ===


async def test_fastapi() -> None:
    inner = FastAPI()

    @inner.get("/items/{item}")
    async def item(item: int, q: str = "") -> dict[str, Any]:
        return {"item": item, "q": q}

    app = GatewayMiddleware(inner, resources(rules=(path("/items"),)))
    async with living(app):
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://a") as client:
            assert (await client.get("/items/3?q=x")).json() == {"item": 3, "q": "x"}
            assert (await client.get("/items/x")).status_code == 422
            assert (await client.get("/docs")).status_code == 404


async def test_starlette_streams_and_is_added_as_its_middleware() -> None:
    async def count(request: Request) -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            for number in range(3):
                yield b"%d\n" % number

        return StreamingResponse(parts())

    app = Starlette(routes=[Route("/", count)])
    app.add_middleware(GatewayMiddleware, config=resources(limited(1)))
    async with living(app):
        assert (await ask(app))[2] == b"0\n1\n2\n"
        assert (await ask(app))[0] == 429


async def test_many_requests_at_once() -> None:
    app = GatewayMiddleware(echo, resources(), max_concurrency=10)
    got: list[bytes] = []

    async def one(number: int) -> None:
        client = ("192.0.2.1", number)
        got.append((await ask(app, "POST", f"/{number}", b"x" * number, client=client))[2])

    async with living(app), anyio.create_task_group() as tasks:
        for number in range(1, 301):
            tasks.start_soon(one, number)
    assert sorted(got) == sorted(f"POST /{n} {n}".encode() for n in range(1, 301))


async def test_concurrency_is_bounded() -> None:
    running, most = 0, 0

    @http_only
    async def counted(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(5):
            await anyio.lowlevel.checkpoint()
        running -= 1
        await answer(send)

    app = GatewayMiddleware(counted, resources(), max_concurrency=3)

    async def one(number: int) -> None:
        assert (await ask(app, client=("192.0.2.1", number)))[0] == 200

    async with living(app), anyio.create_task_group() as tasks:
        for number in range(1, 41):
            tasks.start_soon(one, number)
    assert most == 3


def test_a_wrong_backend_is_refused() -> None:
    with pytest.raises(ValueError, match="namespace/service:port"):
        GatewayMiddleware(echo, resources(), backend="app")
    with pytest.raises(TypeError):
        GatewayMiddleware(echo, 7)  # type: ignore[arg-type]
