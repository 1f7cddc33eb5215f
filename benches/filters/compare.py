"""A filter beside what does the same elsewhere: ``python -m benches.filters.compare --tools DIR``.

The filter reads one header field, answers 401 without it, and sets another one. It is a function
of `kgw.Proxy.filter`, an addon of mitmproxy, a gRPC server that Envoy's ``ext_proc`` asks, and a
reverse proxy made of aiohttp. All run at once and are asked in turns, in random order; what counts
is the processor time of all processes of each, for each request. Needs the dependency group
`compare`, the tools of ``make load-tools`` and an optimised extension (``make optimised``).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benches.load import probe
from benches.load.generators import Load, spread
from benches.load.processes import free_ports
from benches.load.procfs import tree
from benches.load.programs import Programs
from benches.load.rig import Rig
from benches.load.spec import HOST, Spec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).parent
PATIENCE = 60.0
"""Seconds that a program may take until its first answer."""


@dataclass(frozen=True)
class Contender:
    """A program that answers, and its processes."""

    name: str
    port: int
    pids: list[int]
    path: str = "/"


def envoy(port: int, backend: int, processor: int | None) -> dict[str, Any]:
    """Envoy's configuration: a reverse proxy, with the processor if there is one."""

    def kind(name: str, **fields: Any) -> dict[str, Any]:
        return {"@type": f"type.googleapis.com/envoy.{name}", **fields}

    def cluster(name: str, to: int, **more: Any) -> dict[str, Any]:
        address = {"socket_address": {"address": "127.0.0.1", "port_value": to}}
        endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
        assignment = {"cluster_name": name, "endpoints": endpoints}
        return {"name": name, "type": "STATIC", "load_assignment": assignment, **more}

    filters = [
        {
            "name": "envoy.filters.http.router",
            "typed_config": kind("extensions.filters.http.router.v3.Router"),
        }
    ]
    clusters = [cluster("backend", backend)]
    if processor is not None:
        options = kind(
            "extensions.upstreams.http.v3.HttpProtocolOptions",
            explicit_http_config={"http2_protocol_options": {}},
        )
        key = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
        more = {"typed_extension_protocol_options": {key: options}}
        clusters.append(cluster("processor", processor, **more))
        asked = kind(
            "extensions.filters.http.ext_proc.v3.ExternalProcessor",
            grpc_service={"envoy_grpc": {"cluster_name": "processor"}, "timeout": "5s"},
            message_timeout="5s",
            processing_mode={"response_header_mode": "SKIP"},
        )
        filters.insert(0, {"name": "envoy.filters.http.ext_proc", "typed_config": asked})
    route = {"match": {"prefix": "/"}, "route": {"cluster": "backend"}}
    manager = kind(
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="http",
        http_filters=filters,
        route_config={"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [route]}]},
    )
    manager_filter = {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": manager,
    }
    listener = {
        "name": "listener",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [manager_filter]}],
    }
    return {"static_resources": {"listeners": [listener], "clusters": clusters}}


