"""DirectResponses: what rules answer by themselves, and what is wrong with that.

One that cannot be used is not left out: the rules that refer to it are answered 500.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from kgw.api import loaded
from kgw.api.kinds import KGATEWAY_GROUP
from kgw.attach import native
from kgw.attach.status import Outcome
from kgw.diagnostics import Severity, suggest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kgw.api import DirectResponse, Opaque
    from kgw.api.gateway.filters import LocalObjectReference
    from kgw.attach.index import Index, Named, RequestRoute
    from kgw.attach.routes import RouteState
    from kgw.source.memory import FieldPath

#: The group and kind by which a filter names one.
KIND: Final = (KGATEWAY_GROUP, "DirectResponse")


@dataclass(slots=True, eq=False)
class DirectResponseState:
    """A DirectResponse and what is wrong with it."""

    response: DirectResponse | Opaque
    errors: list[str] = field(default_factory=list)

    @property
    def accepted(self) -> Outcome:
        """Whether it can be given."""
        if self.errors:
            return Outcome(False, "Invalid", "; ".join(self.errors))
        return Outcome(True, "Valid", "Policy accepted")

    @property
    def attached(self) -> Outcome:
        """Whether rules that refer to it give it."""
        if self.errors:
            return Outcome(False, "Pending", "")
        return Outcome(True, "Attached", "Attached to all targets")


class DirectResponses:
    """All DirectResponses."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self.states: dict[Named, DirectResponseState] = {}
        for named, one in index.direct_responses.items():
            state = DirectResponseState(one, [each.message for each in one.defects])
            self.states[named] = state
            self._check(state, one)
        for key, refused in index.refused.items():
            if (key.group, key.kind) == KIND:
                why = index.refusal(key) or ""
                self.states[key.namespace, key.name] = DirectResponseState(refused, [why])

    def find(
        self, route: RequestRoute, ref: LocalObjectReference, path: FieldPath
    ) -> DirectResponse | str:
        """The answer that a filter of a route refers to, or why there is none, which is told."""
        state = self.states.get((route.namespace, ref.name))
        if state is None:
            message = f"DirectResponse {route.namespace}/{ref.name} not found"
            names = (name for where, name in self.states if where == route.namespace)
            near = suggest(ref.name, names)
            hint = f"did you mean `{near}`?" if near else None
            where = (*path, "name")
            self._index.report(route, "KGW307", Severity.ERROR, message, where, hint=hint)
            return message
        # What is wrong with it is reported there.
        if state.errors or not isinstance(state.response, loaded.DirectResponse):
            return f"{state.response.key}: {state.accepted.message}"
        return state.response

    def _check(self, state: DirectResponseState, response: DirectResponse) -> None:
        """Refuses a body that cannot be made."""
        given = response.spec.body_format
        if given is None:
            return
        path: FieldPath = ("spec", "bodyFormat")
        if given.json_body is not None:
            problem, where = native.json_error(given.json_body), (*path, "json")
        else:
            problem, where = native.text_error(given.text or ""), (*path, "text")
        if problem is None and given.content_type is not None:
            name = given.content_type
            if not name or any(not " " <= one <= "~" for one in name):
                problem, where = f"{name!r} is no media type", (*path, "contentType")
        if problem is not None:
            message = f"the body cannot be made so: {problem}"
            self._index.report(response, "KGW408", Severity.ERROR, message, where)
            state.errors.append(message)


def users(routes: Iterable[RouteState]) -> dict[Named, set[Named]]:
    """The Gateways that give each, because of routes that refer to it."""
    found: dict[Named, set[Named]] = defaultdict(set)
    for state in routes:
        rules = state.rules if state.refusal is None else ()
        names = {
            one.extension_ref.name
            for rule in rules
            for one in rule.filters
            if one.extension_ref is not None
            and (one.extension_ref.group, one.extension_ref.kind) == KIND
        }
        if not names:
            continue
        gateways = {
            parent.gateway.named
            for parent in state.parents
            if parent.gateway is not None and parent.accepted.ok
        }
        for name in names:
            found[state.route.namespace, name] |= gateways
    return found


def action(response: DirectResponse) -> dict[str, Any]:
    """The answer in the IR."""
    spec = response.spec
    found: dict[str, Any] = {"type": "direct", "status": spec.status, "body": spec.body or ""}
    given = spec.body_format
    if given is not None:
        body = {"text": given.text} if given.json_body is None else {"json": given.json_body}
        found["format"] = {"body": body}
        if given.content_type is not None:
            found["format"]["content_type"] = given.content_type
    return found
