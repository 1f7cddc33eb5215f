"""The tutorial of `kgw run`, followed step by step with the manifests that it shows."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from tests.cli.test_run import address, answered
from tests.embed.upstream import fetch

if TYPE_CHECKING:
    from tests.cli.conftest import Kgw, Running
    from tests.embed.upstream import Upstream

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorials" / "run.md"


def manifests(port: int) -> list[str]:
    """The tutorial's manifests, for a backend on another port."""
    text = TUTORIAL.read_text(encoding="utf-8")
    found = re.findall(r"^```yaml\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [block.replace("9000", str(port)) for block in found]


def test_the_tutorial_of_run(
    kgw: Kgw, running: type[Running], upstream: Upstream, tmp_path: Path
) -> None:
    edge, limit, log = manifests(upstream.port)
    directory = tmp_path / "gateway"
    directory.mkdir()
    (directory / "edge.yaml").write_text(edge)
    assert kgw("check", "-f", directory).returncode == 0

    run = running("run", "-f", directory, "--bind", "127.0.0.1:0", "--workers", "1")
    at = address(run)
    assert fetch(at, "/files/report") == (200, b"/report")
    assert fetch(at, "/other")[0] == 404

    (directory / "limit.yaml").write_text(limit)
    run.stderr.after("configuration is live")
    assert [fetch(at, "/files/")[0] for _ in range(6)] == [200, 200, 200, 200, 200, 429]

    (directory / "log.yaml").write_text(log)
    run.stderr.after("configuration is live")
    answered(at, "/files/over", 429)
    line = json.loads(run.stdout.after("/files/over"))
    assert (line["status"], line["flags"]) == (429, "RL")
    assert line["route"].startswith("default/files")
