"""`Proxy.access_log`: what is logged, as a stream of records in asyncio, trio and threads."""

from __future__ import annotations

import gc
import json
import os
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from tests.embed.upstream import TIMEOUT, Upstream, fetch, resources

import kgw
from kgw._native import access_log
from kgw.streams import DEFAULT_FIELDS, AccessRecord

if TYPE_CHECKING:
    from collections.abc import Callable

LOCAL = "127.0.0.1:0"
LISTENER = "default/web/http"

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


def proxy_for(upstream: Upstream, **options: Any) -> kgw.Proxy:
    return kgw.Proxy(resources(upstream), **{"workers": 1, "bind": LOCAL, **options})


async def get(proxy: kgw.Proxy, path: str = "/") -> tuple[int, bytes]:
    address = proxy.addresses[LISTENER][0]
    return await anyio.to_thread.run_sync(fetch, address, path)


async def eventually(condition: Callable[[], object]) -> None:
    with anyio.fail_after(TIMEOUT):
        while not condition():  # noqa: ASYNC110 - it is in another thread
            await anyio.sleep(0.002)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


# === Records ===


async def test_every_request_is_a_record(upstream: Upstream) -> None:
    async with proxy_for(upstream) as proxy:
        records = proxy.access_log()
        for path in ("/a?b=c", "/slow"):
            upstream.let_go.set()
            await get(proxy, path)
        with anyio.fail_after(TIMEOUT):
            one, two = await anext(records), await anext(records)
        assert one["path"] == "/a?b=c"
        assert two["path"] == "/slow"
        assert one["method"] == "GET"
        assert one["response_code"] == 200
        assert one["response_flags"] == "-"
        assert one["upstream_host"] == f"127.0.0.1:{upstream.port}"
        assert one["listener_name"] == LISTENER
        assert one["bytes_sent"] == len("/a?b=c")
        assert one["upstream_attempts"] == 1
        assert one["peer_principal"] is None
        assert one["access_log_type"] == "DownstreamEnd"
        assert one["connection_id"] != two["connection_id"]
        assert set(one) == AccessRecord.__required_keys__


def test_what_a_record_has_is_what_its_type_says() -> None:
    assert list(DEFAULT_FIELDS) == list(AccessRecord.__annotations__)
    example = json.loads(access_log.render_example("json", json.dumps(DEFAULT_FIELDS)))
    for name, value in example.items():
        kind = AccessRecord.__annotations__[name].__forward_arg__
        assert (
            kind
            in {"int": ["int"], "str": ["str", "str | None"], "NoneType": ["str | None"]}[
                type(value).__name__
            ]
        )


async def test_a_record_has_the_fields_that_are_asked_for(upstream: Upstream) -> None:
    fields = {"said": {"path": "%REQ(:PATH)%", "host": "%REQ(HOST)%"}, "code": "%RESPONSE_CODE%"}
    async with proxy_for(upstream) as proxy, proxy.access_log(fields) as records:
        await get(proxy, "/x")
        with anyio.fail_after(TIMEOUT):
            record = await anext(records)
        port = proxy.addresses[LISTENER][0][1]
        assert record == {
            "code": 200,
            "said": {"path": "/x", "host": f"127.0.0.1:{port}"},
        }


async def test_what_is_refused_has_a_record_too(upstream: Upstream) -> None:
    def garbage(address: tuple[str, int]) -> None:
        with socket.create_connection(address, timeout=TIMEOUT) as client:
            client.sendall(b"no request\r\n\r\n")
            with suppress(ConnectionResetError):
                while client.recv(1000):
                    pass

    async with proxy_for(upstream) as proxy:
        records = proxy.access_log()
        await anyio.to_thread.run_sync(garbage, proxy.addresses[LISTENER][0])
        with anyio.fail_after(TIMEOUT):
            record = await anext(records)
    assert record["response_code"] == 400
    assert record["method"] is None
    assert record["upstream_host"] is None


# === Readers ===


async def test_every_reader_gets_every_record(upstream: Upstream) -> None:
    async with proxy_for(upstream, workers=2) as proxy:
        paths = {f"/{number}" for number in range(5)}
        streams = [proxy.access_log() for _ in range(3)]
        for path in paths:
            await get(proxy, path)
        for records in streams:
            with anyio.fail_after(TIMEOUT):
                assert {(await anext(records))["path"] for _ in paths} == paths


async def test_a_reader_that_waits_gets_what_comes(upstream: Upstream) -> None:
    seen: list[str | None] = []

    async def read(records: kgw.Stream[AccessRecord]) -> None:
        async for record in records:
            seen.append(record["path"])  # noqa: PERF401 - what was read so far is looked at

    async with anyio.create_task_group() as tasks, proxy_for(upstream) as proxy:
        tasks.start_soon(read, proxy.access_log())
        for number in range(3):
            await get(proxy, f"/{number}")
            await eventually(lambda: len(seen) == number + 1)  # noqa: B023 - it is called here
    assert seen == ["/0", "/1", "/2"]


async def test_the_end_of_the_proxy_ends_the_stream_after_what_was_said(upstream: Upstream) -> None:
    async with proxy_for(upstream) as proxy:
        records = proxy.access_log()
        await get(proxy, "/last")
    with anyio.fail_after(TIMEOUT):
        assert [record["path"] async for record in records] == ["/last"]
        assert [record async for record in records] == []


