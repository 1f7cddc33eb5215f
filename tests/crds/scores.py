"""The Gateway API's own corpora: what has to be refused, what has to be taken, and its CEL tests.

    make crd-corpora GATEWAY_API=CHECKOUT

The CEL tests are the repository's Go tests with another client, which asks kgw; they need Go and
what the tests are built of, once. Nothing of the repository is a part of this one.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import kgw
from kgw.diagnostics import Severity

HERE = Path(__file__).parent


def main() -> None:
    """Prints the scores; exits with 1 if one is not full."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--no-go", action="store_true", help="leave out the CEL tests")
    arguments = parser.parse_args()
    checkout = arguments.checkout.resolve()
    full = files(checkout / "hack" / "invalid-examples", refused=True)
    full &= files(checkout / "examples", refused=False)
    if not arguments.no_go:
        for channel in ("standard", "experimental"):
            full &= cel(checkout, channel)
    sys.exit(not full)


def files(folder: Path, *, refused: bool) -> bool:
    """Checks every file of a directory; prints how many are what they should be."""
    names = sorted(folder.rglob("*.yaml"))
    right = 0
    for name in names:
        errors = [
            one
            for one in kgw.load(name).findings
            if one.severity is Severity.ERROR and one.code < "KGW3"
        ]
        if bool(errors) == refused:
            right += 1
        else:
            print(f"{name}: {'taken' if refused else 'refused'}")
            for one in errors:
                print(f"    {one}")
    print(f"{folder.name}: {right} of {len(names)} files {'refused' if refused else 'taken'}")
    return right == len(names) > 0


def cel(checkout: Path, channel: str) -> bool:
    """Runs the CEL tests of a channel; prints how many cases pass."""
    with tempfile.TemporaryDirectory() as folder:
        overlay = Path(folder, "overlay.json")
        replaced = checkout / "tests" / "cel" / "main_test.go"
        overlay.write_text(json.dumps({"Replace": {str(replaced): str(HERE / "client_test.go")}}))
        ran = subprocess.run(
            ["go", "test", "-overlay", overlay, "-tags", channel, "-json", "-count=1", "./cel/"],
            cwd=checkout / "tests",
            env=os.environ
            | {
                "KGW_VALIDATOR": f"{sys.executable} -m tests.crds.answers {channel}",
                "KGW_VALIDATOR_DIRECTORY": str(HERE.parents[1]),
            },
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
    results: dict[str, str] = {}
    output: dict[str, str] = {}
    for line in ran.stdout.splitlines():
        event = json.loads(line)
        test = event.get("Test", "")
        if event["Action"] in {"pass", "fail", "skip"}:
            results[test] = event["Action"]
        elif event["Action"] == "output":
            output[test] = output.get(test, "") + event["Output"]
    # A case is within the test of what it is about.
    counts = Counter(result for test, result in results.items() if "/" in test)
    for test, result in results.items():
        if result != "pass" and (not test or "/" in test):
            print(f"{test or 'cel'}: {result}\n{output.get(test, '')}")
    print(f"CEL, {channel} channel: {counts['pass']} of {counts.total()} cases pass")
    return ran.returncode == 0 and counts["pass"] == counts.total() > 0


if __name__ == "__main__":
    main()
