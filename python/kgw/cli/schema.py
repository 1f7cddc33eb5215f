"""``kgw schema``: JSON Schemas of the kinds that kgw reads, for editors and validators."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from kgw.cli import terminal
from kgw.cli.exits import Exit

EVERY = "kgw"
"""The name of the schema of every kind."""


@click.command(name="schema")
@click.argument("kind", required=False)
@click.option(
    "-d",
    "--output",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write a file for each kind, and one for all, into a directory.",
)
def command(kind: str | None, directory: Path | None) -> None:
    """Print JSON Schemas of manifests, for editors.

    That of a KIND, or one of all kinds, which chooses by apiVersion and kind. An editor with the
    YAML language server uses it where a file begins with `# yaml-language-server: $schema=PATH`.
    """
    from kgw.api import json_schema
    from kgw.api.kinds import HOMES

    if kind is not None and kind not in HOMES:
        near = next((name for name in HOMES if name.lower() == kind.lower()), None)
        if near is None:
            raise click.BadParameter(
                f"no kind {kind!r} is read; there are: {', '.join(sorted(HOMES))}",
                param_hint="KIND",
            )
        kind = near
    if directory is None:
        click.echo(_text(json_schema(kind)), nl=False)
        return
    names = [kind] if kind else [EVERY, *sorted(HOMES)]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name in names:
            text = _text(json_schema(None if name == EVERY else name))
            (directory / f"{name}.json").write_text(text, encoding="utf-8")
    except OSError as error:
        terminal.fail(f"cannot write to {directory}: {error.strerror}", Exit.PARTIAL)
    click.echo(f"{len(names)} schema{'s' * (len(names) != 1)} in {directory}", err=True)


def _text(schema: dict[str, Any]) -> str:
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
