"""How much memory a container gives, and how it is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import pytest

from kgw.cli.memory import container_limit, size

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("1", 1),
        ("512Mi", 512 << 20),
        ("2G", 2_000_000_000),
        ("3k", 3000),
        ("1Ti", 1 << 40),
        ("none", 0),
        (None, None),
    ],
)
def test_sizes_are_written_as_in_kubernetes(text: str | None, count: int | None) -> None:
    assert size(None, None, text) == count


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5G", "5Q", "Mi", "0Mi", "1 G"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a size"):
        size(None, None, text)


def machine(root: Path, groups: str, files: dict[str, str]) -> Path:
    files = {"proc/self/cgroup": groups, **files}
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


V1_NONE = str(0x7FFF_FFFF_FFFF_F000)


@pytest.mark.parametrize(
    ("groups", "files", "limit"),
    [
        # A container: its cgroup is the top.
        ("0::/\n", {"memory.max": "1000\n"}, 1000),
        ("0::/\n", {"memory.max": "max\n"}, None),
        ("0::/\n", {}, None),
        # A service: the lowest on the way up counts.
        ("0::/a/b\n", {"a/memory.max": "500", "a/b/memory.max": "1000"}, 500),
        ("0::/a/b\n", {"a/memory.max": "max", "a/b/memory.max": "1000"}, 1000),
        ("0::/a/b\n", {"a/other/memory.max": "7", "a/b/memory.max": "max"}, None),
        # The path that the host knows, seen from inside.
        ("0::/kubepods/pod1\n", {"memory.max": "2000"}, 2000),
        ("0::/../../other\n", {"memory.max": "2000"}, 2000),
        # Version 1, and both at once.
        ("5:memory:/a\n", {"memory/a/memory.limit_in_bytes": "3000"}, 3000),
        ("5:cpu,memory:/\n", {"memory/memory.limit_in_bytes": V1_NONE}, None),
        (
            "5:memory:/a\n4:cpu:/\n0::/\n",
            {"memory/a/memory.limit_in_bytes": "3000", "memory/memory.limit_in_bytes": V1_NONE},
            3000,
        ),
        ("4:cpu:/\n", {"memory/memory.limit_in_bytes": "3000"}, None),
        ("", {}, None),
    ],
)
def test_the_limit_of_a_container_is_found(
    tmp_path: Path, groups: str, files: dict[str, str], limit: int | None
) -> None:
    at = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    assert container_limit(machine(tmp_path, groups, at)) == limit


def test_a_machine_without_cgroups_has_no_limit(tmp_path: Path) -> None:
    assert container_limit(tmp_path) is None
