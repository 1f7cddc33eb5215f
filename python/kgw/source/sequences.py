"""What two sequences of objects differ in, most of which are the same objects."""

from __future__ import annotations

from itertools import compress, count
from operator import is_not
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

_T = TypeVar("_T")

__all__ = ["exchanged", "part"]


def part(before: Sequence[_T], after: Sequence[_T]) -> tuple[slice, slice]:
    """Returns the part of each that differs, by identity; what is around it is the same."""
    first = _common(before, after)
    shorter = min(len(before), len(after)) - first
    last = min(_common(before[first:][::-1], after[first:][::-1]), shorter)
    return slice(first, len(before) - last), slice(first, len(after) - last)


def exchanged(before: Sequence[_T], after: Sequence[_T]) -> tuple[list[_T], list[_T]]:
    """Returns the objects that went and those that came, compared by identity, in any order."""
    gone, come = part(before, after)
    old, new = before[gone], after[come]
    if len(old) == len(new):
        places = list(compress(count(), map(is_not, old, new)))
        old, new = [old[place] for place in places], [new[place] for place in places]
    kept = {id(one) for one in old} & {id(one) for one in new}
    return [one for one in old if id(one) not in kept], [one for one in new if id(one) not in kept]


def _common(one: Sequence[_T], other: Sequence[_T]) -> int:
    """How many objects two sequences begin with alike."""
    return next(compress(count(), map(is_not, one, other)), min(len(one), len(other)))
