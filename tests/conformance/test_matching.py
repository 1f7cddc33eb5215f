"""Which route a request gets: paths, methods, headers, query parameters, and what goes first."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tests.conformance.infra import Infra, conditions, route
from tests.conformance.suite import conformance

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

V1, V2, V3 = "infra-backend-v1", "infra-backend-v2", "infra-backend-v3"

NOTHING: Mapping[str, str] = {}


class Asked(NamedTuple):
    """A request, and who is to answer it: a Service, else a status."""

    path: str
    outcome: str | int
    headers: Mapping[str, str] = NOTHING
    method: str = "GET"
    host: str = "example.com"


def rule(backend: str, *matches: str) -> str:
    """A rule for any of some matches, each a flow mapping."""
    return f"- {{matches: [{', '.join(matches)}], backendRefs: [{{name: {backend}, port: 8080}}]}}"


def path(kind: str, value: str, more: str = "") -> str:
    return f"{{path: {{type: {kind}, value: {value}}}{more and f', {more}'}}}"


def prefix(value: str, more: str = "") -> str:
    return path("PathPrefix", value, more)


def header(name: str, value: str) -> str:
    return f"headers: [{{name: {name}, value: {value}}}]"


def query(*pairs: str) -> str:
    split = (one.split("=") for one in pairs)
    return (
        f"queryParams: [{', '.join(f'{{name: {name}, value: {value}}}' for name, value in split)}]"
    )


def serve(infra: Infra, *routes: str) -> None:
    """Serves routes, each of which is accepted and has all that it refers to."""
    infra.apply(*routes)
    infra.accepted("same-namespace", *(f"route-{number}" for number in range(len(routes))))


def matched(*rules: str, number: int = 0, hostnames: Iterable[str] = ()) -> str:
    """The manifest of the route of a number."""
    return route("\n".join(rules), name=f"route-{number}", hostnames=hostnames)


def check(infra: Infra, *cases: Asked) -> None:
    for one in cases:
        reply = infra.request(
            "same-namespace", one.path, method=one.method, host=one.host, headers=one.headers
        )
        assert reply.outcome == one.outcome, one
        reply.passed(one.path, one.host, one.method)


@conformance("HTTPRouteExactPathMatching")
def test_HTTPRouteExactPathMatching(infra: Infra) -> None:
    serve(infra, matched(rule(V1, path("Exact", "/one")), rule(V2, path("Exact", "/two"))))

    check(
        infra,
        Asked("/one", V1),
        Asked("/two", V2),
        Asked("/", 404),
        Asked("/one/example", 404),
        Asked("/two/", 404),
        Asked("/Two", 404),
    )


@conformance("HTTPRouteMatching")
def test_HTTPRouteMatching(infra: Infra) -> None:
    serve(
        infra,
        matched(
            rule(V1, prefix("/"), f"{{{header('version', 'one')}}}"),
            rule(V2, prefix("/v2"), f"{{{header('version', 'two')}}}"),
        ),
    )

    check(
        infra,
        Asked("/", V1),
        Asked("/example", V1),
        Asked("/", V1, {"Version": "one"}),
        Asked("/v2", V2),
        Asked("/v2/example", V2),
        Asked("/", V2, {"Version": "two"}),
        Asked("/v2/", V2),
        # The prefix is one of whole segments.
        Asked("/v2example", V1),
        Asked("/foo/v2/example", V1),
    )


@conformance("HTTPRouteMatchingAcrossRoutes")
def test_HTTPRouteMatchingAcrossRoutes(infra: Infra) -> None:
    one = rule(V1, prefix("/"), f"{{{header('version', 'one')}}}")
    two = rule(V2, prefix("/v2"), f"{{{header('version', 'two')}}}")
    serve(
        infra,
        matched(one, hostnames=["example.com", "example.net"]),
        matched(two, number=1, hostnames=["example.com"]),
    )

    check(
        infra,
        Asked("/", V1),
        Asked("/example", V1),
        Asked("/example", V1, host="example.net"),
        Asked("/example", V1, {"Version": "one"}),
        Asked("/v2", V2),
        # The second route is not for this host.
        Asked("/v2", V1, host="example.net"),
        Asked("/v2/example", V2),
        Asked("/", V2, {"Version": "two"}),
    )


@conformance("HTTPRoutePathMatchOrder")
def test_HTTPRoutePathMatchOrder(infra: Infra) -> None:
    serve(
        infra,
        matched(
            rule(V1, path("Exact", "/match")),
            rule(V2, path("Exact", "/match/exact")),
            rule(V3, path("Exact", "/match/exact/one")),
            rule(V3, prefix("/match/")),
            rule(V1, prefix("/match/prefix/")),
            rule(V2, prefix("/match/prefix/one")),
        ),
    )

    check(
        infra,
        Asked("/match/exact/one", V3),
        Asked("/match/exact", V2),
        Asked("/match", V1),
        Asked("/match/prefix/one/any", V2),
        Asked("/match/prefix/any", V1),
        Asked("/match/any", V3),
    )


@conformance("HTTPRouteHeaderMatching")
def test_HTTPRouteHeaderMatching(infra: Infra) -> None:
    two_and_orange = "{headers: [{name: version, value: two}, {name: color, value: orange}]}"
    color = [f"{{{header('color', one)}}}" for one in ("blue", "green", "red", "yellow")]
    serve(
        infra,
        matched(
            rule(V1, f"{{{header('version', 'one')}}}"),
            rule(V2, f"{{{header('version', 'two')}}}"),
            rule(V1, two_and_orange),
            rule(V1, *color[:2]),
            rule(V2, *color[2:]),
        ),
    )

    check(
        infra,
        Asked("/", V1, {"Version": "one"}),
        Asked("/", V2, {"Version": "two"}),
        Asked("/", V1, {"Version": "two", "Color": "orange"}),
        # Both have one header, and the rule for the version comes first.
        Asked("/", V2, {"Version": "two", "Color": "blue"}),
        Asked("/", 404, {"Color": "orange"}),
        Asked("/", 404, {"Some-Other-Header": "one"}),
        Asked("/", V1, {"Color": "blue"}),
        Asked("/", V1, {"Color": "green"}),
        Asked("/", V2, {"Color": "red"}),
        Asked("/", V2, {"Color": "yellow"}),
        Asked("/", 404, {"Color": "purple"}),
    )


@conformance("HTTPRouteMethodMatching")
def test_HTTPRouteMethodMatching(infra: Infra) -> None:
    serve(
        infra,
        matched(
            rule(V1, "{method: POST}"),
            rule(V2, "{method: GET}"),
            rule(V1, prefix("/path1", "method: GET")),
            rule(V2, f"{{method: PUT, {header('version', 'one')}}}"),
            rule(V3, prefix("/path2", f"method: POST, {header('version', 'two')}")),
            rule(
                V1,
                prefix("/path3", "method: PATCH"),
                prefix("/path4", f"method: DELETE, {header('version', 'three')}"),
            ),
            rule(V1, prefix("/path5")),
            rule(V2, "{method: PATCH}"),
            rule(V3, f"{{{header('version', 'four')}}}"),
        ),
    )

    check(
        infra,
        Asked("/", V1, method="POST"),
        Asked("/", V2, method="GET"),
        Asked("/", 404, method="HEAD"),
        Asked("/path1", V1, method="GET"),
        Asked("/", V2, {"version": "one"}, "PUT"),
        Asked("/path2", V3, {"version": "two"}, "POST"),
        # Any match of a rule will do, and all of a match is needed.
        Asked("/path3", V1, method="PATCH"),
        Asked("/path4", V1, {"version": "three"}, "DELETE"),
        Asked("/", 404, method="PUT"),
        Asked("/path4", 404, method="DELETE"),
        # A path goes before a method, and a method before a header.
        Asked("/path5", V1, method="PATCH"),
        Asked("/", V2, {"version": "four"}, "PATCH"),
    )


@conformance("HTTPRouteQueryParamMatching")
def test_HTTPRouteQueryParamMatching(infra: Infra) -> None:
    whale = query("animal=whale")
    serve(
        infra,
        matched(
            rule(V1, f"{{{whale}}}"),
            rule(V2, f"{{{query('animal=dolphin')}}}"),
            rule(
                V3, f"{{{query('animal=dolphin', 'color=blue')}}}", f"{{{query('ANIMAL=Whale')}}}"
            ),
            rule(V1, prefix("/path1", whale)),
            rule(V2, f"{{{header('version', 'one')}, {whale}}}"),
            rule(V3, prefix("/path2", f"{header('version', 'two')}, {whale}")),
            rule(
                V1,
                prefix("/path3", query("animal=shark")),
                prefix("/path4", f"{header('version', 'three')}, {query('animal=kraken')}"),
            ),
            rule(V1, prefix("/path5")),
            rule(V2, f"{{{query('animal=hydra')}}}"),
            rule(V3, f"{{{header('version', 'four')}}}"),
        ),
    )

    check(
        infra,
        Asked("/?animal=whale", V1),
        Asked("/?animal=dolphin", V2),
        Asked("/?animal=dolphin&color=blue", V3),
        Asked("/?ANIMAL=Whale", V3),
        Asked("/?animal=whale&otherparam=irrelevant", V1),
        Asked("/?animal=dolphin&color=yellow", V2),
        Asked("/?color=blue", 404),
        Asked("/?animal=dog", 404),
        Asked("/?animal=whaledolphin", 404),
        Asked("/", 404),
        Asked("/path1?animal=whale", V1),
        Asked("/?animal=whale", V2, {"version": "one"}),
        Asked("/path2?animal=whale", V3, {"version": "two"}),
        Asked("/path3?animal=shark", V1),
        Asked("/path4?animal=kraken", V1, {"version": "three"}),
        Asked("/?animal=shark", 404),
        Asked("/path4?animal=kraken", 404),
        # A path goes before a query parameter, and so does a header.
        Asked("/path5?animal=hydra", V1),
        Asked("/?animal=hydra", V3, {"version": "four"}),
    )


@conformance("HTTPRouteNamedRule")
def test_HTTPRouteNamedRule(infra: Infra) -> None:
    named = rule(V1, prefix("/named")).replace("{", "{name: named-rule, ", 1)
    serve(infra, matched(named, rule(V2, prefix("/unnamed"))))

    check(infra, Asked("/named", V1), Asked("/unnamed", V2))


@conformance("HTTPRouteObservedGenerationBump")
def test_HTTPRouteObservedGenerationBump(infra: Infra) -> None:
    def observed() -> set[int]:
        parent = infra.parent("HTTPRoute", "route", name="same-namespace")
        found = conditions(parent)
        assert found["Accepted"] == ("True", "Accepted")
        assert found["ResolvedRefs"] == ("True", "ResolvedRefs")
        return {one["observedGeneration"] for one in parent["conditions"]}

    first = f"- backendRefs: [{{name: {V1}, port: 8080}}]"
    infra.apply(route(first))
    assert observed() == {1}
    check(infra, Asked("/", V1))

    infra.apply(route(first.replace(V1, V2), generation=2))
    assert observed() == {2}
    check(infra, Asked("/", V2))
