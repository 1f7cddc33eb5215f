"""The load generators: their command lines, and what they print.

``kload`` is ours (csrc/kload.c): HTTP/1.1, closed and open loop, PROXY headers. ``h2load`` is that
of nghttp2.
"""

from __future__ import annotations

import json
import math
import re
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benches.load.spec import SERVICE_VIP

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from benches.load.programs import Programs
    from benches.load.spec import Spec

Values = dict[str, float]

H2LOAD_BEGINS = "Main benchmark duration is started"
H2LOAD_ENDS = "Main benchmark duration is over"
_H2LOAD_DONE = re.compile(r"(\d+) succeeded, (\d+) failed, (\d+) errored")

LATENCIES = {"p50_us": 0.5, "p90_us": 0.9, "p99_us": 0.99, "p999_us": 0.999}


@dataclass(frozen=True)
class Load:
    """How a proxy is asked."""

    connections: int = 64
    seconds: float = 1.2
    """How long it is measured."""
    warmup: float = 0.5
    """Seconds before that."""
    body: int = 0
    """Bytes of the body of a POST; 0 asks with GET."""
    per_connection: int = 0
    """Requests on a connection before the next is opened; 0 keeps it."""
    streams: int = 0
    """HTTP/2 streams at once on each connection; 0 speaks HTTP/1.1."""
    rate: float = 0.0
    """Requests a second with Poisson arrivals, whatever the proxy does.

    0 asks again when it has answered.
    """


def kload(programs: Programs, spec: Spec, load: Load, targets: Path | None) -> list[str]:
    """Returns the command; ``targets`` is a file with what is asked for at random."""
    command = [programs.need("kload"), "-p", str(spec.port), "-c", str(load.connections)]
    command += ["-d", str(load.seconds), "-w", str(load.warmup)]
    if targets is not None:
        command += ["-f", str(targets)]
    if load.body:
        command += ["-b", str(load.body)]
    if load.per_connection:
        command += ["-n", str(load.per_connection)]
    if load.rate:
        command += ["-R", str(load.rate), "-O"]
    if spec.proxy_protocol:
        command += ["-P", "-D", f"{SERVICE_VIP}:80"]
    return command


def parse_kload(line: str) -> Values:
    """Returns the numbers of the line of JSON that kload ends with."""
    found = json.loads(line)
    latencies = found["lat_us"]
    return {
        "requests": found["requests"],
        "rps": found["rps"],
        "errors": found["non2xx"] + found["reset_in_flight"] + found["connect_err"],
        "closed_idle": found["closed_idle"],
        "unsent": found["unsent"],
        "client_cpu_s": found["client_cpu"],
        "max_us": latencies["max"],
        **{name: latencies[name.removesuffix("_us")] for name in LATENCIES},
    }


def h2load(programs: Programs, spec: Spec, load: Load, log: Path) -> list[str]:
    """Returns the command; it writes a line for each request into ``log``."""
    return [
        programs.need("h2load"),
        "--threads=1",
        f"--clients={load.connections}",
        f"--max-concurrent-streams={load.streams}",
        f"--duration={round(load.seconds * 1000)}ms",
        f"--warm-up-time={round(load.warmup * 1000)}ms",
        f"--log-file={log}",
        f"http://127.0.0.1:{spec.port}/",
    ]


def parse_h2load(text: str, log: Iterable[str], seconds: float) -> Values:
    """Returns the numbers of a run.

    Args:
        text: what h2load printed.
        log: its log: start, status and microseconds of each request.
        seconds: how long it was measured.
    """
    done = _H2LOAD_DONE.search(text)
    if done is None:
        raise ValueError(f"h2load failed: {text[-500:]}")
    succeeded, failed, errored = map(int, done.groups())
    times = sorted(int(line.split("\t")[2]) for line in log)
    return {
        "requests": succeeded,
        "rps": succeeded / seconds,
        "errors": failed + errored,
        **({name: percentile(times, share) for name, share in LATENCIES.items()} if times else {}),
    }


def percentile(ordered: Sequence[float], share: float) -> float:
    """Returns the value below which a share of ordered values lies."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def spread(values: Sequence[float]) -> float:
    """Returns how far the median may be off: its standard error, of which outliers have no say."""
    if len(values) < 3:
        return float("nan")
    middle = statistics.median(values)
    deviation = 1.4826 * statistics.median(abs(value - middle) for value in values)
    return 1.2533 * deviation / math.sqrt(len(values))
