"""HTTPRoutes that hand on requests to other HTTPRoutes, and what they hand down with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.policies.manifests import policy

import kgw
from kgw._native import manifest
from kgw.attach import delegation

if TYPE_CHECKING:
    from kgw.attach import Condition
    from kgw.testing import Answer, Gateway, GatewayFactory

PRIORITY = "kgateway.dev/inherited-policy-priority"
INHERIT = {"delegation.kgateway.dev/inherit-parent-matcher": "true"}
LABEL = "delegation.kgateway.dev/label"
REPLACED = "invalid route configuration detected and replaced with a direct response."

EDGE = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  gatewayClassName: kgateway
  listeners: [{name: http, port: 8080, protocol: HTTP}]
---
apiVersion: v1
kind: Service
metadata: {name: a, namespace: team}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: b, namespace: team}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: own}
spec: {ports: [{name: http, port: 80}]}
"""


def route(
    name: str,
    *rules: dict[str, Any],
    namespace: str = "team",
    parents: list[dict[str, Any]] | None = None,
    labels: dict[str, str] | None = None,
    annotations: dict[str, str] | None = None,
    **spec: Any,
) -> dict[str, Any]:
    """An HTTPRoute; without parents it is any route's child."""
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": labels or {},
            "annotations": annotations or {},
        },
        "spec": {**({"parentRefs": parents} if parents else {}), "rules": list(rules), **spec},
    }


def rule(
    path: str, *backends: Any, kind: str = "PathPrefix", match: Any = None, **more: Any
) -> dict[str, Any]:
    """A rule for a path; a backend that is a text is a Service of the route's namespace."""
    refs = [{"name": one, "port": 80} if isinstance(one, str) else one for one in backends]
    matches = [{"path": {"type": kind, "value": path}, **(match or {})}]
    return {"matches": matches, "backendRefs": refs, **more}


