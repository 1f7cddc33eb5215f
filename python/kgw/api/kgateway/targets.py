"""What a kgateway policy attaches to: objects of its own namespace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from kgw.api.base import Model, contradiction, given
from kgw.api.kinds import KGATEWAY_GROUP as KGATEWAY_GROUP
from kgw.api.names import Group, Kind, ObjectName, SectionName

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Self

    from kgw.api.meta import Resource


class PolicyTargetReference(Model):
    """An object, or a section of it."""

    group: Group
    """The API group of the target."""
    kind: Kind
    """The kind of the target."""
    name: ObjectName
    """The name of the target, in the policy's own namespace."""
    section_name: SectionName | None = None
    """The only listener or rule that the policy is for, by name."""

    @classmethod
    def of(cls, target: Resource, section: str | None = None) -> Self:
        """Refers to an object, or to a listener of a Gateway or a rule of a route by its name."""
        group, kind, _, name = target.key
        return cls(group=group, kind=kind, name=name, **given(section_name=section))


class PolicyTargetSelector(Model):
    """All objects of a kind that have the labels."""

    group: Group
    """The API group of the targets."""
    kind: Kind
    """The kind of the targets."""
    match_labels: dict[str, str]
    """The labels that the targets have."""
    section_name: SectionName | None = None
    """The only listener or rule that the policy is for, by name."""


TargetRefs = Annotated[tuple[PolicyTargetReference, ...], Field(max_length=16)]
TargetSelectors = tuple[PolicyTargetSelector, ...]


def target_refs(targets: Iterable[Resource | PolicyTargetReference]) -> TargetRefs:
    """References to objects of the policy's own namespace."""
    return tuple(
        one if isinstance(one, PolicyTargetReference) else PolicyTargetReference.of(one)
        for one in targets
    )


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
