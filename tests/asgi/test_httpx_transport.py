"""`kgw.httpx_transport`: real httpx clients, no port of the proxy."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest
from tests.asgi.apps import LISTENER, NAME, answer, gateway, http_only, limited, route, service
from tests.asgi.apps import resources as served_here
from tests.embed.upstream import TIMEOUT, Upstream, resources
from tests.embed.upstream import upstream as upstream

import kgw
from kgw.proxy import ManualClock, State

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from kgw.asgi.types import Receive, Scope, Send

pytestmark = pytest.mark.anyio

HOST = "http://app.example"


async def test_requests_follow_the_configuration_and_nothing_is_bound(upstream: Upstream) -> None:
    transport = kgw.httpx_transport(resources(upstream, prefix="/in"))
    async with httpx.AsyncClient(transport=transport, base_url=HOST) as client:
        reached = await client.get("/in/there")
        missed = await client.get("/out")
        assert isinstance(transport.proxy, kgw.Proxy)
        bound = transport.proxy.addresses
    assert (reached.status_code, reached.text) == (200, "/in/there")
    assert missed.status_code == 404
    assert bound == {LISTENER: []}
    assert transport.proxy.state is State.CLOSED


def test_a_client_of_threads_works_the_same(upstream: Upstream) -> None:
    transport = kgw.httpx_transport(resources(upstream, prefix="/in"))
    with httpx.Client(transport=transport, base_url=HOST) as client:
        assert client.get("/in/there").text == "/in/there"
        assert client.get("/out").status_code == 404
        assert transport.proxy.stats()["downstream_cx_total"] == 1
    assert transport.proxy.state is State.CLOSED


async def test_a_client_without_a_block_starts_with_its_first_request(upstream: Upstream) -> None:
    client = httpx.AsyncClient(transport=kgw.httpx_transport(resources(upstream)))
    assert (await client.get(f"{HOST}/a")).text == "/a"
    await client.aclose()


async def test_hosts_that_have_no_route_are_not_reached(upstream: Upstream) -> None:
    objects = resources(upstream)
    objects[1]["spec"]["hostnames"] = ["allowed.example"]
    async with httpx.AsyncClient(transport=kgw.httpx_transport(objects)) as client:
        assert (await client.get("http://allowed.example/")).status_code == 200
        assert (await client.get("http://other.example/")).status_code == 404


async def test_a_rate_limit_holds(upstream: Upstream) -> None:
    objects = [*resources(upstream), limited(2)]
    async with httpx.AsyncClient(transport=kgw.httpx_transport(objects)) as client:
        codes = [(await client.get(f"{HOST}/a")).status_code for _ in range(3)]
    assert codes == [200, 200, 429]


async def test_a_time_out_of_the_route_answers_504(upstream: Upstream) -> None:
    objects = resources(upstream)
    objects[1]["spec"]["rules"][0]["timeouts"] = {"request": "1s"}
    clock = ManualClock()
    proxy = kgw.Proxy(objects, listen=False, clock=clock)
    answers: list[httpx.Response] = []

    async def ask(client: httpx.AsyncClient) -> None:
        answers.append(await client.get(f"{HOST}/slow", timeout=None))

    async with (
        httpx.AsyncClient(transport=kgw.httpx_transport(proxy)) as client,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(ask, client)
        await anyio.to_thread.run_sync(upstream.arrived.wait, TIMEOUT)
        clock.advance(1.1)
    assert answers[0].status_code == 504


async def test_bodies_stream_both_ways() -> None:
    sent: list[bytes] = []

    @http_only
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            message = await receive()
            sent.append(message["body"])
            body = message["body"].upper()
            more = message["more_body"]
            await send({"type": "http.response.body", "body": body, "more_body": more})
            if not more:
                return

    got = anyio.Event()

    async def parts() -> AsyncIterator[bytes]:
        yield b"one"
        await got.wait()
        yield b"two"

    proxy = kgw.Proxy(served_here(), listen=False, backends={NAME: app})
    received = b""
    async with httpx.AsyncClient(transport=kgw.httpx_transport(proxy)) as client:
        # httpx sends a body whole before it reads: the answer is looked at by the application.
        async def release() -> None:
            while b"one" not in sent:  # noqa: ASYNC110 - what it waits for tells nobody
                await anyio.sleep(0.002)
            got.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(release)
            async with client.stream("POST", f"{HOST}/", content=parts()) as response:
                async for part in response.aiter_bytes():
                    received += part
    assert received == b"ONETWO"
    assert sent[0] == b"one"


# httpx leaves generators behind, which trio finds (encode/httpx#1987).
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_client_that_stops_reading_frees_its_connection() -> None:
    @http_only
    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
        except OSError:
            left.set()

    left = anyio.Event()
    proxy = kgw.Proxy(served_here(), listen=False, backends={NAME: endless})
    async with httpx.AsyncClient(transport=kgw.httpx_transport(proxy)) as client:
        async with client.stream("GET", f"{HOST}/") as response:
            async for part in response.aiter_raw():
                assert part
                break
        with anyio.fail_after(TIMEOUT):
            await left.wait()


async def test_https_urls_are_https_to_the_routes_and_need_no_tls(tmp_path: Path) -> None:
    @http_only
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, f"{scope['scheme']} {scope['server']}".encode())

    proxy = kgw.Proxy(served_here(), listen=False, backends={NAME: app})
    async with httpx.AsyncClient(transport=kgw.httpx_transport(proxy)) as client:
        secure = await client.get("https://app.example/")
        plain = await client.get("http://app.example/")
    assert secure.text == "https ('app.example', 443)"
    assert plain.text == "http ('app.example', 80)"


async def test_of_several_listeners_the_port_decides() -> None:
    @http_only
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, scope["path"].encode())

    def section(name: str) -> dict[str, Any]:
        found = route({"filters": [rewritten(name)]})
        found["metadata"]["name"] = name
        found["spec"]["parentRefs"] = [{"name": "web", "sectionName": name}]
        return found

    def rewritten(name: str) -> dict[str, Any]:
        path = {"type": "ReplaceFullPath", "replaceFullPath": f"/{name}"}
        return {"type": "URLRewrite", "urlRewrite": {"path": path}}

    ports = {"a": 8001, "b": 8002}
    listeners = [{"name": name, "port": port, "protocol": "HTTP"} for name, port in ports.items()]
    objects = [gateway(*listeners), service(), section("a"), section("b")]
    proxy = kgw.Proxy(objects, listen=False, backends={NAME: app})
    async with proxy:
        async with httpx.AsyncClient(transport=kgw.httpx_transport(proxy)) as client:
            assert (await client.get("http://x:8001/")).text == "/a"
            assert (await client.get("http://x:8002/")).text == "/b"
            with pytest.raises(httpx.ConnectError, match=r"name it .*default/web/a"):
                await client.get("http://x/")
        named = kgw.httpx_transport(proxy, listener="default/web/b")
        async with httpx.AsyncClient(transport=named) as client:
            assert (await client.get("http://x/")).text == "/b"
        assert proxy.state is State.RUNNING


async def test_many_requests_at_once() -> None:
    @http_only
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, scope["path"].encode())

    proxy = kgw.Proxy(served_here(), listen=False, backends={NAME: app})
    transport = kgw.httpx_transport(proxy)
    answers: list[str] = []

    async def ask(client: httpx.AsyncClient, number: int) -> None:
        answers.append((await client.get(f"{HOST}/{number}", timeout=TIMEOUT)).text)

    async with httpx.AsyncClient(transport=transport) as client:
        async with anyio.create_task_group() as tasks:
            for number in range(200):
                tasks.start_soon(ask, client, number)
        assert transport.proxy.stats()["downstream_rq_total"] == 200
    assert sorted(answers) == sorted(f"/{number}" for number in range(200))


async def test_the_access_log_has_the_request(upstream: Upstream, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    objects = [*resources(upstream), access_log(log)]
    async with httpx.AsyncClient(transport=kgw.httpx_transport(objects)) as client:
        await client.get(f"{HOST}/logged")
    assert log.read_text() == "GET /logged 200 127.0.0.1:0\n"


def access_log(log: Path) -> dict[str, Any]:
    line = "%REQ(:METHOD)% %REQ(:PATH)% %RESPONSE_CODE% %DOWNSTREAM_REMOTE_ADDRESS%\n"
    return {
        "apiVersion": "gateway.kgateway.dev/v1alpha1",
        "kind": "HTTPListenerPolicy",
        "metadata": {"name": "log"},
        "spec": {
            "targetRefs": [
                {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "web"}
            ],
            "accessLog": [{"fileSink": {"path": str(log), "stringFormat": line}}],
        },
    }


def test_threads_share_a_client(upstream: Upstream) -> None:
    answers: list[int] = []
    with httpx.Client(transport=kgw.httpx_transport(resources(upstream))) as client:

        def ask() -> None:
            answers.extend(client.get(f"{HOST}/x").status_code for _ in range(5))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT)
    assert answers == [200] * 40


def test_a_time_out_of_the_client_is_httpx_own(upstream: Upstream) -> None:
    with (
        httpx.Client(transport=kgw.httpx_transport(resources(upstream))) as client,
        pytest.raises(httpx.ReadTimeout),
    ):
        client.get(f"{HOST}/slow", timeout=0.01)


async def test_a_proxy_that_ended_is_a_connect_error(upstream: Upstream) -> None:
    proxy = kgw.Proxy(resources(upstream), listen=False)
    async with proxy:
        client = httpx.AsyncClient(transport=kgw.httpx_transport(proxy))
        assert (await client.get(f"{HOST}/a")).status_code == 200
    with pytest.raises(httpx.ConnectError, match="closed"):
        await client.get(f"{HOST}/a")
    await client.aclose()


def test_options_beside_a_proxy_are_refused() -> None:
    with pytest.raises(TypeError, match="strict"):
        kgw.httpx_transport(kgw.Proxy([]), strict=False)


def test_bind_without_listening_is_refused() -> None:
    with pytest.raises(ValueError, match="listen=False"):
        kgw.Proxy([], listen=False, bind="127.0.0.1:0")


def test_connect_names_what_is_wrong(upstream: Upstream) -> None:
    with kgw.Proxy(resources(upstream), listen=False) as proxy:
        with pytest.raises(LookupError, match='no listener "x"'):
            proxy.connect("x")
        with pytest.raises(ValueError, match="no IP address"):
            proxy.connect(peer=("localhost", 1))
    with pytest.raises(kgw.NotRunning):
        proxy.connect()


def test_a_connection_says_whom_it_speaks_for() -> None:
    @http_only
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, f"{scope['client']}".encode())

    with kgw.Proxy(served_here(), listen=False, backends={NAME: app}) as proxy:
        connected = proxy.connect(peer=("192.0.2.7", 4711))
        connected.settimeout(TIMEOUT)
        with connected:
            connected.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            whole = b"".join(iter(lambda: connected.recv(65536), b""))
    assert whole.endswith(b"\r\n\r\n('192.0.2.7', 0)")


_EXIT = """
import httpx, kgw
client = httpx.Client(transport=kgw.httpx_transport({objects!r}))
print(client.get("http://a.example/x").status_code)
"""


def test_an_interpreter_ends_with_a_client_open(upstream: Upstream) -> None:
    result = subprocess.run(
        [sys.executable, "-c", _EXIT.format(objects=resources(upstream, prefix="/y"))],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert (result.stdout, result.stderr, result.returncode) == ("404\n", "", 0)
