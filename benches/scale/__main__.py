"""``python -m benches.scale``: loads a large cluster from files, and changes one thing at a time.

Times are those of a user: from the start of ``kgw run`` to the first answer of the last route, and
from a file that was moved into the directory to the first answer that shows the change.
"""

from __future__ import annotations

import argparse
import http.server
import json
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benches.load import probe, procfs
from benches.load.processes import Placement, free_ports, open_files, running
from benches.scale.cluster import ENDPOINTS, HOST, RULES, Cluster, first_path, grant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

PATIENCE = 120.0
"""Seconds until something counts as lost."""
QUIET = 0.3
"""Seconds between two changes, so that one is not measured with the rest of the one before."""


class _Backend(http.server.BaseHTTPRequestHandler):
    """Answers with its server's name."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = str(self.connection.getsockname()[1]).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


def _serve(port: int) -> None:
    """Serves on the loopback addresses of all endpoints."""
    for number in range(ENDPOINTS):
        server = http.server.ThreadingHTTPServer((f"127.0.0.{number + 1}", port), _Backend)
        threading.Thread(target=server.serve_forever, daemon=True).start()


def _shows(port: int, path: str, wanted: bytes) -> Callable[[], bool]:
    data = probe.request(f"{HOST} {path}")
    return lambda: wanted in probe.answer(port, data).lower()


def _live(port: int, path: str, wanted: str, began: float) -> float:
    """The milliseconds from a time until an answer has a text."""
    took = probe.until(_shows(port, path, wanted.encode()), PATIENCE, began)
    if took is None:
        raise RuntimeError(f"{path} does not show {wanted!r} after {PATIENCE:.0f} s")
    return took * 1e3


def _changes(cluster: Cluster, other: int) -> Iterable[tuple[str, Callable[[int], _Change]]]:
    """What is changed: its name, and the change of each round."""
    one, last = first_path(), first_path(RULES - 1)
    own, more = str(cluster.backend), str(other)
    back = "http/1.1 500"

    def route(number: int) -> _Change:
        version = f"v{number + 1}"
        return "one-route", cluster.route(0, version), one, f"x-version: {version}\r\n"

    def endpoint(number: int) -> _Change:
        port, shown = ((other, more), (cluster.backend, own))[number % 2]
        return "one-slice", cluster.slice(0, port), one, shown

    def service(number: int) -> _Change:
        port, shown = ((81, back), (80, own))[number % 2]
        return "one-service", cluster.service(0, port), one, shown

    def granted(number: int) -> _Change:
        made, shown = grant(1), own
        if number % 2 == 0:
            made["spec"]["from"][0]["namespace"], shown = "nowhere", back
        return "grant-of-next", made, last, shown

    def policy(number: int) -> _Change:
        shown = ("http/1.1 429", own)[number % 2]
        made = cluster.policy("v0")
        if number % 2 == 0:
            made["spec"]["rateLimit"]["local"]["tokenBucket"] = {
                "maxTokens": 1,
                "fillInterval": "3600s",
            }
        return "one-policy", made, one, shown

    return (
        ("route", route),
        ("endpoint", endpoint),
        ("Service", service),
        ("ReferenceGrant", granted),
        ("TrafficPolicy", policy),
    )


#: The file, its object, the path that shows the change, and what its answer then has.
_Change = tuple[str, dict[str, Any], str, str]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benches.scale", description=__doc__)
    parser.add_argument("--kgw", default=str(Path(sys.executable).with_name("kgw")))
    parser.add_argument("--routes", type=int, default=10_000)
    parser.add_argument("--services", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=6, help="changes of each kind")
    parser.add_argument("--loads", type=int, default=3, help="whole loads")
    parser.add_argument("--results", type=Path, help="where to add a line of JSON")
    given = parser.parse_args()
    open_files(65_536)
    port, backend, other = free_ports(3)
    _serve(backend)
    _serve(other)
    loads: list[float] = []
    result: dict[str, Any] = {"routes": given.routes, "rules": RULES, "services": given.services}
    with tempfile.TemporaryDirectory() as place:
        cluster = Cluster(Path(place) / "manifests", port, backend, given.routes, given.services)
        cluster.write()
        last = given.routes - 1
        path = cluster.route(last)["spec"]["rules"][-1]["matches"][0]["path"]["value"]
        command = [given.kgw, "run", "-f", str(cluster.directory), "--bind", "127.0.0.1"]
        for number in range(given.loads):
            with (
                (Path(place) / "log").open("w") as log,
                running(command, Placement(frozenset()), stdout=log, stderr=log) as proxy,
            ):
                began = time.perf_counter()
                loads.append(_live(port, path, "http/1.1 200", began) / 1e3)
                pids = procfs.tree(proxy.pid)
                result["load_cpu_s"] = round(procfs.cpu(pids).total, 2)
                memory = procfs.memory(pids)
                result["resident_mib"] = memory.resident // 1024
                result["peak_mib"] = memory.peak // 1024
                if number + 1 < given.loads:
                    continue
                result["load_s"] = [round(one, 2) for one in loads]
                for name, change in _changes(cluster, other):
                    result[name] = _rounds(cluster, change, given.rounds)
    print(json.dumps(result, indent=1))
    if given.results is not None:
        with given.results.open("a") as file:
            file.write(json.dumps(result) + "\n")
    return 0


def _rounds(cluster: Cluster, change: Callable[[int], _Change], rounds: int) -> dict[str, float]:
    took = []
    for number in range(rounds):
        time.sleep(QUIET)  # what the change before it left to do is not this one's
        file, made, path, wanted = change(number)
        cluster.put(file, [made])
        took.append(_live(cluster.port, path, wanted, time.perf_counter()))
    return {"median_ms": round(statistics.median(took), 1), "max_ms": round(max(took), 1)}


if __name__ == "__main__":
    sys.exit(main())
