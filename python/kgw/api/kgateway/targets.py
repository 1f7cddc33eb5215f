"""What a kgateway policy attaches to: objects of its own namespace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from kgw.api.base import Model, contradiction
from kgw.api.kinds import KGATEWAY_GROUP as KGATEWAY_GROUP
from kgw.api.names import Group, Kind, ObjectName, SectionName

if TYPE_CHECKING:
    from collections.abc import Sequence


class PolicyTargetReference(Model):
    """An object, or a section of it."""

    group: Group
    kind: Kind
    name: ObjectName
    section_name: SectionName | None = None


class PolicyTargetSelector(Model):
    """All objects of a kind that have the labels."""

    group: Group
    kind: Kind
    match_labels: dict[str, str]
    section_name: SectionName | None = None


TargetRefs = Annotated[tuple[PolicyTargetReference, ...], Field(max_length=16)]
TargetSelectors = tuple[PolicyTargetSelector, ...]


def target_rules(
    refs: TargetRefs, selectors: TargetSelectors, kinds: tuple[str, ...], words: str
) -> None:
    """Checks that targets are of the kinds a policy may have.

    Raises:
        ValueError: in the words of the CRD.
    """
    lists: list[tuple[str, Sequence[PolicyTargetReference | PolicyTargetSelector]]]
    lists = [("targetRefs", refs), ("targetSelectors", selectors)]
    for name, targets in lists:
        for number, target in enumerate(targets):
            if target.kind not in kinds:
                raise contradiction(f"{name} may only reference {words}", name, number, "kind")
