"""HTTPRoutes that hand requests on to other HTTPRoutes, as in kgateway.

A rule whose backendRef is an HTTPRoute (by name, all of a namespace by ``*``, or by a label) is in
the place of the rules of that route: of those of their matches that are within the rule's own, or
of all of them, joined with it, if the child asks for that. Children have no hostnames; they belong
to their parents, and their rules may hand on requests in their turn.
"""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, NamedTuple

from kgw.api import HTTPRoute, Opaque, ResourceKey, remains
from kgw.api.gateway.http_route import PathMatch, RouteMatch, Rule
from kgw.api.gateway.references import GATEWAY_GROUP, ParentReference
from kgw.attach import inheritance, native
from kgw.attach.backends import DELEGATING
from kgw.attach.parents import ACCEPTED, ParentState
from kgw.attach.status import Outcome
from kgw.diagnostics import Severity, suggest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from kgw.api import Resource
    from kgw.api.gateway.backend_object import BackendObjectReference
    from kgw.api.gateway.filters import Filter
    from kgw.api.gateway.http_route import HeaderMatch, QueryParamMatch
    from kgw.attach.backends import Backend
    from kgw.attach.index import Index
    from kgw.attach.routes import Routes, RouteState
    from kgw.source.memory import FieldPath

_GROUP: Final = "delegation.kgateway.dev"

LABEL: Final = f"{_GROUP}/label"
"""The label of routes that are referred to by its value."""

INHERIT: Final = f"{_GROUP}/inherit-parent-matcher"
"""The annotation of children whose matches are joined with their parent's."""

_BY_NAME, _BY_LABEL = DELEGATING

#: The name that stands for all routes of a namespace, and the namespace that stands for all.
_EVERY: Final = "*"
_ALL: Final = "all"

CYCLE: Final = "cyclic reference detected while evaluating delegated routes"

HOSTNAMES: Final = (
    "spec.hostnames must be unset on a delegatee route as they are inherited from the parent route"
)

MOST: Final = 10_000
"""Matches that one route may come to by handing on requests: they multiply from level to level."""

DEEPEST: Final = 32
"""Levels of routes that hand on requests."""

_TOO_MANY: Final = f"the route comes to more than {MOST} matches of delegated routes"

_TOO_DEEP: Final = f"requests are handed on over more than {DEEPEST} levels"


class Step(NamedTuple):
    """A rule that hands on requests, and for which of its matches."""

    state: RouteState
    rule: int
    match: int


@dataclass(frozen=True, slots=True, eq=False)
class Delegated:
    """A rule of a route, where another hands on requests to it."""

    #: The route of the rule, with the backends of the filters that it has here.
    state: RouteState
    index: int
    #: The rule as it is here: its matches, filters and time-outs.
    rule: Rule
    #: The places of its matches in the route.
    places: tuple[int, ...]
    #: The rules that handed on requests, the nearest first. None, if it is the route's own rule.
    via: tuple[Step, ...]
    #: Why the rule answers 500, if so.
    fault: str | None = None


@dataclass(slots=True, eq=False)
class Delegation:
    """What routes come to that hand on requests, by their keys."""

    rules: dict[ResourceKey, list[Delegated]] = field(default_factory=dict)

    def of(self, key: ResourceKey) -> list[Delegated]:
        """The rules in place of those of a route that hand on requests."""
        return self.rules.get(key, [])


def is_delegating(ref: BackendObjectReference) -> bool:
    """Whether a backendRef of an HTTPRoute hands on requests to other routes."""
    return (ref.group, ref.kind) in DELEGATING


def is_parent(ref: ParentReference) -> bool:
    """Whether a parentRef names a route that may hand on requests."""
    return (ref.group, ref.kind) == _BY_NAME


def concerns(resource: Resource | None) -> bool:
    """Whether an object hands on requests, or names a route that is to do so."""
    if isinstance(resource, HTTPRoute):
        return any(is_parent(one) for one in resource.spec.parent_refs) or any(
            is_delegating(ref) for rule in resource.spec.rules for ref in rule.backend_refs
        )
    if isinstance(resource, Opaque) and resource.refused and resource.kind == "HTTPRoute":
        return any(is_parent(one) for _, one in remains.parents(resource))
    return False


