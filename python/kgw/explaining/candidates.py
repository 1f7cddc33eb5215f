"""The routes that could serve a request, in order of precedence, and what became of each.

What decides is the native route table, made of the same rules that the engine is given.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from kgw.attach.status import reference
from kgw.routing import HeaderMatch, QueryMatch, Route, RouteTable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kgw.api import Resource
    from kgw.config import Config

    Rule = Mapping[str, Any]

__all__ = [
    "Candidate",
    "Unattached",
    "candidates",
    "considered",
    "hosts_of",
    "object_of",
    "objects",
    "predicates",
    "unattached",
]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A match of a route whose hostname is the request's."""

    route: str
    """The id of the route in the IR."""
    name: str
    """The name of the route, as access logs have it."""
    resource: str | None
    """``Kind namespace/name``; none for a route that the proxy made itself."""
    hostname: str
    """The hostname that matches."""
    rule: Rule
    """The rule of the IR."""
    outcome: str
    """``selected``, ``outranked``, or what does not match: ``hostname``, ``path``, ``method``,
    ``header`` or ``query``."""
    decided_by: str | None
    """What outranked it (``path_kind``, ``prefix_length``, ``method``, ``headers``, ``query``,
    ``age``, ``name``, ``order``), or the header field or query parameter that does not match."""
    reason: str
    """The same in words, with the values."""
    place: str | None
    """``file:line:column`` of the match, if it was read from a file."""

    @property
    def selected(self) -> bool:
        """Whether it serves the request."""
        return self.outcome == "selected"

    def to_json(self) -> dict[str, Any]:
        """Returns all of it as JSON data."""
        return {
            "route": self.name,
            "resource": self.resource,
            "hostname": self.hostname,
            "match": {key: one for key, one in self.rule.items() if key not in ("rank", "route")},
            "created": self.rule["rank"]["created"],
            "outcome": self.outcome,
            "decided_by": self.decided_by,
            "reason": self.reason,
            "place": self.place,
        }


@dataclass(frozen=True, slots=True)
class Unattached:
    """A route that names the Gateway or service as its parent, and is not attached."""

    resource: str
    """``Kind namespace/name``."""
    parent: str
    """The reference, as ``Gateway infra/edge/http``."""
    reason: str
    """Why, as the status says it."""
    place: str | None
    """``file:line:column`` of the reference, if it was read from a file."""

    def to_json(self) -> dict[str, Any]:
        """Returns all of it as JSON data."""
        return {
            "resource": self.resource,
            "parent": self.parent,
            "reason": self.reason,
            "place": self.place,
        }


def unattached(config: Config, parents: Iterable[tuple[str, str, str]]) -> tuple[Unattached, ...]:
    """Returns the routes that name parents (kind, namespace, name) and are not attached there."""
    wanted = set(parents)
    known = {one.key: one for one in config.resources}
    found = []
    for key, status in config.statuses.items():
        for number, entry in enumerate(status.parents):
            ref = entry.ref
            named = (ref.get("kind", "Gateway"), ref.get("namespace", key.namespace), ref["name"])
            refused = next(
                (c for c in entry.conditions if c.type == "Accepted" and c.status != "True"), None
            )
            if named not in wanted or refused is None:
                continue
            origin = getattr(known.get(key), "origin", None)
            place = None if origin is None else origin.describe(("spec", "parentRefs", number))
            reason = f"{refused.reason}: {refused.message}".removesuffix(": ")
            found.append(Unattached(str(key), reference(ref), reason, place))
    return tuple(found)


_PATH: Final = ":path"
"""What a predicate on the path is called that stands beside another one."""


def hosts_of(config: Config, table: str, authority: str) -> list[str]:
    """Returns the hostnames of a table that match a host, the most specific first."""
    hosts = [one["hostname"] for one in config.ir["route_tables"][table]["hosts"]]
    found = RouteTable([Route("/", host, hosts=(host,)) for host in hosts])
    return [one.value for one in found.explain("/", host=authority)]


