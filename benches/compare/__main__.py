"""`python -m benches.compare`: a table of CPU time per call, as Markdown."""

from __future__ import annotations

import argparse
import platform
import sys
from importlib import metadata

from benches.compare import headers, limiters, routers
from benches.compare.measure import Result, measured

LIBRARIES = [
    "limits",
    "pyrate-limiter",
    "aiolimiter",
    "throttled-py",
    "werkzeug",
    "starlette",
    "proxy-protocol",
]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m benches.compare", description=__doc__)
    parser.add_argument("--only", default="", help="the works with this in their names")
    only = parser.parse_args().only
    works = [*headers.works(), *routers.works(), *limiters.works()]
    print(f"{platform.python_implementation()} {platform.python_version()}; {_versions()}\n")
    print("| work | with | CPU time | times kgw's |")
    print("|---|---|---|---|")
    for work in works:
        if only in work.name:
            for line in rows(measured(work)):
                print(line)
            sys.stdout.flush()


def rows(result: Result) -> list[str]:
    """The lines of the table about one work."""
    own = result.seconds["kgw"]
    found = []
    for name, seconds in result.seconds.items():
        work = result.work if name == "kgw" else ""
        ratio = "" if name == "kgw" else f"{seconds / own:.2g}"
        found.append(f"| {work} | {name} | {_time(seconds)} | {ratio} |")
    return found + [f"| | {name} | not installed | |" for name in result.absent]


def _time(seconds: float) -> str:
    if seconds < 1e-6:
        return f"{seconds * 1e9:.0f} ns"
    if seconds < 1e-3:
        return f"{seconds * 1e6:.3g} µs"
    return f"{seconds * 1e3:.3g} ms"


def _versions() -> str:
    found = []
    for name in ["kgw", *LIBRARIES]:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            found.append(f"{name} not installed")
    return ", ".join(found)


if __name__ == "__main__":
    main()
