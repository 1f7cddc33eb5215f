"""The stage of a scenario, and the `kgw` command as a user runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.cli.conftest import kgw as kgw
from tests.cli.conftest import running as running
from tests.scenario.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with Stage(tmp_path / "manifests") as stage:
        yield stage
