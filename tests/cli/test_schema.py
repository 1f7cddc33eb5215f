"""`kgw schema`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from kgw.api import json_schema
from kgw.api.kinds import HOMES

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Kgw


def test_the_schema_of_all_kinds_is_printed(kgw: Kgw) -> None:
    result = kgw("schema")
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout) == json_schema()


def test_the_schema_of_a_kind_is_printed_whatever_its_case(kgw: Kgw) -> None:
    result = kgw("schema", "httproute")
    assert result.returncode == 0
    assert json.loads(result.stdout) == json_schema("HTTPRoute")


def test_an_unknown_kind_is_a_usage_error(kgw: Kgw) -> None:
    result = kgw("schema", "Ingress")
    assert result.returncode == 2
    assert "no kind 'Ingress' is read" in result.stderr


def test_files_are_written_for_all_and_for_each(kgw: Kgw, tmp_path: Path) -> None:
    result = kgw("schema", "--output", tmp_path / "new" / "schemas")
    assert result.returncode == 0
    assert result.stdout == ""
    written = {one.stem: json.loads(one.read_text()) for one in tmp_path.rglob("*.json")}
    assert written == {"kgw": json_schema()} | {kind: json_schema(kind) for kind in HOMES}


def test_one_file_is_written_for_one_kind(kgw: Kgw, tmp_path: Path) -> None:
    result = kgw("schema", "Service", "-d", tmp_path)
    assert result.stderr == f"1 schema in {tmp_path}\n"
    assert [one.name for one in tmp_path.iterdir()] == ["Service.json"]


def test_a_directory_that_cannot_be_made_is_an_error(kgw: Kgw, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = kgw("schema", "-d", tmp_path / "file" / "schemas")
    assert result.returncode == 4
    assert "Not a directory" in result.stderr
