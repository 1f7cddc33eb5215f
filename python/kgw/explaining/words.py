"""An explanation in lines for people."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any, Final

from kgw.api import duration
from kgw.explaining.candidates import predicates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from kgw.explaining.candidates import Candidate
    from kgw.explaining.explanation import Answer, Branch, Explanation, Sent
    from kgw.explaining.origins import Setting
    from kgw.explaining.taking import Considered

    Style = Callable[[str, str], str]

__all__ = ["MOST_CANDIDATES", "describe"]

MOST_CANDIDATES: Final = 20
"""Routes that are shown, unless all are asked for."""

_CLOSENESS: Final = (
    "selected",
    "outranked",
    "query",
    "header",
    "method",
    "path",
    "hostname",
    "other",
)
"""The fates of candidates, those first that came closest to being used."""

MOST_HOSTS: Final = 10
"""Other hostnames of a listener that are named."""

MOST_FIELDS: Final = 6
"""Fields of one object side by side that are shown, unless all are asked for."""


def _plain(text: str, style: str) -> str:
    del style
    return text


def describe(
    explanation: Explanation, *, every: bool = False, style: Style = _plain
) -> Iterator[str]:
    """Yields the lines of an explanation.

    Args:
        explanation: what to describe.
        every: all candidates, and the settings that do not count.
        style: makes a text stand out: ``head``, ``good``, ``bad`` or ``dim``.
    """
    asked = explanation.question
    yield style(f"{asked.method} {asked.url}", "head")
    for name, value in asked.headers:
        yield f"  {name}: {value}"
    if explanation.path not in (None, asked.target):
        yield f"  matched as {explanation.path}"
    yield from _listeners(explanation, style)
    if explanation.closed is not None:
        yield ""
        yield f"{style('No answer', 'bad')}: {explanation.closed}"
    if explanation.candidates or explanation.path is not None:
        yield from _routes(explanation, every, style)
    if explanation.unattached:
        yield ""
        yield style("Not attached", "head")
        missing = explanation.unattached if every else explanation.unattached[:MOST_CANDIDATES]
        for one in missing:
            text = f"{_mark(False, style)} {one.resource} to {one.parent}: {one.reason}"
            yield text + _at(one.place, style)
        left = len(explanation.unattached) - len(missing)
        if left:
            yield f"    and {left} more, which --all shows"
    if explanation.passed_on:
        yield ""
        yield style("Connection: its bytes are passed on, and nobody looks into them", "head")
        for branch in explanation.passed_on:
            yield from _branch(branch, style)
    yield from _outcome(explanation, style)
    yield from _settings(explanation.settings, every, style)


# === Listeners ===


def _listeners(explanation: Explanation, style: Style) -> Iterator[str]:
    yield ""
    yield style("Listener", "head")
    if explanation.service is not None:
        yield f"  a connection of the mesh to Service {explanation.service}"
    if not explanation.listeners:
        yield "  none"
    for one in sorted(explanation.listeners, key=lambda one: not one.taken):
        yield (
            _mark(one.taken, style)
            + f" {one.listener} ({_about(one)}): {one.reason}"
            + _at(one.place, style)
        )


def _about(one: Considered) -> str:
    host = "" if one.hostname == "*" else f", {one.hostname}"
    return f"{one.protocol} on {one.port}{host}"


def _mark(good: bool, style: Style) -> str:
    return style("  ✓", "good") if good else style("  ✗", "dim")


def _at(place: str | None, style: Style) -> str:
    return "" if place is None else style(f"  [{place}]", "dim")


# === Routes ===


def _routes(explanation: Explanation, every: bool, style: Style) -> Iterator[str]:
    yield ""
    yield style("Routes for the host, in order of precedence", "head")
    shown = _shown(explanation.candidates, every)
    for one in shown:
        of = "" if one.hostname == "*" else f" on {one.hostname}"
        yield (
            f"{_mark(one.selected, style)} {one.name} ({predicates(one.rule)}{of}): {one.reason}"
            f"{_at(one.place, style)}"
        )
    left = len(explanation.candidates) - len(shown)
    if left:
        yield f"    and {left} more, which --all shows"
    if not explanation.candidates:
        yield "  none"
    hosts = explanation.other_hosts
    if hosts:
        more = f" and {len(hosts) - MOST_HOSTS} more" if len(hosts) > MOST_HOSTS else ""
        yield f"    other hosts here: {', '.join(hosts[:MOST_HOSTS])}{more}"


def _shown(candidates: tuple[Candidate, ...], every: bool) -> list[Candidate]:
    """The candidates to show, in their order: those that came closest, if they are many."""
    if every or len(candidates) <= MOST_CANDIDATES:
        return list(candidates)
    closest = sorted(candidates, key=lambda one: _CLOSENESS.index(one.outcome))
    kept = set(map(id, closest[:MOST_CANDIDATES]))
    return [one for one in candidates if id(one) in kept]


# === Outcome ===


def _outcome(explanation: Explanation, style: Style) -> Iterator[str]:
    if explanation.answer is not None:
        yield ""
        yield from _answer(explanation.answer, style)
    if explanation.branches:
        yield ""
        head = "Backends" if explanation.answer is not None else "Forwarded"
        yield style(head, "head") + _limits(explanation.action or {})
        for branch in explanation.branches:
            yield from _branch(branch, style)
    if explanation.asked:
        yield ""
        yield style("Asked first, and taken to agree", "head")
        for one in explanation.asked:
            yield f"  {_generic(one)}"
    if explanation.filters:
        yield ""
        yield style("Filters", "head")
        for one in explanation.filters:
            yield f"  {_generic(one)}"
    if explanation.faults:
        yield ""
        yield style("Faults", "head")
        for fault in explanation.faults:
            yield f"  {style(fault, 'bad')}"


def _answer(answer: Answer, style: Style) -> Iterator[str]:
    flags = "" if answer.flags == "-" else f", flags {answer.flags}"
    yield (
        f"{style('Answer', 'head')} {answer.status}, of the proxy itself: {answer.why} "
        f"({answer.details}{flags})"
    )
    for name, value in answer.headers:
        yield f"  {name}: {value}"
    if answer.body:
        yield f"  body: {answer.body.rstrip()}"


def _limits(action: Mapping[str, Any]) -> str:
    """What else the route says of forwarding, other than rewrites, which the request shows."""
    kept = {key: one for key, one in action.items() if key not in ("type", "rewrite") and one != []}
    return f" ({_members(kept)})" if kept else ""


def _branch(branch: Branch, style: Style) -> Iterator[str]:
    name = branch.backend or "a backend that cannot be used"
    share = "" if branch.share == 1 else f"{branch.share:.1%} ".replace(".0%", "%")
    ends = ", ".join(branch.endpoints) or "no endpoint"
    where = f" -> {ends}" if branch.backend is not None else ""
    yield f"  {share}{style(name, 'good' if branch.answer is None else 'bad')}{where}"
    if branch.connection:
        yield f"    connection: {_members(branch.connection)}"
    for one in branch.filters:
        yield f"    filter {_generic(one)}"
    if branch.answer is not None:
        for line in _answer(branch.answer, style):
            yield f"    {line}"
    if branch.sent is not None:
        yield from _sent(branch.sent, style)
    if branch.response_headers:
        added = ", ".join(f"{name}: {value}" for name, value in branch.response_headers)
        yield f"    the answer gets {added}"
    for copy in branch.copies:
        yield f"    also sent to {copy.backend}:"
        yield from _sent(copy, style)


def _sent(sent: Sent, style: Style) -> Iterator[str]:
    yield f"    {sent.method} {sent.target}"
    added = list(sent.added)
    for name, value in sent.fields:
        mark = " "
        if (name, value) in added:
            added.remove((name, value))
            mark = style("+", "good")
        yield f"    {mark} {name}: {value}"
    for name, value in sent.removed:
        yield f"    {style('-', 'bad')} {name}: {value}"


# === Settings ===


def _settings(settings: Iterable[Setting], every: bool, style: Style) -> Iterator[str]:
    scope = None
    counting = (one for one in settings if every or one.unused is None)
    for (of, source, parent), group in itertools.groupby(counting, _together):
        fields = list(group)
        if of != scope:
            scope = of
            yield ""
            yield style(f"Configured for the {scope}", "head")
        if len(fields) > MOST_FIELDS and not every:
            place = _at(fields[0].place, style)
            yield f"  {parent}.* ({len(fields)} fields, which --all shows) <- {source}{place}"
            continue
        for one in fields:
            unused = "" if one.unused is None else f", without effect: {one.unused}"
            yield (
                f"  {one.field} = {_scalar(one.value)}{style(unused, 'dim')} <- {one.source}"
                f"{_at(one.place, style)}"
            )


def _together(one: Setting) -> tuple[str, str, str]:
    """What fields have in common that stand side by side in one object."""
    return one.scope, one.source, one.field.rpartition(".")[0]


def _generic(data: Mapping[str, Any]) -> str:
    """A part of the IR that has a type, in one line: whatever members it has."""
    rest = {key: one for key, one in data.items() if key != "type" and one not in ([], {}, None)}
    return f"{data['type']}: {_members(rest)}" if rest else str(data["type"])


def _members(data: Mapping[str, Any]) -> str:
    return ", ".join(_member(key, one) for key, one in data.items())


def _member(key: str, value: Any) -> str:
    """A member of the IR, times as the Gateway API writes them."""
    for unit, per_millisecond in (("_ms", 1), ("_ns", 1_000_000)):
        if key.endswith(unit) and isinstance(value, int):
            return f"{key.removesuffix(unit)} {duration.text(value // per_millisecond)}"
    return f"{key} {_scalar(value)}"


def _scalar(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