def resolve(index: Index, routes: Routes) -> Delegation:
    """Finds out which requests routes hand on to which.

    Parents and backends of routes are completed. These are attached anew each time that there is
    anything of the kind.
    """
    found = Delegation()
    if routes.delegating:
        _Resolver(index, routes).resolve(found)
    return found


#: A reference of a route: the rule and the place of the backendRef.
_Place = tuple[int, int]


class _Resolver:
    """Resolves the references of all routes, then follows them from those that are attached."""

    def __init__(self, index: Index, routes: Routes) -> None:
        self._index = index
        self._states: dict[ResourceKey, RouteState] = {
            key: state for key, state in routes.states.items() if key.kind == "HTTPRoute"
        }
        self._by_namespace: dict[str, list[RouteState]] = defaultdict(list)
        self._by_label: dict[str, list[RouteState]] = defaultdict(list)
        for key, state in self._states.items():
            self._by_namespace[key.namespace].append(state)
            if (value := state.route.metadata.labels.get(LABEL)) is not None:
                self._by_label[value].append(state)
        #: What references lead to.
        self._children: dict[tuple[ResourceKey, _Place], list[RouteState]] = {}
        #: Who would hand on requests to routes, had these no hostnames.
        self._rejecting: dict[ResourceKey, list[RouteState]] = defaultdict(list)
        #: The matches that are left for the route that is followed.
        self._left = MOST
        #: Which children have which parents, and whether any of their rules is served so.
        self._served: dict[tuple[ResourceKey, ResourceKey], bool] = {}

    def resolve(self, found: Delegation) -> None:
        for state in self._states.values():
            with self._index.reporting_to(state.findings):
                if _delegates(state):
                    inheritance.of(self._index, state.route)
                self._resolve(state)
        roots = [one for one in self._states.values() if one.listeners or one.ports]
        for state in roots:
            rules: list[Delegated] = []
            self._left = MOST
            for number, rule in enumerate(state.rules):
                if isinstance(rule, Rule) and _handed_on(state, number):
                    rules += self._rule(state, number, rule, range(len(rule.matches or (1,))), ())
            if rules:
                found.rules[state.route.key] = rules
        self._parents(roots)

    # === References ===

    def _resolve(self, state: RouteState) -> None:
        for number, backends in enumerate(state.backends):
            for place, backend in enumerate(backends):
                if not backend.delegates:
                    continue
                path: FieldPath = ("spec", "rules", number, "backendRefs", place)
                children = self._find(state, backend.ref, path)
                if isinstance(children, Outcome):
                    backends[place] = replace(backend, problem=children)
                else:
                    self._children[state.route.key, (number, place)] = children

    def _find(
        self, state: RouteState, ref: BackendObjectReference, path: FieldPath
    ) -> list[RouteState] | Outcome:
        """The routes that a reference leads to, or why it leads to none."""
        own = state.route
        namespace = ref.namespace or own.namespace
        hint = None
        every: Sequence[RouteState]
        if (ref.group, ref.kind) == _BY_LABEL:
            every = [
                one
                for one in self._by_label.get(ref.name, ())
                if namespace in (_ALL, one.route.namespace)
            ]
            where = "any namespace" if namespace == _ALL else f"namespace {namespace}"
            message = f"no HTTPRoute of {where} has the label {LABEL}: {ref.name}"
        elif ref.name == _EVERY:
            every = self._by_namespace.get(namespace, ())
            message = f"there is no HTTPRoute in namespace {namespace}"
        else:
            key = ResourceKey(GATEWAY_GROUP, "HTTPRoute", namespace, ref.name)
            every = [self._states[key]] if key in self._states else []
            message = f"{key} not found"
            near = (one.route.name for one in self._by_namespace.get(namespace, ()))
            word = suggest(ref.name, near)
            hint = f"did you mean `{word}`?" if word else None
        by_name = (ref.group, ref.kind) == _BY_NAME and ref.name != _EVERY
        # A route among many of a kind does not hand on requests to itself.
        found = [one for one in every if by_name or one is not state]
        willing = [one for one in found if _is_willing(one, own.key)]
        if found and not willing:
            message = f"no HTTPRoute that is referred to has {own.key} as its parent"
            hint = "name the parent in their `parentRefs`, or leave these out"
        if willing:
            fitting = [one for one in willing if not one.route.spec.hostnames]
            for one in willing:
                if one.route.spec.hostnames and state not in self._rejecting[one.route.key]:
                    self._rejecting[one.route.key].append(state)
            if fitting:
                return fitting
            message = f"{', '.join(str(one.route.key) for one in willing)}: {HOSTNAMES}"
        problem = Outcome(False, "BackendNotFound", message)
        place = (*path, "name")
        self._index.report(own, "KGW307", Severity.ERROR, message, place, hint=hint)
        return problem

    # === Rules ===

    def _rule(
        self,
        state: RouteState,
        number: int,
        rule: Rule,
        places: Sequence[int],
        via: tuple[Step, ...],
    ) -> Iterator[Delegated]:
        """What a rule of a route comes to, given how it is there."""
        matches = rule.matches or (RouteMatch(),)
        chain = {state.route.key, *(one.state.route.key for one in via)}
        delegating = [one for one in enumerate(state.backends[number]) if one[1].delegates]
        direct = len(delegating) < len(state.backends[number]) or _redirects(rule)
        for place, match in zip(places, matches, strict=True):
            here = rule.model_copy(update={"matches": (match,)})
            step = Step(state, number, place)
            served, fault = False, None
            for spot, backend in delegating:
                why = self._fault(state, number, spot, backend, chain)
                if why is not None:
                    fault = fault or why
                    continue
                for child in self._children[state.route.key, (number, spot)]:
                    for one in self._child(child, here, match, (step, *via)):
                        served = True
                        yield one
            if self._left < 0:
                self._report(state, number, 0, _TOO_MANY, "KGW433")
                yield Delegated(state, number, here, (place,), via, _TOO_MANY)
                return
            if delegating and not served and not direct:
                fault = fault or self._unserved(state, number, delegating[0][0], match)
                yield Delegated(state, number, here, (place,), via, fault)
            elif direct:
                self._left -= 1
                yield Delegated(state, number, here, (place,), via)

    def _child(
        self, child: RouteState, parent: Rule, match: RouteMatch, via: tuple[Step, ...]
    ) -> Iterator[Delegated]:
        """The rules of a child that are within a match of its parent."""
        joins = child.route.metadata.annotations.get(INHERIT, "").lower()
        joined = joins in ("true", "yes", "enabled")
        pair = (child.route.key, via[0].state.route.key)
        self._served.setdefault(pair, False)
        for number, rule in enumerate(child.rules):
            assert isinstance(rule, Rule)  # children are HTTPRoutes
            found: list[tuple[int, RouteMatch]] = []
            for place, own in enumerate(rule.matches or (RouteMatch(),)):
                if joined:
                    found.append((place, _joined(match, own)))
                elif _is_within(own, match):
                    found.append((place, own))
            if not found:
                continue
            self._served[pair] = True
            self._left -= len(found)
            if self._left < 0:
                return
            strategy = inheritance.strategy(via[0].state.route)
            state, here = _inherited(child, number, rule, via[0], parent, strategy)
            here = here.model_copy(update={"matches": tuple(one for _, one in found)})
            places = tuple(place for place, _ in found)
            if _handed_on(child, number):
                yield from self._rule(state, number, here, places, via)
            else:
                yield Delegated(state, number, here, places, via)

    def _fault(
        self, state: RouteState, number: int, spot: int, backend: Backend, chain: set[ResourceKey]
    ) -> str | None:
        """Why a reference hands on no requests, if so."""
        if backend.problem is not None:
            return backend.problem.message
        children = self._children[state.route.key, (number, spot)]
        if any(one.route.key in chain for one in children):
            message = CYCLE
        elif len(chain) > DEEPEST:
            message = _TOO_DEEP
        else:
            return None
        self._broken(state, number, spot, Outcome(False, "RefNotPermitted", message), "KGW433")
        return message

    def _unserved(self, state: RouteState, number: int, spot: int, match: RouteMatch) -> str:
        path = match.path.value
        message = f"no match of a delegated route is within {match.path.type} {path}"
        self._broken(state, number, spot, Outcome(False, "BackendNotFound", message), "KGW307")
        return message

    def _broken(
        self, state: RouteState, number: int, spot: int, problem: Outcome, code: str
    ) -> None:
        """Reports what is wrong with a reference, once."""
        # The lists of backends are shared with what is made of the route.
        backends = state.backends[number]
        if backends[spot].unserved is None:
            backends[spot] = replace(backends[spot], unserved=problem)
            self._report(state, number, spot, problem.message, code)

    def _report(self, state: RouteState, number: int, spot: int, text: str, code: str) -> None:
        path: FieldPath = ("spec", "rules", number, "backendRefs", spot)
        with self._index.reporting_to(state.findings):
            if all((one.code, one.path) != (code, path) for one in state.findings):
                self._index.report(state.route, code, Severity.ERROR, text, path)

    # === Parents ===

    def _parents(self, roots: Iterable[RouteState]) -> None:
        """Says of each route who hands on requests to it, and for which Gateways."""
        above: dict[ResourceKey, list[RouteState]] = defaultdict(list)
        for (key, _), children in self._children.items():
            for child in children:
                if self._states[key] not in above[child.route.key]:
                    above[child.route.key].append(self._states[key])
        for root in roots:
            self._descend(root)
        for key, state in self._states.items():
            own = [one for one in state.parents if is_parent(one.ref)]
            if not own and not state.route.spec.parent_refs and not state.parents:
                own = [_parent(one) for one in (*above[key], *self._rejecting[key])]
                state.parents += own
                if own:
                    state.findings[:] = [one for one in state.findings if one.code != "KGW305"]
            with self._index.reporting_to(state.findings):
                for parent in own:
                    self._accept(state, parent)

    def _descend(self, root: RouteState) -> None:
        """Notes with all that a route hands on requests to where that is attached."""
        seen = {root.route.key}
        left = [root]
        while left:
            state = left.pop()
            for number, backends in enumerate(state.backends):
                for spot in range(len(backends)):
                    for child in self._children.get((state.route.key, (number, spot)), ()):
                        if child.route.key not in seen:
                            seen.add(child.route.key)
                            child.through.append(root)
                            left.append(child)

    def _accept(self, state: RouteState, parent: ParentState) -> None:
        """Decides whether a route has a parent."""
        route = state.route
        namespace = parent.ref.namespace or route.namespace
        key = ResourceKey(GATEWAY_GROUP, "HTTPRoute", namespace, parent.ref.name)
        code, path, severity = "KGW305", _place(state, parent), Severity.WARNING
        served = self._served.get((route.key, key))
        reason = "NoMatchingParent"
        if route.spec.hostnames:
            code, reason, message, path = "KGW433", "UnsupportedValue", HOSTNAMES, _HOSTNAMES
            severity = Severity.ERROR
        elif key not in self._states:
            message, severity = f"{key} not found", Severity.ERROR
        elif served:
            parent.accepted = ACCEPTED
            return
        elif served is not None:
            message = f"no match of the route is within one of {key}"
        elif any(state in each for (of, _), each in self._children.items() if of == key):
            message = f"{key} is attached to nothing, or refers to the route in a circle"
        else:
            message = f"{key} does not refer to the route"
        parent.accepted = Outcome(False, reason, message)
        self._index.report(route, code, severity, message, path)


