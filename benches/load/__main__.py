"""The command: ``python -m benches.load [run|report|list] ...``; ``run`` may be left out."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from benches.load import machine, report, results
from benches.load.experiments import (
    engine_load,
    idle,
    limiter,
    reload,
    routes,
    saturation,
    startup,
    tail,
)
from benches.load.experiments.bench import Bench, OutOfTime
from benches.load.peers import PROXIES
from benches.load.programs import Programs
from benches.load.rig import Rig
from benches.load.summary import Summary
from benches.load.workloads import BY_NAME

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).parents[2]

EXPERIMENTS = {
    "startup": "start to the first answer, kgw --version",
    "idle": f"memory of {idle.CONNECTIONS:,} idle connections",
    **{name: workload.title for name, workload in BY_NAME.items()},
    "limiter": "one contended bucket, two workers",
    "tail": f"latency added at {tail.RATE:,} req/s and at half of saturation, open loop",
    "reload": f"one change with {reload.ROUTES:,} routes live, under load",
    **dict.fromkeys(routes.NAMES, "10, 1,000 and 100,000 routes"),
    **dict.fromkeys(engine_load.NAMES, "100,000 routes: time and memory of the engine"),
}
"""By name, in the order in which they run."""

QUICK = ("get", "waypoint", "get-1m", "post-1k", "h2", "churn", "startup")
"""What the quick bench runs: it must end in two minutes."""


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    if not given or given[0] not in {"run", "report", "list", "-h", "--help"}:
        given = ["run", *given]
    options = _parser().parse_args(given)
    match options.command:
        case "run":
            return _run(options)
        case "report":
            return _report(options)
    for name, title in EXPERIMENTS.items():
        print(f"{name:<18} {title}")
    for peer in PROXIES.values():
        version = Programs(options.tools).find(peer.program)
        print(f"{peer.name:<18} {version or 'not installed'}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benches.load", description=__doc__)
    parser.set_defaults(tools=ROOT / "target" / "bench-load")
    commands = parser.add_subparsers(dest="command", required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--results",
        type=Path,
        default=ROOT / ".benchmarks" / "load.jsonl",
        help="the file of JSON lines that samples are appended to (%(default)s)",
    )
    run = commands.add_parser("run", parents=[shared], help="measure, and print the tables")
    run.add_argument("--quick", action="store_true", help="a part of it, in two minutes")
    run.add_argument("--only", type=_names(EXPERIMENTS), help="some of it: get,waypoint")
    run.add_argument("--peers", type=_names(PROXIES), help="some of the proxies: kgw,haproxy")
    run.add_argument("--rounds", type=int, help="rounds at saturation (4; quick: 2)")
    run.add_argument("--seconds", type=float, help="of each sample (1.2; quick: 0.7)")
    run.add_argument("--minutes", type=float, help="the most that it may take (25; quick: 2)")
    run.add_argument(
        "--nice",
        type=int,
        default=0,
        help="niceness of what is measured; -99 is the real-time class, for a busy machine (root)",
    )
    run.add_argument(
        "--program",
        action="append",
        type=_assignment,
        default=[],
        metavar="NAME=PATH",
        help="a program that is to be used: kgw=dist/bin/kgw",
    )
    run.add_argument("--tools", type=Path, help="the directory of the C tools")
    show = commands.add_parser("report", parents=[shared], help="the tables of earlier runs")
    show.add_argument("--runs", type=int, default=1, help="how many of the last runs (1)")
    show.add_argument("--markdown", action="store_true", help="as the section of the README")
    show.add_argument(
        "--into", type=Path, metavar="FILE", help="put that section into a file, for the one there"
    )
    show.add_argument("--json", action="store_true", help="as JSON")
    commands.add_parser("list", help="what can be measured, and with which proxies")
    return parser


class _names:
    """Parses names with commas between them."""

    def __init__(self, known: Iterable[str]) -> None:
        self._known = list(known)

    def __call__(self, text: str) -> tuple[str, ...]:
        names = tuple(name for name in text.replace(",", " ").split() if name)
        for name in names:
            if name not in self._known:
                known = ", ".join(self._known)
                raise argparse.ArgumentTypeError(f"{name} is none of {known}")
        return names


def _assignment(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise argparse.ArgumentTypeError(f"{text} is not NAME=PATH")
    return name, str(Path(path).absolute())


def _run(options: argparse.Namespace) -> int:
    started = time.monotonic()
    programs = Programs(options.tools.absolute(), dict(options.program))
    quick = bool(options.quick)
    rounds = options.rounds or (2 if quick else 4)
    seconds = options.seconds or (0.7 if quick else 1.2)
    minutes = options.minutes or (2.0 if quick else 25.0)
    names = options.only or (QUICK if quick else tuple(EXPERIMENTS))
    wanted = options.peers or tuple(PROXIES)
    peers = [name for name in wanted if programs.find(PROXIES[name].program)]
    rig = Rig(programs, nice=options.nice)
    placed = "proxy pinned to one core, load and origin to the others"
    run = results.Run(
        datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        machine.describe(),
        {name: programs.version(name) for name in peers if not name.startswith("floor")},
        {
            "placement:": placed if rig.is_pinned else "nothing pinned",
            "seconds a sample:": f"{seconds:g}",
            "niceness": str(options.nice),
        },
    )
    journal = results.Journal(options.results, run)
    for name in wanted:
        if name not in peers:
            journal.skip(name, "is not installed")
    if "h2" in names and not programs.find("h2load"):
        journal.skip("h2", "h2load is not installed")
        names = tuple(name for name in names if name != "h2")
    for skip in journal.measured.skips:
        print(f"skipped: {skip.what}: {skip.why}", file=sys.stderr)
    bench = Bench(rig, journal, peers, rounds, seconds, started + 60 * minutes, is_quick=quick)
    try:
        with rig.origin():
            _experiments(bench, names)
    except OutOfTime:
        journal.skip("the rest", f"{minutes:g} minutes were over")
    except KeyboardInterrupt:
        journal.skip("the rest", "interrupted")
    print()
    print(report.plain(Summary([journal.measured])))
    print(f"{(time.monotonic() - started) / 60:.1f} minutes; appended to {options.results}")
    return 0


def _experiments(bench: Bench, names: tuple[str, ...]) -> None:
    if "startup" in names:
        startup.run(bench)
    if "idle" in names:
        idle.run(bench)
    saturation.run(bench, names)
    if "limiter" in names:
        limiter.run(bench)
    if "tail" in names:
        tail.run(bench)
    if "reload" in names:
        reload.run(bench)
    routes.run(bench, names)
    if "kgw" in bench.peers:
        engine_load.run(bench, names)


def _report(options: argparse.Namespace) -> int:
    with options.results.open() as lines:
        runs = results.read(lines)
    summary = Summary(runs[-options.runs :])
    if options.into is not None:
        text = options.into.read_text()
        options.into.write_text(report.with_section(text, report.markdown(summary)))
    elif options.json:
        print(json.dumps(report.as_json(summary), indent=2))
    else:
        print((report.markdown if options.markdown else report.plain)(summary), end="")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # leaves nothing running
    sys.exit(main())
