"""What every command prints with: colours where they are wanted, lines in order.

Answers (bodies, tables, JSON) go to stdout, everything about them to stderr, so that a pipe gets
only what was asked for.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NoReturn

import click

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

    from kgw.cli.exits import Exit


def colored(stream: TextIO) -> bool:
    """Whether *stream* takes colours: a terminal, and ``NO_COLOR`` is not set."""
    context = click.get_current_context(silent=True)
    if context is not None and context.color is not None:
        return context.color
    return stream.isatty()


def say(
    message: str = "", *, fg: str | None = None, bold: bool | None = None, dim: bool | None = None
) -> None:
    """Writes a line about what happens to stderr."""
    click.secho(message, err=True, fg=fg, bold=bold, dim=dim)


def fail(message: str, code: Exit) -> NoReturn:
    """Ends the command with a message and an exit code."""
    say(f"{click.style('error', fg='red', bold=True)}: {message}")
    raise click.exceptions.Exit(code)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns rows as columns of equal width, four spaces between them, as ``istioctl`` does."""
    columns = list(zip(heads, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    lines = [
        "    ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (heads, *rows)
    ]
    return "\n".join(lines)


def flush() -> None:
    """Puts out what was printed, so that stdout and stderr appear in the order of printing."""
    sys.stdout.flush()
    sys.stderr.flush()