def considered(
    config: Config,
    table: str,
    method: str,
    path: str,
    authority: str,
    fields: Iterable[tuple[str, str]],
) -> list[tuple[Rule, Any]]:
    """Returns the rules of a table whose hostname matches, each with what became of it.

    That is a `kgw.routing.Considered`. They come in order of precedence.

    Args:
        config: the configuration.
        table: id of the table.
        method: the method.
        path: path and query, in the form in which the proxy matches it.
        authority: the ``Host`` field.
        fields: all header fields.
    """
    # There may be thousands of others.
    hosts = set(hosts_of(config, table, authority))
    rules = [
        (one["hostname"], rule)
        for one in config.ir["route_tables"][table]["hosts"]
        if one["hostname"] in hosts
        for rule in one["rules"]
    ]
    # Of equal routes the first given wins, which in the representation the rank says.
    rules.sort(key=lambda one: (one[1]["rank"]["rule"], one[1]["rank"]["match"]))
    native = RouteTable([_route(hostname, rule) for hostname, rule in rules])
    given = [*fields, (_PATH, path.partition("?")[0])]
    found = native.explain(path, host=authority, method=method, headers=given)
    return [(one.value, one) for one in found]


def _route(hostname: str, rule: Rule) -> Route[Rule]:
    ((kind, path),) = rule["path"].items()
    return Route(
        path,
        rule,
        kind=kind,
        hosts=(hostname,),
        method=rule.get("method"),
        headers=[HeaderMatch(*_value(one)) for one in rule.get("headers", ())],
        query=[QueryMatch(*_value(one)) for one in rule.get("query", ())],
        created=rule["rank"]["created"],
        name=rule["rank"]["name"],
    )


def _value(predicate: Mapping[str, Any]) -> tuple[str, str, Any]:
    kind, value = _predicate(predicate)
    return predicate["name"], value, kind


def _predicate(predicate: Mapping[str, Any]) -> tuple[str, str]:
    """Kind and value of a predicate: ``present`` has no value."""
    value = predicate["value"]
    if isinstance(value, str):
        return value, ""
    ((kind, text),) = value.items()
    return kind, "" if text is None else text


def candidates(
    config: Config,
    table: str,
    method: str,
    path: str,
    authority: str,
    fields: Iterable[tuple[str, str]],
) -> tuple[Candidate, ...]:
    """Returns the rules of a table whose hostname matches; see `considered` for the arguments."""
    given = list(fields)
    every = considered(config, table, method, path, authority, given)
    winner = next((rule for rule, one in every if one.outcome == "selected"), None)
    winning_host = next((one.hostname for _, one in every), "")
    known = objects(config)
    found = []
    for rule, one in every:
        resource = known.get(object_of(rule["route"]))
        rank = rule["rank"]
        where = ("spec", "rules", rank["rule"], "matches", rank["match"])
        origin = None if resource is None else resource.origin
        found.append(
            Candidate(
                rule["route"],
                config.ir["routes"][rule["route"]]["name"],
                None if resource is None else str(resource.key),
                one.hostname,
                rule,
                one.outcome,
                one.detail,
                _reason(one, rule, winner, winning_host, method, path, given),
                None if origin is None else origin.describe(where),
            )
        )
    return tuple(found)


def objects(config: Config) -> dict[tuple[str, str, str], Resource]:
    """Returns the objects of a configuration by kind, in lower case, namespace and name."""
    return {(one.kind.lower(), one.namespace, one.name): one for one in config.resources}


def object_of(route: str) -> tuple[str, str, str]:
    """Returns the key, in `objects`, of what a route of the IR is made of, by the route's id."""
    kind, *names = route.partition("@")[0].split("/")  # httproute/NAMESPACE/NAME/RULE/MATCH
    return (kind, names[0], names[1]) if len(names) == 4 else (kind, "", "")


# === Reasons ===


