"""`Proxy.events`: what happens to a proxy, as a stream of typed events."""

from __future__ import annotations

import gc
import os
import pickle
import socket
import threading
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import anyio
import anyio.to_thread
import pytest
from tests.embed.upstream import TIMEOUT, Upstream, fetch, resources

import kgw
from kgw.diagnostics import Severity
from kgw.events import (
    CAPACITY,
    ApplyFailed,
    Closed,
    ConfigApplied,
    ConnectionsRefused,
    DrainBegun,
    EventFeed,
    EventHub,
    ListenerBound,
    ListenerClosed,
    ListenerFailed,
    MemoryPressure,
)
from kgw.refusals import REASONS

if TYPE_CHECKING:
    from kgw.stats import Stats

LOCAL = "127.0.0.1:0"
LISTENER = "default/web/http"
WAYPOINT = Path(__file__).parents[2] / "examples" / "waypoint"

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


def proxy_for(upstream: Upstream, **options: Any) -> kgw.Proxy:
    return kgw.Proxy(resources(upstream), **{"workers": 1, "bind": LOCAL, **options})


def with_listener(config: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    gateway = config[0]
    listeners = [*gateway["spec"]["listeners"], {"name": name, "port": 8081, "protocol": "HTTP"}]
    return [{**gateway, "spec": {**gateway["spec"], "listeners": listeners}}, *config[1:]]


async def rest(events: kgw.Stream[kgw.Event]) -> list[kgw.Event]:
    with anyio.fail_after(TIMEOUT):
        return [event async for event in events]


def untimed(events: list[kgw.Event]) -> list[tuple[object, ...]]:
    return [
        (type(one), *(getattr(one, each.name) for each in fields(one) if each.name != "at"))
        for one in events
    ]


# === A life ===


async def test_a_life_in_events(upstream: Upstream) -> None:
    proxy = proxy_for(upstream)
    events = proxy.events()
    async with proxy:
        host, port = proxy.addresses[LISTENER][0]
        more = with_listener(resources(upstream), "more")
        await proxy.apply(more)
        other = proxy.addresses["default/web/more"][0][1]
        await proxy.apply(resources(upstream))
        with pytest.raises(kgw.ConfigError) as refused:
            await proxy.apply({"apiVersion": "v1", "kind": "Service", "metadata": 5})
        await proxy.drain(7, min=0)
    findings = tuple(kgw.Config.from_objects(resources(upstream)).findings)
    assert untimed(await rest(events)) == [
        (ListenerBound, LISTENER, host, port),
        (ConfigApplied, 1, findings, ()),
        (ListenerBound, "default/web/more", host, other),
        (ConfigApplied, 2, tuple(kgw.Config.from_objects(more).findings), ()),
        (ListenerClosed, "default/web/more", host, other),
        (ConfigApplied, 3, findings, ()),
        (ApplyFailed, refused.value),
        (DrainBegun, 7, 0),
        (Closed, True),
    ]


async def test_events_are_in_the_order_of_their_times(upstream: Upstream) -> None:
    proxy = proxy_for(upstream)
    events = proxy.events()
    async with proxy:
        pass
    times = [event.at for event in await rest(events)]
    assert times == sorted(times)
    assert len(times) == 4


async def test_findings_and_problems_come_with_the_configuration(
    upstream: Upstream, tmp_path: Path
) -> None:
    mixed = resources(upstream)
    broken = {**mixed[1], "metadata": {"name": "broken"}, "spec": {"rules": "not a list"}}
    log = {
        "apiVersion": "gateway.kgateway.dev/v1alpha1",
        "kind": "HTTPListenerPolicy",
        "metadata": {"name": "log"},
        "spec": {
            "targetRefs": [
                {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "web"}
            ],
            "accessLog": [{"fileSink": {"path": f"{tmp_path}/no/log", "stringFormat": "x\n"}}],
        },
    }
    async with proxy_for(upstream, strict=False) as proxy:
        events = proxy.events()
        await proxy.apply([*mixed, broken, log])
        with anyio.fail_after(TIMEOUT):
            event = await anext(events)
    assert isinstance(event, ConfigApplied)
    errors = [one for one in event.findings if one.severity is Severity.ERROR]
    assert {error.resource for error in errors} == {"HTTPRoute default/broken"}
    assert "cannot open the access log" in event.problems[0]


async def test_an_address_in_use_is_an_event(upstream: Upstream) -> None:
    async with proxy_for(upstream) as first:
        host, port = first.addresses[LISTENER][0]
        proxy = proxy_for(upstream, bind=f"{host}:{port}")
        events = proxy.events()
        with pytest.raises(kgw.BindError) as caught:
            await proxy.__aenter__()
    error = caught.value
    assert (error.listener, error.address) == (LISTENER, f"{host}:{port}")
    assert isinstance(error, OSError)
    assert "cannot listen on" in str(error)
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.errno, copy.listener) == (str(error), error.errno, LISTENER)
    assert untimed(await rest(events)) == [
        (ListenerFailed, LISTENER, f"{host}:{port}", error),
        (ApplyFailed, error),
        (Closed, False),
    ]


