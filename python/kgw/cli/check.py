"""``kgw check``: what an API server, a controller and the data plane would say, without them."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from kgw.cli import terminal
from kgw.cli.exits import Exit
from kgw.cli.manifests import (
    address_pool_option,
    files_option,
    output_option,
    policy_options,
    print_findings,
    translation_options,
)

if TYPE_CHECKING:
    from kgw.attach.options import PolicyOptions
    from kgw.attach.status import Condition
    from kgw.config import Config
    from kgw.diagnostics import Finding

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
@output_option("yaml")
@click.option("--status", is_flag=True, help="Print nothing but statuses, as a cluster has them.")
@address_pool_option()
@policy_options()
@click.option("--strict", is_flag=True, help="Let warnings count as errors.")
@click.option(
    "--channel",
    type=click.Choice(["experimental", "standard"]),
    default="experimental",
    show_default=True,
    help="The Gateway API's definitions to check against; the standard channel has fewer fields.",
)
def command(
    files: tuple[str, ...],
    output: str,
    status: bool,
    address_pool: str | None,
    policies: PolicyOptions,
    strict: bool,
    channel: str,
) -> None:
    """Check manifests; show findings and the status of every resource.

    Exits with 1 if there are errors, or nothing to check. Findings name the file, line and column,
    and have stable codes: KGW1xx syntax, 2xx schema, 3xx references, 4xx semantics, 5xx
    unsupported, 6xx migration.
    """
    from kgw.config import load
    from kgw.diagnostics import Severity, sort, summary

    config = load(files, options=translation_options(policies, address_pool))
    findings = sort(config.findings)
    if channel == "standard":
        from kgw.api.admission import channel_findings

        findings = sort([*findings, *channel_findings(config.resources)])
    if status:
        _print_statuses(config, output)
        print_findings(findings)
    elif output != "table":
        report = {
            "findings": [finding.to_json() for finding in findings],
            "statuses": [
                {"resource": str(resource), "status": one.to_json()}
                for resource, one in config.statuses.items()
            ],
        }
        _print_data(report, output)
    else:
        _print(config, findings)
        click.echo(summary(findings))
    if not config.resources and not config.errors:
        where = ", ".join("standard input" if file == "-" else file for file in files)
        terminal.fail(f"nothing to check: no object in {where}", Exit.FINDINGS)
    bad = {Severity.ERROR, Severity.WARNING} if strict else {Severity.ERROR}
    if any(finding.severity in bad for finding in findings):
        raise click.exceptions.Exit(Exit.FINDINGS)


def _print_data(value: object, output: str) -> None:
    from kgw.api.yaml import document

    text = json.dumps(value, indent=2) if output == "json" else document(value).rstrip("\n")
    click.echo(text)


def _print_statuses(config: Config, output: str) -> None:
    from kgw.api.yaml import documents
    from kgw.cli.statuses import objects

    match output:
        case "json":
            _print_data({"apiVersion": "v1", "kind": "List", "items": objects(config)}, output)
        case "yaml":
            click.echo(documents(objects(config)), nl=False)
        case _:
            _print_conditions(config)


def _print(config: Config, findings: list[Finding]) -> None:
    from kgw.diagnostics import render

    color = terminal.colored(sys.stdout)
    for finding in findings:
        click.echo(render(finding, color=color) + "\n")
    _print_conditions(config)


def _print_conditions(config: Config) -> None:
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
