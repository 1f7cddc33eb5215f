"""Whether traffic is split as weights say, within what chance allows."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Mapping

#: How far a share may be from what it should be (the suite's tolerance).
TOLERANCE = 0.05

#: How often the suite samples before it gives up: chance alone fails one sample in twenty or so.
TRIES = 10


def expect_shares(sample: Callable[[], Counter[str]], expected: Mapping[str, float]) -> None:
    """Samples until the shares are as expected; nobody else may have any, and zero is none."""
    for _ in range(TRIES):
        found = sample()
        total = sum(found.values())
        assert not found.keys() - {name for name, share in expected.items() if share}, found
        if all(abs(found[name] / total - share) <= TOLERANCE for name, share in expected.items()):
            return
    raise AssertionError(f"{dict(found)} is not {dict(expected)}")
