"""`kgw migrate`."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Kgw


def test_changes_are_listed_and_nothing_is_written(kgw: Kgw, manifests: Path) -> None:
    before = {one: one.read_bytes() for one in manifests.iterdir()}
    result = kgw("migrate", "-f", manifests)
    assert result.returncode == 0
    assert "HTTPListenerPolicy is ListenerPolicy" in result.stdout
    assert "1 change to make" in result.stderr
    assert {one: one.read_bytes() for one in manifests.iterdir()} == before
    assert kgw("migrate", "-f", manifests, "--check").returncode == 1


def test_what_was_written_has_nothing_more_to_change(kgw: Kgw, manifests: Path) -> None:
    shown = kgw("migrate", "-f", manifests, "--diff")
    assert "\n-kind: HTTPListenerPolicy\n+kind: ListenerPolicy\n" in shown.stdout
    (file,) = [one for one in manifests.iterdir() if "HTTPListener" in one.read_text()]
    file.chmod(0o640)
    assert kgw("migrate", "-f", manifests, "--write").returncode == 0
    assert file.stat().st_mode & 0o777 == 0o640
    again = kgw("migrate", "-f", manifests, "--check")
    assert (again.returncode, again.stdout) == (0, "")
    assert "nothing to change" in again.stderr
    checked = kgw("check", "-f", manifests, "--strict")
    assert checked.returncode == 0
    assert "KGW601" not in checked.stdout
    assert "ListenerPolicy default/access-logging" in checked.stdout


def test_what_is_left_is_told(kgw: Kgw, tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(
        "apiVersion: gateway.kgateway.dev/v1alpha1\nkind: TrafficPolicy\n"
        "metadata: {name: a}\nspec: {ai: {}}\n"
    )
    result = kgw("migrate", "-f", file, "--write")
    assert result.returncode == 1
    assert "KGW604" in result.stderr
    assert "`ai` has no successor" in result.stderr


def test_a_stream_is_a_filter() -> None:
    text = (
        "apiVersion: gateway.kgateway.dev/v1alpha1\nkind: Backend\n"
        "spec: {type: Static, static: {}} # s\n"
    )
    result = subprocess.run(
        [sys.executable, "-m", "kgw", "migrate", "-f", "-", "--write"],
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert result.stdout == text.replace("type: Static, ", "")


def test_options_that_exclude_each_other(kgw: Kgw, manifests: Path) -> None:
    assert kgw("migrate", "-f", manifests, "--write", "--check").returncode == 2
