"""How policies merge that are attached to objects above one another.

An annotation of the upper one (a Gateway, a ListenerSet, or an HTTPRoute that delegates to others)
says whose fields count where both set them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from kgw.diagnostics import Severity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kgw.api import Resource
    from kgw.attach.index import Index

PRIORITY: Final = "kgateway.dev/inherited-policy-priority"
"""The annotation."""

OLD_PRIORITY: Final = "delegation.kgateway.dev/inherited-policy-priority"
"""What kgateway 2.0 called it."""


class Strategy(NamedTuple):
    """How what an object hands down is merged with what is below."""

    #: Whether what is above replaces what is below, rather than that it fills gaps.
    prefer_parent: bool = False
    #: Whether of fields that are merged deeply both count.
    deep: bool = False


DEFAULT: Final = Strategy()

#: By the values of the annotation.
STRATEGIES: Final[Mapping[str, Strategy]] = {
    "ShallowMergePreferChild": DEFAULT,
    "ShallowMergePreferParent": Strategy(prefer_parent=True),
    "DeepMergePreferChild": Strategy(deep=True),
    "DeepMergePreferParent": Strategy(prefer_parent=True, deep=True),
}


def strategy(owner: Resource) -> Strategy:
    """How policies of an object are merged with those below."""
    notes = owner.metadata.annotations
    return STRATEGIES.get(notes.get(PRIORITY, notes.get(OLD_PRIORITY, "")), DEFAULT)


def of(index: Index, owner: Resource) -> Strategy:
    """How policies of an object are merged with those below; reports what cannot be read of it."""
    notes = owner.metadata.annotations
    name = PRIORITY if PRIORITY in notes or OLD_PRIORITY not in notes else OLD_PRIORITY
    value = notes.get(name)
    if OLD_PRIORITY in notes:
        index.report(
            owner,
            "KGW601",
            Severity.WARNING,
            f"`{OLD_PRIORITY}` has a successor, `{PRIORITY}`",
            ("metadata", "annotations", OLD_PRIORITY),
            hint="write `" + PRIORITY + "`" + ("; it is there, and counts" * (name == PRIORITY)),
        )
    if value is None:
        return DEFAULT
    found = STRATEGIES.get(value)
    if found is None:
        index.report(
            owner,
            "KGW432",
            Severity.WARNING,
            f"`{value}` is no way to merge policies: they are as if nothing were said",
            ("metadata", "annotations", name),
            legal=", ".join(STRATEGIES),
        )
    return found or DEFAULT
