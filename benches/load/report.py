"""The tables of a report, as Markdown that is legible in a terminal, too."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from benches.load.targets import FIGURES, RATIOS
from benches.load.workloads import BY_NAME

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benches.load.results import Measured
    from benches.load.summary import Summary
    from benches.load.targets import Bounds, FigureTarget, Verdict

NAMES = {
    "kgw": "kgw",
    "envoy": "Envoy",
    "haproxy": "HAProxy",
    "nginx": "nginx",
    "floor": "C floor",
    "floor-splice": "C floor, splice",
}
SATURATED = 0.85
"""The share of its core that a saturated proxy uses at least."""

COMPARED = ("kgw", "envoy", "haproxy", "nginx")
VERDICTS: dict[Verdict | None, str] = {
    "goal": "goal",
    "must": "must",
    "missed": "**missed**",
    "unknown": "not measured",
    None: "-",
}


def number(value: float | None, digits: int = 1) -> str:
    """Returns a number with its thousands apart, or a dash."""
    if value is None or not math.isfinite(value):
        return "-"
    text = f"{value:,.{digits if abs(value) < 1000 else 0}f}"
    return text.removeprefix("-") if float(text.replace(",", "")) == 0 else text


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table; columns but the first are of numbers, so they are flush right."""
    cells = [list(head), *(list(row) for row in rows)]
    widths = [max(3, *(len(row[column]) for row in cells)) for column in range(len(head))]

    def line(row: Sequence[str]) -> str:
        first, *others = (
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        return "| " + " | ".join([first, *others]) + " |"

    rule = "|".join(("-" * (width + 1)) + ("-" if not i else ":") for i, width in enumerate(widths))
    return "\n".join([line(cells[0]), f"|{rule}|", *map(line, cells[1:])]) + "\n"


def ratios(summary: Summary) -> str:
    """Returns the table of processor time per request with its ratios and verdicts."""
    rows = []
    for target in RATIOS:
        if target.workload not in summary.workloads():
            continue
        costs = (summary.median(target.workload, peer, "cpu_us") for peer in (*COMPARED, "floor"))
        of_envoy, of_best_c = target.ratios(summary)
        rows.append(
            [
                target.title,
                *map(number, costs),
                f"{number(of_envoy, 2)}{_allowed(target.of_envoy)}",
                f"{number(of_best_c, 2)}{_allowed(target.of_best_c)}",
                VERDICTS[target.verdict(summary)],
            ]
        )
    head = ["CPU µs per request", *(NAMES[peer] for peer in (*COMPARED, "floor"))]
    return table([*head, "of Envoy", "of best C", "reached"], rows) if rows else ""


def _allowed(bounds: Bounds | None) -> str:
    return "" if bounds is None else f" ({bounds.must:.2f}, {bounds.goal:.2f})"


def figures(summary: Summary) -> str:
    """Returns the table of everything that is not a ratio of processor time."""
    rows = [
        [
            target.title + (f", {target.unit}" if target.unit else ""),
            *(_figure(target, summary, peer) for peer in COMPARED),
            *_bounds(target),
            VERDICTS[target.bounds.verdict(value) if target.bounds else None],
        ]
        for target in FIGURES
        if (value := target.measure(summary, "kgw")) is not None
    ]
    head = ["", *(NAMES[peer] for peer in COMPARED), "must", "goal", "reached"]
    return table(head, rows) if rows else ""


def _figure(target: FigureTarget, summary: Summary, peer: str) -> str:
    text = number(target.measure(summary, peer), target.digits)
    noise = None if target.noise is None else target.noise(summary, peer)
    if text == "-" or noise is None or not math.isfinite(noise):
        return text
    return f"{text} ± {number(noise, target.digits)}"


def _bounds(target: FigureTarget) -> tuple[str, str]:
    if target.bounds is None:
        return "-", "-"
    must, goal = (f"{bound:,g}" for bound in (target.bounds.must, target.bounds.goal))
    return must, goal


def details(summary: Summary, workload: str) -> str:
    """Returns the table of one workload: every peer, cheapest first."""
    rows = []
    for peer in summary.peers(workload):
        costs = summary.values(workload, peer, "cpu_us")
        if not costs or not summary.values(workload, peer, "rps"):
            continue
        middle = summary.median(workload, peer, "cpu_us")
        assert middle is not None
        rows.append((middle, _detail(summary, workload, peer, costs)))
    head = ["", "CPU µs", "range", "kernel µs", "req/s", "p50 ms", "p99 ms", "p99.9 ms"]
    body = [row for _, row in sorted(rows)]
    return table([*head, "peak RSS MiB", "busy", "errors"], body) if body else ""


def _detail(summary: Summary, workload: str, peer: str, costs: list[float]) -> list[str]:
    def median(name: str, factor: float = 1.0, digits: int = 1) -> str:
        value = summary.median(workload, peer, name)
        return number(None if value is None else value * factor, digits)

    return [
        NAMES.get(peer, peer),
        median("cpu_us"),
        f"{number(min(costs))}-{number(max(costs))}",
        median("system_us"),
        median("rps", digits=0),
        *(median(name, 1e-3, 2) for name in ("p50_us", "p99_us", "p999_us")),
        median("peak_kib", 1 / 1024),
        median("busy", digits=2),
        number(sum(summary.values(workload, peer, "errors")), 0),
    ]


def failures(summary: Summary) -> list[str]:
    """Returns what could not be measured, and why."""
    found = [f"{skip.what}: {skip.why}" for run in summary.runs for skip in run.skips]
    for workload in summary.workloads():
        for peer in summary.peers(workload):
            found += [f"{workload}, {peer}: {why}" for why in summary.errors(workload, peer)]
    return list(dict.fromkeys(found))


def unsaturated(summary: Summary) -> list[str]:
    """Returns the rows in which a proxy had time to spare: its requests cost more then."""
    rows = []
    for target in RATIOS:
        for peer in COMPARED:
            busy = summary.median(target.workload, peer, "busy")
            if busy is not None and busy < SATURATED:
                rows.append(f"{target.workload}, {peer}: busy {number(100 * busy, 0)}% of the time")
    return rows


def plain(summary: Summary) -> str:
    """Returns everything, for a terminal."""
    parts = [ratios(summary), figures(summary)]
    for workload in summary.workloads():
        if detail := details(summary, workload):
            title = BY_NAME[workload].title if workload in BY_NAME else workload
            parts.append(f"{workload}: {title}\n\n{detail}")
    if spare := unsaturated(summary):
        parts.append("Not saturated:\n" + "".join(f"- {one}\n" for one in spare))
    if missing := failures(summary):
        parts.append("Not measured:\n" + "".join(f"- {one}\n" for one in missing))
    parts.append(conditions(summary))
    return "\n".join(part for part in parts if part)


def markdown(summary: Summary) -> str:
    """Returns the README's section."""
    missing = "".join(f"- {one}\n" for one in failures(summary))
    spare = "".join(f"- {one}\n" for one in unsaturated(summary))
    parts = [
        "## Performance",
        "`make bench-load` gives every proxy the same work, in interleaved rounds, and prints this"
        " (`python -m benches.load report --markdown`; [how](benches/load/README.md))."
        " What counts is the processor time of the proxy's own processes, for each request.",
        conditions(summary),
        "In brackets are the targets: what must be reached, and the goal. *Best C* is the better of"
        " HAProxy and nginx in a row; the *C floor* moves bytes and does nothing else.",
        ratios(summary).rstrip(),
        figures(summary).rstrip(),
        _collapsed(summary),
        f"Not saturated, so that a request costs more:\n\n{spare}" if spare else "",
        f"Not measured:\n\n{missing}".rstrip() if missing else "",
    ]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def _collapsed(summary: Summary) -> str:
    """Returns the tables of the workloads with targets, behind one line."""
    tables = [
        f"{BY_NAME[target.workload].title}:\n\n{detail}"
        for target in RATIOS
        if (detail := details(summary, target.workload))
    ]
    if not tables:
        return ""
    title = "Requests per second, latency at saturation and memory"
    body = "\n".join(tables)
    return f"<details><summary>{title}</summary>\n\n{body}\n</details>"


def with_section(text: str, section: str) -> str:
    """Returns a Markdown document with a section in place of that of the same heading, if any."""
    heading, _, _ = section.partition("\n")
    lines = text.splitlines(keepends=True)
    places = [place for place, line in enumerate(lines) if line.startswith("## ")] + [len(lines)]
    for place, end in pairwise(places):
        if lines[place].strip() == heading:
            rest = "".join(lines[end:])
            return "".join(lines[:place]) + section + ("\n" if rest else "") + rest
    return text.rstrip() + "\n\n" + section


def conditions(summary: Summary) -> str:
    """Returns the sentences on the machine, the versions, the time and the noise."""
    runs = summary.runs
    if not runs:
        return "No run.\n"
    run = runs[-1].run
    versions = ", ".join(
        f"{NAMES.get(name, name)} {version}" for name, version in run.versions.items() if version
    )
    days = sorted({measured.run.id[:10] for measured in runs})
    settings = ", ".join(f"{name} {value}" for name, value in run.settings.items())
    rounds = _rounds(summary)
    lines = [
        f"Measured on {' and '.join(days)}: {run.machine['cpu']}, {run.machine['cores']} cores,"
        f" {run.machine['memory']}, {run.machine['system']}; loopback; {versions}.",
        f"{_runs(runs)}{rounds}; {settings}.",
        _noise(summary),
    ]
    return "\n".join(line for line in lines if line) + "\n"


def _runs(runs: list[Measured]) -> str:
    return "One run" if len(runs) == 1 else f"{len(runs)} runs"


def _rounds(summary: Summary) -> str:
    """Returns how many rounds the medians are of, and where these were fewer."""
    by_number = summary.rounds()
    if not by_number:
        return ""
    most, *fewer = by_number
    rest = "; ".join(f"{number} of {', '.join(sorted(by_number[number]))}" for number in fewer)
    return f", medians of {most} rounds" + (f" ({rest})" if rest else "")


def _noise(summary: Summary) -> str:
    texts = []
    for name, what in (("foreign", "other processes used"), ("steal", "the hypervisor took")):
        if (extent := summary.extent(name)) is not None:
            middle, high, most = (number(value, 2) for value in extent)
            texts.append(
                f"{what} {middle} cores (median; {high} in the worst tenth, {most} at most)"
            )
    return f"Noise: {'; '.join(texts)}." if texts else ""


def as_json(summary: Summary) -> dict[str, Any]:
    """Returns the rows with targets, for programs."""
    rows: dict[str, Any] = {}
    for ratio in RATIOS:
        of_envoy, of_best_c = ratio.ratios(summary)
        rows[ratio.title] = {
            "cpu_us": {peer: summary.median(ratio.workload, peer, "cpu_us") for peer in COMPARED},
            "of_envoy": of_envoy,
            "of_best_c": of_best_c,
            "reached": ratio.verdict(summary),
        }
    for figure in FIGURES:
        value = figure.measure(summary, "kgw")
        rows[figure.title] = {
            "unit": figure.unit,
            "values": {peer: figure.measure(summary, peer) for peer in COMPARED},
            "reached": figure.bounds.verdict(value) if figure.bounds else None,
        }
    return {"runs": [measured.run.id for measured in summary.runs], "rows": rows}
