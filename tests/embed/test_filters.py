"""`kgw.Proxy.filter` in asyncio, trio and threaded programs, with real sockets."""

from __future__ import annotations

import asyncio
import gc
import http.client
import logging
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from tests.embed.upstream import TIMEOUT, Upstream, fetch, resources

import kgw
from kgw.filters import When
from kgw.proxy import ManualClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from kgw import Request, Response

LOCAL = "127.0.0.1:0"
LISTENER = "default/web/http"

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


def proxy_for(upstream: Upstream, **options: Any) -> kgw.Proxy:
    return kgw.Proxy(resources(upstream), workers=2, bind=LOCAL, **options)


async def get(proxy: kgw.Proxy, path: str = "/") -> tuple[int, bytes]:
    address = proxy.addresses[LISTENER][0]
    return await anyio.to_thread.run_sync(fetch, address, path, abandon_on_cancel=True)


async def eventually(condition: Callable[[], object]) -> None:
    with anyio.fail_after(TIMEOUT):
        while not condition():  # noqa: ASYNC110 - it is in another thread
            await anyio.sleep(0.002)


def active(proxy: kgw.Proxy) -> int:
    return int(proxy.stats()["python_filter_active"])


class Hang:
    """A filter that never decides, and says that it began and that it was cancelled."""

    def __init__(self) -> None:
        self.began, self.ended = anyio.Event(), anyio.Event()

    async def on_request(self, _: Request) -> None:
        self.began.set()
        try:
            await anyio.sleep_forever()
        finally:
            self.ended.set()


# === Functions, coroutines, objects ===


async def test_a_function_a_coroutine_function_and_a_class_are_filters(upstream: Upstream) -> None:
    proxy = proxy_for(upstream)
    seen: list[str] = []

    @proxy.filter("sync", routes=["default/web"])
    def sync(request: Request) -> None:
        seen.append(f"sync {request.path}")
        request.note("a", "1")

    @proxy.filter("async", routes="default/web")
    async def later(request: Request) -> None:
        await anyio.lowlevel.checkpoint()
        seen.append(f"async {request.metadata}")

    @proxy.filter("class", routes="*")
    class Both:
        def __init__(self) -> None:
            self.number = 7

        async def on_request(self, request: Request) -> Response | None:
            seen.append(f"class {self.number}")
            if request.path == "/denied":
                await anyio.lowlevel.checkpoint()
                return kgw.Response(403, "no")
            return None

        def on_response(self, request: Request, response: Response) -> None:
            seen.append(f"response {response.status}")

    assert sync.__name__ == "sync"
    assert isinstance(Both, type)
    async with proxy:
        assert await get(proxy, "/x") == (200, b"/x")
        assert seen == ["sync /x", "async {'a': '1'}", "class 7", "response 200"]
        assert await get(proxy, "/denied") == (403, b"no")
        stats = proxy.stats()
        assert (stats["python_filter_total"], stats["python_filter_responded"]) == (8, 1)
        await eventually(lambda: active(proxy) == 0)


async def test_an_extension_reference_names_a_filter(upstream: Upstream) -> None:
    objects = resources(upstream)
    reference = {"group": "kgw.dev", "kind": "PythonFilter", "name": "mark"}
    rule = objects[1]["spec"]["rules"][0]
    rule["filters"] = [{"type": "ExtensionRef", "extensionRef": reference}]
    config = kgw.Config.from_objects(objects)
    assert config.errors == ()
    proxy = kgw.Proxy(config, workers=1, bind=LOCAL)

    @proxy.filter("mark")
    def mark(request: Request) -> Response:
        return kgw.Response(200, request.route)

    async with proxy:
        assert await get(proxy) == (200, b"default/web/0/0")
        assert proxy.problems == ()
    async with kgw.Proxy(config, workers=1, bind=LOCAL) as without:
        assert (await get(without))[0] == 500
        assert 'no Python filter "mark" is registered' in without.problems[0]


