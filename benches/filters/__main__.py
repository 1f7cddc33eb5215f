"""What a filter adds to a request: ``python -m benches.filters --tools DIRECTORY``.

One process has a route without a filter and routes with one; they are asked in turns, in random
order, and the difference of the process's processor time for each request is what the filter costs,
wakes and event loop included. ``make load-tools`` makes the tools. Needs an optimised extension
(``make optimised``); `benches/load/README.md` says how the time is taken.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benches.load.generators import Load, spread
from benches.load.procfs import tree
from benches.load.programs import Programs
from benches.load.rig import Rig
from benches.load.spec import HOST, Spec

import kgw
from kgw.filters import Needs, When

if TYPE_CHECKING:
    from collections.abc import Iterator

KINDS = (
    "plain", "skipped", "def", "async-def", "async-wait", "edit", "auth", "async-auth",
    "response", "response-whole", "response-chunks",
)  # fmt: skip
IN_FLIGHT = (1, 16, 64, 256)


def resources(backend: int) -> list[dict[str, Any]]:
    """A Gateway, and a route to the origin for each kind of filter."""
    gateway = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": "edge"},
        "spec": {
            "gatewayClassName": "kgateway",
            "listeners": [{"name": "http", "port": 8080, "protocol": "HTTP"}],
        },
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "origin"},
        "spec": {"clusterIP": "10.96.0.7", "ports": [{"name": "http", "port": 80}]},
    }
    endpoints = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "origin-1", "labels": {"kubernetes.io/service-name": "origin"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}}],
        "ports": [{"name": "http", "port": backend, "protocol": "TCP"}],
    }
    routes = [
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": {"name": kind},
            "spec": {
                "parentRefs": [{"name": "edge"}],
                "rules": [
                    {
                        "matches": [{"path": {"type": "PathPrefix", "value": f"/{kind}"}}],
                        "backendRefs": [{"name": "origin", "port": 80}],
                    }
                ],
            },
        }
        for kind in KINDS
    ]
    return [gateway, service, endpoints, *routes]


def proxied(port: int, backend: int) -> kgw.Proxy:
    """A proxy with a filter of each kind."""
    proxy = kgw.Proxy(resources(backend), workers=1, bind=f"127.0.0.1:{port}")

    @proxy.filter("def", routes=["default/def"])
    def look(request: kgw.Request) -> None:
        request.headers.get("authorization")

    @proxy.filter("skipped", routes=["default/skipped"], when=When(headers={"x-none": None}))
    def never(_: kgw.Request) -> None:
        raise AssertionError

    @proxy.filter("async-def", routes=["default/async-def"])
    async def look_async(request: kgw.Request) -> None:
        request.headers.get("authorization")

    @proxy.filter("async-wait", routes=["default/async-wait"])
    async def wait(request: kgw.Request) -> None:
        request.headers.get("authorization")
        await asyncio.sleep(0)

    @proxy.filter("edit", routes=["default/edit"])
    def edit(request: kgw.Request) -> None:
        request.headers["x-user"] = request.headers.get("authorization", "nobody")

    def user_of(request: kgw.Request) -> kgw.Response | None:
        authorization = request.headers.get("authorization")
        if authorization is None:
            return kgw.Response(401, "who are you?")
        request.headers["x-user"] = authorization
        return None

    proxy.filter("auth", routes=["default/auth"])(user_of)

    @proxy.filter("async-auth", routes=["default/async-auth"])
    async def user_of_async(request: kgw.Request) -> kgw.Response | None:
        return user_of(request)

    @proxy.filter("response", routes=["default/response"])
    class Response:
        def on_response(self, _: kgw.Request, response: kgw.Response) -> None:
            response.headers["x-seen"] = "1"

    @proxy.filter(
        "response-whole", routes=["default/response-whole"], needs=Needs(response_body=True)
    )
    class Whole:
        def on_response(self, _: kgw.Request, response: kgw.Response) -> None:
            response.headers["x-length"] = str(len(response.body or b""))

    @proxy.filter("response-chunks", routes=["default/response-chunks"])
    class Chunks:
        def on_response_chunk(
            self, _: kgw.Request, response: kgw.Response, data: bytes, end: bool
        ) -> None:
            pass

    return proxy


async def serve(port: int, backend: int) -> None:
    """Serves until it is killed."""
    async with proxied(port, backend) as proxy:
        await proxy.wait_closed()


@dataclass(frozen=True)
class Stage:
    """A proxy that answers, and what asks it."""

    rig: Rig
    spec: Spec
    pids: list[int]
    is_free: bool

    def cost(self, kind: str, in_flight: int, seconds: float) -> float:
        """Microseconds of processor time for each request of a kind."""
        load = Load(connections=in_flight, seconds=seconds, warmup=0.2)
        with tempfile.NamedTemporaryFile("w", suffix=".targets") as targets:
            targets.write(f"{HOST} /{kind}/x\n")
            targets.flush()
            path = Path(targets.name)
            sample = self.rig.load(load, self.spec, self.pids, path, is_free=self.is_free)
        if sample["errors"]:
            raise RuntimeError(f"{sample['errors']:.0f} requests of {kind} failed")
        return sample["cpu_us"]


def rows(stage: Stage, options: argparse.Namespace) -> Iterator[str]:
    """The table, line by line."""
    yield f"{'in flight':>9}  {'plain':>7}  " + "  ".join(f"{kind:>15}" for kind in options.kinds)
    for in_flight in options.in_flight:
        kinds = ["plain", *options.kinds]
        costs: dict[str, list[float]] = {kind: [] for kind in kinds}
        for _ in range(options.rounds):
            for kind in random.sample(kinds, len(kinds)):
                costs[kind].append(stage.cost(kind, in_flight, options.seconds))
        cells = [f"{statistics.median(costs['plain']):7.1f}"]
        for kind in options.kinds:
            added = [a - b for a, b in zip(costs[kind], costs["plain"], strict=True)]
            cells.append(f"{statistics.median(added):+8.1f} ±{spread(added):5.1f}")
        yield f"{in_flight:9}  " + "  ".join(cells)


def main() -> None:
    """Measures, and prints a table."""
    parser = argparse.ArgumentParser(prog="python -m benches.filters", description=__doc__)
    parser.add_argument("--tools", type=Path, help="the directory of the C tools")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--kinds", nargs="+", default=KINDS[1:], choices=KINDS[1:])
    parser.add_argument("--in-flight", nargs="+", type=int, default=IN_FLIGHT)
    parser.add_argument("--nice", type=int, default=0, help="-99 is the real-time class (root)")
    parser.add_argument("--pin", action="store_true", help="worker and loop share a core")
    parser.add_argument("--serve", nargs=2, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(*options.serve))
        return
    if options.tools is None:
        parser.error("--tools is needed")
    rig = Rig(Programs(options.tools.absolute(), {}), nice=options.nice)
    port = rig.ports[0]
    command = [sys.executable, "-m", "benches.filters", "--serve", str(port)]
    path = os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])
    with (
        tempfile.TemporaryDirectory() as directory,
        rig.origin(),
        rig.start(
            ["env", f"PYTHONPATH={path}", *command, str(rig.backends["small"])],
            Path(directory),
            is_free=not options.pin,
        ) as process,
    ):
        spec = Spec(port, rig.backends["small"])
        wait_for(port, f"{HOST} /plain")
        stage = Stage(rig, spec, tree(process.pid), not options.pin)
        for line in rows(stage, options):
            print(line, flush=True)


def wait_for(port: int, target: str) -> None:
    """Returns once the proxy answers."""
    from benches.load import probe

    request = probe.request(target)
    if probe.until(lambda: b" 200" in probe.answer(port, request)[:16], 60.0) is None:
        raise RuntimeError("the proxy does not answer")


if __name__ == "__main__":
    main()
