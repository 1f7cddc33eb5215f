"""The cluster that every conformance test starts from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.conformance.infra import Infra

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def infra(tmp_path: Path) -> Iterator[Infra]:
    """Namespaces, Gateways and Services as the suite has them, and nothing served yet."""
    with Infra(tmp_path / "cluster") as infra:
        yield infra
