"""How long a change takes to be live: `make bench-python ARGS=benches/test_reload.py`.

A round writes a manifest and asks, on one connection, until the answer is a new one: the file is
noticed, parsed, translated and taken by the workers, and a request has found it.
"""

from __future__ import annotations

import http.client
import itertools
import json
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest
from anyio.from_thread import start_blocking_portal

import kgw
from kgw.config import watch

if TYPE_CHECKING:
    from pathlib import Path

    from anyio.abc import TaskStatus
    from pytest_benchmark.fixture import BenchmarkFixture

PATIENCE = 30.0
"""Seconds until a change counts as lost."""

GATEWAY = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "Gateway",
    "metadata": {"name": "web"},
    "spec": {
        "gatewayClassName": "kgateway",
        "listeners": [{"name": "http", "port": 8080, "protocol": "HTTP"}],
    },
}


def route(name: str, path: str, target: str) -> dict[str, Any]:
    """A route that redirects, so that nothing but the proxy is measured."""
    redirect = {"type": "RequestRedirect", "requestRedirect": {"hostname": target}}
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": name},
        "spec": {
            "parentRefs": [{"name": "web"}],
            "rules": [{"matches": [{"path": {"value": path}}], "filters": [redirect]}],
        },
    }


async def follow(directory: Path, *, task_status: TaskStatus[int]) -> None:
    """Serves the manifests and their changes, as `kgw run` does; its result is the port."""
    async with (
        aclosing(watch(str(directory))) as configs,
        kgw.Proxy(await anext(configs), bind="127.0.0.1:0") as proxy,
    ):
        ((address,),) = proxy.addresses.values()
        task_status.started(address[1])
        async for config in configs:
            await proxy.apply(config)


@pytest.mark.parametrize("routes", [1, 1000])
def test_a_change_is_live(benchmark: BenchmarkFixture, tmp_path: Path, routes: int) -> None:
    others = [route(f"other-{n}", f"/other/{n}", "other") for n in range(1, routes)]
    manifests = {"kind": "List", "apiVersion": "v1", "items": [GATEWAY, *others]}
    (tmp_path / "others.json").write_text(json.dumps(manifests))
    changing = tmp_path / "changing.json"
    changing.write_text(json.dumps(route("changing", "/", "generation-0")))
    generations = itertools.count(1)

    with start_blocking_portal() as portal:
        following, port = portal.start_task(follow, tmp_path)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)

        def answer() -> str | None:
            connection.request("GET", "/")
            response = connection.getresponse()
            response.read()
            return response.getheader("Location")

        def change() -> None:
            target = f"generation-{next(generations)}"
            changing.write_text(json.dumps(route("changing", "/", target)))
            deadline = time.monotonic() + PATIENCE
            while target not in (answer() or ""):
                assert time.monotonic() < deadline, "the change is lost"

        try:
            assert "generation-0" in (answer() or "")
            benchmark.pedantic(  # type: ignore[no-untyped-call]  # the plugin has no types for it
                change, rounds=30, warmup_rounds=3
            )
        finally:
            connection.close()
            following.cancel()
