"""``kgw test``: unit tests of manifests, for people who write no Python."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Any

import click

from kgw.cli import terminal
from kgw.cli.exits import Exit
from kgw.cli.manifests import (
    output_option,
    policy_options,
    print_findings,
    translation_options,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kgw.api.kgw.test import Test
    from kgw.attach.options import PolicyOptions
    from kgw.config import Config
    from kgw.diagnostics import Finding
    from kgw.testing.cases import Case, Taken


@click.command(
    name="test",
    epilog=(
        "Results go to stdout, findings about manifests to stderr. Exit codes: 1 when a Test "
        "fails, cannot be read, or there is none; 130 when interrupted."
    ),
)
@click.argument(
    "paths",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, allow_dash=True),
    metavar="PATH...",
)
@click.option("-k", "--only", metavar="TEXT", help="Run the Tests that have this in their name.")
@output_option("junit")
@policy_options()
@click.option("-v", "--verbose", is_flag=True, help="Show every step, not only failures.")
def command(
    paths: tuple[str, ...],
    only: str | None,
    output: str,
    policies: PolicyOptions,
    verbose: bool,
) -> None:
    """Run the Tests that stand beside manifests, without a cluster.

    PATHs are manifests and Tests (apiVersion kgw.dev/v1alpha1), all of one configuration. Each Test
    has a gateway of its own with a fake backend for every Service, and a clock that only its
    `advance` steps, and waiting, move.

    \b
      kgw test examples/waypoint examples/waypoint-tests
    """
    from kgw.config import load
    from kgw.testing.cases import cases, run

    config = load(paths, options=translation_options(policies))
    tests = [test for test in cases(config) if only is None or only in _name(test)]
    _refuse(config, tests)
    if not tests:
        what = "no Test" if only is None else f"no Test with {only!r} in its name"
        terminal.fail(f"nothing to run: {what} in {', '.join(paths)}", Exit.FINDINGS)
    done: list[Case] = []
    for case in run(config, tests):
        done.append(case)
        if output == "table":
            _print(case, verbose=verbose)
    if output == "json":
        click.echo(json.dumps({"tests": [_to_json(case) for case in done]}, indent=2))
    elif output == "junit":
        click.echo(_to_junit(done))
    else:
        click.echo(_summary(done))
    if any(case.failed for case in done):
        raise click.exceptions.Exit(Exit.FINDINGS)


def _name(test: Test) -> str:
    return f"{test.namespace}/{test.name}"


def _refuse(config: Config, tests: list[Test]) -> None:
    """Prints what is wrong with the manifests, and ends if a Test or anything else is unreadable.

    A warning about a Test is an error: what it misspells would not be looked at, and pass.
    """
    from kgw.diagnostics import Severity
    from kgw.proxy import unreadable

    strict = not any(test.spec.allow_errors for test in tests)
    about = [one for one in config.findings if (one.resource or "").startswith("Test ")]
    unread = unreadable(config)
    fatal = [one for one in about if one.severity is not Severity.INFO] + unread
    shown: list[Finding] = list(config.errors) if strict else []
    print_findings(dict.fromkeys([*shown, *fatal]))
    if fatal or shown:
        raise click.exceptions.Exit(Exit.FINDINGS)


# === For people ===


def _print(case: Case, *, verbose: bool) -> None:
    mark = click.style("FAIL", fg="red", bold=True) if case.failed else _green("ok  ")
    where = "" if case.test.origin is None else f"  ({case.test.origin.describe()})"
    _say(f"{mark} {click.style(case.name, bold=True)}{where}")
    for step in case.steps:
        if not (verbose or case.failed):
            continue
        mark = click.style("FAIL", fg="red") if step.failures else _green("ok  ")
        outcome = f": {step.outcome}" if step.outcome else ""
        _say(f"  {mark} {step.what}{outcome}")
        for failure in step.failures:
            first, *more = failure.message.splitlines()
            _say(f"       {click.style(first, fg='red')}")
            for line in more:
                _say(f"       {line}")
            _say(f"         expected at {case.place(failure.path)}")
        if step.details:
            _say("")
            for line in step.details:
                _say(f"       {line}".rstrip())
            _say("")
    if case.skipped:
        _say(f"  {_steps(case.skipped)} not taken")


def _say(line: str) -> None:
    # click strips colours for what is no terminal, but knows nothing of --no-color of a parent.
    click.echo(line, color=terminal.colored(sys.stdout))


def _green(text: str) -> str:
    return click.style(text, fg="green")


def _steps(number: int) -> str:
    return f"{number} step{'s' * (number != 1)}"


def _summary(done: Sequence[Case]) -> str:
    failed = sum(case.failed for case in done)
    seconds = sum(case.seconds for case in done)
    passed = len(done) - failed
    parts = [f"{passed} passed"] + ([f"{failed} failed"] if failed else [])
    return f"{', '.join(parts)} in {seconds:.2f} s"


# === For programs ===


def _to_json(case: Case) -> dict[str, Any]:
    return {
        "name": case.name,
        "place": case.place(()),
        "passed": not case.failed,
        "seconds": round(case.seconds, 6),
        "skipped": case.skipped,
        "steps": [_step(case, step) for step in case.steps],
    }


def _step(case: Case, step: Taken) -> dict[str, Any]:
    return {
        "what": step.what,
        "outcome": step.outcome,
        "passed": not step.failures,
        "failures": [
            {"message": one.message, "place": case.place(one.path)} for one in step.failures
        ],
        "details": list(step.details),
    }


def _to_junit(done: Iterable[Case]) -> str:
    """Returns the results as JUnit's XML, which every CI system reads."""
    from xml.etree import ElementTree

    done = list(done)
    suite = ElementTree.Element(
        "testsuite",
        name="kgw",
        tests=str(len(done)),
        failures=str(sum(case.failed for case in done)),
        time=f"{sum(case.seconds for case in done):.3f}",
    )
    for case in done:
        one = ElementTree.SubElement(
            suite, "testcase", name=case.name, classname="kgw.test", time=f"{case.seconds:.3f}"
        )
        for step in case.steps:
            if step.failures:
                first = step.failures[0]
                failure = ElementTree.SubElement(one, "failure", message=_legal(first.message))
                lines = [f"{each.message} ({case.place(each.path)})" for each in step.failures]
                failure.text = _legal("\n".join([step.what, *lines, *step.details]))
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True)


_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What is no Char of XML 1.0 (2.2)."""


def _legal(text: str) -> str:
    """Replaces the characters that XML 1.0 cannot have."""
    return _ILLEGAL.sub("\N{REPLACEMENT CHARACTER}", text)
