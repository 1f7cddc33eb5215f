"""How much memory a process may use: what a container was given."""

from __future__ import annotations

import re
from pathlib import Path

import click

_UNITS: dict[str, int] = {"": 1} | {
    name: base**power
    for base, names in ((1000, ["k", "M", "G", "T"]), (1024, ["Ki", "Mi", "Gi", "Ti"]))
    for power, name in enumerate(names, 1)
}
"""As in Kubernetes quantities."""

_UNLIMITED = 1 << 60
"""cgroup v1 has no word for "no limit", only a number of this size."""

SHARE = 0.9
"""Share of the container's memory at which load is shed, by default."""


def size(
    _ctx: click.Context | None, _param: click.Parameter | None, value: str | None
) -> int | None:
    """Turns ``512Mi`` into bytes, and ``none`` into 0. A callback for click options."""
    if value is None or value == "none":
        return None if value is None else 0
    found = re.fullmatch(r"([0-9]{1,15})([A-Za-z]*)", value)
    if found is None or found[2] not in _UNITS or not int(found[1]):
        raise click.BadParameter(f"{value!r} is not a size, such as 512Mi or 2G, nor 'none'")
    return int(found[1]) * _UNITS[found[2]]


def container_limit(root: Path = Path("/")) -> int | None:
    """Returns the bytes of memory that the cgroups of this process allow; none if all of them.

    The lowest limit on the way up counts. Inside a container the way up ends where the container
    does, which is where its limit is.

    Args:
        root: where ``proc`` and ``sys`` are.
    """
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    limits: list[int] = []
    for line in groups:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            limits += _limits(root / "sys/fs/cgroup", path, "memory.max")
        elif "memory" in controllers.split(","):
            limits += _limits(root / "sys/fs/cgroup/memory", path, "memory.limit_in_bytes")
    return min(limits, default=None)


def _limits(mount: Path, path: str, name: str) -> list[int]:
    """Returns the limits of a cgroup and of those around it."""
    inside = mount / path.lstrip("/")
    if ".." in inside.parts or not inside.is_dir():
        # The path is that outside of the container; its own cgroup is mounted at the top.
        inside = mount
    found = []
    for directory in (inside, *inside.parents):
        try:
            text = (directory / name).read_text().strip()
        except OSError:
            text = "max"
        if text.isdigit() and 0 < int(text) < _UNLIMITED:
            found.append(int(text))
        if directory == mount:
            break
    return found
