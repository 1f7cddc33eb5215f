"""HTTPRoutes as routes of a `kgw.routing.RouteTable`: the same rules that the proxy makes of them.

Public as `kgw.routing.routes_of` and `kgw.routing.RouteRule`; apart from it for the sake of those
who need no models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, overload

from kgw import api, source
from kgw.api.gateway.http_route import RouteMatch
from kgw.attach import hostnames, native
from kgw.diagnostics import Finding, Severity, render_all
from kgw.errors import ConfigError
from kgw.routing import HeaderMatch, QueryMatch, Route
from kgw.translate.rules import predicates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from kgw.api.gateway.http_route import HTTPRoute, Rule
    from kgw.api.gateway.references import HTTPBackendRef

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class RouteRule:
    """A rule of an HTTPRoute, with the match of it that a request has."""

    route: HTTPRoute
    """The HTTPRoute."""
    rule: Rule
    """The rule."""
    rule_index: int
    """The rule's position in the HTTPRoute."""
    match_index: int
    """The match's position in the rule."""

    @property
    def backend_refs(self) -> tuple[HTTPBackendRef, ...]:
        """Where requests go, by weight."""
        return self.rule.backend_refs

    def __str__(self) -> str:
        """Returns ``namespace/name/rule/match``, the rule by its name or position."""
        rule = self.rule.name or self.rule_index
        return f"{self.route.namespace}/{self.route.name}/{rule}/{self.match_index}"


@overload
def routes_of(
    objects: Iterable[HTTPRoute | Mapping[str, Any]],
    *,
    value: None = None,
    hostname: str | None = "*",
) -> list[Route[RouteRule]]: ...
@overload
def routes_of(
    objects: Iterable[HTTPRoute | Mapping[str, Any]],
    *,
    value: Callable[[RouteRule], V],
    hostname: str | None = "*",
) -> list[Route[V]]: ...
def routes_of(
    objects: Iterable[HTTPRoute | Mapping[str, Any]],
    *,
    value: Callable[[RouteRule], Any] | None = None,
    hostname: str | None = "*",
) -> list[Route[Any]]:
    """The routes of HTTPRoutes for a `RouteTable`: one for each match of each rule.

    They decide as the proxy does, given the same HTTPRoutes on one listener. What the proxy does
    before that is not a part of it: which listener a request belongs to, and the canonical form of
    its path (`canonical_path`).

    Args:
        objects: :class:`kgw.api.HTTPRoute` models, or mappings as in a manifest; of several
            definitions of one HTTPRoute the last is used.
        value: what the table hands back for a rule; by default the :class:`RouteRule` itself.
        hostname: the hostname of the listener that the routes are attached to: they serve what they
            have in common with it, and all of it if they name none. ``None`` for routes of a
            Service, whose hostnames do not count.

    Raises:
        kgw.errors.ConfigError: an object is no HTTPRoute, or one that an API server would refuse,
            or a regular expression cannot be used; ``resource`` and ``path`` name the field. (The
            proxy would leave the match out and serve the rest.)
    """
    known: dict[api.ResourceKey, HTTPRoute] = {}
    for one in objects:
        route = _parsed(one)
        known.pop(route.key, None)
        known[route.key] = route
    return [
        made
        for route in known.values()
        for rule in _rules(route)
        for made in _made(rule, rule if value is None else value(rule), hostname)
    ]


def _parsed(one: HTTPRoute | Mapping[str, Any]) -> HTTPRoute:
    resource: api.Resource | None = None
    findings: list[Finding] = []
    if isinstance(one, api.Resource):
        resource = one
    else:
        loaded = source.from_objects([one])
        findings += loaded.findings
        for raw in loaded.objects:
            resource, found = api.parse(raw)
            findings += found
    errors = [finding for finding in findings if finding.severity is Severity.ERROR]
    if errors:
        raise ConfigError(
            render_all(errors),
            resource=errors[0].resource,
            path=errors[0].field or None,
            code=errors[0].code,
        )
    if not isinstance(resource, api.HTTPRoute):
        named = "an object" if resource is None else str(resource.key)
        raise ConfigError(f"{named} is not an HTTPRoute", resource=named)
    return resource


def _rules(route: HTTPRoute) -> Iterator[RouteRule]:
    for number, rule in enumerate(route.spec.rules):
        # No matches are one that every request has, as in the proxy.
        for place in range(len(rule.matches) or 1):
            yield RouteRule(route, rule, number, place)


def _made(one: RouteRule, value: V, hostname: str | None) -> Iterator[Route[V]]:
    route, rule = one.route, one.rule
    hosts = (
        (hostnames.ANY,)
        if hostname is None
        else hostnames.intersection(hostname.lower(), route.spec.hostnames)
    )
    if not hosts:
        return
    match = rule.matches[one.match_index] if rule.matches else RouteMatch()
    found = predicates(match)
    where = f"spec.rules[{one.rule_index}].matches[{one.match_index}]"
    (kind, path), *_ = found["path"].items()
    if kind == "regex":
        _check(one, path, f"{where}.path.value")
    yield Route(
        path,
        value,
        kind,
        hosts,
        found.get("method"),
        [
            HeaderMatch(*_value(one, given, f"{where}.headers"))
            for given in found.get("headers", ())
        ],
        [
            QueryMatch(*_value(one, given, f"{where}.queryParams"))
            for given in found.get("query", ())
        ],
        route.created,
        f"{route.namespace}/{route.name}",
    )


def _value(one: RouteRule, given: Mapping[str, Any], where: str) -> tuple[str, str, Any]:
    """Name, value and kind of a predicate on a header or query parameter."""
    (kind, value), *_ = given["value"].items()
    if kind == "regex":
        _check(one, value, where)
    return given["name"], value, kind


def _check(one: RouteRule, pattern: str, where: str) -> None:
    """Raises if a regular expression cannot be used."""
    problem = native.regex_error(pattern)
    if problem is not None:
        raise ConfigError(
            f"{one.route.key}: {where}: regular expression {pattern!r} cannot be used: {problem}",
            resource=str(one.route.key),
            path=where,
            code="KGW406",
        )
