"""ASGI applications as backends of a proxy that listens, or does not."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from tests.asgi.apps import LISTENER, NAME, answer, echo, http_only, path, resources
from tests.embed.upstream import TIMEOUT, fetch

import kgw
from kgw.asgi import Backend, LifespanError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

    from kgw.asgi.types import Receive, Scope, Send

pytestmark = pytest.mark.anyio

BIND = "127.0.0.1:0"
HOST = "http://app.example"


async def get(proxy: kgw.Proxy, path: str = "/") -> tuple[int, bytes]:
    address = proxy.addresses[LISTENER][0]
    return await anyio.to_thread.run_sync(fetch, address, path, abandon_on_cancel=True)


def client(proxy: kgw.Proxy) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=kgw.httpx_transport(proxy), base_url=HOST, timeout=TIMEOUT)


async def test_an_application_serves_a_port_of_the_proxy() -> None:
    async with kgw.Proxy(resources(), bind=BIND, backends={NAME: echo}) as proxy:
        assert await get(proxy, "/x") == (200, b"GET /x 0")


async def test_an_application_serves_the_calls_of_a_grpc_route() -> None:
    (way, service, http) = resources()
    calls = {**http, "kind": "GRPCRoute"}
    async with kgw.Proxy([way, service, calls], bind=BIND, backends={NAME: echo}) as proxy:
        assert await get(proxy, "/pkg.Service/Method") == (200, b"GET /pkg.Service/Method 0")


def test_a_program_without_an_event_loop_has_a_thread_for_it() -> None:
    with kgw.Proxy(resources(), bind=BIND, backends={NAME: echo}) as proxy:
        assert fetch(proxy.addresses[LISTENER][0], "/x") == (200, b"GET /x 0")


async def test_the_application_starts_before_the_proxy_and_ends_after_it() -> None:
    said: list[str] = []

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[dict[str, str]]:
        said.append(proxy.state.value)
        yield {"word": "shared"}
        said.append(proxy.state.value)

    async def word(request: Request) -> PlainTextResponse:
        said.append("served")
        return PlainTextResponse(request.state.word)

    app = Starlette(routes=[Route("/", word)], lifespan=lifespan)
    proxy = kgw.Proxy(resources(), listen=False, backends={NAME: app})
    async with proxy, client(proxy) as http:
        assert (await http.get("/")).text == "shared"
    assert said == ["running", "served", "closed"]


async def test_an_application_that_cannot_start_keeps_the_proxy_from_starting() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    proxy = kgw.Proxy(resources(), listen=False, backends={NAME: app})
    with pytest.raises(LifespanError, match="no database"):
        await proxy.__aenter__()
    with pytest.raises(kgw.NotRunning):
        proxy.connect()


def test_nor_does_it_in_a_thread() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    with pytest.raises(LifespanError, match="no database"):
        kgw.Proxy(resources(), listen=False, backends={NAME: app}).__enter__()


async def test_connections_are_reused() -> None:
    proxy = kgw.Proxy(resources(), listen=False, workers=1, backends={NAME: echo})
    async with proxy, client(proxy) as http:
        for number in range(5):
            assert (await http.post(f"/{number}", content=b"x")).text == f"POST /{number} 1"
        counters = proxy.stats()
    assert (counters["upstream_cx_total"], counters["upstream_rq_total"]) == (1, 5)


# httpx leaves generators behind, which trio finds (encode/httpx#1987).
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_body_that_the_application_leaves_is_no_trouble() -> None:
    @http_only
    async def early(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"no", 413)

    proxy = kgw.Proxy(resources(), listen=False, backends={NAME: early})
    async with proxy, client(proxy) as http:
        for _ in range(3):
            assert (await http.post("/", content=b"x" * 3_000_000)).status_code == 413


async def test_several_applications_by_route() -> None:
    def named(name: str) -> Any:
        @http_only
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await answer(send, name.encode())

        return app

    other = resources(port=9090, name="other")[1]
    rules = (
        {**path("/other"), "backendRefs": [{"name": "other", "port": 9090}]},
        path("/"),
    )
    backends = {NAME: named("app"), "default/other:9090": named("other")}
    proxy = kgw.Proxy(resources(other, rules=rules), listen=False, backends=backends)
    async with proxy, client(proxy) as http:
        assert (await http.get("/other")).text == "other"
        assert (await http.get("/")).text == "app"


async def test_a_change_of_routes_leads_to_the_application_still() -> None:
    proxy = kgw.Proxy(resources(rules=(path("/a"),)), listen=False, backends={NAME: echo})
    async with proxy, client(proxy) as http:
        assert (await http.get("/a")).status_code == 200
        await proxy.apply(resources(rules=(path("/b"),)))
        assert (await http.get("/a")).status_code == 404
        assert (await http.get("/b")).status_code == 200
        await proxy.apply(resources(rules=(path("/c"),), targetPort=1))
        assert (await http.get("/c")).text == "GET /c 0"


async def test_a_call_is_cancelled_when_its_grace_is_over() -> None:
    arrived, cancelled = anyio.Event(), anyio.Event()

    @http_only
    async def deaf(scope: Scope, receive: Receive, send: Send) -> None:
        arrived.set()
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.set()

    backend = Backend(deaf, disconnect_grace=0)
    proxy = kgw.Proxy(resources(), listen=False, backends={NAME: backend})
    async with proxy:
        connected = proxy.connect()
        connected.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        with anyio.fail_after(TIMEOUT):
            await arrived.wait()
            connected.close()
            await cancelled.wait()


async def test_the_end_of_the_proxy_waits_for_requests_then_cuts_them() -> None:
    arrived, cancelled = anyio.Event(), anyio.Event()

    @http_only
    async def deaf(scope: Scope, receive: Receive, send: Send) -> None:
        arrived.set()
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.set()

    proxy = kgw.Proxy(resources(), listen=False, backends={NAME: deaf}, drain_timeout=0)
    async with proxy:
        connected = proxy.connect()
        connected.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        with anyio.fail_after(TIMEOUT):
            await arrived.wait()
    assert cancelled.is_set()
    connected.close()


async def test_applications_do_not_see_each_other_s_failures() -> None:
    @http_only
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/broken":
            raise ZeroDivisionError
        await answer(send, b"fine")

    proxy = kgw.Proxy(resources(), listen=False, backends={NAME: app})
    async with proxy, client(proxy) as http:
        assert (await http.get("/broken")).status_code == 500
        assert (await http.get("/")).text == "fine"


async def test_no_descriptor_stays() -> None:
    async def once() -> None:
        proxy = kgw.Proxy(resources(), listen=False, backends={NAME: echo})
        async with proxy, client(proxy) as http:
            await http.get("/")

    def count() -> int:
        gc.collect()  # other tests' sockets may wait for it
        return len(os.listdir("/proc/self/fd"))

    await once()
    before = count()
    for _ in range(3):
        await once()
    assert count() == before


def test_names_and_numbers_are_checked() -> None:
    with pytest.raises(ValueError, match="namespace/service:port"):
        kgw.Proxy(resources(), backends={"app": echo})
    with pytest.raises(ValueError, match="max_concurrency"):
        Backend(echo, max_concurrency=0)
    with pytest.raises(ValueError, match="disconnect_grace"):
        Backend(echo, disconnect_grace=-1)


_LEFT_OPEN = """
import asyncio, kgw
from tests.asgi.apps import NAME, answer, http_only, resources

@http_only
async def app(scope, receive, send):
    arrived.set()
    await asyncio.sleep(3600)

async def main():
    global arrived
    arrived = asyncio.Event()
    proxy = kgw.Proxy(resources(), listen=False, backends={{NAME: app}})
    await proxy.__aenter__()
    connected = proxy.connect()
    connected.sendall(b"GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")
    await arrived.wait()
    connected.detach()  # it stays open to the very end
    print("left")
    {end}

asyncio.run(main())
"""


@pytest.mark.parametrize("end", ["return", "raise SystemExit"])
def test_a_loop_that_ends_with_a_request_in_flight_ends_cleanly(end: str) -> None:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", _LEFT_OPEN.format(end=end)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert (result.stdout, result.stderr, result.returncode) == ("left\n", "", 0)