_HOSTNAMES: Final[FieldPath] = ("spec", "hostnames")


def _parent(state: RouteState) -> ParentState:
    route = state.route
    ref = ParentReference(
        group=GATEWAY_GROUP, kind="HTTPRoute", namespace=route.namespace, name=route.name
    )
    return ParentState(ref, Outcome(False, "Pending", ""))


def _place(state: RouteState, parent: ParentState) -> FieldPath:
    """Where a parentRef stands, if the route has it."""
    for number, ref in enumerate(state.route.spec.parent_refs):
        if ref is parent.ref:
            return ("spec", "parentRefs", number)
    return ("spec",)


def _delegates(state: RouteState) -> bool:
    return any(_handed_on(state, number) for number in range(len(state.backends)))


def _handed_on(state: RouteState, number: int) -> bool:
    """Whether a rule hands on requests."""
    return any(one.delegates for one in state.backends[number])


def _redirects(rule: Rule) -> bool:
    return any(one.request_redirect is not None for one in rule.filters)


def _is_willing(child: RouteState, parent: ResourceKey) -> bool:
    """Whether a route has another as its parent: any that it likes, if it names none."""
    refs = child.route.spec.parent_refs
    return not refs or any(
        is_parent(ref)
        and (ref.namespace or child.route.namespace, ref.name) == (parent.namespace, parent.name)
        for ref in refs
    )