async def test_when_spares_the_call(upstream: Upstream) -> None:
    proxy = proxy_for(upstream)

    @proxy.filter("f", routes="*", when=When(path_prefix="/a", methods=["GET"]))
    def deny(_: Request) -> Response:
        return kgw.Response(403)

    async with proxy:
        assert (await get(proxy, "/b"))[0] == 200
        assert (await get(proxy, "/a/b"))[0] == 403
        assert proxy.stats()["python_filter_skipped"] == 1


async def test_an_awaitable_that_is_no_coroutine_is_awaited(upstream: Upstream) -> None:
    proxy = proxy_for(upstream)

    class Later:
        def __await__(self) -> Any:
            yield from anyio.lowlevel.checkpoint().__await__()
            return kgw.Response(418)

    @proxy.filter("f", routes="*")
    def later(_: Request) -> Any:
        return Later()

    async with proxy:
        assert (await get(proxy))[0] == 418


async def test_filters_survive_a_reload(upstream: Upstream) -> None:
    proxy = proxy_for(upstream)

    @proxy.filter("f", routes="default/web")
    def deny(_: Request) -> Response:
        return kgw.Response(403)

    async with proxy:
        assert (await get(proxy))[0] == 403
        await proxy.apply(resources(upstream, prefix="/other"))
        assert [(await get(proxy, path))[0] for path in ("/", "/other")] == [404, 403]


# === Failures ===


async def test_an_exception_is_logged_and_has_its_outcome(
    upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    proxy = proxy_for(upstream)

    @proxy.filter("sync", routes="*", when=When(path_prefix="/sync"))
    def sync(_: Request) -> None:
        raise RuntimeError("boom")

    @proxy.filter("async", routes="*", when=When(path_prefix="/async"), on_error="allow")
    async def later(_: Request) -> None:
        await anyio.lowlevel.checkpoint()
        raise RuntimeError("boom")

    @proxy.filter("wrong", routes="*", when=When(path_prefix="/wrong"))
    def wrong(_: Request) -> Any:
        return "a string"

    @proxy.filter("late", routes="*", when=When(path_prefix="/late"))
    async def late(_: Request) -> Any:
        await anyio.lowlevel.checkpoint()
        return 5

    with caplog.at_level(logging.ERROR, "kgw.filters"):
        async with proxy:
            assert (await get(proxy, "/sync"))[0] == 500
            assert (await get(proxy, "/async"))[0] == 200
            assert (await get(proxy, "/wrong"))[0] == 500
            assert (await get(proxy, "/late"))[0] == 500
            assert proxy.stats()["python_filter_error"] == 4
    assert [record.getMessage() for record in caplog.records] == [
        f"filter '{name}' failed" for name in ("sync", "async", "wrong", "late")
    ]
    kinds = [record.exc_info[0] for record in caplog.records if record.exc_info]
    assert kinds == [RuntimeError, RuntimeError, TypeError, TypeError]


async def test_a_filter_that_hangs_is_cancelled_when_its_time_is_over(upstream: Upstream) -> None:
    clock = ManualClock()
    proxy = proxy_for(upstream, clock=clock)
    hang = Hang()
    statuses: list[int] = []
    proxy.filter("f", routes="*", timeout=30, when=When(path_prefix="/hang"))(hang)

    async def ask() -> None:
        statuses.append((await get(proxy, "/hang"))[0])

    async with proxy, anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        await eventually(lambda: active(proxy) == 1)
        assert (await get(proxy))[0] == 200
        clock.advance(31)
        with anyio.fail_after(TIMEOUT):
            await hang.ended.wait()
        await eventually(lambda: active(proxy) == 0)
    assert statuses == [504]


async def test_a_client_that_leaves_cancels_the_filter(upstream: Upstream) -> None:
    proxy = proxy_for(upstream)
    hang = Hang()
    proxy.filter("f", routes="*", timeout=60)(hang)

    async with proxy:
        stream = await anyio.connect_tcp(*proxy.addresses[LISTENER][0])
        await stream.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
        with anyio.fail_after(TIMEOUT):
            await hang.began.wait()
            raw = stream.extra(anyio.abc.SocketAttribute.raw_socket)
            linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
            raw.setsockopt(1, 13, linger)  # SOL_SOCKET, SO_LINGER: closing resets
            await stream.aclose()
            await hang.ended.wait()
        await eventually(lambda: proxy.stats()["python_filter_abandoned"] == 1)


async def test_a_block_that_ends_lets_filters_finish(upstream: Upstream) -> None:
    proxy = proxy_for(upstream, drain_timeout=TIMEOUT)
    began = anyio.Event()
    statuses: list[int] = []

    @proxy.filter("f", routes="*", timeout=60)
    async def slow(request: Request) -> None:
        began.set()
        await eventually(lambda: proxy.state is kgw.proxy.State.DRAINING)

    async def ask() -> None:
        statuses.append((await get(proxy))[0])

    async with anyio.create_task_group() as tasks, proxy:
        tasks.start_soon(ask)
        await began.wait()
    assert statuses == [200]


async def test_filters_that_run_when_the_proxy_is_killed_are_cancelled(upstream: Upstream) -> None:
    proxy = proxy_for(upstream)
    hang = Hang()
    proxy.filter("f", routes="*", timeout=60)(hang)

    async def ask() -> None:
        with pytest.raises((http.client.HTTPException, OSError)):
            await get(proxy)

    async with anyio.create_task_group() as tasks:
        async with proxy:
            tasks.start_soon(ask)
            await hang.began.wait()
            proxy.kill()
        assert hang.ended.is_set()


# === Registration ===


def test_registration_is_checked(upstream: Upstream) -> None:
    proxy = proxy_for(upstream)
    wrong: Any = object()
    with pytest.raises(TypeError, match=r"a filter is a function, .*; object is neither"):
        proxy.filter("f")(wrong)
    proxy.filter("f")(lambda _: None)
    with pytest.raises(ValueError, match="a name of its own"):
        proxy.filter("f")(lambda _: None)
    with pytest.raises(ValueError, match="a name of its own"):
        proxy.filter("")(lambda _: None)
    for timeout in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="a positive number of seconds"):
            proxy.filter("g", timeout=timeout)(lambda _: None)
    wrong = "maybe"
    with pytest.raises(ValueError, match='"allow" or "deny"'):
        proxy.filter("g", on_error=wrong)(lambda _: None)
    with pytest.raises(ValueError, match="max_filter_calls"):
        proxy_for(upstream, max_filter_calls=0)


