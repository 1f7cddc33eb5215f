"""What an API server would refuse, by the definitions of the kinds: schemas, CEL rules, metadata.

The definitions ship with kgw (``kgw._native.schema``), for kinds that have a model and for ones
that have none. Where a model has already said what is wrong, it is said once: a rule in its own
words at the place that the model names, and anything else in the model's.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from kgw._native import schema
from kgw.diagnostics import Finding, Severity, suggest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kgw.api.meta import Resource
    from kgw.source.memory import FieldPath, Origin

__all__ = ["channel_findings", "finding", "merged", "served", "violations"]

#: Kinds whose names become DNS labels.
_LABELS: Final = frozenset({("", "Namespace"), ("", "Service")})

_TYPES: Final = {
    "array": "a list",
    "boolean": "a boolean",
    "integer": "an integer",
    "number": "a number",
    "object": "a mapping",
    "string": "a string",
}


def served(group: str, kind: str) -> tuple[str, ...] | None:
    """The versions of a kind that an API server serves; ``None`` without a definition of it."""
    versions = schema.versions(group, kind)
    return None if versions is None else tuple(versions)


def violations(
    group: str, kind: str, version: str, value: Mapping[str, Any]
) -> list[schema.Violation]:
    """Everything that an API server would refuse about an object, and the fields it would drop."""
    try:
        found = schema.metadata(value.get("metadata"), label=(group, kind) in _LABELS)
        found += schema.validate(group, kind, version, value) or ()
    except (TypeError, ValueError):
        return []  # not JSON, as only an object made in Python can be; its model says where
    return found


def channel_findings(resources: Iterable[Resource]) -> list[Finding]:
    """What of resources an API server with the standard channel only would refuse in addition."""
    findings: list[Finding] = []
    for one in resources:
        key = (one.key.group, one.kind)
        version = one.api_version.rpartition("/")[2]
        every = served(*key)
        if every is None or version not in every:
            continue
        name = str(one.key)
        if version not in (schema.versions(*key, standard=True) or ()):
            message = f"{one.kind} {version} is only in the experimental channel"
            findings.append(
                Finding("KGW212", Severity.ERROR, message, name, ("kind",), source=one.origin)
            )
            continue
        value = one.to_dict(secrets=True)
        known = {str(wrong) for wrong in schema.validate(*key, version, value) or ()}
        findings += (
            replace(finding(wrong, one.origin), resource=name)
            for wrong in schema.validate(*key, version, value, standard=True) or ()
            if wrong.kind != "unknown" and str(wrong) not in known
        )
    return findings


def merged(
    found: list[Finding], wrong: list[schema.Violation], origin: Origin | None
) -> list[Finding]:
    """Findings of a model and violations of a definition as findings, one for each fault."""
    return _Merge(found, origin).result(wrong)


class _Merge:
    """Finds out which findings of a model are about the same fault as a violation."""

    def __init__(self, found: list[Finding], origin: Origin | None) -> None:
        self.found = list(found)
        self.origin = origin
        self.taken: set[int] = set()

    def result(self, wrong: list[schema.Violation]) -> list[Finding]:
        rules = [one for one in wrong if one.rule is not None]
        others = [one for one in wrong if one.rule is None]
        rules = [one for one in rules if not self._said(one, exactly=True)]
        rules = [one for one in rules if not self._said(one, exactly=False)]
        for rule in rules:
            item = next((one for one in others if _is_item(rule, one)), None)
            one = finding(rule, self.origin)
            self.found.append(one if item is None else replace(one, path=item.path))
        self.found += [finding(one, self.origin) for one in others if not self._covered(one)]
        return self.found

    def _said(self, rule: schema.Violation, *, exactly: bool) -> bool:
        """Whether a model has found what a rule says; it is said in the rule's words from then on.

        Args:
            rule: the rule.
            exactly: whether the words have to be almost the same already.
        """
        for place, one in enumerate(self.found):
            if place in self.taken or not _within(one.path, rule.path):
                continue
            if exactly:
                same = _words(one.message) == _words(rule.message)
            else:
                # What is said deeper inside in other words is about something else.
                near = len(one.path) <= len(rule.path) + 1
                item = one.key or one.path == rule.path or isinstance(one.path[-1], int)
                same = near and (one.code == "KGW208" or (one.code == "KGW207" and item))
            if same:
                self.found[place] = replace(one, code="KGW208", message=rule.message)
                self.taken.add(place)
                return True
        return False

    def _covered(self, wrong: schema.Violation) -> bool:
        """Whether an error at the same place, or within, is about the same."""
        for one in self.found:
            if one.severity is not Severity.ERROR or not _within(one.path, wrong.path):
                continue
            if wrong.kind != "required":
                return True
            if one.path == (*wrong.path, wrong.value):
                return True
            if one.path == wrong.path and f"`{wrong.value}`" in one.message:
                return True
        return False


def _within(path: FieldPath, outer: FieldPath) -> bool:
    return path[: len(outer)] == outer


def _words(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def _is_child(path: FieldPath, outer: FieldPath) -> bool:
    """Whether a path is that of an item of the list at another."""
    return path[:-1] == outer and isinstance(path[-1], int)


def _is_item(rule: schema.Violation, other: schema.Violation) -> bool:
    """Whether what is wrong with an item is what a rule about the whole list says.

    Items that are there twice are what a rule about unique ones means, and texts that do not have
    their form what a rule about a list of texts means.
    """
    if not _is_child(other.path, rule.path):
        return False
    twice = other.kind == "duplicate" and "unique" in rule.message
    return twice or other.kind in {"format", "pattern"}


def finding(wrong: schema.Violation, source: Origin | None) -> Finding:
    """The finding of a violation."""
    value = _shown(wrong.value)
    path: FieldPath = wrong.path
    code, legal, hint, key = "KGW207", None, None, False
    severity = Severity.ERROR
    match wrong.kind:
        case "unknown":
            code, severity, key = "KGW203", Severity.WARNING, True
            message = f"unknown field `{path[-1]}`"
            near = suggest(str(path[-1]), wrong.legal)
            hint = f"did you mean `{near}`?" if near else None
        case "channel":
            code, key = "KGW212", True
            message = f"field `{path[-1]}` is only in the experimental channel"
        case "required":
            code, message = "KGW204", f"required field {value} is missing"
            legal = "required here: " + ", ".join(wrong.legal)
        case "type":
            code, message = "KGW205", f"{value} has the wrong type"
            legal = _TYPES.get(wrong.legal[0], wrong.legal[0])
        case "enum":
            code, message = "KGW206", f"{value} is not a legal value"
            legal = ", ".join(wrong.legal)
            near = suggest((wrong.value or "").strip('"'), wrong.legal)
            hint = f"did you mean `{near}`?" if near else None
        case "pattern":
            message = f"{value} does not have the required form"
            legal = f"a string like {wrong.legal[0]}"
        case "format":
            message = f"{value} does not have the required form"
            legal = f"what the format {wrong.legal[0]} says"
        case "bound":
            message = f"{value} is out of bounds"
            _, found, bound = wrong.message.rpartition(" in body should ")
            legal = bound.removeprefix("be ") if found else wrong.message.rpartition(": ")[2]
        case "duplicate":
            code, message = "KGW208", f"{value} is there twice"
        case "metadata":
            message, legal = f"{value} does not have the required form", wrong.message
            key = wrong.value == path[-1]
        case "rule":
            code, message = "KGW208", wrong.message
        case "evaluation":
            code, message = "KGW208", wrong.message
            hint = f"the rule has no result: {wrong.value}"
        case "budget":
            code = "KGW208"
            message = "the rules of the object take longer than an API server allows"
        case _:
            message = wrong.message
    return Finding(
        code, severity, message, None, path, legal=legal, hint=hint, source=source, key=key
    )


def _shown(value: str | None) -> str:
    text = value or '""'
    return f"`{text if len(text) <= 60 else text[:57] + '...'}`"
