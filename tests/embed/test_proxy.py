"""`kgw.Proxy` in asyncio, trio and threaded programs, with real sockets."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from http.client import HTTPException
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from tests.embed.upstream import TIMEOUT, Upstream, fetch, rate_limit, resources

import kgw
from kgw.proxy import ManualClock, State
from kgw.stats import AccessLogStats, Stats
from kgw.translate import Options

if TYPE_CHECKING:
    from pathlib import Path

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
    return await anyio.to_thread.run_sync(fetch, address, path)


async def reached(event: threading.Event) -> None:
    assert await anyio.to_thread.run_sync(event.wait, TIMEOUT)


def invalid(upstream: Upstream) -> list[dict[str, Any]]:
    changed = resources(upstream, prefix="/changed")
    changed[1]["spec"]["rules"] = "not a list"
    return changed


# === Serving ===


async def test_it_serves_while_the_block_runs(upstream: Upstream) -> None:
    async with proxy_for(upstream) as proxy:
        address = proxy.addresses[LISTENER][0]
        assert await get(proxy, "/x") == (200, b"/x")
    with pytest.raises(ConnectionRefusedError):
        await anyio.to_thread.run_sync(fetch, address)


async def test_a_path_several_paths_and_a_config_are_all_configurations(tmp_path: Path) -> None:
    gateway, route = tmp_path / "gateway.yaml", tmp_path / "route.yaml"
    gateway.write_text(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: web}\n"
        "spec: {gatewayClassName: kgateway, listeners: [{name: http, port: 1, protocol: HTTP}]}\n"
    )
    route.write_text(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: web}\nspec:\n"
        "  parentRefs: [{name: web}]\n"
        "  rules: [{filters: [{type: RequestRedirect, requestRedirect: {statusCode: 302}}]}]\n"
    )
    forms: list[Any] = [tmp_path, str(tmp_path), [gateway, route], kgw.load(tmp_path)]
    for form in forms:
        async with kgw.Proxy(form, workers=1, bind=LOCAL) as proxy:
            assert (await get(proxy))[0] == 302


async def test_one_mapping_is_a_configuration_of_one_resource(upstream: Upstream) -> None:
    gateway = resources(upstream)[0]
    for form in (gateway, kgw.Config.from_objects([gateway]).resources[0]):
        async with kgw.Proxy(form, workers=1, bind=LOCAL) as proxy:
            assert (await get(proxy))[0] == 404


def test_what_is_no_configuration_is_a_type_error() -> None:
    wrong: Any
    for wrong, name in ((5, "int"), (None, "NoneType"), (b"kind: Gateway", "bytes")):
        with pytest.raises(TypeError, match=f"a configuration is .*, not {name}"):
            kgw.Proxy(wrong)
    wrong = [5]
    with pytest.raises(TypeError, match="a part of it is int"):
        kgw.Proxy(wrong).__enter__()


def test_options_that_mean_nothing_are_refused_before_the_start() -> None:
    for seconds in (-1, float("nan")):
        with pytest.raises(ValueError, match=f"drain_timeout must be at least 0, not {seconds}"):
            kgw.Proxy([], drain_timeout=seconds)
    with pytest.raises(ValueError, match="max_connections must be at least 1, not 0"):
        kgw.Proxy([], max_connections=0)
    text: Any = "1G"
    with pytest.raises(TypeError, match="max_memory must be a whole number, not '1G'"):
        kgw.Proxy([], max_memory=text)


async def test_problems_say_what_is_not_in_effect(upstream: Upstream, tmp_path: Path) -> None:
    log = tmp_path / "missing" / "access.log"
    policy = {
        "apiVersion": "gateway.kgateway.dev/v1alpha1",
        "kind": "HTTPListenerPolicy",
        "metadata": {"name": "log"},
        "spec": {
            "targetRefs": [
                {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "web"}
            ],
            "accessLog": [{"fileSink": {"path": str(log), "stringFormat": "x\n"}}],
        },
    }
    logged = [*resources(upstream), policy]
    async with kgw.Proxy(logged, workers=1, bind=LOCAL) as proxy:
        [problem] = proxy.problems
        assert f"cannot open the access log {log}: No such file" in problem
        log.parent.mkdir()
        await proxy.apply(logged)
        assert proxy.problems == ()
    with pytest.raises(kgw.NotRunning):
        _ = proxy.problems


async def test_several_proxies_run_side_by_side(upstream: Upstream) -> None:
    async with proxy_for(upstream) as one, proxy_for(upstream) as other:
        assert one.addresses != other.addresses
        assert await get(one, "/1") == (200, b"/1")
        assert await get(other, "/2") == (200, b"/2")


async def test_stats_count_requests(upstream: Upstream) -> None:
    async with proxy_for(upstream) as proxy:
        before = proxy.stats()
        await get(proxy)
        assert proxy.stats()["downstream_rq_total"] >= before["downstream_rq_total"]
        assert proxy.stats()["downstream_cx_total"] == before["downstream_cx_total"] + 1


async def test_stats_are_what_their_type_says(upstream: Upstream) -> None:
    async with proxy_for(upstream) as proxy:
        stats = proxy.stats()
    async with proxy_for(upstream, max_memory=1 << 40) as proxy:
        limited = proxy.stats()
    assert set(stats) == set(Stats.__annotations__) - {"memory_used"}
    assert set(limited) == set(Stats.__annotations__)
    parts = {name for name, value in limited.items() if type(value) is not int}
    assert parts == {
        "access_logs",
        "circuit_breakers",
        "ext_authz",
        "health_check",
        "outlier_detection",
    }


async def test_stats_of_an_access_log(upstream: Upstream, tmp_path: Path) -> None:
    policy = {
        "apiVersion": "gateway.kgateway.dev/v1alpha1",
        "kind": "HTTPListenerPolicy",
        "metadata": {"name": "log"},
        "spec": {
            "targetRefs": [
                {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "web"}
            ],
            "accessLog": [{"fileSink": {"path": f"{tmp_path}/log", "stringFormat": "x\n"}}],
        },
    }
    config = [*resources(upstream), policy]
    async with kgw.Proxy(config, workers=1, bind=LOCAL) as proxy:
        [log] = proxy.stats()["access_logs"]
    assert set(log) == AccessLogStats.__required_keys__
    assert (log["path"], log["errors"]) == (f"{tmp_path}/log", 0)


async def test_a_manual_clock_refills_a_rate_limit(upstream: Upstream) -> None:
    clock = ManualClock()
    limited = [*resources(upstream), rate_limit(3, "60s")]
    async with kgw.Proxy(limited, workers=2, bind=LOCAL, clock=clock) as proxy:
        assert [(await get(proxy))[0] for _ in range(4)] == [200, 200, 200, 429]
        clock.advance(20)
        assert [(await get(proxy))[0] for _ in range(2)] == [200, 429]


# === Applying ===


async def test_apply_is_live_when_it_returns(upstream: Upstream) -> None:
    async with proxy_for(upstream) as proxy:
        for round_ in range(5):
            await proxy.apply(resources(upstream, prefix=f"/v{round_}"))
            assert await get(proxy, f"/v{round_}/x") == (200, f"/v{round_}/x".encode())
            assert (await get(proxy, "/elsewhere"))[0] == 404


async def test_applying_under_load_loses_nothing(upstream: Upstream) -> None:
    answers: list[tuple[int, bytes]] = []
    done = False

    async def load(proxy: kgw.Proxy) -> None:
        while not done:
            answers.append(await get(proxy, "/x"))

    async with proxy_for(upstream) as proxy, anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(load, proxy)
        for limit in range(100, 120):
            await proxy.apply([*resources(upstream), rate_limit(limit * 1000, "1s")])
        done = True
    assert len(answers) >= 4
    assert set(answers) == {(200, b"/x")}


async def test_a_refused_configuration_leaves_the_last_good_one(upstream: Upstream) -> None:
    async with proxy_for(upstream) as proxy:
        with pytest.raises(kgw.ConfigError) as caught:
            await proxy.apply(invalid(upstream))
        assert caught.value.resource == "HTTPRoute default/web"
        assert caught.value.code is not None
        assert caught.value.code.startswith("KGW2")
        assert await get(proxy, "/x") == (200, b"/x")


async def test_a_refused_configuration_does_not_start(upstream: Upstream) -> None:
    proxy = kgw.Proxy(invalid(upstream), bind=LOCAL)
    with pytest.raises(kgw.ConfigError):
        await proxy.__aenter__()
    assert proxy.state is State.CLOSED


async def test_without_strict_the_rest_is_served(upstream: Upstream) -> None:
    mixed = resources(upstream)
    broken = {**mixed[1], "metadata": {"name": "broken"}, "spec": {"rules": "not a list"}}
    async with kgw.Proxy([*mixed, broken], workers=1, bind=LOCAL, strict=False) as proxy:
        assert await get(proxy, "/x") == (200, b"/x")


async def test_a_machine_without_ipv6_serves_on_ipv4(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kgw.proxy.has_ipv6", lambda: False)
    options = Options(ports={LISTENER: 0})
    config = kgw.Config.from_objects(resources(upstream), options=options)
    async with kgw.Proxy(config, workers=1) as proxy:
        assert [host for host, _ in proxy.addresses[LISTENER]] == ["0.0.0.0"]
        assert await get(proxy, "/x") == (200, b"/x")


async def test_an_address_in_use_does_not_start(upstream: Upstream) -> None:
    async with proxy_for(upstream) as proxy:
        host, port = proxy.addresses[LISTENER][0]
        second = kgw.Proxy(resources(upstream), bind=f"{host}:{port}")
        with pytest.raises(OSError, match=r"[Aa]ddress"):
            await second.__aenter__()
        assert second.state is State.CLOSED


# === Ending ===


async def test_draining_finishes_what_is_in_flight(upstream: Upstream) -> None:
    answers = []

    async def ask(proxy: kgw.Proxy) -> None:
        answers.append(await get(proxy, "/slow"))

    async with proxy_for(upstream) as proxy, anyio.create_task_group() as tasks:
        tasks.start_soon(ask, proxy)
        await reached(upstream.arrived)
        tasks.start_soon(partial(proxy.drain, TIMEOUT))
        await until(proxy, State.DRAINING)
        assert not answers
        upstream.let_go.set()
        await proxy.wait_closed()
    assert answers == [(200, b"/slow")]
    assert proxy.state is State.CLOSED


async def test_draining_cuts_off_what_takes_too_long(upstream: Upstream) -> None:
    outcome: list[object] = []

    async def ask(proxy: kgw.Proxy) -> None:
        try:
            outcome.append(await get(proxy, "/slow"))
        except (OSError, HTTPException) as error:
            outcome.append(error)

    async with proxy_for(upstream) as proxy, anyio.create_task_group() as tasks:
        tasks.start_soon(ask, proxy)
        await reached(upstream.arrived)
        assert await proxy.drain(0.2) is False
    assert isinstance(outcome[0], Exception)


async def test_draining_an_idle_proxy_ends_by_itself(upstream: Upstream) -> None:
    async with proxy_for(upstream) as proxy:
        await get(proxy)
        assert await proxy.drain(TIMEOUT) is True


async def test_a_cancelled_block_closes_the_proxy(upstream: Upstream) -> None:
    with anyio.CancelScope() as scope:
        async with proxy_for(upstream) as proxy:
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert proxy.state is State.CLOSED


async def test_a_block_that_fails_while_draining_does_not_wait_for_the_drain(
    upstream: Upstream,
) -> None:
    proxy = proxy_for(upstream, drain_timeout=0)
    with pytest.RaisesGroup(RuntimeError):
        async with proxy, anyio.create_task_group() as tasks:
            tasks.start_soon(partial(proxy.drain, 3600, min=3600))
            await until(proxy, State.DRAINING)
            raise RuntimeError
    assert proxy.state is State.CLOSED


async def until(proxy: kgw.Proxy, state: State) -> None:
    with anyio.fail_after(TIMEOUT):
        while proxy.state is not state:
            await anyio.lowlevel.checkpoint()


# === States ===


async def test_what_is_not_possible_in_a_state_raises_not_running(upstream: Upstream) -> None:
    proxy = proxy_for(upstream)
    assert repr(proxy) == "<kgw.Proxy new>"
    with pytest.raises(kgw.NotRunning, match="not started"):
        _ = proxy.addresses
    with pytest.raises(kgw.NotRunning, match="not started"):
        await proxy.apply(resources(upstream))
    with pytest.raises(kgw.NotRunning, match="not started"):
        await proxy.drain()
    with pytest.raises(kgw.NotRunning, match="not started"):
        await proxy.wait_closed()

    async with proxy:
        assert repr(proxy) == "<kgw.Proxy running>"
        with pytest.raises(kgw.NotRunning, match="started once"):
            await proxy.__aenter__()
        assert await get(proxy, "/x") == (200, b"/x")

    assert repr(proxy) == "<kgw.Proxy closed>"
    for call in (proxy.stats, lambda: proxy.addresses):
        with pytest.raises(kgw.NotRunning, match="closed"):
            call()
    with pytest.raises(kgw.NotRunning, match="closed"):
        await proxy.apply(resources(upstream))
    with pytest.raises(kgw.NotRunning, match="started once"):
        await proxy.__aenter__()
    await proxy.wait_closed()


async def test_no_signal_handler_is_installed(upstream: Upstream) -> None:
    def handlers() -> list[object]:
        return [signal.getsignal(number) for number in signal.valid_signals()]

    before = handlers()
    async with proxy_for(upstream):
        assert handlers() == before


# === Programs without an event loop ===


def test_a_plain_with_serves_too(upstream: Upstream) -> None:
    with proxy_for(upstream) as proxy:
        address = proxy.addresses[LISTENER][0]
        assert fetch(address, "/x") == (200, b"/x")
        proxy.apply(resources(upstream, prefix="/v2"))
        assert fetch(address, "/x")[0] == 404
        assert proxy.state is State.RUNNING
        assert not proxy.wait_closed(0)
        assert proxy.drain(TIMEOUT) is True
        assert proxy.wait_closed(0)
    with pytest.raises(ConnectionRefusedError):
        fetch(address)


def test_kill_ends_a_drain_early(upstream: Upstream) -> None:
    with proxy_for(upstream) as proxy:
        address = proxy.addresses[LISTENER][0]
        asking = threading.Thread(target=_ignoring_errors, args=(address, "/slow"))
        asking.start()
        assert upstream.arrived.wait(TIMEOUT)
        draining = threading.Thread(target=proxy.drain, args=(10 * TIMEOUT,))
        draining.start()
        deadline = time.monotonic() + TIMEOUT
        while proxy.state is not State.DRAINING:
            assert time.monotonic() < deadline
        proxy.kill()
        assert proxy.wait_closed(TIMEOUT)
        draining.join(TIMEOUT)
        assert not draining.is_alive()
    asking.join(TIMEOUT)
    proxy.kill()


def _ignoring_errors(address: tuple[str, int], path: str) -> None:
    try:
        fetch(address, path)
    except (OSError, HTTPException):
        return


def test_a_program_that_forgets_to_close_ends_all_the_same(upstream: Upstream) -> None:
    program = (
        "import kgw, json, sys\n"
        "proxy = kgw.Proxy(json.loads(sys.argv[1]), workers=2, bind='127.0.0.1:0')\n"
        "running = proxy.__enter__()\n"
        "print(running.state.value)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, json.dumps(resources(upstream))],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "running\n", "")