async def test_filters_are_registered_before_the_start(upstream: Upstream) -> None:
    async with proxy_for(upstream) as proxy:
        with pytest.raises(kgw.FilterError, match="before the proxy starts"):
            proxy.filter("f")(lambda _: None)


# === Many ===


async def test_a_thousand_at_a_time(upstream: Upstream) -> None:
    proxy = proxy_for(upstream)
    waiting = 0
    all_there = anyio.Event()

    @proxy.filter("f", routes="*", timeout=120)
    async def gather(request: Request) -> Response:
        nonlocal waiting
        waiting += 1
        if waiting == 1000:
            all_there.set()
        await all_there.wait()
        return kgw.Response(200, request.path)

    async def ask(number: int) -> None:
        async with await anyio.connect_tcp(*address) as stream:
            await stream.send(
                f"GET /{number} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n".encode()
            )
            answer = b""
            try:
                while True:
                    answer += await stream.receive()
            except anyio.EndOfStream:
                assert answer.startswith(b"HTTP/1.1 200")
                assert answer.endswith(f"/{number}".encode())

    async with proxy:
        address = proxy.addresses[LISTENER][0]
        async with anyio.create_task_group() as tasks:
            for number in range(1000):
                tasks.start_soon(ask, number)
        assert waiting == 1000
        assert active(proxy) == 0


async def test_each_proxy_has_its_own_filters(upstream: Upstream) -> None:
    proxies = [proxy_for(upstream) for _ in range(2)]
    for number, proxy in enumerate(proxies):

        def answer(_: Request, number: int = number) -> Response:
            return kgw.Response(200, f"{number}")

        proxy.filter("f", routes="*")(answer)
    async with proxies[0], proxies[1]:
        assert [(await get(proxy))[1] for proxy in proxies] == [b"0", b"1"]


