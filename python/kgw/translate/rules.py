"""The rules of a route of requests in the IR, apart from what depends on where they are attached.

Matches of a GRPCRoute become those of an HTTPRoute (`kgw.translate.calls`); the rest is the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from kgw.api.gateway.http_route import RouteMatch
from kgw.api.kgateway.targets import KGATEWAY_GROUP
from kgw.attach import direct_responses, fields, native
from kgw.diagnostics import Severity
from kgw.translate import calls, filters
from kgw.translate.retries import request_timeout, retries

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kgw.api import DirectResponse
    from kgw.api.gateway.filters import Filter, PathModifier, RequestRedirect, URLRewrite
    from kgw.api.gateway.grpc_route import GRPCBackendRef, GRPCFilter, GRPCRouteMatch, GRPCRule
    from kgw.api.gateway.http_route import Rule
    from kgw.api.gateway.references import HTTPBackendRef
    from kgw.attach.attachment import Attachment
    from kgw.attach.policies import Via
    from kgw.attach.policy import PolicyState
    from kgw.attach.routes import RouteState
    from kgw.source.memory import FieldPath

#: What a request to a rule that cannot be used is answered with, in kgateway's words.
REPLACED: Final = "invalid route configuration detected and replaced with a direct response."

#: Filters that say everything themselves: rules with the same ones do the same.
_SELF_CONTAINED: Final = frozenset({"CORS", "RequestHeaderModifier", "ResponseHeaderModifier"})

#: Lists of filters that are kept for other rules.
_MOST_KNOWN: Final = 1 << 14

#: Path predicates in the IR.
_PATHS: Final = {"Exact": "exact", "PathPrefix": "prefix", "RegularExpression": "regex"}

_SUPPORTED: Final = (
    "CORS",
    "ExternalAuth",
    "RequestHeaderModifier",
    "RequestMirror",
    "RequestRedirect",
    "ResponseHeaderModifier",
    "URLRewrite",
)


@dataclass(slots=True)
class CompiledMatch:
    """One match of a rule."""

    index: int
    predicates: dict[str, Any]
    #: The path prefix, which a prefix rewrite replaces.
    prefix: str


@dataclass(slots=True)
class CompiledRule:
    """One rule, ready to be put into route tables."""

    index: int
    #: The rule's name, or its place; part of the ids of its routes.
    label: str
    name: str | None
    matches: list[CompiledMatch]
    #: Why the rule answers 500, if so.
    fault: str | None
    filters: list[dict[str, Any]] = field(default_factory=list)
    #: Policies that a filter of the rule refers to.
    policies: tuple[PolicyState, ...] = ()
    source: Rule | GRPCRule | None = None
    #: Faults of the header filters of backends, by backend.
    broken_backends: frozenset[int] = frozenset()
    #: Whether nothing about the filters depends on where they are.
    self_contained: bool = False
    #: What answers in the place of backends, if a filter of the rule says so.
    direct: DirectResponse | None = None
    #: The rules that hand on requests to this one, the nearest first.
    via: tuple[Via, ...] = ()
    #: What the ids of its routes end with: where it is, if it can be in several places.
    suffix: str = ""


class RuleCompiler:
    """Compiles the rules of routes, reporting on the route what cannot be used."""

    def __init__(self, attachment: Attachment) -> None:
        self._attachment = attachment
        self._index = attachment.index
        # Lists of filters that there is nothing to say about, by their id, and what they come to.
        # They are kept with it, so that no other list gets the id.
        self._known: dict[int, tuple[tuple[Filter | GRPCFilter, ...], list[dict[str, Any]]]] = {}

    def compile(self, state: RouteState) -> list[CompiledRule]:
        """All rules of a route."""
        return [self.rule(state, number, rule) for number, rule in enumerate(state.rules)]

    def rule(self, state: RouteState, number: int, rule: Rule | GRPCRule) -> CompiledRule:
        """One rule of a route."""
        path: FieldPath = ("spec", "rules", number)
        matches: list[CompiledMatch] = []
        given: Iterable[RouteMatch | GRPCRouteMatch] = rule.matches or (RouteMatch(),)
        for place, one in enumerate(given):
            error = self._match_error(state, one, (*path, "matches", place))
            if error is None:
                match = one if isinstance(one, RouteMatch) else calls.http_match(one)
                matches.append(CompiledMatch(place, predicates(match), match.path.value))
            else:
                state.faults[number, "Dropped", error] = None
        if state.refusal is not None:
            label = rule.name or str(number)
            return CompiledRule(number, label, rule.name, matches, state.refusal)
        fault: str | None = None
        policies: tuple[PolicyState, ...] = ()
        direct: DirectResponse | None = None
        known = self._known.get(id(rule.filters))
        if known is not None:
            _, made = known
        else:
            reported = len(state.findings)
            fault, policies = self._filters(state, rule.filters, (*path, "filters"))
            answer = self._direct(state, rule, (*path, "filters"))
            if isinstance(answer, str):
                fault = fault or answer
            else:
                direct = answer
            made = [] if fault else filters.rule_filters(rule.filters)
            if fault is not None:
                state.faults[number, "Replaced", fault] = None
            # What is reported is to be reported on each rule.
            elif len(state.findings) == reported and all(
                one.type in _SELF_CONTAINED for one in rule.filters
            ):
                if len(self._known) >= _MOST_KNOWN:
                    self._known.clear()
                known = self._known[id(rule.filters)] = (rule.filters, made)
        broken = set()
        refs: Sequence[HTTPBackendRef | GRPCBackendRef] = rule.backend_refs
        for place, backend in enumerate(refs):
            if not backend.filters:
                continue
            where = (*path, "backendRefs", place, "filters")
            wrong, _ = self._filters(state, backend.filters, where, backend=True)
            if wrong is not None:
                broken.add(place)
                state.faults[number, "Replaced", wrong] = None
        return CompiledRule(
            number,
            rule.name or str(number),
            rule.name,
            matches,
            fault,
            made,
            policies,
            rule,
            frozenset(broken),
            known is not None,
            direct,
        )

    def _match_error(
        self, state: RouteState, match: RouteMatch | GRPCRouteMatch, path: FieldPath
    ) -> str | None:
        """Why a match cannot be used, if so."""
        if (
            isinstance(match, RouteMatch)
            and match.path.type != "RegularExpression"
            and not match.headers
            and not match.query_params
        ):
            return None
        patterns: list[tuple[FieldPath, str]] = []
        if isinstance(match, RouteMatch):
            if match.path.type == "RegularExpression":
                patterns.append((("path", "value"), match.path.value))
            patterns += [
                (("queryParams", place, "value"), param.value)
                for place, param in enumerate(match.query_params)
                if param.type == "RegularExpression"
            ]
        else:
            patterns += calls.patterns(match)
        patterns += [
            (("headers", place, "value"), header.value)
            for place, header in enumerate(match.headers)
            if header.type == "RegularExpression"
        ]
        for where, pattern in patterns:
            problem = native.regex_error(pattern)
            if problem is not None:
                message = f"regular expression {pattern!r} cannot be used: {problem}"
                self._index.report(state.route, "KGW406", Severity.ERROR, message, (*path, *where))
                return message
        return None

    def _filters(
        self,
        state: RouteState,
        given: tuple[Filter | GRPCFilter, ...],
        path: FieldPath,
        *,
        backend: bool = False,
    ) -> tuple[str | None, tuple[PolicyState, ...]]:
        """Why filters cannot be used, if so, and the policies that they refer to."""
        fault = None
        policies = []
        for place, one in enumerate(given):
            where = (*path, place)
            if one.extension_ref is not None and not backend:
                if filters.is_python(one.extension_ref) or _is_direct(one):
                    continue
                found = self._policy(state, one, where)
                if isinstance(found, str):
                    fault = fault or found
                else:
                    policies.append(found)
                continue
            if one.type not in _SUPPORTED or (backend and one.type == "ExternalAuth"):
                of = " of a backend" if backend else ""
                message = f"filter {one.type}{of} is not supported by this version of kgw"
                self._index.report(state.route, "KGW502", Severity.ERROR, message, (*where, "type"))
                fault = fault or message
                continue
            for alias, modifier in (
                ("requestHeaderModifier", one.request_header_modifier),
                ("responseHeaderModifier", one.response_header_modifier),
            ):
                if modifier is None:
                    continue
                for operator in filters.operators(modifier):
                    self._index.report(
                        state.route,
                        "KGW507",
                        Severity.WARNING,
                        f"`{operator}` is sent as it is: operators are not expanded in headers",
                        (*where, alias),
                    )
                wrong = fields.modifier_fault(modifier)
                if wrong is not None:
                    self._index.report(
                        state.route, "KGW407", Severity.ERROR, wrong, (*where, alias)
                    )
                    fault = fault or wrong
            for spot, wrong in fields.path_faults(one):
                self._index.report(state.route, "KGW425", Severity.ERROR, wrong, (*where, *spot))
                fault = fault or wrong
        return fault, tuple(policies)

    def _direct(
        self, state: RouteState, rule: Rule | GRPCRule, path: FieldPath
    ) -> DirectResponse | str | None:
        """The DirectResponse that a filter of a rule refers to, if one does; or why it answers 500.

        As in kgateway there is one answer to a request: no backend, no redirect and no other
        DirectResponse stands beside it.
        """
        found: DirectResponse | str | None = None
        other = "backendRefs" if rule.backend_refs else ""
        if any(one.request_redirect is not None for one in rule.filters):
            other = "a redirect"
        given: Sequence[Filter | GRPCFilter] = rule.filters
        for place, one in enumerate(given):
            ref = one.extension_ref
            if ref is None or not _is_direct(one):
                continue
            where = (*path, place, "extensionRef")
            if other or found is not None:
                beside = other or "another DirectResponse"
                message = f"DirectResponse {ref.name} cannot be applied to a rule that has {beside}"
                self._index.report(state.route, "KGW426", Severity.ERROR, message, where)
                return message
            found = self._attachment.direct_responses.find(state.route, ref, where)
        return found

    def _policy(
        self, state: RouteState, one: Filter | GRPCFilter, path: FieldPath
    ) -> PolicyState | str:
        """The TrafficPolicy that a filter refers to, or why there is none."""
        ref = one.extension_ref
        assert ref is not None
        where = (*path, "extensionRef")
        if (ref.group, ref.kind) != (KGATEWAY_GROUP, "TrafficPolicy"):
            message = f"extension {ref.group}/{ref.kind} is not supported by this version of kgw"
            self._index.report(state.route, "KGW502", Severity.ERROR, message, where)
            return message
        found = self._attachment.policies.refer(ref.name, state.route.key)
        if found is None:
            message = f"TrafficPolicy {state.route.namespace}/{ref.name} not found"
            self._index.report(state.route, "KGW307", Severity.ERROR, message, where)
            return message
        return found


def _is_direct(one: Filter | GRPCFilter) -> bool:
    """Whether a filter refers to a DirectResponse."""
    ref = one.extension_ref
    return ref is not None and (ref.group, ref.kind) == direct_responses.KIND


def predicates(match: RouteMatch) -> dict[str, Any]:
    """The predicates of a match in the IR; absent ones are left out."""
    found: dict[str, Any] = {"path": {_PATHS[match.path.type]: match.path.value}}
    if match.method is not None:
        found["method"] = match.method
    for name, values in (("headers", match.first_headers), ("query", match.first_query_params)):
        if values:
            found[name] = [
                {"name": key, "value": {"exact" if one.type == "Exact" else "regex": one.value}}
                for key, one in values.items()
            ]
    return found


def action(
    rule: Rule | GRPCRule,
    match: CompiledMatch,
    backends: list[dict[str, Any]],
    port: int,
    timeout: int | None = None,
) -> dict[str, Any]:
    """Where requests of a match go.

    Args:
        rule: the rule.
        match: the match, whose prefix a prefix rewrite replaces.
        backends: the weighted backends.
        port: the port that clients connect to, for redirects that name none.
        timeout: time for a request by a policy, if the rule gives none. Milliseconds.
    """
    for one in rule.filters:
        if one.request_redirect is not None:
            return redirect(one.request_redirect, match.prefix, port)
    timeouts = rule.timeouts
    request = request_timeout(timeouts, rule.retry, timeout)
    found = {"type": "forward", "backends": backends, "request_timeout_ms": request}
    if timeouts.backend_request:
        found["backend_request_timeout_ms"] = int(timeouts.backend_request)
    if rule.retry is not None:
        found["retry"] = retries(rule.retry)
    for one in rule.filters:
        if one.url_rewrite is not None and (given := rewrite(one.url_rewrite, match.prefix)):
            found["rewrite"] = given
    return found


def own_filters(
    ref: HTTPBackendRef | GRPCBackendRef, prefix: str, port: int
) -> list[dict[str, Any]]:
    """The filters of a backend alone, apart from its mirrors.

    Args:
        ref: the backend.
        prefix: the path prefix of the rule's match, if the backend replaces it.
        port: the port that clients connect to, for redirects that name none.
    """
    found = filters.rule_filters(ref.filters)
    for one in ref.filters:
        if one.request_redirect is not None:
            found.append(redirect(one.request_redirect, prefix, port))
        if one.url_rewrite is not None:
            found.append({"type": "rewrite", **rewrite(one.url_rewrite, prefix)})
    return found


def redirect(given: RequestRedirect, prefix: str, port: int) -> dict[str, Any]:
    """A redirect in the IR: an action, or a filter of a backend."""
    default = {"http": 80, "https": 443}.get(given.scheme or "", port)
    found: dict[str, Any] = {
        "type": "redirect",
        "port": given.port or default,
        "status": given.status_code,
    }
    if given.scheme is not None:
        found["scheme"] = given.scheme
    if given.hostname is not None:
        found["hostname"] = given.hostname
    if given.path is not None:
        found["path"] = _path(given.path, prefix)
    return found


def rewrite(given: URLRewrite, prefix: str) -> dict[str, Any]:
    """A new host and path in the IR; what stays is left out."""
    found: dict[str, Any] = {}
    if given.hostname is not None:
        found["hostname"] = given.hostname
    if given.path is not None:
        found["path"] = _path(given.path, prefix)
    return found


def _path(modifier: PathModifier, prefix: str) -> dict[str, Any]:
    if modifier.replace_full_path is not None:
        return {"full": modifier.replace_full_path}
    return {"prefix": {"from": prefix, "to": modifier.replace_prefix_match or ""}}