# === Matches ===

#: What in a regular expression makes a part of it of the character before.
_REPEATS: Final = ("?", "*", "+", "{")


def _is_within(own: RouteMatch, parent: RouteMatch) -> bool:
    """Whether a match is for a part of the requests of its parent's, as it is written."""
    return (
        parent.path.type == "PathPrefix"
        and _starts(own.path, parent.path.value)
        and _asked(own.first_headers) >= _asked(parent.first_headers)
        and _asked(own.first_query_params) >= _asked(parent.first_query_params)
        and parent.method in (None, own.method)
    )


def _asked(fields: Mapping[str, HeaderMatch | QueryParamMatch]) -> set[tuple[str, str, str]]:
    return {(name, one.type, one.value) for name, one in fields.items()}


def _starts(path: PathMatch, prefix: str) -> bool:
    """Whether a path starts with a prefix: of a regular expression, the text of each alternative
    does, and says nothing else about it."""
    if path.type == "RegularExpression":
        every = _alternatives(path.value)
        return bool(every) and all(_begins(one, prefix) for one in every)
    whole = prefix.rstrip("/")
    return f"{path.value}/".startswith(f"{whole}/")


def _begins(pattern: str, prefix: str) -> bool:
    """Whether a regular expression begins with a prefix, escaped or, where that says the same but
    for points, as it is."""
    plain = not set(prefix) & set("\\^$|?*+()[]{}")
    for start in (re.escape(prefix), *([prefix] if plain else [])):
        if pattern.startswith(start):
            return not pattern[len(start) :].startswith(_REPEATS)
    return False


