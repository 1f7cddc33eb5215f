"""``kgw check``: what an API server, a controller and the data plane would say, without them."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from kgw.cli import terminal
from kgw.cli.exits import Exit
from kgw.cli.manifests import files_option, output_option

if TYPE_CHECKING:
    from kgw.attach.status import Condition
    from kgw.config import Config

_GOOD_WHEN_FALSE = frozenset(
    {
        "Conflicted",
        "InsecureFrontendValidationMode",
        "OverlappingTLSConfig",
        "PartiallyInvalid",
    }
)
"""Conditions of the Gateway API that say that something is wrong when they are true."""


@click.command(name="check")
@files_option(help="Manifests: a file, or a directory of them.", required=True)
@output_option()
@click.option("--strict", is_flag=True, help="Let warnings count as errors.")
def command(files: tuple[str, ...], output: str, strict: bool) -> None:
    """Check manifests; show findings and the status of every resource.

    Exits with 1 if there are errors, or nothing to check. Findings name the file, line and column,
    and have stable codes: KGW1xx syntax, 2xx schema, 3xx references, 4xx semantics, 5xx
    unsupported, 6xx migration.
    """
    from kgw.config import load
    from kgw.diagnostics import Severity, sort, summary

    config = load(files)
    findings = sort(config.findings)
    if output == "json":
        report = {
            "findings": [finding.to_json() for finding in findings],
            "statuses": [
                {"resource": str(resource), "status": status.to_json()}
                for resource, status in config.statuses.items()
            ],
        }
        click.echo(json.dumps(report, indent=2))
    else:
        _print(config)
        click.echo(summary(findings))
    if not config.resources and not config.errors:
        where = ", ".join("standard input" if file == "-" else file for file in files)
        terminal.fail(f"nothing to check: no object in {where}", Exit.FINDINGS)
    bad = {Severity.ERROR, Severity.WARNING} if strict else {Severity.ERROR}
    if any(finding.severity in bad for finding in findings):
        raise click.exceptions.Exit(Exit.FINDINGS)


def _print(config: Config) -> None:
    from kgw.diagnostics import render, sort

    color = terminal.colored(sys.stdout)
    for finding in sort(config.findings):
        click.echo(render(finding, color=color) + "\n")
    rows = [
        (resource, about, condition)
        for resource, status in config.statuses.items()
        for about, condition in status.all_conditions()
    ]
    if not rows:
        return
    lines = terminal.table(
        ("RESOURCE", "ABOUT", "CONDITION", "STATUS", "REASON", "MESSAGE"),
        [
            (
                str(resource),
                about or "-",
                condition.type,
                condition.status,
                condition.reason,
                condition.message,
            )
            for resource, about, condition in rows
        ],
    ).splitlines()
    click.secho(lines[0], bold=True)
    for line, (_, _, condition) in zip(lines[1:], rows, strict=True):
        click.secho(line, fg=None if _is_good(condition) else "red")
    click.echo()


def _is_good(condition: Condition) -> bool:
    return condition.status == ("False" if condition.type in _GOOD_WHEN_FALSE else "True")
