"""``kgw migrate``: manifests of earlier versions of kgateway in the words of the current one."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kgw.cli import terminal
from kgw.cli.exits import Exit
from kgw.cli.manifests import files_option, print_findings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kgw.migrate import Rewritten


@click.command(name="migrate")
@files_option(help="Manifests: a file, or a directory of them.", required=True)
@click.option("--diff", is_flag=True, help="Show the changes as a unified diff.")
@click.option("--write", is_flag=True, help="Write the changes into the files.")
@click.option("--check", is_flag=True, help="Exit with 1 if there is anything to change.")
def command(files: tuple[str, ...], diff: bool, write: bool, check: bool) -> None:
    """Rewrite manifests of earlier versions of kgateway.

    Only what has a successor changes; comments, order and layout stay. Without options the changes
    are listed, and nothing is written. What cannot be rewritten is told, and exits with 1. What
    comes from standard input (`-f -`) goes to standard output with --write.
    """
    from kgw.migrate import rewrite
    from kgw.migrate.diff import diff as shown

    if write and check:
        raise click.UsageError("--write and --check exclude each other")
    changed = left = 0
    for name, text in _texts(files):
        found: Rewritten = rewrite(text, "<stdin>" if name == "-" else name)
        print_findings(found.left)
        left += len(found.left)
        changed += len(found.changes)
        if diff and found.text != text:
            click.echo(shown(text, found.text, "stdin" if name == "-" else name), nl=False)
        elif found.changes and not (write and name == "-"):
            for one in found.changes:
                place = one.source.describe(one.path, key=True) if one.source else name
                click.echo(f"{place}: {one.resource}: {one.message}")
        if write and (found.text != text or name == "-"):
            _write(name, found.text)
    many = "s" * (changed != 1)
    if changed:
        terminal.say(f"{changed} change{many} {'made' if write else 'to make: --write makes them'}")
    else:
        terminal.say("nothing to change")
    if left or (check and changed):
        raise click.exceptions.Exit(Exit.FINDINGS)


def _texts(files: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """The files that paths come to, and what is in them."""
    from kgw.source.files import files_of

    try:
        names = [name for file in files for name in (["-"] if file == "-" else files_of(file))]
        for name in dict.fromkeys(names):
            data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
            yield name, data.decode()
    except OSError as error:
        terminal.fail(f"cannot read {error.filename}: {error.strerror}", Exit.FINDINGS)
    except UnicodeDecodeError:
        terminal.fail(f"{name} is not text in UTF-8", Exit.FINDINGS)


def _write(name: str, text: str) -> None:
    """Puts a text in the place of a file's, whole or not at all."""
    data = text.encode()
    if name == "-":
        click.echo(data, nl=False)
        return
    # A link stays one: what it leads to is replaced.
    path = Path(name).resolve()
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        # What may hold Secrets is nobody else's to read, at no time.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with open(os.open(beside, flags, 0o600), "wb") as file:
            file.write(data)
            os.fchmod(file.fileno(), path.stat().st_mode & 0o7777)
        beside.replace(path)
    except FileExistsError:
        terminal.fail(f"cannot write {name}: {beside} is in the way", Exit.PARTIAL)
    except OSError as error:
        beside.unlink(missing_ok=True)
        terminal.fail(f"cannot write {name}: {error.strerror}", Exit.PARTIAL)
