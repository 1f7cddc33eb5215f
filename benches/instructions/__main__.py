"""Instructions per request: ``make bench-check``.

The figure of a case is the slope between a short run and a long one, so what start, connections and
end cost cancels out. Counted is what the worker's thread executes in user space.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .callgrind import Counts
from .cases import CASES, Case
from .engine import Engine, Missing
from .peers import Origin

if TYPE_CHECKING:
    from collections.abc import Iterable

BASELINE = Path(__file__).with_name("baseline.json")
WARM_UP = 0.2
"""Rounds of the short run, as a part of those that count."""


@dataclass
class Result:
    """What a request costs."""

    requests: int
    worker: Counts
    """Of all counted requests."""
    others: int
    """Of the other threads, the log's writer above all."""

    @property
    def instructions(self) -> int:
        return round(self.worker.total / self.requests)


def _run(case: Case, executable: Path, rounds: int) -> dict[int, Counts]:
    with (
        tempfile.TemporaryDirectory(prefix="kgw-instructions-") as directory,
        Origin(case.answer, case.round_size) as origin,
        Engine(executable, case.config(origin.address, Path(directory) / "log")) as engine,
    ):
        origin.engine = engine
        client = case.client(engine)
        for _ in range(rounds):
            client.round()
        engine.settle()
        client.close()
        return engine.finish()


def count(case: Case, executable: Path) -> Result:
    """Counts a case."""
    warm_up = max(2, round(case.rounds * WARM_UP))
    short = _run(case, executable, warm_up)
    long = _run(case, executable, warm_up + case.rounds)
    grown = {thread: long[thread].since(short.get(thread, Counts())) for thread in long}
    worker = max(grown.values(), key=lambda counts: counts.total)
    others = sum(counts.total for counts in grown.values()) - worker.total
    return Result(case.rounds * case.round_size, worker, others)


def environment() -> dict[str, str]:
    """What the figures depend on beside the code."""
    rustc = subprocess.run(["rustc", "--version"], check=True, capture_output=True, text=True)
    return {"rustc": rustc.stdout.strip(), "machine": platform.machine(), "libc": _libc()}


def _libc() -> str:
    return " ".join(platform.libc_ver())


def _table(counted: Iterable[tuple[Any, int]], requests: int, top: int) -> list[str]:
    rows = sorted(((cost, str(name)) for name, cost in counted), reverse=True)[:top]
    return [f"{cost / requests:10,.1f}  {name}" for cost, name in rows if cost > 0]


def _callers(counts: Counts, requests: int) -> list[str]:
    rows = []
    for callee, _ in counts.exclusive.most_common(10):
        rows.append(f"{'':10}  {callee}")
        calls = ((call.caller, n) for call, n in counts.calls.items() if call.callee == callee)
        rows += [f"  {row}" for row in _table(calls, requests, 8)]
    return rows


def profile(case: Case, result: Result, top: int) -> str:
    """Says where the instructions of a request are."""
    requests, worker = result.requests, result.worker
    lines = ((f"{line.file}:{line.number}", cost) for line, cost in worker.lines.items())
    files: dict[str, int] = {}
    for line, cost in worker.lines.items():
        files[line.file] = files.get(line.file, 0) + cost
    return "\n".join(
        [
            f"{case.name}: {result.instructions:,} instructions per request ({case.about})",
            "\nBy function, inlined ones with their callers:",
            *_table(worker.exclusive.items(), requests, top),
            "\nCalls of the first ten of these, by caller:",
            *_callers(worker, requests),
            "\nBy function and what it calls:",
            *_table(worker.inclusive.items(), requests, top),
            "\nBy file, inlined code where it is written:",
            *_table(files.items(), requests, top),
            "\nBy line:",
            *_table(lines, requests, top),
        ]
    )


def check(results: dict[str, Result], baseline: dict[str, Any], here: dict[str, str]) -> bool:
    """Compares with the baseline and says so; returns whether nothing grew too much."""
    differing = [key for key in here if baseline["environment"].get(key) != here[key]]
    tolerances = {case.name: case.tolerance for case in CASES}
    print(f"{'case':12}{'baseline':>12}{'now':>12}{'change':>9}")
    grown, shrunk = [], []
    for name, result in results.items():
        now, before = result.instructions, baseline["instructions"].get(name)
        if before is None:
            print(f"{name:12}{'none':>12}{now:12,}")
            grown.append(name)
            continue
        change = now / before - 1
        if change > tolerances[name]:
            grown.append(name)
        elif change < -tolerances[name]:
            shrunk.append(name)
        print(f"{name:12}{before:12,}{now:12,}{change:+9.1%}")
    if differing:
        told = ", ".join(str(baseline["environment"].get(key)) for key in differing)
        print(f"\nNo verdict: the baseline is of {told}; this is another environment.")
        return True
    if grown:
        print(
            f"\nMore than the baseline, beyond its tolerance: {', '.join(grown)}."
            "\n`make bench-check ARGS='--profile CASE'` says where the instructions are."
            "\nIf they are worth it, `make bench-check ARGS=--update` makes them the baseline."
        )
    if shrunk:
        print(f"\nLess than the baseline: {', '.join(shrunk)}. `ARGS=--update` keeps it.")
    return not grown


def main() -> int:
    """The command."""
    names = [case.name for case in CASES]
    parser = argparse.ArgumentParser(prog="make bench-check", description=__doc__)
    parser.add_argument("executable", type=Path, help="the engine to count (`serve`)")
    parser.add_argument("--only", metavar="CASE", nargs="+", choices=names, help="not all cases")
    parser.add_argument("--update", action="store_true", help="write the baseline")
    parser.add_argument(
        "--profile", metavar="CASE", nargs="+", choices=names, help="where they are"
    )
    parser.add_argument("--top", type=int, default=40, help="rows of each table of a profile")
    arguments = parser.parse_args()
    wanted = arguments.profile or arguments.only or names
    results = {}
    try:
        for case in CASES:
            if case.name in wanted:
                results[case.name] = count(case, arguments.executable)
                told = f"{case.name}: {results[case.name].instructions:,}"
                print(told, file=sys.stderr, flush=True)
                if arguments.profile:
                    print(profile(case, results[case.name], arguments.top))
    except Missing as missing:
        print(f"bench-check: {missing}", file=sys.stderr)
        return 2
    if arguments.profile:
        return 0
    here = environment()
    baseline = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    if arguments.update:
        if arguments.only and baseline.get("environment") != here:
            print(
                "bench-check: a baseline is of one environment: update all cases", file=sys.stderr
            )
            return 2
        kept = baseline.get("instructions", {}) if arguments.only else {}
        counted = {name: result.instructions for name, result in results.items()}
        written = {"environment": here, "instructions": kept | counted}
        BASELINE.write_text(json.dumps(written, indent=2) + "\n")
        print(f"{BASELINE.name} written")
        return 0
    return 0 if check(results, baseline, here) else 1


if __name__ == "__main__":
    sys.exit(main())
