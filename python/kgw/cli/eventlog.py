"""The log of a long-running command: one readable line per event, on stderr."""

from __future__ import annotations

import datetime
import sys

import click

_STYLES = {"info": "green", "warn": "yellow", "error": "red"}


def info(event: str, **fields: object) -> None:
    """Logs that something happened as it should."""
    _write("info", event, fields)


def warn(event: str, **fields: object) -> None:
    """Logs something that someone should look at."""
    _write("warn", event, fields)


def error(event: str, **fields: object) -> None:
    """Logs that something was asked for and could not be done."""
    _write("error", event, fields)


def _write(level: str, event: str, fields: dict[str, object]) -> None:
    now = datetime.datetime.now(datetime.UTC)
    parts = [
        click.style(f"{now:%Y-%m-%dT%H:%M:%S}.{now.microsecond // 1000:03}Z", dim=True),
        click.style(f"{level:5}", fg=_STYLES[level]),
        event,
        *(f"{click.style(name, dim=True)}={_quoted(value)}" for name, value in fields.items()),
    ]
    click.echo(" ".join(parts), file=sys.stderr)


def _quoted(value: object) -> str:
    text = str(value)
    plain = text.isprintable() and text and not any(c in text for c in ' "=')
    return text if plain else f'"{text}"' if text.isprintable() and '"' not in text else repr(text)
