"""The `kgw` command itself."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import kgw as library
from kgw.cli import _COMMANDS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Kgw


def test_version(kgw: Kgw) -> None:
    result = kgw("--version")
    assert (result.returncode, result.stdout) == (0, f"kgw {library.__version__}\n")


def test_help_lists_every_command(kgw: Kgw) -> None:
    result = kgw("--help")
    assert result.returncode == 0
    for name, text in _COMMANDS.items():
        assert f"  {name} " in result.stdout
        assert text in result.stdout


@pytest.mark.parametrize("name", sorted(_COMMANDS))
def test_every_command_has_help_that_begins_with_its_line(kgw: Kgw, name: str) -> None:
    result = kgw(name, "--help")
    assert result.returncode == 0, result.stderr
    assert _COMMANDS[name] in result.stdout


def test_an_unknown_command_is_a_usage_error(kgw: Kgw) -> None:
    near, far = kgw("chekc"), kgw("xyzzy")
    assert near.returncode == far.returncode == 2
    assert "did you mean 'check'?" in near.stderr
    assert "there are: call, check, demo, explain, migrate, run, schema, services" in far.stderr


def test_a_reader_that_leaves_ends_a_command_quietly(manifests: Path) -> None:
    """As `kgw check | head -1` does."""
    for arguments in (["check", "-f", str(manifests)], ["services", "-f", str(manifests)], ["-h"]):
        ours, theirs = os.pipe()
        os.close(ours)
        result = written_to(theirs, *arguments)
        os.close(theirs)
        assert (result.returncode, result.stderr) == (141, b""), arguments


def test_a_full_disk_is_said_and_a_closed_stdout_is_nothing(manifests: Path) -> None:
    check = ("check", "-f", str(manifests))
    with open("/dev/full", "wb") as full:
        result = written_to(full.fileno(), *check)
    assert result.returncode == 4
    assert result.stderr == b"error: cannot write to stdout: No space left on device\n"

    shell = 'exec "$@" >&-'
    command = ["sh", "-c", shell, "sh", sys.executable, "-m", "kgw", *check]
    closed = subprocess.run(command, stderr=subprocess.PIPE, timeout=60)
    assert (closed.returncode, closed.stderr) == (0, b"")


def written_to(stdout: int, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "kgw", *arguments]
    return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, timeout=60)


def on_a_terminal(*arguments: str, **environment: str) -> str:
    """Runs `kgw` with stdout and stderr on a terminal; returns what is shown there."""
    ours, theirs = pty.openpty()
    env = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    command = [sys.executable, "-m", "kgw", *arguments]
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env={**env, **environment}
    ) as process:
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(ours, 65536):
                shown += piece
        except OSError:
            pass  # Linux: the other side is closed
        process.wait()
    os.close(ours)
    return shown.decode()


def test_colours_are_for_terminals_and_respect_no_color(manifests: Path) -> None:
    assert "\x1b[" in on_a_terminal("check", "-f", str(manifests))
    assert "\x1b[" not in on_a_terminal("check", "-f", str(manifests), NO_COLOR="1")
    assert "\x1b[" in on_a_terminal("check", "-f", str(manifests), NO_COLOR="")
    refused = ("call", "--no-header", "http://h/", "--via", "127.0.0.1:1")
    assert "\x1b[" in on_a_terminal(*refused)
    assert "\x1b[" not in on_a_terminal(*refused, NO_COLOR="1")
