"""Which conformance tests there are, and how a test of ours says which one it follows.

``suite.json`` lists the tests of the official suite (v1.6.1, and those that only its main branch
has) with the features that each needs, and the features of each profile.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

_F = TypeVar("_F", bound="Callable[..., Any]")


class Profile(NamedTuple):
    """A profile of the suite."""

    core: frozenset[str]
    """Features that it cannot be had without."""
    extended: frozenset[str]
    """Features that may be claimed."""


class Official(NamedTuple):
    """A test of the official suite."""

    features: frozenset[str]
    """What an implementation must support for it to be run."""
    provisional: bool
    """Whether its result does not count yet."""
    since: str
    """``1.6.1``, or ``head`` if only the main branch has it."""


_DATA: dict[str, Any] = json.loads(Path(__file__).with_name("suite.json").read_text())

PROFILES = {
    name: Profile(frozenset(one["core"]), frozenset(one["extended"]))
    for name, one in _DATA["profiles"].items()
}
"""The profiles by name."""

OFFICIAL = {
    name: Official(frozenset(one["features"]), one["provisional"], one["since"])
    for name, one in _DATA["tests"].items()
}
"""The tests by name."""


def profiles(name: str) -> list[str]:
    """The profiles that count a test: those that have all of its features."""
    needs = OFFICIAL[name].features
    return [name for name, one in PROFILES.items() if needs <= one.core | one.extended]


def conformance(name: str) -> Callable[[_F], _F]:
    """Says that a function tests what an official test does.

    Raises:
        ValueError: there is no such test, or the function is not named after it.
    """
    if name not in OFFICIAL:
        raise ValueError(f"the suite has no test {name}")

    def mark(function: _F) -> _F:
        if function.__name__ != f"test_{name}":
            raise ValueError(f"{function.__name__} is not named after {name}")
        marked: _F = pytest.mark.conformance(name)(function)
        return marked

    return mark