async def test_what_does_not_fit_is_dropped_and_counted(upstream: Upstream) -> None:
    line = len('{"path":"/0"}\n')
    async with proxy_for(upstream) as proxy:
        records = proxy.access_log({"path": "%REQ(:PATH)%"}, buffer=3 * line)
        for number in range(5):
            await get(proxy, f"/{number}")
        await eventually(lambda: records.dropped == 2)
        with anyio.fail_after(TIMEOUT):
            assert [(await anext(records))["path"] for _ in range(3)] == ["/0", "/1", "/2"]
            await get(proxy, "/5")
            assert await anext(records) == {"path": "/5"}


async def test_a_cancelled_reader_loses_nothing(upstream: Upstream) -> None:
    async with proxy_for(upstream) as proxy:
        records = proxy.access_log()
        with anyio.move_on_after(0):
            await anext(records)
        await get(proxy, "/x")
        with anyio.CancelScope() as scope:
            scope.cancel()
            await anext(records)
        assert scope.cancelled_caught
        with anyio.fail_after(TIMEOUT):
            assert (await anext(records))["path"] == "/x"


async def test_closing_a_stream_wakes_its_reader(upstream: Upstream) -> None:
    ended = anyio.Event()

    async def read(records: kgw.Stream[AccessRecord]) -> None:
        assert [record async for record in records] == []
        ended.set()

    async with proxy_for(upstream) as proxy, anyio.create_task_group() as tasks:
        records = proxy.access_log()
        tasks.start_soon(read, records)
        await anyio.lowlevel.checkpoint()
        await records.aclose()
        with anyio.fail_after(TIMEOUT):
            await ended.wait()
        await get(proxy, "/x")
        with pytest.raises(StopAsyncIteration):
            await anext(records)


async def test_one_task_at_a_time_waits_for_a_stream(upstream: Upstream) -> None:
    async with proxy_for(upstream) as proxy, anyio.create_task_group() as tasks:
        records = proxy.access_log()
        tasks.start_soon(records.__anext__)
        for _ in range(5):
            await anyio.lowlevel.checkpoint()
        with pytest.raises(anyio.BusyResourceError):
            await anext(records)
        tasks.cancel_scope.cancel()


class Plenty:
    """A feed that always has more."""

    closed = False
    dropped = 0
    interval = None

    def fileno(self) -> int:
        raise AssertionError("there is nothing to wait for")

    def take(self) -> list[int]:
        return [1] * 1000

    def decode(self, item: int) -> int:
        return item

    def close(self) -> None:
        self.closed = True


async def test_a_reader_lets_others_have_their_turn() -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await anyio.lowlevel.checkpoint()
            turns += 1

    stream: kgw.Stream[int] = kgw.Stream(Plenty())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(others)
        assert sum([await anext(stream) for _ in range(2500)]) == 2500
        tasks.cancel_scope.cancel()
    # Every 64 items, but for what a loop does before and after.
    assert turns >= 2500 // 64 - 2


async def test_a_stream_that_is_forgotten_is_closed(upstream: Upstream) -> None:
    async with proxy_for(upstream) as proxy:
        await get(proxy)
        gc.collect()
        before = open_files()
        streams = [proxy.access_log() for _ in range(10)]
        assert open_files() == before + 10
        del streams
        gc.collect()
        assert open_files() == before


# === Errors ===


async def test_a_wrong_operator_is_a_configuration_error(upstream: Upstream) -> None:
    async with proxy_for(upstream) as proxy:
        with pytest.raises(kgw.ConfigError, match="RESPONSE_COD"):
            proxy.access_log({"code": "%RESPONSE_COD%"})
        with pytest.raises(ValueError, match="buffer"):
            proxy.access_log(buffer=0)
    with pytest.raises(kgw.NotRunning, match="closed"):
        proxy.access_log()


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_reads_nothing(upstream: Upstream) -> None:
    with proxy_for(upstream) as proxy:
        records = proxy.access_log()
        fetch(proxy.addresses[LISTENER][0], "/x")
        child = os.fork()
        if child == 0:
            try:
                next(records)
            except kgw.NotRunning:
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert next(records)["path"] == "/x"


# === Threads ===


def test_a_program_without_an_event_loop_reads_in_a_thread(upstream: Upstream) -> None:
    seen: list[str | None] = []
    with proxy_for(upstream) as proxy, proxy.access_log() as records:
        reader = threading.Thread(target=lambda: seen.extend(one["path"] for one in records))
        reader.start()
        for path in ("/a", "/b"):
            fetch(proxy.addresses[LISTENER][0], path)
        proxy.drain(TIMEOUT)
        reader.join(TIMEOUT)
        assert not reader.is_alive()
    assert seen == ["/a", "/b"]


def test_closing_a_blocking_stream_wakes_its_reader(upstream: Upstream) -> None:
    with proxy_for(upstream) as proxy:
        records = proxy.access_log()
        reader = threading.Thread(target=list, args=(records,))
        reader.start()
        records.close()
        reader.join(TIMEOUT)
        assert not reader.is_alive()
        assert records.dropped == 0