async def test_a_filter_and_its_views_are_freed(upstream: Upstream) -> None:
    proxy = proxy_for(upstream)

    @proxy.filter("f", routes="*")
    async def f(request: Request) -> None:
        await anyio.lowlevel.checkpoint()
        request.headers["x-a"] = "1"

    async with proxy:
        await get(proxy)

        def views() -> int:
            gc.collect()
            kinds = ("Request", "Response", "Headers", "Job")
            module = "kgw._native.bridge"
            return sum(
                type(one).__module__ == module and type(one).__name__ in kinds
                for one in gc.get_objects()
            )

        for _ in range(20):
            await get(proxy)
        assert views() == 0
        assert active(proxy) == 0


# === Loops ===


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_filters_of_a_proxy_run_where_it_was_started(upstream: Upstream) -> None:
    here = threading.get_ident()
    loops: list[object] = []
    proxy = proxy_for(upstream)

    @proxy.filter("f", routes="*")
    async def f(_: Request) -> None:
        async with asyncio.timeout(60):
            await asyncio.sleep(0)
        loops.append((threading.get_ident(), asyncio.get_running_loop()))

    async with proxy:
        assert (await get(proxy))[0] == 200
    assert loops == [(here, asyncio.get_running_loop())]


def test_a_loop_that_ends_without_closing_the_proxy_fails_what_is_in_flight(
    upstream: Upstream,
) -> None:
    proxy = proxy_for(upstream)
    statuses: list[int] = []
    began = threading.Event()

    @proxy.filter("f", routes="*", timeout=3600)
    async def hang(_: Request) -> None:
        began.set()
        await asyncio.sleep(3600)

    async def main() -> tuple[str, int]:
        await proxy.__aenter__()
        address = proxy.addresses[LISTENER][0]
        client.start()
        await asyncio.to_thread(began.wait, TIMEOUT)
        return address

    client = threading.Thread(
        target=lambda: statuses.append(fetch(proxy.addresses[LISTENER][0])[0])
    )
    address = asyncio.run(main())
    client.join(TIMEOUT)
    assert statuses == [503]
    assert fetch(address)[0] == 503
    assert proxy.stats()["python_filter_closed"] == 2
    proxy.kill()


def test_a_program_without_a_loop_has_filters_too(upstream: Upstream) -> None:
    proxy = proxy_for(upstream)
    threads: list[str] = []

    @proxy.filter("f", routes="*")
    async def f(request: Request) -> None:
        await asyncio.sleep(0)
        threads.append(threading.current_thread().name)
        if request.path == "/kill":
            running.kill()

    with proxy as running:
        assert fetch(running.addresses[LISTENER][0])[0] == 200
        with pytest.raises((http.client.HTTPException, OSError)):
            fetch(running.addresses[LISTENER][0], "/kill")
    assert threads == ["kgw-filters", "kgw-filters"]
    assert not [one for one in threading.enumerate() if one.name == "kgw-filters"]


def test_an_interpreter_that_ends_with_filters_in_flight_ends() -> None:
    program = """
import socket, sys, threading
from tests.embed.upstream import Upstream, resources
import kgw

upstream = Upstream()
threading.Thread(target=upstream.serve_forever, daemon=True).start()
proxy = kgw.Proxy(resources(upstream), workers=2, bind="127.0.0.1:0")
began = threading.Event()

@proxy.filter("f", routes="*", timeout=3600)
async def hang(request):
    began.set()
    import asyncio
    await asyncio.sleep(3600)

running = proxy.__enter__()
client = socket.create_connection(running.addresses["default/web/http"][0])
client.sendall(b"GET / HTTP/1.1\\r\\nhost: h\\r\\n\\r\\n")
assert began.wait(30)
print("end")
"""
    ended = subprocess.run(
        [sys.executable, "-X", "dev", "-c", program],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert (ended.returncode, ended.stdout) == (0, "end\n"), ended.stderr


def test_a_forked_child_cannot_call_filters(upstream: Upstream) -> None:
    proxy = proxy_for(upstream)

    @proxy.filter("f", routes="*")
    def f(_: Request) -> Response:
        return kgw.Response(418)

    with proxy as running:
        child = os.fork()
        if child == 0:
            try:
                running.stats()
            except kgw.NotRunning:
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert fetch(running.addresses[LISTENER][0])[0] == 418
