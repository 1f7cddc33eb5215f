"""Bodies in `kgw.Proxy.filter`, under asyncio and trio, with real sockets."""

from __future__ import annotations

import asyncio
import gc
import http.client
import re
import threading
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from tests.embed.upstream import TIMEOUT, Handler, Upstream, fetch, rate_limit, resources

import kgw
from kgw.filters import Needs, When

if TYPE_CHECKING:
    from kgw import Request, Response

LOCAL = "127.0.0.1:0"
LISTENER = "default/web/http"

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


class _Reader(Handler):
    """Answers a request with a body, which comes in chunks, once it is there."""

    def do_POST(self) -> None:
        while size := int(self.rfile.readline(), 16):
            self.rfile.read(size + 2)
        self.rfile.readline()
        self.do_GET()


@pytest.fixture
def reader(upstream: Upstream) -> Upstream:
    upstream.RequestHandlerClass = _Reader
    return upstream


def proxy_for(upstream: Upstream, **options: Any) -> kgw.Proxy:
    return kgw.Proxy(resources(upstream), workers=2, bind=LOCAL, **options)


def send(address: tuple[str, int], body: bytes) -> tuple[int, bytes]:
    """Posts a body."""
    connection = http.client.HTTPConnection(*address, timeout=TIMEOUT)
    try:
        connection.request("POST", "/", body)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


async def post(proxy: kgw.Proxy, body: bytes) -> tuple[int, bytes]:
    address = proxy.addresses[LISTENER][0]
    return await anyio.to_thread.run_sync(send, address, body, abandon_on_cancel=True)


async def get(proxy: kgw.Proxy, path: str = "/") -> tuple[int, bytes]:
    address = proxy.addresses[LISTENER][0]
    return await anyio.to_thread.run_sync(fetch, address, path, abandon_on_cancel=True)


async def test_a_coroutine_has_whole_bodies(upstream: Upstream) -> None:
    proxy = proxy_for(upstream)

    @proxy.filter("f", routes="*", needs=Needs(request_body=True, response_body=True))
    class Both:
        async def on_request(self, request: Request) -> Response | None:
            await anyio.lowlevel.checkpoint()
            if request.method == "POST":
                return kgw.Response(200, (request.body or b"")[::-1])
            return None

        async def on_response(self, request: Request, response: Response) -> None:
            await anyio.lowlevel.checkpoint()
            assert response.body is not None
            response.body = response.body.upper()

    async with proxy:
        assert await post(proxy, b"abc") == (200, b"CBA")
        assert await get(proxy, "/path") == (200, b"/PATH")
        assert (await post(proxy, b"x" * 70_000))[0] == 413
        assert proxy.stats()["python_filter_too_large"] == 1


async def test_coroutines_see_chunks_and_keep_what_they_know(reader: Upstream) -> None:
    proxy = proxy_for(reader)
    seen: list[int] = []

    @proxy.filter("count", routes="*")
    class Count:
        async def on_request(self, request: Request) -> None:
            request.state["length"] = 0

        async def on_request_chunk(self, request: Request, data: bytes, end: bool) -> Any:
            await anyio.lowlevel.checkpoint()
            request.state["length"] += len(data)
            if end:
                seen.append(request.state["length"])
                return kgw.Response(200, str(request.state["length"]))
            return b""

        def on_response(self, request: Request, response: Response) -> None:
            response.headers["x-length"] = str(request.state["length"])

    async with proxy:
        assert await post(proxy, b"x" * 300_000) == (200, b"300000")
        assert await get(proxy) == (200, b"/")
    assert seen == [300_000]


async def test_what_a_filter_keeps_is_freed_with_the_exchange(upstream: Upstream) -> None:
    proxy = proxy_for(upstream)

    class Mark:
        pass

    @proxy.filter("f", routes="*")
    class Keep:
        def on_request(self, request: Request) -> None:
            request.state["mark"] = Mark()
            request.state["request"] = request

        def on_response_chunk(
            self, request: Request, response: Response, data: bytes, end: bool
        ) -> None:
            assert isinstance(request.state["mark"], Mark)

    def marks() -> int:
        gc.collect()
        return sum(isinstance(one, Mark) for one in gc.get_objects())

    async with proxy:
        for _ in range(20):
            assert (await get(proxy))[0] == 200
        with anyio.fail_after(TIMEOUT):
            while marks():  # noqa: ASYNC110 - it is the garbage collector's
                await anyio.sleep(0.002)


async def test_a_limit_counts_by_the_key_of_a_filter(upstream: Upstream) -> None:
    config = kgw.Config.from_objects([*resources(upstream), rate_limit(1, "60s")])
    proxy = kgw.Proxy(config, workers=1, bind=LOCAL)

    @proxy.filter("f", routes="*")
    def by_path(request: Request) -> None:
        request.rate_limit_key = request.path

    async with proxy:
        paths = ("/a", "/b", "/a")
        assert [(await get(proxy, path))[0] for path in paths] == [200, 200, 429]


