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
    assert "there are: call, check, demo, run, services" in far.stderr


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