def _reason(
    one: Any,
    rule: Rule,
    winner: Rule | None,
    winning_host: str,
    method: str,
    path: str,
    fields: list[tuple[str, str]],
) -> str:
    match one.outcome:
        case "selected":
            return "selected"
        case "hostname":
            return f"hostname {winning_host} is more specific, and its routes decide alone"
        case "path":
            return _path_miss(rule, path.partition("?")[0])
        case "method":
            return f"the method is {method}, not {rule['method']}"
        case "header" if one.detail == _PATH:
            expected = next(it for it in rule["headers"] if it["name"] == _PATH)
            return f"the path {path.partition('?')[0]} is not {_wanted(expected)}"
        case "header":
            values = [value for name, value in fields if name.lower() == one.detail.lower()]
            return _value_miss("header", one.detail, rule["headers"], values, fold=True)
        case "query":
            values = _parameters(path, one.detail)[:1]
            return _value_miss("query parameter", one.detail, rule["query"], values, fold=False)
        case "outranked" if winner is not None:
            return f"it matches, but {_outranked(one.detail, winner, rule)}"
        case _:
            return str(one.reason)


def _path_miss(rule: Rule, path: str) -> str:
    ((kind, value),) = rule["path"].items()
    match kind:
        case "exact":
            return f"the path {path} is not {value}"
        case "prefix":
            return f"the path {path} is not below {value}"
        case _:
            return f"the path {path} is not what the expression {value} says"


def _value_miss(
    what: str, name: str, wanted: Iterable[Mapping[str, Any]], values: list[str], *, fold: bool
) -> str:
    if not values:
        return f"{what} {name} is absent"
    same = str.lower if fold else str
    expected = next(one for one in wanted if same(one["name"]) == same(name))
    have = " and ".join(repr(one) for one in values)
    return f"{what} {name} is {have}, not {_wanted(expected)}"


def _wanted(predicate: Mapping[str, Any]) -> str:
    kind, value = _predicate(predicate)
    return f"what the expression {value} says" if kind == "regex" else repr(value)


def _parameters(path: str, name: str) -> list[str]:
    """The values of a query parameter, as they are written."""
    pairs = (one.partition("=") for one in path.partition("?")[2].split("&"))
    return [value for key, _, value in pairs if key == name]


_KINDS = {"exact": "an exact path", "regex": "a regular expression", "prefix": "a path prefix"}


def _outranked(criterion: str, winner: Rule, rule: Rule) -> str:
    """Why one of two matches goes before the other (Gateway API, ``HTTPRouteRule.matches``)."""
    (own, own_path), (other, other_path) = (
        next(iter(one["path"].items())) for one in (rule, winner)
    )
    match criterion:
        case "path_kind":
            return f"{_KINDS[other]} goes before {_KINDS[own]}"
        case "prefix_length":
            return f"prefix {other_path} is longer than {own_path}"
        case "method":
            return "the selected match has a method, and this one has none"
        case "headers" | "query":
            what = "header" if criterion == "headers" else "query parameter"
            more, fewer = (len(one.get(criterion, ())) for one in (winner, rule))
            return f"the selected match has more {what} matches ({more}, and this one {fewer})"
        case "age":
            times = [_time(one["rank"]["created"]) for one in (winner, rule)]
            return f"the selected route is older ({times[0]}, and this one {times[1]})"
        case "name":
            names = [one["rank"]["name"] for one in (winner, rule)]
            return f"{names[0]} comes before {names[1]} in the alphabet"
        case _:
            mine, its = rule["rank"], winner["rank"]
            if mine["rule"] != its["rule"]:
                return f"rule {its['rule']} comes before rule {mine['rule']}"
            return f"match {its['match']} comes before match {mine['match']}"


def _time(created: int | None) -> str:
    if created is None:
        return "of unknown age"
    return datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def predicates(rule: Rule) -> str:
    """Returns what a rule asks of a request, in words."""
    ((kind, path),) = rule["path"].items()
    words = [f"{'path' if kind == 'exact' else kind} {path}"]
    if rule.get("method"):
        words.append(rule["method"])
    for what, named in (("header", rule.get("headers", ())), ("query", rule.get("query", ()))):
        for one in named:
            how, value = _predicate(one)
            sign = {"exact": f"={value}", "regex": f"~{value}"}.get(how, "")
            words.append(f"path{sign}" if one["name"] == _PATH else f"{what} {one['name']}{sign}")
    return ", ".join(words)