async def test_a_filter_chooses_a_backend(upstream: Upstream) -> None:
    proxy = proxy_for(upstream)
    known: list[tuple[str, ...]] = []

    @proxy.filter("f", routes="*")
    def choose(request: Request) -> None:
        known.append(request.upstreams)
        request.upstream = "default/app:80" if request.path == "/known" else "default/other:80"

    async with proxy:
        assert (await get(proxy, "/known"))[0] == 200
        assert (await get(proxy, "/unknown"))[0] == 500
    assert known == [("default/app:80",)] * 2


async def test_what_filters_are_for(upstream: Upstream) -> None:
    proxy = proxy_for(upstream)
    when = When(
        path=re.compile("/[a-z]+"),
        hosts=["127.0.0.1", "*.example"],
        headers={"host": re.compile(".*")},
        query={"q": "1", "r": re.compile("[0-9]*"), "s": None},
    )

    @proxy.filter("f", routes="*", when=when)
    def deny(_: Request) -> Response:
        return kgw.Response(403)

    async with proxy:
        assert proxy.problems == ()
        for path, status in (
            ("/abc?q=1&r=22&s", 403),
            ("/abc?q=1&r=2x&s", 200),
            ("/abc?q=2&r=22&s", 200),
            ("/abc1?q=1&r=22&s", 200),
            ("/abc?q=1&r=22", 200),
        ):
            assert (await get(proxy, path))[0] == status, path


async def test_patterns_keep_their_flags_and_a_text_is_not_its_letters(upstream: Upstream) -> None:
    proxy = proxy_for(upstream)
    when = When(path=re.compile("/a|/b.c", re.IGNORECASE), methods="GET", hosts="127.0.0.1")

    @proxy.filter("f", routes="*", when=when)
    def deny(_: Request) -> Response:
        return kgw.Response(403)

    async with proxy:
        assert proxy.problems == ()
        for path, status in (("/A", 403), ("/BxC", 403), ("/c", 200)):
            assert (await get(proxy, path))[0] == status, path


@pytest.mark.parametrize(
    ("pattern", "error"),
    [
        (re.compile("/a", re.VERBOSE), ValueError),
        (re.compile("/a", re.ASCII), ValueError),
        (re.compile(b"/a"), TypeError),
    ],
)
def test_patterns_that_would_mean_something_else_are_refused(
    upstream: Upstream, pattern: Any, error: type[Exception]
) -> None:
    for when in (When(path=pattern), When(headers={"a": pattern}), When(query={"a": pattern})):
        with pytest.raises(error, match="a pattern"):
            proxy_for(upstream).filter("f", when=when)(lambda _: None)


@pytest.mark.parametrize(
    ("when", "problem"),
    [
        (When(path=re.compile(r"/(?=a)")), "no pattern of RE2's dialect"),
        (When(headers={"a": re.compile(r"(b)\1")}), "no pattern of RE2's dialect"),
        (When(path="a"), "a path starts with a slash, 'a' does not"),
        (When(path_prefix="api/"), "a path starts with a slash, 'api/' does not"),
        (When(headers={"x y": None}), "'x y' is no name of a header field"),
    ],
)
def test_predicates_that_no_request_can_meet_are_refused(
    upstream: Upstream, when: When, problem: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        proxy_for(upstream).filter("f", when=when)(lambda _: None)


def test_needs_are_checked(upstream: Upstream) -> None:
    proxy = proxy_for(upstream)

    class Chunks:
        def on_request(self, request: Request) -> None: ...

        def on_request_chunk(self, request: Request, data: bytes, end: bool) -> None: ...

    with pytest.raises(ValueError, match="max_body is a number of bytes, at least 1, not 0"):
        proxy.filter("f", needs=Needs(max_body=0))(lambda _: None)
    with pytest.raises(ValueError, match=r"at least 1, not 2\.5"):
        proxy.filter("f", needs=Needs(max_body=2.5))(lambda _: None)  # type: ignore[arg-type] # the point
    with pytest.raises(ValueError, match="a filter that needs response_body has on_response"):
        proxy.filter("f", needs=Needs(response_body=True))(lambda _: None)
    with pytest.raises(ValueError, match="a request's body as a whole or in chunks"):
        proxy.filter("f", needs=Needs(request_body=True))(Chunks)
    with pytest.raises(ValueError, match="max_filter_bytes"):
        proxy_for(upstream, max_filter_bytes=0)


def test_a_loop_that_ends_fails_bodies_in_flight(reader: Upstream) -> None:
    proxy = proxy_for(reader)
    statuses: list[int] = []
    began = threading.Event()

    @proxy.filter("f", routes="*", timeout=3600)
    class Hang:
        async def on_request_chunk(self, request: Request, data: bytes, end: bool) -> None:
            began.set()
            await asyncio.sleep(3600)

    def ask() -> None:
        statuses.append(send(proxy.addresses[LISTENER][0], b"x")[0])

    async def main() -> None:
        await proxy.__aenter__()
        client.start()
        await asyncio.to_thread(began.wait, TIMEOUT)

    client = threading.Thread(target=ask)
    asyncio.run(main())
    client.join(TIMEOUT)
    assert statuses == [503]
    proxy.kill()
