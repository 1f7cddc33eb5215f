"""A program that uses kgw as type checkers see it; nothing of it runs.

`make check` looks at it among the project's own files, and `test_types.py` as at what it is:
somebody else's program with kgw installed.
"""

from __future__ import annotations

from typing import Any, assert_type

import kgw
from kgw.events import ApplyFailed, Closed, ConfigApplied, ConnectionsRefused, ListenerFailed
from kgw.filters import When
from kgw.proxy import ManualClock, State
from kgw.stats import AccessLogStats

proxy = kgw.Proxy("manifests/", workers=2, bind="127.0.0.1:0", clock=ManualClock())


@proxy.filter("auth", routes=["default/api"], when=When(methods=["POST"]), on_error="allow")
async def auth(request: kgw.Request) -> kgw.Response | None:
    """A filter keeps its own type."""
    assert_type(request.headers.get("authorization"), str | None)
    request.headers["x-user"] = "me"
    return kgw.Response(401, "who are you?") if request.method == "PUT" else None


async def serve() -> None:
    """Everything that a running proxy has."""
    async with proxy as running:
        assert_type(running, kgw.Proxy)
        assert_type(running.addresses, dict[str, list[tuple[str, int]]])
        assert_type(await running.apply(["a.yaml", "b.yaml"]), kgw.Config)
        assert_type(running.state, State)
        assert_type(running.problems, tuple[str, ...])
        stats = assert_type(running.stats(), kgw.Stats)
        assert_type(stats["downstream_rq_total"], int)
        assert_type(stats["access_logs"], list[AccessLogStats])
        assert_type(await running.drain(25, min=5), bool)


async def records() -> None:
    """The access log: typed by default, and whatever was asked for."""
    async for record in assert_type(proxy.access_log(), kgw.Stream[kgw.AccessRecord]):
        assert_type(record["response_code"], int)
        assert_type(record["method"], str | None)
    async with proxy.access_log({"path": "%REQ(:PATH)%"}, buffer=1 << 16) as stream:
        assert_type(await anext(stream), dict[str, Any])
        assert_type(stream.dropped, int)


async def events() -> None:
    """Events: one type for each."""
    async for event in assert_type(proxy.events(), kgw.Stream[kgw.Event]):
        assert_type(event.at, float)
        match event:
            case ConfigApplied(generation=generation, findings=findings):
                assert_type(generation, int)
                assert_type(findings, tuple[kgw.Finding, ...])
            case ListenerFailed(error=bind_error):
                assert_type(bind_error, kgw.BindError)
                assert_type(bind_error.address, str)
            case ApplyFailed(error=error):
                assert_type(error, Exception)
            case ConnectionsRefused(reason, count):
                assert_type((reason, count), tuple[str, int])
            case Closed(finished=finished):
                assert_type(finished, bool)


def serve_without_a_loop() -> None:
    """The same without await."""
    with kgw.Proxy({"kind": "Gateway"}) as running:
        assert_type(running, kgw.BlockingProxy)
        assert_type(running.apply("manifests/"), kgw.Config)
        for record in assert_type(running.access_log(), kgw.BlockingStream[kgw.AccessRecord]):
            assert_type(record["path"], str | None)
        assert_type(next(running.access_log({})), dict[str, Any])
        assert_type(next(running.events()), kgw.Event)
        assert_type(running.wait_closed(1.0), bool)


def primitives(data: bytes) -> None:
    """What is of use without a proxy."""
    config = assert_type(kgw.load("manifests/"), kgw.Config)
    assert_type(config.findings, tuple[kgw.Finding, ...])
    try:
        header = assert_type(kgw.parse_proxy_header(data), kgw.ProxyHeader)
        assert_type(header.length, int)
    except kgw.IncompleteProxyHeader as error:
        assert_type(error.need, int)
    assert_type(kgw.__version__, str)
