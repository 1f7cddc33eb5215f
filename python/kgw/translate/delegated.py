"""The rules of routes that others hand on requests to, where these are attached."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kgw.api import ResourceKey
from kgw.api.gateway.references import GATEWAY_GROUP
from kgw.attach.policies import Via

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from kgw.attach.attachment import Attachment
    from kgw.attach.delegation import Delegated, Step
    from kgw.attach.routes import RouteState
    from kgw.translate.rules import CompiledRule, RuleCompiler

#: Stands in the ids of routes before each rule that handed on requests, and between its parts.
#: Neither is in any name.
_STEP: Final = "~"
_PART: Final = ":"


class DelegatedRules:
    """Compiles rules of routes as they are where others hand on requests to them."""

    def __init__(self, attachment: Attachment, compiler: RuleCompiler) -> None:
        self._attachment = attachment
        self._compiler = compiler

    def rules(
        self, root: RouteState, own: Sequence[CompiledRule], handed_on: Iterable[Delegated]
    ) -> Iterator[tuple[RouteState, list[CompiledRule]]]:
        """The rules that are in the place of a route's own.

        Args:
            root: the route.
            own: its own rules.
            handed_on: what these come to.
        """
        # What rules that hand on requests come to themselves, by route and place.
        known: dict[tuple[ResourceKey, int], CompiledRule] = {
            (root.route.key, one.index): one for one in own
        }
        for one in handed_on:
            state = one.state
            if one.via and known[root.route.key, one.via[-1].rule].fault is not None:
                continue  # the whole rule answers 500
            # Each route reports what is wrong with it itself.
            with self._attachment.index.reporting_to([]):
                rule = self._compiler.rule(state, one.index, one.rule)
                above = [self._step(step, known) for step in one.via]
            for match in rule.matches:
                match.index = one.places[match.index]
            faults = (by.fault for by in above)
            wrong = one.fault or next((fault for fault in faults if fault is not None), None)
            if wrong is not None:
                rule.fault = rule.fault or wrong
                state.faults[one.index, "Replaced", wrong] = None
            rule.via = tuple(
                Via(step.state.route.key, by.name, by.policies)
                for step, by in zip(one.via, above, strict=True)
            )
            rule.suffix = "".join(
                _STEP + _PART.join((*step.state.route.key[2:], by.label, str(step.match)))
                for step, by in zip(one.via, above, strict=True)
            )
            yield state, [rule]

    def _step(self, step: Step, known: dict[tuple[ResourceKey, int], CompiledRule]) -> CompiledRule:
        key = (step.state.route.key, step.rule)
        if key not in known:
            rule = step.state.rules[step.rule]
            known[key] = self._compiler.rule(step.state, step.rule, rule)
        return known[key]


def steps(route: str) -> list[tuple[ResourceKey, str]]:
    """The rules that handed on requests to a route of the IR, the nearest first.

    Args:
        route: the id of the route.

    Returns:
        the key of the HTTPRoute of each, and its name or place there.
    """
    ident, _, _ = route.partition("@")
    found = []
    for one in ident.split(_STEP)[1:]:
        namespace, name, label, _ = one.split(_PART)
        found.append((ResourceKey(GATEWAY_GROUP, "HTTPRoute", namespace, name), label))
    return found


def plain(route: str) -> str:
    """The id of a route of the IR up to what says who handed on requests to it."""
    return route.partition("@")[0].partition(_STEP)[0]