def _alternatives(pattern: str) -> list[str]:
    """The alternatives that a regular expression as a whole has; none, if it may have comments, in
    which anything can stand."""
    if re.search(r"\(\?[a-zA-Z-]*x", pattern):
        return []
    found = [""]
    groups = classes = 0
    at = 0
    while at < len(pattern):
        size = 1
        match pattern[at]:
            case "\\":
                size = 2
            case "[":
                classes += 1
                # The first one, or the first one after a caret, does not end the class.
                size += pattern.startswith("^", at + 1)
                size += pattern.startswith("]", at + size)
            case "]" if classes:
                classes -= 1
            case "(" if not classes:
                groups += 1
            case ")" if not classes:
                groups -= 1
            case "|" if not classes and not groups:
                found.append("")
                at += 1
                continue
        found[-1] += pattern[at : at + size]
        at += size
    return found


def _joined(parent: RouteMatch, own: RouteMatch) -> RouteMatch:
    """The match of a child and its parent: both paths, and what either asks for; of what both name
    the parent's counts."""
    headers = own.first_headers | parent.first_headers
    params = own.first_query_params | parent.first_query_params
    return own.model_copy(
        update={
            "path": _path(parent.path, own.path),
            "headers": tuple(headers.values()),
            "query_params": tuple(params.values()),
            "method": parent.method or own.method,
        }
    )