class Stage:
    """Starts contenders."""

    def __init__(self, rig: Rig, directory: Path, stack: contextlib.ExitStack) -> None:
        self.rig = rig
        self.backend = rig.backends["small"]
        self._directory = directory
        self._stack = stack
        self._ports = iter(free_ports(16))
        path = os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])
        self._python = ["env", f"PYTHONPATH={path}", sys.executable]

    def start(self, name: str, command: list[str]) -> list[int]:
        """Starts a command; returns what gives its processes."""
        directory = self._directory / name
        directory.mkdir()
        process = self._stack.enter_context(self.rig.start(command, directory, is_free=True))
        return [process.pid]

    def ready(self, name: str, port: int, roots: list[int], path: str = "/") -> Contender:
        """Waits for its first answer."""
        request = probe.request(f"{HOST} {path} authorization: me")
        if probe.until(lambda: b" 200" in probe.answer(port, request)[:16], PATIENCE) is None:
            said = (self._directory / name / "stderr").read_text()[-2000:]
            raise RuntimeError(f"{name} does not answer: {said}")
        pids = [pid for root in roots for pid in tree(root)]
        return Contender(name, port, pids, path)

    def kgw(self) -> list[Contender]:
        port = next(self._ports)
        command = ["-m", "benches.filters", "--serve", str(port), str(self.backend)]
        roots = self.start("kgw", [*self._python, *command])
        return [
            self.ready("kgw", port, roots, "/plain"),
            Contender("kgw def", port, self.ready("kgw", port, roots, "/auth").pids, "/auth"),
            Contender("kgw async", port, tree(roots[0]), "/async-auth"),
        ]

    def mitmproxy(self, program: str) -> Contender:
        port = next(self._ports)
        command = [
            program, "--mode", f"reverse:http://127.0.0.1:{self.backend}", "--quiet",
            "--listen-host", "127.0.0.1", "--listen-port", str(port),
            "--set", f"confdir={self._directory / 'mitmproxy-conf'}",
            "-s", str(HERE / "mitmproxy_addon.py"),
        ]  # fmt: skip
        return self.ready("mitmproxy", port, self.start("mitmproxy", command))

    def envoy(self, program: str, python: str, *, asks: bool) -> Contender:
        port, processor = next(self._ports), next(self._ports)
        name = "envoy ext_proc" if asks else "envoy"
        config = self._directory / f"{port}.json"
        config.write_text(json.dumps(envoy(port, self.backend, processor if asks else None)))
        options = ["--concurrency", "1", "--log-level", "error", "--disable-hot-restart"]
        roots = []
        if asks:
            server = [python, str(HERE / "ext_proc_server.py"), str(processor)]
            roots += self.start("ext_proc server", server)
        roots += self.start(name, [program, "-c", str(config), *options])
        return self.ready(name, port, roots)

    def aiohttp(self, python: str) -> Contender:
        port = next(self._ports)
        command = [python, str(HERE / "aiohttp_proxy.py"), str(port), str(self.backend)]
        return self.ready("aiohttp", port, self.start("aiohttp", command))


def cost(rig: Rig, contender: Contender, in_flight: int, seconds: float) -> float:
    """Microseconds of processor time for each request."""
    load = Load(connections=in_flight, seconds=seconds, warmup=0.3)
    spec = Spec(contender.port, rig.backends["small"])
    with tempfile.NamedTemporaryFile("w", suffix=".targets") as targets:
        targets.write(f"{HOST} {contender.path} authorization: me\n")
        targets.flush()
        sample = rig.load(load, spec, contender.pids, Path(targets.name), is_free=True)
    if sample["errors"]:
        raise RuntimeError(f"{sample['errors']:.0f} requests of {contender.name} failed")
    return sample["cpu_us"]


def rows(rig: Rig, contenders: list[Contender], options: argparse.Namespace) -> Iterator[str]:
    """The table, line by line."""
    for in_flight in options.in_flight:
        costs: dict[str, list[float]] = {one.name: [] for one in contenders}
        for _ in range(options.rounds):
            for one in random.sample(contenders, len(contenders)):
                costs[one.name].append(cost(rig, one, in_flight, options.seconds))
        own = statistics.median(costs["kgw def"])
        yield f"{in_flight} in flight: µs for each request, spread, ratio"
        for name, values in costs.items():
            median = statistics.median(values)
            yield f"  {name:16} {median:9.1f} ±{spread(values):7.1f}  {median / own:6.1f}"


def main() -> None:
    """Measures, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tools", type=Path, required=True, help="the directory of the C tools")
    parser.add_argument("--envoy", help="the program; by default the one of the group `envoy`")
    parser.add_argument("--python", default=sys.executable, help="one that has the group `compare`")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--in-flight", nargs="+", type=int, default=(1, 16, 64))
    options = parser.parse_args()
    programs = Programs(
        options.tools.absolute(), {} if not options.envoy else {"envoy": options.envoy}
    )
    rig = Rig(programs)
    with (
        tempfile.TemporaryDirectory() as directory,
        contextlib.ExitStack() as stack,
    ):
        stack.enter_context(rig.origin())
        stage = Stage(rig, Path(directory), stack)
        mitmdump = str(Path(options.python).parent / "mitmdump")
        begin: list[Callable[[], Contender]] = [
            lambda: stage.envoy(programs.need("envoy"), options.python, asks=False),
            lambda: stage.envoy(programs.need("envoy"), options.python, asks=True),
            lambda: stage.aiohttp(options.python),
            lambda: stage.mitmproxy(mitmdump),
        ]
        contenders = [*stage.kgw(), *(one() for one in begin)]
        for line in rows(rig, contenders, options):
            print(line, flush=True)


if __name__ == "__main__":
    main()
