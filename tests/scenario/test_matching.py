"""Which rule answers: the predicates, and the precedence of the Gateway API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.scenario.stage import EDGE, Stage, route

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.scenario.stage import Scene


def rules(**matches: str) -> str:
    """A rule to each named backend, with its matches."""
    return "\n".join(
        f"- matches: {text}\n  backendRefs: [{{name: {name}, port: 80}}]"
        for name, text in matches.items()
    )


@pytest.fixture
def v(stage: Stage) -> Stage:
    """A stage with the backends v1 to v4."""
    for name in ("v1", "v2", "v3", "v4"):
        stage.service(name)
    return stage


# === Each predicate ===


def test_a_prefix_matches_whole_segments(v: Stage) -> None:
    scene = v.serve(EDGE, route(rules(v1="[{path: {type: PathPrefix, value: /abc/}}]")))
    outcomes = {
        path: scene.get(path).outcome
        for path in ("/abc", "/abc/", "/abc/def", "/abc?x=1", "/abcd", "/ABC", "/", "/x/abc")
    }
    assert outcomes == {
        "/abc": "v1",
        "/abc/": "v1",
        "/abc/def": "v1",
        "/abc?x=1": "v1",
        "/abcd": 404,
        "/ABC": 404,
        "/": 404,
        "/x/abc": 404,
    }


def test_an_exact_path_is_exact(v: Stage) -> None:
    scene = v.serve(EDGE, route(rules(v1="[{path: {type: Exact, value: /two}}]")))
    outcomes = [scene.get(path).outcome for path in ("/two", "/two?x", "/two/", "/Two", "/two/x")]
    assert outcomes == ["v1", "v1", 404, 404, 404]


def test_a_regular_expression_covers_the_whole_path(v: Stage) -> None:
    pattern = "'/models/[a-z]+(:[0-9]+b)?'"
    scene = v.serve(
        EDGE, route(rules(v1=f"[{{path: {{type: RegularExpression, value: {pattern}}}}}]"))
    )
    outcomes = [
        scene.get(path).outcome
        for path in ("/models/llama", "/models/llama:70b?x=1", "/models/llama/x", "/x/models/llama")
    ]
    assert outcomes == ["v1", "v1", 404, 404]


def test_headers_all_have_to_match(v: Stage) -> None:
    scene = v.serve(
        EDGE,
        route(
            rules(
                v1="[{headers: [{name: Version, value: two}, {name: color, value: orange}]}]",
                v2="[{headers: [{name: color, type: RegularExpression, value: 'b(lue|lack)'}]}]",
            )
        ),
    )
    assert scene.get("/", "version: two", "COLOR: orange", "x-else: 1").outcome == "v1"
    assert scene.get("/", "version: two").outcome == 404
    assert scene.get("/", "version: Two", "color: orange").outcome == 404
    assert scene.get("/", "color: blue").outcome == "v2"
    assert scene.get("/", "color: blueish").outcome == 404


def test_query_parameters_all_have_to_match(v: Stage) -> None:
    scene = v.serve(
        EDGE,
        route(
            rules(
                v1="[{queryParams: [{name: animal, value: whale}, {name: color, value: blue}]}]",
                v2="[{queryParams: [{name: animal, value: dolphin}]}]",
                v3="[{queryParams: [{name: ANIMAL, value: Whale}]}]",
                v4="[{queryParams: [{name: size, type: RegularExpression, value: '[0-9]+'}]}]",
            )
        ),
    )
    outcomes = {
        query: scene.get(f"/?{query}").outcome
        for query in (
            "animal=whale&color=blue",
            "color=blue&animal=whale&x=y",
            "animal=whale",
            "animal=dolphin",
            "animal=dolphin&animal=whale",
            "animal=whale&animal=dolphin",
            "ANIMAL=Whale",
            "animal=Dolphin",
            "size=12",
            "size=12a",
        )
    }
    assert outcomes == {
        "animal=whale&color=blue": "v1",
        "color=blue&animal=whale&x=y": "v1",
        "animal=whale": 404,
        "animal=dolphin": "v2",
        "animal=dolphin&animal=whale": "v2",
        "animal=whale&animal=dolphin": 404,
        "ANIMAL=Whale": "v3",
        "animal=Dolphin": 404,
        "size=12": "v4",
        "size=12a": 404,
    }


def test_methods(v: Stage) -> None:
    scene = v.serve(EDGE, route(rules(v1="[{method: POST}]", v2="[{method: GET}]")))
    assert scene.get(method="GET").outcome == "v2"
    assert scene.get("/", "content-length: 0", method="POST").outcome == "v1"
    assert scene.get(method="DELETE").outcome == 404
    assert scene.get(method="get").outcome == 400, "no method: they are case-sensitive"


def test_a_rule_with_several_matches_answers_each(v: Stage) -> None:
    scene = v.serve(
        EDGE,
        route(
            rules(v1="[{path: {value: /a}}, {path: {value: /b}, headers: [{name: h, value: v}]}]")
        ),
    )
    outcomes = [scene.get("/a"), scene.get("/b"), scene.get("/b", "h: v")]
    assert [one.outcome for one in outcomes] == ["v1", 404, "v1"]


# === Precedence ===


@pytest.mark.parametrize("turned", [False, True], ids=["in order", "reversed"])
@pytest.mark.parametrize(
    ("winner", "loser", "asked"),
    [
        ("[{path: {type: Exact, value: /a}}]", "[{path: {value: /a}}]", ("/a",)),
        ("[{path: {value: /a/b}}]", "[{path: {value: /a}}]", ("/a/b/c",)),
        (
            "[{path: {value: /path5}}]",
            "[{queryParams: [{name: animal, value: hydra}]}]",
            ("/path5?animal=hydra",),
        ),
        (
            "[{headers: [{name: version, value: four}]}]",
            "[{queryParams: [{name: animal, value: hydra}]}]",
            ("/?animal=hydra", "version: four"),
        ),
        (
            "[{method: GET}]",
            "[{headers: [{name: version, value: four}, {name: x, value: z}]}]",
            ("/", "version: four", "x: z"),
        ),
        ("[{path: {value: /path5}}]", "[{method: GET}]", ("/path5",)),
        (
            "[{headers: [{name: a, value: b}, {name: c, value: d}]}]",
            "[{headers: [{name: a, value: b}]}]",
            ("/", "a: b", "c: d"),
        ),
        (
            "[{queryParams: [{name: a, value: b}, {name: c, value: d}]}]",
            "[{queryParams: [{name: a, value: b}]}]",
            ("/?a=b&c=d",),
        ),
        (
            "[{path: {type: Exact, value: /a}}]",
            "[{path: {type: RegularExpression, value: /.}}]",
            ("/a",),
        ),
        (
            "[{path: {type: RegularExpression, value: /a.*}}]",
            "[{path: {value: /abcdef}}]",
            ("/abcdef",),
        ),
    ],
    ids=[
        "exact before prefix",
        "longer prefix before shorter",
        "longer prefix before query",
        "header before query",
        "method before headers",
        "longer prefix before method",
        "more headers first",
        "more query parameters first",
        "exact before regex",
        "regex before prefix",
    ],
)
def test_the_more_specific_match_wins(
    v: Stage, winner: str, loser: str, asked: tuple[str, ...], turned: bool
) -> None:
    """Wherever the rules stand, in one route or in two."""
    both = {"v1": winner, "v2": loser}
    ordered = dict(reversed(both.items())) if turned else both
    one = v.serve(EDGE, route(rules(**ordered)))
    assert one.get(*asked).outcome == "v1"
    names = ["b", "a"] if turned else ["a", "b"]
    one.apply(
        EDGE,
        *(route(rules(**{k: m}), name=n) for n, (k, m) in zip(names, both.items(), strict=True)),
    )
    assert one.get(*asked).outcome == "v1"
    one.apply(EDGE, route(rules(v2=loser)))
    assert one.get(*asked).outcome == "v2", "the other one matches, too"


def test_each_match_of_a_rule_has_its_own_precedence(v: Stage) -> None:
    scene = v.serve(
        EDGE,
        route(
            rules(
                v1="[{path: {value: /a}}, {path: {type: Exact, value: /b/c}}]",
                v2="[{path: {value: /a/b}}, {path: {value: /b}}]",
            )
        ),
    )
    outcomes = {path: scene.get(path).outcome for path in ("/a", "/a/b", "/b", "/b/c", "/b/c/d")}
    assert outcomes == {"/a": "v1", "/a/b": "v2", "/b": "v2", "/b/c": "v1", "/b/c/d": "v2"}


def created(name: str, when: str, backend: str) -> str:
    text = route(rules(**{backend: "[{path: {value: /}}]"}), name=name)
    return text.replace(
        f"metadata: {{name: {name}}}",
        f"metadata: {{name: {name}, creationTimestamp: '{when}'}}",
    )


def test_of_equal_matches_the_oldest_route_wins_then_the_first_name_then_the_first_rule(
    v: Stage,
) -> None:
    old, new = "2024-01-01T00:00:00Z", "2025-01-01T00:00:00Z"
    scene = v.serve(EDGE, created("a", new, "v1"), created("b", old, "v2"))
    assert scene.get().outcome == "v2"
    scene.apply(EDGE, created("b", new, "v1"), created("a", new, "v2"))
    assert scene.get().outcome == "v2"
    same = "[{path: {value: /}}]"
    scene.apply(EDGE, route(rules(v3=same, v4=same)))
    assert scene.get().outcome == "v3"


# === The suite's own example ===


MATCHING = {
    "v1": "[{path: {value: /}}, {headers: [{name: version, value: one}]}]",
    "v2": "[{path: {value: /v2}}, {headers: [{name: version, value: two}]}]",
}


@pytest.fixture(scope="module")
def matching(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    directory: Path = tmp_path_factory.mktemp("matching")
    with Stage(directory / "manifests") as stage:
        for name in MATCHING:
            stage.service(name)
        yield stage.serve(EDGE, route(rules(**MATCHING)))


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (("/",), "v1"),
        (("/example",), "v1"),
        (("/", "version: one"), "v1"),
        (("/v2",), "v2"),
        (("/v2/example",), "v2"),
        (("/v2example",), "v1"),
        (("/", "version: two"), "v2"),
        (("/v2/", "version: one"), "v2"),
    ],
)
def test_the_conformance_suites_matching_example(
    matching: Scene, asked: tuple[Any, ...], expected: str
) -> None:
    assert matching.get(*asked).outcome == expected
