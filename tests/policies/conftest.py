"""What tests of policies share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.scenario.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with Stage(tmp_path / "manifests") as stage:
        yield stage
