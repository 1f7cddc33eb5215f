"""Every rule of every definition: what it takes and what it refuses."""

from __future__ import annotations

import re
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from tests.translate.support import load

from kgw._native import schema
from kgw.api import yaml as written

if TYPE_CHECKING:
    from collections.abc import Iterator

GROUP = "gateway.networking.k8s.io"
EXPERIMENTAL = "gateway.networking.x-k8s.io"

#: A rule that no object gets to: the legal values of the field have refused it before.
UNREACHABLE = {"type must be one of ['Exact', 'PathPrefix', 'RegularExpression']"}


@dataclass(frozen=True)
class Case:
    kind: str
    version: str
    place: str
    message: str
    good: dict[str, Any]
    bad: dict[str, Any]
    also: tuple[str, ...] = ()
    status: bool = False
    change: bool = False

    @property
    def definition(self) -> tuple[str, str, str]:
        return (group_of(self.kind), self.kind, self.version)

    def faults(self, value: dict[str, Any]) -> list[schema.Violation]:
        before = self.good if self.change else None
        found = schema.validate(*self.definition, value, before, status=self.status)
        assert found is not None
        return found


def group_of(kind: str) -> str:
    return EXPERIMENTAL if kind.startswith("X") else GROUP


def cases() -> Iterator[Case]:
    table = yaml.safe_load(Path(__file__).with_name("rules.yaml").read_text())
    for case in table["cases"]:
        for kind in case["kinds"]:
            places = case["at"]
            if isinstance(places, dict):
                places = places[kind]
            for place in [places] if isinstance(places, str) else places:
                served = schema.versions(group_of(kind), kind)
                assert served is not None
                for version in case.get("versions", served):
                    one, other = (
                        made(kind, version, table["base"][kind], place, case, case[which])
                        for which in ("good", "bad")
                    )
                    yield Case(
                        kind,
                        version,
                        place,
                        case["message"],
                        one,
                        other,
                        tuple(case.get("also", ())),
                        case.get("status", False),
                        case.get("change", False),
                    )


def made(
    kind: str, version: str, base: dict[str, Any], place: str, case: dict[str, Any], part: Any
) -> dict[str, Any]:
    """The object of a kind with a part where *place* says."""
    whole = {
        "apiVersion": f"{group_of(kind)}/{version}",
        "kind": kind,
        "metadata": {"name": "one"},
        "spec": deepcopy(base),
    }
    at: Any = whole
    steps: list[str | int] = [
        int(step) if step.isdigit() else step for step in re.findall(r"\w+", place)
    ]
    for step, following in pairwise(steps):
        if isinstance(step, int):
            at += [{}] * (step + 1 - len(at))
            at = at[step]
        else:
            at = at.setdefault(step, [] if isinstance(following, int) else {})
    at.pop(case.get("without"), None)
    at[steps[-1]] = filled(part)
    return whole


def filled(part: Any) -> Any:
    """A part with what is too long to be written in full."""
    if part == "$64":
        return [{} for _ in range(64)]
    if isinstance(part, dict):
        return {key.replace("$253", "a" * 253): filled(one) for key, one in part.items()}
    if isinstance(part, list):
        return [filled(one) for one in part]
    return part


ALL = list(cases())


@pytest.mark.parametrize("case", ALL, ids=lambda case: f"{case.kind}-{case.version}-{case.message}")
def test_a_rule_takes_one_object_and_refuses_another(case: Case) -> None:
    assert [str(one) for one in case.faults(case.good)] == []
    found = case.faults(case.bad)
    rules = {one.message for one in found if one.kind == "rule"}
    assert case.message in rules
    assert rules <= {case.message, *case.also}
    # What is there twice, or is no hostname, is refused for that as well.
    assert {one.kind for one in found} <= {"rule", "duplicate", "pattern"}


def test_every_rule_of_every_version_has_refused_an_object() -> None:
    seen = {
        (*case.definition, re.sub(r"\[\d+\]", "[]", path_of(one)), one.message)
        for case in ALL
        for one in case.faults(case.bad)
        if one.kind == "rule"
    }
    for group, kind in schema.kinds():
        for version in schema.versions(group, kind) or ():
            for path, rule, message in schema.rules(group, kind, version) or ():
                assert message is not None, rule
                if message not in UNREACHABLE:
                    assert (group, kind, version, path, message) in seen


def path_of(violation: schema.Violation) -> str:
    return "".join(f"[{one}]" if isinstance(one, int) else f".{one}" for one in violation.path)


@cache
def modelled() -> frozenset[tuple[str, str]]:
    from kgw.api.kinds import KINDS

    return frozenset(KINDS)


@pytest.mark.parametrize(
    "case",
    [one for one in ALL if not one.status and not one.change],
    ids=lambda case: f"{case.kind}-{case.version}-{case.message}",
)
def test_a_finding_has_the_message_of_the_rule_and_its_place(case: Case) -> None:
    assert not [one for one in load(written.document(case.good)).findings if refuses(one.code)]
    found = [one for one in load(written.document(case.bad)).findings if refuses(one.code)]
    rules = [one for one in case.faults(case.bad) if one.kind == "rule"]
    assert sorted(one.message for one in found) == sorted(one.message for one in rules)
    for one in found:
        assert one.code == "KGW208"
        assert one.location is not None
        assert one.location.line > 1


def refuses(code: str) -> bool:
    return code in {"KGW204", "KGW205", "KGW206", "KGW207", "KGW208", "KGW210"}


def test_kinds_without_a_model_are_checked_as_well() -> None:
    """While there are such kinds; the rules' own test has all of them."""
    for group, kind in set(schema.kinds()) - modelled():
        text = f"{{apiVersion: {group}/v0, kind: {kind}, metadata: {{name: a}}}}"
        (finding,) = [one for one in load(text).findings if refuses(one.code)]
        assert finding.code == "KGW210"