def _path(parent: PathMatch, own: PathMatch) -> PathMatch:
    if own.type == "RegularExpression" and native.regex_error(own.value) is not None:
        return own  # which is found to be wrong as it is
    if parent.type == "RegularExpression":
        value = own.value if own.type == "RegularExpression" else re.escape(own.value.rstrip("/"))
        rest = "(?:/.*)?" if own.type == "PathPrefix" else ""
        return _regex(f"(?:{parent.value})(?:{value}){rest}")
    if own.type == "RegularExpression":
        start = re.escape(parent.value.rstrip("/"))
        every = _alternatives(own.value) or [own.value]
        return _regex("|".join(f"{start}{_below(one)}" for one in every))
    # As Go's `path.Join`.
    path = posixpath.normpath(f"/{parent.value}/{own.value}").lstrip("/")
    return PathMatch.model_construct(type=own.type, value=f"/{path}")


def _below(pattern: str) -> str:
    """A regular expression that begins with a slash, of one that may."""
    if pattern.startswith("/") and not pattern[1:].startswith(_REPEATS):
        pattern = pattern[1:]
    return f"/(?:{pattern})"


def _regex(value: str) -> PathMatch:
    return PathMatch.model_construct(type="RegularExpression", value=value)


# === What rules hand down ===


def _inherited(
    child: RouteState,
    number: int,
    rule: Rule,
    step: Step,
    parent: Rule,
    strategy: inheritance.Strategy,
) -> tuple[RouteState, Rule]:
    """A rule of a child with what its parent's says, and the route with the backends of filters."""
    own: list[tuple[RouteState, int, int, Filter]] = [
        (child, number, place, one) for place, one in enumerate(rule.filters)
    ]
    above = [
        (step.state, step.rule, place, one)
        for place, one in enumerate(parent.filters)
        if one.extension_ref is None or one.extension_ref.kind == "PythonFilter"
    ]
    merged = _filters(own, above, strategy)
    first, second = (parent, rule) if strategy.prefer_parent else (rule, parent)
    silent = first.timeouts.request is None and first.timeouts.backend_request is None
    update = {
        "filters": tuple(one for *_, one in merged),
        "timeouts": second.timeouts if silent else first.timeouts,
        "retry": first.retry or second.retry,
        "session_persistence": first.session_persistence or second.session_persistence,
    }
    backends = dict(child.filter_backends)
    for place, (of, at, before, _) in enumerate(merged):
        found = of.filter_backends.get(("spec", "rules", at, "filters", before))
        if found is not None:
            backends["spec", "rules", number, "filters", place] = found
    return replace(child, filter_backends=backends), rule.model_copy(update=update)


_Placed = tuple["RouteState", int, int, "Filter"]

#: Of these a rule has one or the other.
_ACTIONS: Final = frozenset({"RequestRedirect", "URLRewrite"})

_HEADERS: Final = frozenset({"RequestHeaderModifier", "ResponseHeaderModifier"})


def _filters(
    own: list[_Placed], above: list[_Placed], strategy: inheritance.Strategy
) -> list[_Placed]:
    """The filters of a child's rule and its parent's: of each kind those of one of them, or, merged
    deeply, the header modifiers of both, of which the last has the last word."""
    first, second = (above, own) if strategy.prefer_parent else (own, above)
    kinds = {_kind(one) for *_, one in first}
    deep = _HEADERS if strategy.deep else frozenset[str]()
    left = [one for one in second if _kind(one[-1]) not in kinds or one[-1].type in deep]
    return [*left, *first]


def _kind(one: Filter) -> str:
    if one.type == "ExtensionRef":
        assert one.extension_ref is not None  # that is its type
        return f"{one.extension_ref.kind}/{one.extension_ref.name}"
    return "action" if one.type in _ACTIONS else one.type
