"""How long a change takes to be live: `make bench-python ARGS=benches/test_reload.py`.

A round writes a manifest and asks, on one connection, until the answer is a new one: the file is
noticed, parsed, translated and taken by the workers, and a request has found it. Beside the time,
the CPU time of the whole process is noted, of which writing and asking are a part.

The routes are documents of one YAML file, or files of their own. What a change costs those who ask
meanwhile is for `benches/load`: here they share an interpreter with what takes the change.
"""

from __future__ import annotations

import http.client
import itertools
import json
import statistics
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest
from anyio.from_thread import start_blocking_portal

import kgw
from kgw.config import Session, watch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anyio.abc import TaskStatus
    from pytest_benchmark.fixture import BenchmarkFixture

DEBOUNCE = 0.02
"""Seconds within which several changes are looked at together: `kgw.source.watch`."""

PATIENCE = 60.0
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


def route(name: str, path: str, target: str, rules: int = 1) -> dict[str, Any]:
    """A route that redirects, so that nothing but the proxy is measured."""
    redirect = {"type": "RequestRedirect", "requestRedirect": {"hostname": target}}
    paths = [path, *(f"{path.rstrip('/')}/{number}" for number in range(1, rules))]
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": name},
        "spec": {
            "parentRefs": [{"name": "web"}],
            "rules": [
                {"matches": [{"path": {"value": one}}], "filters": [redirect]} for one in paths
            ],
        },
    }


def manifests(routes: int, rules: int) -> list[dict[str, Any]]:
    """A Gateway and routes, the last of which is the one to change."""
    others = (route(f"other-{n}", f"/other/{n}", "other", rules) for n in range(1, routes))
    return [GATEWAY, *others, route("changing", "/", "generation-0", rules)]


def one_file(directory: Path, objects: list[dict[str, Any]]) -> Callable[[dict[str, Any]], None]:
    """Writes documents of one file; returns what changes the last."""
    path = directory / "all.yaml"
    first = "".join(f"---\n{json.dumps(one, indent=1)}\n" for one in objects[:-1])

    def write(last: dict[str, Any]) -> None:
        path.write_text(f"{first}---\n{json.dumps(last, indent=1)}\n")

    write(objects[-1])
    return write


def many_files(directory: Path, objects: list[dict[str, Any]]) -> Callable[[dict[str, Any]], None]:
    """Writes a file for each object; returns what changes the last."""
    for number, one in enumerate(objects):
        (directory / f"{number:06}.json").write_text(json.dumps(one))
    path = directory / f"{len(objects) - 1:06}.json"

    def write(last: dict[str, Any]) -> None:
        path.write_text(json.dumps(last))

    return write


LAYOUTS = {"one-file": one_file, "many-files": many_files}


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


def settle() -> None:
    """Lets time pass from one change to the next: those that come close together are one."""
    time.sleep(5 * DEBOUNCE)  # nothing tells that notifications are not waited for any more


class Asker:
    """A connection that asks again and again."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)

    def ask(self) -> str:
        """Asks once; returns where the answer leads to. Anything but a redirect is a loss."""
        self._connection.request("GET", "/")
        response = self._connection.getresponse()
        response.read()
        location = response.getheader("Location")
        assert location is not None, "a request is lost"
        return location

    def until(self, target: str) -> None:
        """Asks until the answer is a new one."""
        deadline = time.monotonic() + PATIENCE
        while target not in self.ask():
            assert time.monotonic() < deadline, "the change is lost"
            time.sleep(0.0005)  # what is measured needs the processor too

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("routes", "rules"), [(1, 1), (1_000, 1), (10_000, 1), (1_000, 16)])
@pytest.mark.timeout(600)
def test_a_change_is_live(
    benchmark: BenchmarkFixture, tmp_path: Path, layout: str, routes: int, rules: int
) -> None:
    write = LAYOUTS[layout](tmp_path, manifests(routes, rules))
    generations = itertools.count(1)
    spent: list[float] = []
    with start_blocking_portal() as portal:
        began = time.process_time()
        following, port = portal.start_task(follow, tmp_path)
        benchmark.extra_info["first_cpu_us_per_route"] = round(
            (time.process_time() - began) * 1e6 / routes / rules, 1
        )
        asker = Asker(port)

        def change() -> None:
            target = f"generation-{next(generations)}"
            before = time.process_time()
            write(route("changing", "/", target, rules))
            asker.until(target)
            spent.append(time.process_time() - before)

        try:
            assert "generation-0" in asker.ask()
            benchmark.pedantic(  # type: ignore[no-untyped-call]  # the plugin has no types for it
                change, setup=settle, rounds=20, warmup_rounds=3
            )
            benchmark.extra_info["cpu_ms"] = round(statistics.median(spent) * 1e3, 2)
        finally:
            asker.close()
            following.cancel()


@pytest.mark.parametrize(("routes", "rules"), [(1, 1), (1_000, 1), (10_000, 1), (1_000, 16)])
@pytest.mark.timeout(600)
def test_a_configuration_is_applied(benchmark: BenchmarkFixture, routes: int, rules: int) -> None:
    """Models in place of files: from the change of one to the return of `apply`."""
    objects = manifests(routes, rules)
    session = Session()
    models = list(session.from_objects(objects).resources)
    generations = itertools.count(1)
    with kgw.Proxy(session.from_objects(models), bind="127.0.0.1:0") as proxy:

        def change() -> None:
            last = route("changing", "/", f"generation-{next(generations)}", rules)
            (models[-1],) = kgw.Config.from_objects([last]).resources
            proxy.apply(session.from_objects(models))

        benchmark.pedantic(  # type: ignore[no-untyped-call]  # the plugin has no types for it
            change, rounds=20, warmup_rounds=3
        )