def to(name: str, namespace: str | None = "team", **more: Any) -> dict[str, Any]:
    """A reference to a route, or to all of a namespace."""
    own = {} if namespace is None else {"namespace": namespace}
    return {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": name} | own | more


def labelled(value: str, namespace: str) -> dict[str, Any]:
    """A reference to routes by their label."""
    return {
        "group": "delegation.kgateway.dev",
        "kind": "label",
        "name": value,
        "namespace": namespace,
    }


def parent(*rules: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The route that is attached to the Gateway."""
    return route("parent", *rules, namespace="default", parents=[{"name": "edge"}], **more)


def sets(value: str, name: str = "x-by") -> dict[str, Any]:
    """A policy's field that says who has set it, in answers."""
    return {"headerModifiers": {"response": {"set": [{"name": name, "value": value}]}}}


def on(name: str, spec: dict[str, Any], target: str, **more: Any) -> dict[str, Any]:
    """A policy for a route of the team, or for the parent."""
    found = policy(spec, name, target=target, **more)
    found["metadata"]["namespace"] = "default" if target == "parent" else "team"
    return found


def served(gateway: Gateway, url: str, **more: Any) -> str:
    """The backend that answers a request, or how it is answered without one."""
    answer: Answer = gateway.get(url, **more)
    if answer.status == 500:
        assert answer.text == REPLACED
    return answer.backend.rpartition("/")[2] if answer.backend else str(answer.status)


def load(*objects: Any) -> kgw.Config:
    found = [one.value for one in manifest.parse(EDGE)[0]]
    return kgw.Config.from_objects([*found, *objects])


def conditions(
    config: kgw.Config, name: str, namespace: str = "team"
) -> dict[str, list[Condition]]:
    """The conditions of a route by its parents."""
    statuses = {str(key): one for key, one in config.statuses.items()}
    return {
        f"{entry.ref['kind']} {entry.ref.get('namespace', '')}/{entry.ref['name']}": list(
            entry.conditions
        )
        for entry in statuses[f"HTTPRoute {namespace}/{name}"].parents
    }


# === Who gets requests ===


def test_a_rule_hands_on_requests_to_the_rules_of_a_child(kgw_proxy: GatewayFactory) -> None:
    child = route("child", rule("/team/a", "a"), rule("/team/b", "b", kind="Exact"))
    gateway = kgw_proxy([EDGE, parent(rule("/team", to("child")), rule("/", "own")), child])
    assert served(gateway, "/team/a/1") == "a"
    assert served(gateway, "/team/b") == "b"
    assert served(gateway, "/team/b/1") == "own", "nothing of the child is for it"
    assert served(gateway, "/elsewhere") == "own"
    assert gateway.config.findings == ()


def test_children_share_the_hostnames_of_their_parent(kgw_proxy: GatewayFactory) -> None:
    child = route("child", rule("/team", "a"))
    first = parent(rule("/team", to("child")), hostnames=["shop.example"])
    gateway = kgw_proxy([EDGE, first, child])
    assert served(gateway, "http://shop.example/team") == "a"
    assert served(gateway, "http://other.example/team") == "404"


def test_a_child_gets_nothing_outside_of_its_parents_matches(kgw_proxy: GatewayFactory) -> None:
    wanted = {
        "headers": [{"name": "X-Version", "value": "2"}],
        "queryParams": [{"name": "q", "value": "1"}],
        "method": "GET",
    }
    narrower = {**wanted, "headers": [*wanted["headers"], {"name": "x-more", "value": "yes"}]}
    child = route(
        "child",
        rule("/team/same", "a", match=wanted),
        rule("/team/more", "a", match=narrower),
        rule("/team/header", "a", match={**wanted, "headers": []}),
        rule("/team/query", "a", match={**wanted, "queryParams": []}),
        rule("/team/method", "a", match={**wanted, "method": "POST"}),
        rule("/teams", "a", match=wanted),
        rule("/", "a", match=wanted),
    )
    gateway = kgw_proxy([EDGE, parent(rule("/team", to("child"), match=wanted)), child])
    headers = {"x-version": "2", "x-more": "yes"}
    for path, status in (
        ("/team/same", "a"),
        ("/team/more", "a"),
        ("/team/header", "404"),
        ("/team/query", "404"),
        ("/team/method", "404"),
        ("/teams", "404"),
        ("/", "404"),
    ):
        assert served(gateway, f"{path}?q=1", headers=headers) == status, path


def test_a_child_may_have_regular_expressions(kgw_proxy: GatewayFactory) -> None:
    child = route("child", rule("/team/[0-9]+", "a", kind="RegularExpression"))
    gateway = kgw_proxy([EDGE, parent(rule("/team", to("child"))), child])
    assert served(gateway, "/team/12") == "a"
    assert served(gateway, "/team/x") == "404"


@pytest.mark.parametrize(
    "pattern",
    [
        "/team|/admin.*",
        "/team/a|/admin.*",
        "/team?/admin.*",
        "/team{0}/admin.*",
        "/team[|]|/admin.*",
        "/team[]|]|/admin.*",
        "/team[^]|]|/admin.*",
        "/team[[|]|]|/admin.*",
        "/team\\(|/admin.*|/team\\)",
        "/team(?x)#(\n|/admin.*",
        "(?i)/team|/admin.*",
        "(?:/team|/admin.*)",
    ],
)
@pytest.mark.parametrize("joined", [False, True])
def test_a_regular_expression_does_not_lead_out_of_its_parents_prefix(
    pattern: str, joined: bool, kgw_proxy: GatewayFactory
) -> None:
    child = route(
        "child",
        rule(pattern, "a", kind="RegularExpression"),
        annotations=INHERIT if joined else {},
    )
    first = parent(rule("/team", to("child")), rule("/admin", "own"))
    gateway = kgw_proxy([EDGE, first, child], strict=False)
    for path in ("/admin", "/admin/x", "/tea/admin", "/other"):
        assert served(gateway, path) != "a", path


@pytest.mark.parametrize("pattern", ["/x|/admin.*", "x|/admin.*", "(?:/x|/admin)", "/?x|/x{2}"])
def test_a_joined_regular_expression_is_below_its_parents_path(
    pattern: str, kgw_proxy: GatewayFactory
) -> None:
    child = route("child", rule(pattern, "a", kind="RegularExpression"), annotations=INHERIT)
    first = parent(
        rule("/team", to("child")), rule("/v[0-9]", to("child"), kind="RegularExpression")
    )
    gateway = kgw_proxy([EDGE, first, child], strict=False)
    for path in ("/admin", "/x", "/teamx", "/team", "/xx"):
        assert served(gateway, path) == "404", path
    if pattern == "/x|/admin.*":
        assert served(gateway, "/team/x") == "a"
        assert served(gateway, "/team/admin/1") == "a"
        assert served(gateway, "/v1/x") == "a"


def test_a_child_cannot_hide_what_its_parent_asks_for_behind_the_same_name(
    kgw_proxy: GatewayFactory,
) -> None:
    # An API server takes them for two fields; of one name only the first counts.
    team = {"name": "x-team", "value": "a"}
    hiding = {"name": "X-Team", "type": "RegularExpression", "value": ".*"}
    child = route("child", rule("/team", "a", match={"headers": [hiding, team]}))
    first = parent(rule("/team", to("child"), match={"headers": [team]}))
    gateway = kgw_proxy([EDGE, first, child], strict=False)
    assert served(gateway, "/team", headers={"x-team": "b"}) == "404"


@pytest.mark.parametrize("value", ["true", "Yes", "enabled"])
def test_a_child_may_join_its_matches_with_its_parents(
    value: str, kgw_proxy: GatewayFactory
) -> None:
    child = route(
        "child",
        rule("/a", "a", match={"headers": [{"name": "x-version", "value": "1"}]}),
        rule("/b", "b", kind="Exact"),
        {"backendRefs": [{"name": "a", "port": 80}]},
        annotations={"delegation.kgateway.dev/inherit-parent-matcher": value},
    )
    version = {"headers": [{"name": "X-Version", "value": "2"}], "method": "GET"}
    gateway = kgw_proxy([EDGE, parent(rule("/team/", to("child"), match=version)), child])
    two = {"x-version": "2"}
    assert served(gateway, "/team/a/1", headers=two) == "a", "the parent's version counts"
    assert served(gateway, "/team/b", headers=two) == "b"
    assert served(gateway, "/team/else", headers=two) == "a"
    assert served(gateway, "/team/a", headers={"x-version": "1"}) == "404"
    assert gateway.post("/team/b", headers=two).status == 404
    assert served(gateway, "/a", headers=two) == "404"


def test_regular_expressions_are_joined_too(kgw_proxy: GatewayFactory) -> None:
    child = route(
        "child",
        rule("/a", "a"),
        rule("/b+", "b", kind="RegularExpression"),
        annotations=INHERIT,
    )
    first = parent(rule("/t[0-9]", to("child"), kind="RegularExpression"))
    gateway = kgw_proxy([EDGE, first, child])
    assert served(gateway, "/t1/a/x") == "a"
    assert served(gateway, "/t2/bb") == "b"
    assert served(gateway, "/t1/ab") == "404"


def test_all_routes_of_a_namespace_are_children_that_want_to_be(
    kgw_proxy: GatewayFactory,
) -> None:
    gateway = kgw_proxy(
        [
            EDGE,
            parent(rule("/team", to("*"))),
            route("any", rule("/team/a", "a")),
            route(
                "ours",
                rule("/team/b", "b"),
                parents=[{**to("parent", "default")}],
            ),
            route("others", rule("/team/c", "a"), parents=[to("another", "default")]),
        ],
        strict=False,
    )
    assert served(gateway, "/team/a") == "a"
    assert served(gateway, "/team/b") == "b"
    assert served(gateway, "/team/c") == "404"


@pytest.mark.parametrize(("namespace", "far"), [("team", "404"), ("all", "own")])
def test_children_are_found_by_their_label(
    namespace: str, far: str, kgw_proxy: GatewayFactory
) -> None:
    gateway = kgw_proxy(
        [
            EDGE,
            parent(rule("/x", labelled("shop", namespace))),
            route("near", rule("/x/a", "a"), labels={LABEL: "shop"}),
            route("unlike", rule("/x/b", "b"), labels={LABEL: "else"}),
            route("far", rule("/x/c", "own"), namespace="default", labels={LABEL: "shop"}),
        ],
        strict=False,
    )
    assert served(gateway, "/x/a") == "a"
    assert served(gateway, "/x/b") == "404"
    assert served(gateway, "/x/c") == far


def test_children_hand_on_requests_in_their_turn(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy(
        [
            EDGE,
            parent(rule("/team", to("child"))),
            route("child", rule("/team/x", to("grandchild", None)), rule("/team/y", "b")),
            route("grandchild", rule("/z", "a"), annotations=INHERIT),
        ]
    )
    assert served(gateway, "/team/x/z") == "a"
    assert served(gateway, "/team/y") == "b"
    assert served(gateway, "/team/x") == "404"


def test_a_child_of_several_parents_is_in_each_place(kgw_proxy: GatewayFactory) -> None:
    child = route("child", rule("/sub", "a"), annotations=INHERIT)
    both = parent(rule("/one", to("child")), rule("/two", to("child"), name="two"))
    gateway = kgw_proxy([EDGE, both, child])
    for path in ("/one/sub", "/two/sub"):
        answer = gateway.get(path).expect(status=200)
        assert answer.route == "team/child/0/0"
    assert served(gateway, "/sub") == "404"


def test_a_rule_may_have_backends_beside_its_children(kgw_proxy: GatewayFactory) -> None:
    child = route("child", rule("/team/a", "a"))
    gateway = kgw_proxy([EDGE, parent(rule("/team", to("child"), "own")), child])
    assert served(gateway, "/team/a") == "a"
    assert served(gateway, "/team/b") == "own"


def test_the_older_of_children_with_one_match_counts(kgw_proxy: GatewayFactory) -> None:
    older, younger = route("z", rule("/team", "a")), route("b", rule("/team", "b"))
    older["metadata"]["creationTimestamp"] = "2024-01-01T00:00:00Z"
    younger["metadata"]["creationTimestamp"] = "2025-01-01T00:00:00Z"
    gateway = kgw_proxy([EDGE, parent(rule("/team", to("*"))), younger, older])
    assert served(gateway, "/team") == "a"


# === What cannot be served ===


@pytest.mark.parametrize(
    ("objects", "code", "message"),
    [
        ([parent(rule("/team", to("chil")))], "KGW307", "HTTPRoute team/chil not found"),
        (
            [parent(rule("/team", to("*", "nobody")))],
            "KGW307",
            "there is no HTTPRoute in namespace nobody",
        ),
        (
            [parent(rule("/team", labelled("x", "all")))],
            "KGW307",
            f"no HTTPRoute of any namespace has the label {LABEL}: x",
        ),
        (
            [parent(rule("/team", to("child"), match={"method": "GET"}))],
            "KGW307",
            "no match of a delegated route is within PathPrefix /team",
        ),
    ],
)
def test_without_a_child_the_rule_answers_500(
    objects: list[Any], code: str, message: str, kgw_proxy: GatewayFactory
) -> None:
    child = route("child", rule("/team", "a"))
    gateway = kgw_proxy([EDGE, *objects, child], strict=False)
    assert served(gateway, "/team/a") == "500"
    errors = {one.message: one.code for one in gateway.config.errors}
    assert errors[message] == code
    resolved = conditions(gateway.config, "parent", "default")["Gateway /edge"][1]
    assert (resolved.status, resolved.reason) == ("False", "BackendNotFound")
    assert resolved.message == message


def test_a_child_without_the_parent_is_none(kgw_proxy: GatewayFactory) -> None:
    child = route("child", rule("/team", "a"), parents=[to("another", "default")])
    gateway = kgw_proxy([EDGE, parent(rule("/team", to("child"))), child], strict=False)
    assert served(gateway, "/team/a") == "500"
    (own,) = conditions(gateway.config, "child").values()
    assert (own[0].status, own[0].reason) == ("False", "NoMatchingParent")
    assert own[0].message == "HTTPRoute default/another not found"


def test_a_child_has_no_hostnames(kgw_proxy: GatewayFactory) -> None:
    child = route("child", rule("/team", "a"), hostnames=["shop.example"])
    gateway = kgw_proxy([EDGE, parent(rule("/team", to("child"))), child], strict=False)
    assert served(gateway, "http://shop.example/team/a") == "500"
    (own,) = conditions(gateway.config, "child").values()
    assert (own[0].status, own[0].reason) == ("False", "UnsupportedValue")
    assert own[0].message == delegation.HOSTNAMES


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_circle_answers_500(length: int, kgw_proxy: GatewayFactory) -> None:
    names = [f"r{number}" for number in range(length)]
    circle = [
        route(
            name,
            rule("/team", to(names[(number + 1) % length])),
            rule(f"/team/{name}", "a"),
        )
        for number, name in enumerate(names)
    ]
    gateway = kgw_proxy([EDGE, parent(rule("/team", to("r0"))), *circle], strict=False)
    assert served(gateway, "/team/else") == "500"
    for name in names:
        assert served(gateway, f"/team/{name}") == "a", "what is in no circle is served"
    (error,) = gateway.config.errors
    assert (error.code, error.message) == ("KGW433", delegation.CYCLE)
    assert error.resource == f"HTTPRoute team/{names[-1]}"


def test_levels_are_bounded() -> None:
    chain = [
        route(f"r{number}", rule("/", to(f"r{number + 1}")))
        for number in range(2 * delegation.DEEPEST)
    ]
    config = load(parent(rule("/", to("r0"))), *chain)
    assert [one.code for one in config.errors if "levels" in one.message] == ["KGW433"]
    (action,) = (one["action"]["type"] for one in config.ir["routes"].values())
    assert action == "direct"


def test_matches_are_bounded() -> None:
    def many(name: str, *backends: Any) -> dict[str, Any]:
        paths = [{"path": {"value": f"/{number}"}} for number in range(60)]
        rules = {"matches": paths, "backendRefs": list(backends)}
        return route(name, rules, annotations=INHERIT)

    last = {"name": "a", "port": 80}
    config = load(
        parent(rule("/", to("x"))), many("x", to("y")), many("y", to("z")), many("z", last)
    )
    assert len(config.ir["routes"]) <= 2 * delegation.MOST
    assert any("more than" in one.message for one in config.errors)


def test_a_child_that_is_not_valid_answers_500_where_it_is() -> None:
    child = route("child", rule("/team/a", "a", timeouts={"request": "soon"}))
    config = load(parent(rule("/team", to("child"))), child)
    (found,) = config.ir["routes"].values()
    assert (found["name"], found["action"]["type"]) == ("team/child/0/0", "direct")
    ((_, own),) = conditions(config, "child").items()
    assert [(one.type, one.status) for one in own] == [
        ("Accepted", "False"),
        ("kgateway.dev/Programmed", "False"),
    ]


# === What is handed down ===


@pytest.mark.parametrize(
    ("strategy", "by"),
    [
        (None, "child"),
        ("ShallowMergePreferChild", "child"),
        ("ShallowMergePreferParent", "parent"),
        ("DeepMergePreferParent", "parent"),
    ],
)
def test_policies_of_parents_hold_for_their_children(
    strategy: str | None, by: str, kgw_proxy: GatewayFactory
) -> None:
    annotations = {} if strategy is None else {PRIORITY: strategy}
    limit = {"rateLimit": {"local": {"tokenBucket": {"maxTokens": 1, "fillInterval": "60s"}}}}
    gateway = kgw_proxy(
        [
            EDGE,
            parent(rule("/team", to("child")), annotations=annotations),
            route("child", rule("/team", "a")),
            on("wide", {**sets("parent"), **limit}, "parent"),
            on("narrow", sets("child"), "child"),
        ]
    )
    assert gateway.get("/team").expect(status=200).headers["x-by"] == by
    gateway.get("/team").expect(status=429)


@pytest.mark.parametrize(
    ("strategies", "added"),
    [
        (("DeepMergePreferChild", "DeepMergePreferChild"), ["grandchild", "child", "parent"]),
        (("DeepMergePreferParent", "DeepMergePreferChild"), ["parent", "grandchild", "child"]),
        (("DeepMergePreferParent", "ShallowMergePreferParent"), ["parent", "child"]),
        ((None, "DeepMergePreferParent"), ["child", "grandchild"]),
    ],
)
def test_policies_are_handed_down_over_levels(
    strategies: tuple[str | None, str], added: list[str], kgw_proxy: GatewayFactory
) -> None:
    def shapes(value: str) -> dict[str, Any]:
        return {"transformation": {"request": {"add": [{"name": "x-by", "value": value}]}}}

    first, second = ({} if one is None else {PRIORITY: one} for one in strategies)
    gateway = kgw_proxy(
        [
            EDGE,
            parent(rule("/team", to("child")), annotations=first),
            route("child", rule("/team", to("grandchild")), annotations=second),
            route("grandchild", rule("/team", "a")),
            on("a", shapes("parent"), "parent"),
            on("b", shapes("child"), "child"),
            on("c", shapes("grandchild"), "grandchild"),
        ]
    )
    received = gateway.get("/team").expect(status=200).received
    assert received is not None
    assert [value for name, value in received.headers.pairs if name == "x-by"] == added


def test_a_policy_for_a_rule_holds_for_what_that_hands_on(kgw_proxy: GatewayFactory) -> None:
    child = route("child", rule("/", "a"), annotations=INHERIT)
    both = parent(rule("/one", to("child"), name="one"), rule("/two", to("child")))
    gateway = kgw_proxy([EDGE, both, child, on("p", sets("one"), "parent", section="one")])
    assert gateway.get("/one").headers["x-by"] == "one"
    assert "x-by" not in gateway.get("/two").headers


def test_a_policy_that_a_filter_of_the_parent_refers_to_is_handed_down(
    kgw_proxy: GatewayFactory,
) -> None:
    ref = {"group": "gateway.kgateway.dev", "kind": "TrafficPolicy", "name": "p"}
    filters = [{"type": "ExtensionRef", "extensionRef": ref}]
    referred = on("p", sets("filter"), "parent")
    del referred["spec"]["targetRefs"]
    child = route("child", rule("/team", "a"))
    first = parent(rule("/team", to("child"), filters=filters))
    gateway = kgw_proxy([EDGE, first, child, referred])
    assert gateway.get("/team").headers["x-by"] == "filter"
    # Without the policy nothing of the rule may be served, the children's neither.
    gateway = kgw_proxy([EDGE, first, child], strict=False)
    assert served(gateway, "/team") == "500"


def _header(value: str) -> list[dict[str, Any]]:
    modifier = {"set": [{"name": "x-by", "value": value}]}
    return [{"type": "ResponseHeaderModifier", "responseHeaderModifier": modifier}]


@pytest.mark.parametrize(
    ("strategy", "by", "time"),
    [
        ("ShallowMergePreferChild", "child", 3),
        ("ShallowMergePreferParent", "parent", 2),
        ("DeepMergePreferChild", "child", 3),
        ("DeepMergePreferParent", "parent", 2),
    ],
)
def test_filters_and_time_outs_of_the_parents_rule_hold_for_children(
    strategy: str, by: str, time: int, kgw_proxy: GatewayFactory
) -> None:
    child = route(
        "child",
        rule("/team/own", "a", filters=_header("child"), timeouts={"request": "3s"}),
        rule("/team", "a"),
    )
    first = parent(
        rule("/team", to("child"), filters=_header("parent"), timeouts={"request": "2s"}),
        annotations={PRIORITY: strategy},
    )
    gateway = kgw_proxy([EDGE, first, child])
    assert gateway.get("/team/own").headers["x-by"] == by
    assert gateway.get("/team").headers["x-by"] == "parent"
    gateway.backend("team/a").hangs()
    for path, seconds in (("/team/own", time), ("/team", 2)):
        start = gateway.clock.now
        answer = gateway.get(path).expect(status=504)
        assert answer.at - start == pytest.approx(seconds, abs=0.01)


def test_mirrors_of_the_parents_rule_get_copies_of_its_childrens_requests(
    kgw_proxy: GatewayFactory,
) -> None:
    mirror = {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "own", "port": 80}}}
    child = route("child", rule("/team", "a"))
    gateway = kgw_proxy([EDGE, parent(rule("/team", to("child"), filters=[mirror])), child])
    copies = gateway.backend("own")
    for _ in range(100):
        if copies.requests:
            break
        assert served(gateway, "/team") == "a"  # also gives the copy time
    assert copies.last.path == "/team"


# === Statuses ===


def test_the_status_of_a_child_is_about_its_parents() -> None:
    child = route("child", rule("/team", "a"))
    named = route("named", rule("/team/n", "b"), parents=[to("parent", "default")])
    config = load(parent(rule("/team", to("*"))), child, named)
    assert config.findings == ()
    for name in ("child", "named"):
        ((ref, found),) = conditions(config, name).items()
        assert ref == "HTTPRoute default/parent"
        assert [(one.type, one.status, one.reason) for one in found] == [
            ("Accepted", "True", "Accepted"),
            ("ResolvedRefs", "True", "ResolvedRefs"),
            ("kgateway.dev/Programmed", "True", "Programmed"),
        ]
    ((ref, found),) = conditions(config, "parent", "default").items()
    assert (ref, [one.status for one in found]) == ("Gateway /edge", ["True"] * 3)


def test_a_child_that_gets_nothing_is_not_accepted() -> None:
    child, other = route("child", rule("/else", "a")), route("other", rule("/team", "a"))
    config = load(parent(rule("/team", to("*"))), child, other)
    ((_, found),) = conditions(config, "child").items()
    assert (found[0].status, found[0].reason) == ("False", "NoMatchingParent")
    assert found[0].message == "no match of the route is within one of HTTPRoute default/parent"


def test_what_is_broken_in_a_child_is_reported_there_and_once() -> None:
    child = route("child", rule("/sub", "nobody"), annotations=INHERIT)
    both = parent(rule("/one", to("child")), rule("/two", to("child")))
    config = load(both, child)
    (error,) = config.errors
    assert (error.resource, error.code) == ("HTTPRoute team/child", "KGW307")
    resolved = conditions(config, "child")["HTTPRoute default/parent"][1]
    assert (resolved.status, resolved.reason) == ("False", "BackendNotFound")


def test_the_ancestor_of_a_childs_policy_is_the_gateway() -> None:
    config = load(
        parent(rule("/team", to("child"))),
        route("child", rule("/team", "a")),
        on("narrow", sets("child"), "child"),
    )
    statuses = {str(key): one for key, one in config.statuses.items()}
    (entry,) = statuses["TrafficPolicy team/narrow"].ancestors
    assert (entry.ref["kind"], entry.ref["name"]) == ("Gateway", "edge")


def test_an_explanation_names_the_childs_rule_and_its_parents_policy() -> None:
    from kgw.explaining import Question, explain

    config = load(
        parent(rule("/team", to("child"))),
        route("child", rule("/team", "a")),
        on("wide", {"buffer": {"maxRequestSize": 10}}, "parent"),
    )
    found = explain(config, Question.of("GET", "http://any:8080/team"))
    assert found.route is not None
    assert found.route.name == "team/child/0/0"
    sources = {one.field: one.source for one in found.settings}
    assert sources["buffer.maxRequestSize"] == "TrafficPolicy default/wide"
    assert sources["backendRefs[0].name"] == "HTTPRoute team/child"
