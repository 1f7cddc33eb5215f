"""The verdicts of kgw and of its peers, side by side: ``python -m tests.hostile.scores``."""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.peers import proxies

from . import corpus
from .lane import Case, Lane, Start, Verdict, copying_lanes, embedded, judge_all, lanes

if TYPE_CHECKING:
    from collections.abc import Iterator

LETTERS = {"PASS": "", "LENIENT": "L", "EXPOSED": "E", "STALL": "S", "OVERSTRICT": "O"}


@contextlib.contextmanager
def _envoy(config: proxies.Config) -> Iterator[dict[str, proxies.Address]]:
    with (
        tempfile.TemporaryDirectory() as directory,
        proxies.envoy(config, Path(directory)) as envoy,
    ):
        yield envoy.addresses


STARTS: dict[str, Start | None] = {"kgw": embedded, "envoy": _envoy, "relay": None}
"""How each is started; the relay is no proxy at all, and shows what the judges can see."""


def run(suite: corpus.Suite, name: str) -> dict[str, Verdict]:
    """The verdicts of one proxy on one suite."""
    start = STARTS[name]
    if start is None:
        found: contextlib.AbstractContextManager[list[Lane]] = copying_lanes()
    else:
        found = lanes(suite.listener, denied=suite.denied, start=start)
    with found as it:
        return judge_all(it, suite.cases(), suite.judge)


def score(verdicts: list[Verdict]) -> str:
    """``PASS/scored``, and the rest by letter: lenient, exposed, stall, over-strict, **U**nsafe."""
    counts = Counter(kind for kind, _ in verdicts if kind != "INFO")
    rest = [
        f"{counts[kind]}{letter}" for kind, letter in LETTERS.items() if letter and counts[kind]
    ]
    rest += [f"**{counts[it]}{it[0]}**" for it in ("UNSAFE", "CRASH") if counts[it]]
    return " ".join([f"{counts['PASS']}/{counts.total()}", *rest])


def table(suite: corpus.Suite, verdicts: dict[str, dict[str, Verdict]]) -> str:
    """The scores of a suite by class, and in total."""
    classes: dict[str, list[Case]] = {}
    for case in suite.cases():
        classes.setdefault(case.get("cls", "all"), []).append(case)
    rows = [*classes.items()]
    if len(rows) > 1:
        rows.append(("total", suite.cases()))
    lines = [f"| {suite.name} | " + " | ".join(verdicts) + " |", "|---" * (len(verdicts) + 1) + "|"]
    for name, cases in rows:
        cells = [score([found[case["id"]] for case in cases]) for found in verdicts.values()]
        lines.append(f"| {name} ({len(cases)}) | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def compact(suite: corpus.Suite, verdicts: dict[str, dict[str, Verdict]]) -> str:
    """The scores of a suite in total, as one row."""
    cells = [score(list(verdicts[it].values())) if it in verdicts else "" for it in STARTS]
    return f"| `{suite.name}` | {len(suite.cases()):,} | " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suites", nargs="*", help=f"of {[it.name for it in corpus.SUITES]}")
    parser.add_argument("--proxies", default="kgw,envoy,relay")
    parser.add_argument("--verdicts", type=Path, help="a file for every verdict, as JSON")
    options = parser.parse_args()
    every: dict[str, Any] = {}
    rows = ["| suite | cases | " + " | ".join(STARTS) + " |", "|---" * (len(STARTS) + 2) + "|"]
    for suite in corpus.SUITES:
        if options.suites and suite.name not in options.suites:
            continue
        names = [it for it in options.proxies.split(",") if it != "relay" or suite.relayed]
        verdicts = {name: run(suite, name) for name in names}
        print(table(suite, verdicts), end="\n\n", flush=True)
        every[suite.name] = verdicts
        rows.append(compact(suite, verdicts))
    print("\n".join(rows))
    if options.verdicts:
        options.verdicts.write_text(json.dumps(every, indent=1))


if __name__ == "__main__":
    main()