async def test_a_killed_proxy_did_not_finish(upstream: Upstream) -> None:
    async with proxy_for(upstream) as proxy:
        events = proxy.events()
        await anyio.to_thread.run_sync(proxy.kill)
    assert untimed(await rest(events)) == [(Closed, False)]
    with pytest.raises(kgw.NotRunning, match="closed"):
        proxy.events()


# === Counters ===


async def test_refused_connections_are_events(upstream: Upstream) -> None:
    def refused(address: tuple[str, int]) -> None:
        with socket.create_connection(address, timeout=TIMEOUT) as client:
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            with suppress(ConnectionResetError):
                assert client.recv(1) == b""

    async with kgw.Proxy(WAYPOINT, workers=1, bind=LOCAL) as proxy:
        [address, *_] = next(iter(proxy.addresses.values()))
        await anyio.to_thread.run_sync(refused, address)
        while not proxy.stats()["proxy_header_malformed"]:
            await anyio.lowlevel.checkpoint()
        events = proxy.events(interval=0.01)
        for _ in range(2):
            await anyio.to_thread.run_sync(refused, address)
    counts = [one.count for one in await rest(events) if isinstance(one, ConnectionsRefused)]
    assert sum(counts) == 2, "that before the stream began is not in it"


def counters(**values: int) -> Stats:
    return cast("Stats", {**dict.fromkeys(REASONS, 0), "memory_pressure": 0, **values})


def test_counters_that_change_are_events() -> None:
    now = counters(downstream_tls_fail=3)
    feed = EventFeed(1.0, lambda: now)
    assert feed.take() == []
    now = counters(downstream_tls_fail=5, memory_pressure=2, memory_used=99)
    assert untimed(feed.take()) == [
        (ConnectionsRefused, "downstream_tls_fail", 2),
        (MemoryPressure, 2, 99),
    ]
    now = counters(downstream_tls_fail=6)
    assert untimed(feed.take()) == [(MemoryPressure, 0, None)], "reasons are reported now and then"
    hub = EventHub()
    feed = hub.open(1.0, lambda: now)
    hub.look(counters(downstream_tls_fail=7))
    assert untimed(feed.take()) == [(ConnectionsRefused, "downstream_tls_fail", 1)]


# === Readers ===


def test_too_many_events_are_dropped_and_counted_but_the_end_is_seen() -> None:
    hub = EventHub()
    feed = hub.open(1.0, lambda: None)
    for number in range(CAPACITY + 3):
        hub.emit(DrainBegun(number, 0))
    hub.close(Closed(True))
    hub.close(Closed(False))
    assert (len(feed.take()), feed.dropped, feed.closed) == (CAPACITY, 4, True)
    late = hub.open(1.0, lambda: None)
    assert late.closed
    assert late.take() == []


def test_a_reader_that_is_forgotten_is_gone() -> None:
    hub = EventHub()
    gc.collect()  # what other tests left
    before = len(os.listdir("/proc/self/fd"))
    feed = hub.open(1.0, lambda: None)
    assert hub
    del feed
    gc.collect()
    assert not hub
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(ValueError, match="interval"):
        hub.open(0, lambda: None)


def test_a_program_without_an_event_loop_has_events_too(upstream: Upstream) -> None:
    seen: list[kgw.Event] = []
    with proxy_for(upstream) as proxy:
        events = proxy.events(interval=0.01)
        reader = threading.Thread(target=lambda: seen.extend(events))
        reader.start()
        proxy.apply(resources(upstream))
        assert fetch(proxy.addresses[LISTENER][0], "/x") == (200, b"/x")
    reader.join(TIMEOUT)
    assert not reader.is_alive()
    assert [type(event) for event in seen] == [ConfigApplied, DrainBegun, Closed]


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_has_no_events(upstream: Upstream) -> None:
    with proxy_for(upstream) as proxy:
        events = proxy.events()
        proxy.apply(resources(upstream))
        child = os.fork()
        if child == 0:
            try:
                next(events)
            except kgw.NotRunning:
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert isinstance(next(events), ConfigApplied)
