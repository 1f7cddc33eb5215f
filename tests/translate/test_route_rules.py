"""HTTPRoute rules in the representation."""

from __future__ import annotations

from typing import Any

import pytest
from tests.translate.support import (
    EDGE,
    MESH,
    ROUTE,
    actions,
    codes,
    condition,
    filters,
    hosts,
    run,
    verdict,
)

WEB = "kube_default_web_80"
BACKENDS = "backendRefs: [{name: web, port: 80}]"
REPLACED = {
    "type": "direct",
    "status": 500,
    "body": "invalid route configuration detected and replaced with a direct response.",
}


def rules(text: str) -> str:
    return ROUTE.replace(f"rules: [{{{BACKENDS}}}]", f"rules: {text}")


def rule(text: str) -> str:
    return rules(f"[{{{BACKENDS}, {text}}}]")


def only_rule(text: str) -> dict[str, Any]:
    """The one rule of the route, without its rank."""
    (table,) = run(EDGE, text).ir["route_tables"].values()
    (host,) = table["hosts"]
    (found,) = host["rules"]
    return {name: value for name, value in found.items() if name not in ("rank", "route")}


def only_action(*texts: str) -> dict[str, Any]:
    (found,) = actions(run(EDGE, *texts)).values()
    return dict(found)


# === Matches ===


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        ("{}", {"path": {"prefix": "/"}}),
        ("{path: {value: /a}}", {"path": {"prefix": "/a"}}),
        ("{path: {type: Exact, value: /a}}", {"path": {"exact": "/a"}}),
        ("{path: {type: RegularExpression, value: '/a.*'}}", {"path": {"regex": "/a.*"}}),
        ("{method: POST}", {"path": {"prefix": "/"}, "method": "POST"}),
        (
            "{headers: [{name: X-A, value: b}, {type: RegularExpression, name: x-b, value: 'c+'}]}",
            {
                "path": {"prefix": "/"},
                "headers": [
                    {"name": "x-a", "value": {"exact": "b"}},
                    {"name": "x-b", "value": {"regex": "c+"}},
                ],
            },
        ),
        (
            "{queryParams: [{name: Q, value: b}]}",
            {"path": {"prefix": "/"}, "query": [{"name": "Q", "value": {"exact": "b"}}]},
        ),
        (
            "{headers: [{name: a, value: '1'}, {name: A, value: '2'}]}",
            {"path": {"prefix": "/"}, "headers": [{"name": "a", "value": {"exact": "1"}}]},
        ),
    ],
)
def test_matches(match: str, expected: dict[str, Any]) -> None:
    assert only_rule(rule(f"matches: [{match}]")) == expected


def test_an_empty_list_of_matches_matches_all() -> None:
    assert only_rule(rule("matches: []")) == {"path": {"prefix": "/"}}


def test_each_match_is_ranked_on_its_own() -> None:
    text = rules(f"[{{{BACKENDS}}}, {{matches: [{{method: GET}}, {{method: PUT}}], {BACKENDS}}}]")
    dated = text.replace(
        "{name: route}", "{name: route, creationTimestamp: '1970-01-01T00:01:00Z'}"
    )
    (table,) = run(EDGE, dated).ir["route_tables"].values()
    assert [one["rank"] for one in table["hosts"][0]["rules"]] == [
        {"created": 60, "name": "default/route", "rule": 0, "match": 0},
        {"created": 60, "name": "default/route", "rule": 1, "match": 0},
        {"created": 60, "name": "default/route", "rule": 1, "match": 1},
    ]


def test_routes_are_named_after_their_rule() -> None:
    text = rules(f"[{{name: first, {BACKENDS}}}, {{matches: [{{method: GET}}], {BACKENDS}}}]")
    found = run(EDGE, text)
    assert hosts(found, "gateway/default/edge/80") == {
        "*": ["httproute/default/route/first/0", "httproute/default/route/1/0"]
    }
    assert list(actions(found)) == ["default/route/1/0", "default/route/first/0"]


# === Time-outs ===


@pytest.mark.parametrize(
    ("timeouts", "total", "backend"),
    [
        ("{}", 15_000, None),
        ("{request: 180s}", 180_000, None),
        ("{request: 0s}", 0, None),
        ("{request: 10s, backendRequest: 2s}", 10_000, 2_000),
        ("{request: 0s, backendRequest: 2s}", 0, 2_000),
        ("{backendRequest: 30s}", 30_000, 30_000),
        ("{backendRequest: 0s}", 15_000, None),
    ],
)
def test_timeouts(timeouts: str, total: int, backend: int | None) -> None:
    action = only_action(rule(f"timeouts: {timeouts}"))
    assert action["request_timeout_ms"] == total
    assert action.get("backend_request_timeout_ms") == backend


# === Redirects and rewrites ===


@pytest.mark.parametrize(
    ("redirect", "expected"),
    [
        ("{}", {"port": 80, "status": 302}),
        ("{scheme: https}", {"scheme": "https", "port": 443, "status": 302}),
        ("{scheme: http, port: 8080}", {"scheme": "http", "port": 8080, "status": 302}),
        (
            "{hostname: a.example, statusCode: 308}",
            {"hostname": "a.example", "port": 80, "status": 308},
        ),
        (
            "{path: {type: ReplaceFullPath, replaceFullPath: /b}}",
            {"port": 80, "status": 302, "path": {"full": "/b"}},
        ),
        (
            "{path: {type: ReplacePrefixMatch, replacePrefixMatch: ''}}",
            {"port": 80, "status": 302, "path": {"prefix": {"from": "/a", "to": ""}}},
        ),
    ],
)
def test_redirects(redirect: str, expected: dict[str, Any]) -> None:
    text = rules(
        f"[{{matches: [{{path: {{value: /a}}}}], filters: [{{type: RequestRedirect, "
        f"requestRedirect: {redirect}}}]}}]"
    )
    assert only_action(text) == {"type": "redirect", **expected}


def test_a_redirect_names_the_port_of_its_listener() -> None:
    gateway = EDGE.replace("port: 80, protocol", "port: 8080, protocol")
    text = rules("[{filters: [{type: RequestRedirect, requestRedirect: {}}]}]")
    (action,) = actions(run(gateway, text)).values()
    assert action["port"] == 8080


@pytest.mark.parametrize(
    ("rewrite", "expected"),
    [
        ("{hostname: a.example}", {"hostname": "a.example"}),
        (
            "{path: {type: ReplacePrefixMatch, replacePrefixMatch: /b}}",
            {"path": {"prefix": {"from": "/a", "to": "/b"}}},
        ),
        (
            "{hostname: a.example, path: {type: ReplaceFullPath, replaceFullPath: /b}}",
            {"hostname": "a.example", "path": {"full": "/b"}},
        ),
    ],
)
def test_rewrites(rewrite: str, expected: dict[str, Any]) -> None:
    action = only_action(
        rule(
            "matches: [{path: {value: /a}}], "
            f"filters: [{{type: URLRewrite, urlRewrite: {rewrite}}}]"
        )
    )
    assert action["rewrite"] == expected


# === Header filters ===

MODIFIERS = (
    "filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {remove: [x-c]}}, "
    "{type: RequestHeaderModifier, requestHeaderModifier: "
    "{set: [{name: x-a, value: '1'}], add: [{name: x-b, value: '2'}]}}]"
)
CHAIN = [
    {"type": "request_headers", "set": [["x-a", "1"]], "add": [["x-b", "2"]], "remove": []},
    {"type": "response_headers", "set": [], "add": [], "remove": ["x-c"]},
]
LIMIT = """
apiVersion: gateway.kgateway.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: limit}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: route}]
  rateLimit: {local: {tokenBucket: {maxTokens: 3, fillInterval: 1s}}}
"""


def test_filters_run_in_kgateways_order_whatever_theirs_is() -> None:
    (chain,) = filters(run(EDGE, rule(MODIFIERS), LIMIT)).values()
    assert [one["type"] for one in chain] == [
        "local_rate_limit",
        "request_headers",
        "response_headers",
    ]
    assert chain[1:] == CHAIN


def test_a_backend_has_filters_of_its_own() -> None:
    text = rules(f"[{{backendRefs: [{{name: web, port: 80, {MODIFIERS}}}]}}]")
    (backend,) = only_action(text)["backends"]
    assert backend == {"cluster": WEB, "weight": 1, "filters": CHAIN}


def test_a_backend_redirects_and_rewrites_by_itself() -> None:
    located = "path: {type: ReplacePrefixMatch, replacePrefixMatch: /b}"
    given = (
        f"{{type: RequestRedirect, requestRedirect: {{{located}}}}}",
        f"{{type: URLRewrite, urlRewrite: {{hostname: b, {located}}}}}",
    )
    refs = ", ".join(f"{{name: web, port: 80, filters: [{one}]}}" for one in given)
    text = rules(f"[{{matches: [{{path: {{value: /a}}}}], backendRefs: [{refs}]}}]")
    path = {"prefix": {"from": "/a", "to": "/b"}}
    assert [one["filters"] for one in only_action(text)["backends"]] == [
        [{"type": "redirect", "port": 80, "status": 302, "path": path}],
        [{"type": "rewrite", "hostname": "b", "path": path}],
    ]


# === Mirrors and CORS ===


def mirror(text: str = "", name: str = "web") -> str:
    ref = f"backendRef: {{name: {name}, port: 80}}"
    return f"{{type: RequestMirror, requestMirror: {{{ref}{text}}}}}"


@pytest.mark.parametrize(
    ("share", "numerator", "denominator"),
    [
        ("", 100, 100),
        (", percent: 0", 0, 100),
        (", percent: 20", 20, 100),
        (", fraction: {numerator: 25, denominator: 50}", 25, 50),
        (", fraction: {numerator: 7}", 7, 100),
    ],
)
def test_mirrors(share: str, numerator: int, denominator: int) -> None:
    found = run(EDGE, rule(f"filters: [{mirror(share)}]"))
    ((one,),) = filters(found).values()
    assert one == {
        "type": "mirror",
        "cluster": WEB,
        "numerator": numerator,
        "denominator": denominator,
    }
    assert found.findings == ()


def test_mirrors_stand_behind_the_filters_whose_changes_they_get() -> None:
    (chain,) = filters(run(EDGE, rule(MODIFIERS.replace("[", f"[{mirror()}, ", 1)))).values()
    assert [one["type"] for one in chain] == ["request_headers", "response_headers", "mirror"]


def test_a_backend_has_mirrors_of_its_own() -> None:
    ref = f"{{name: web, port: 80, filters: [{mirror()}]}}"
    found = run(EDGE, rules(f"[{{backendRefs: [{ref}]}}]"))
    (action,) = actions(found).values()
    assert [one["cluster"] for one in action["backends"][0]["filters"]] == [WEB]


@pytest.mark.parametrize("on_backend", [False, True])
@pytest.mark.parametrize(
    ("name", "reason", "code"),
    [
        ("none", "BackendNotFound", "KGW307"),
        ("web, namespace: other", "RefNotPermitted", "KGW307"),
        ("web, group: x.example", "InvalidKind", "KGW309"),
    ],
)
def test_a_mirror_that_cannot_be_used_is_left_out_and_told(
    name: str, reason: str, code: str, on_backend: bool
) -> None:
    given = f"filters: [{mirror(name=name)}]"
    text = (
        rules(f"[{{backendRefs: [{{name: web, port: 80, {given}}}]}}]")
        if on_backend
        else rule(given)
    )
    found = run(EDGE, text)
    ((),) = filters(found).values()
    (action,) = actions(found).values()
    (backend,) = action["backends"]
    assert (backend["cluster"], backend["filters"]) == (WEB, [])
    assert verdict(found, "HTTPRoute default/route", "Accepted") == ("True", "Accepted")
    assert verdict(found, "HTTPRoute default/route", "ResolvedRefs") == ("False", reason)
    assert code in codes(found)


def test_a_grant_lets_a_mirror_be_in_another_namespace() -> None:
    other = """
apiVersion: v1
kind: Service
metadata: {name: web, namespace: other}
spec: {clusterIP: 10.0.0.9, ports: [{name: http, port: 80}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {name: routes, namespace: other}
spec:
  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: default}]
  to: [{group: "", kind: Service}]
"""
    text = rule(f"filters: [{mirror(name='web, namespace: other')}]")
    service, grant = other.split("---")
    refused = run(EDGE, text, service)
    assert list(filters(refused).values()) == [[]]
    assert codes(refused) == ["KGW308"]
    ((one,),) = filters(run(EDGE, text, service, grant)).values()
    assert one["cluster"] == "kube_other_web_80"


def test_cors() -> None:
    text = (
        "{type: CORS, cors: {allowOrigins: ['https://*.example.com'], allowMethods: [PUT], "
        "allowHeaders: [x-a], exposeHeaders: [x-b], allowCredentials: true, maxAge: 60}}"
    )
    expected = {
        "type": "cors",
        "allow_origins": ["https://*.example.com"],
        "allow_credentials": True,
        "allow_methods": ["PUT"],
        "allow_headers": ["x-a"],
        "expose_headers": ["x-b"],
        "max_age_s": 60,
    }
    # It comes before anything that could refuse a preflight request.
    (chain,) = filters(run(EDGE, rule(f"filters: [{text}]"), LIMIT)).values()
    assert chain[0] == expected
    assert [one["type"] for one in chain] == ["cors", "local_rate_limit"]
    backend = f"[{{backendRefs: [{{name: web, port: 80, filters: [{text}]}}]}}]"
    assert only_action(rules(backend))["backends"][0]["filters"] == [expected]
    ((bare,),) = filters(run(EDGE, rule("filters: [{type: CORS, cors: {}}]"))).values()
    assert bare == {
        "type": "cors",
        "allow_origins": [],
        "allow_credentials": False,
        "allow_methods": [],
        "allow_headers": [],
        "expose_headers": [],
        "max_age_s": 5,
    }


@pytest.mark.parametrize(
    "name", ["Host", "content-length", "Transfer-Encoding", "connection", "Expect"]
)
@pytest.mark.parametrize("change", ["{set: [{name: %s, value: x}]}", "{remove: [%s]}"])
def test_a_field_that_frames_or_routes_a_message_may_not_be_changed(name: str, change: str) -> None:
    modifier = change % name
    found = run(
        EDGE,
        rule(f"filters: [{{type: RequestHeaderModifier, requestHeaderModifier: {modifier}}}]"),
    )
    assert list(actions(found).values()) == [REPLACED]
    assert codes(found) == ["KGW407"]


@pytest.mark.parametrize("name", ["'a b'", "''", "\u00e9"])
def test_a_field_is_removed_by_a_name_that_it_can_have(name: str) -> None:
    modifier = f"{{type: ResponseHeaderModifier, responseHeaderModifier: {{remove: [{name}]}}}}"
    found = run(EDGE, rule(f"filters: [{modifier}]"))
    assert list(actions(found).values()) == [REPLACED]
    assert codes(found) == ["KGW407"]


@pytest.mark.parametrize("text", ["/a b", "/a#b", "/\u00e9"])
@pytest.mark.parametrize("kind", ["ReplaceFullPath", "ReplacePrefixMatch"])
@pytest.mark.parametrize("name", ["URLRewrite", "RequestRedirect"])
def test_a_path_has_the_characters_of_one(text: str, kind: str, name: str) -> None:
    field = kind[0].lower() + kind[1:]
    alias = {"URLRewrite": "urlRewrite", "RequestRedirect": "requestRedirect"}[name]
    change = f"{{path: {{type: {kind}, {field}: '{text}'}}}}"
    given = f"filters: [{{type: {name}, {alias}: {change}}}]"
    # A redirect has no backends.
    found = run(EDGE, rule(given) if name == "URLRewrite" else rules(f"[{{{given}}}]"))
    assert list(actions(found).values()) == [REPLACED]
    (finding,) = found.findings
    assert (finding.code, finding.field) == (
        "KGW425",
        f"spec.rules[0].filters[0].{alias}.path.{field}",
    )


def test_operators_in_header_values_are_literal_and_warned_about() -> None:
    modifier = "{set: [{name: x-a, value: 'a %REQ(X-B):3% 100%'}, {name: x-c, value: '%%'}]}"
    found = run(
        EDGE,
        rule(f"filters: [{{type: RequestHeaderModifier, requestHeaderModifier: {modifier}}}]"),
    )
    ((one,),) = filters(found).values()
    assert one["set"] == [["x-a", "a %REQ(X-B):3% 100%"], ["x-c", "%%"]]
    (finding,) = found.findings
    assert (finding.code, str(finding.severity)) == ("KGW507", "warning")
    assert "`%REQ(X-B):3%`" in finding.message


def test_filters_in_python_are_named_in_order_before_the_others() -> None:
    python = "{type: ExtensionRef, extensionRef: {group: kgw.dev, kind: PythonFilter, name: NAME}}"
    modifier = "{type: RequestHeaderModifier, requestHeaderModifier: {remove: [x-a]}}"
    listed = [python.replace("NAME", "b"), modifier, python.replace("NAME", "a")]
    found = run(EDGE, rule(f"filters: [{', '.join(listed)}]"))
    ((first, second, third),) = filters(found).values()
    assert first == {"type": "python", "filter": "b"}
    assert second == {"type": "python", "filter": "a"}
    assert third["type"] == "request_headers"
    assert found.findings == ()


# === What cannot be used ===


def test_a_filter_that_is_not_supported_answers_500_for_its_rule_alone() -> None:
    text = "{type: ExtensionRef, extensionRef: {group: x.example, kind: Thing, name: z}}"
    found = run(
        EDGE,
        rules(
            f"[{{matches: [{{path: {{value: /a}}}}], filters: [{text}], {BACKENDS}}}, "
            f"{{{BACKENDS}}}]"
        ),
    )
    assert actions(found)["default/route/0/0"] == REPLACED
    assert actions(found)["default/route/1/0"]["type"] == "forward"
    assert codes(found) == ["KGW502"]


def test_a_backend_has_no_authorization_of_its_own() -> None:
    auth = "{protocol: HTTP, backendRef: {name: web, port: 80}, http: {}}"
    backend = f"{{name: web, port: 80, filters: [{{type: ExternalAuth, externalAuth: {auth}}}]}}"
    found = run(EDGE, rules(f"[{{backendRefs: [{backend}]}}]"))
    (action,) = actions(found).values()
    assert [one["cluster"] for one in action["backends"]] == [None]
    assert codes(found) == ["KGW502"]


def test_a_backend_has_no_filter_in_python() -> None:
    ref = "{group: kgw.dev, kind: PythonFilter, name: a}"
    backend = f"{{name: web, port: 80, filters: [{{type: ExtensionRef, extensionRef: {ref}}}]}}"
    found = run(EDGE, rules(f"[{{backendRefs: [{backend}]}}]"))
    (action,) = actions(found).values()
    assert [one["cluster"] for one in action["backends"]] == [None]
    assert codes(found) == ["KGW502"]


def test_a_backend_filter_that_is_not_supported_costs_the_backends_share() -> None:
    ref = "{group: x.example, kind: Thing, name: z}"
    backend = f"{{name: web, port: 80, filters: [{{type: ExtensionRef, extensionRef: {ref}}}]}}"
    found = run(EDGE, rules(f"[{{backendRefs: [{backend}, {{name: web, port: 80}}]}}]"))
    (action,) = actions(found).values()
    assert [one["cluster"] for one in action["backends"]] == [None, WEB]
    assert codes(found) == ["KGW502"]


@pytest.mark.parametrize(
    "match",
    [
        "{path: {type: RegularExpression, value: '/a('}}",
        "{headers: [{type: RegularExpression, name: a, value: '('}]}",
        "{queryParams: [{type: RegularExpression, name: a, value: '('}]}",
    ],
)
def test_a_broken_regex_drops_its_match_and_is_reported_where_it_stands(match: str) -> None:
    found = run(EDGE, rules(f"[{{matches: [{match}, {{path: {{value: /b}}}}], {BACKENDS}}}]"))
    assert list(actions(found)) == ["default/route/0/1"]
    (finding,) = found.findings
    assert finding.code == "KGW406"
    assert finding.field.startswith("spec.rules[0].matches[0].")
    assert finding.field.endswith("value")
    programmed = condition(found, "HTTPRoute default/route", "kgateway.dev/Programmed")
    assert (programmed.status, programmed.reason) == ("False", "RouteRuleDropped")
    assert programmed.message.startswith("Dropped Rule (0): regular expression")


# === Backends ===


def test_weights_are_kept_and_a_broken_backend_keeps_its_share() -> None:
    text = rules(
        "[{backendRefs: [{name: web, port: 80, weight: 9}, {name: none, port: 80, weight: 0}, "
        "{name: web, port: 99}]}]"
    )
    found = run(EDGE, text)
    (action,) = actions(found).values()
    assert [(one["cluster"], one["weight"]) for one in action["backends"]] == [
        (WEB, 9),
        (None, 0),
        (None, 1),
    ]
    assert verdict(found, "HTTPRoute default/route", "ResolvedRefs")[1] == "BackendNotFound"


def test_a_rule_without_backends_has_none() -> None:
    assert only_action(rules("[{}]"))["backends"] == []


def test_a_reference_that_is_not_granted_holds_for_the_mesh_only() -> None:
    other = (
        "{apiVersion: v1, kind: Service, metadata: {name: web, namespace: other}, "
        "spec: {clusterIP: 10.0.0.9, ports: [{name: http, port: 80}]}}"
    )
    backend = "rules: [{backendRefs: [{name: web, namespace: other, port: 80}]}]"
    edge = ROUTE.replace(f"rules: [{{{BACKENDS}}}]", backend)
    mesh = edge.replace("{name: edge}", '{group: "", kind: Service, name: web}')
    (action,) = actions(run(EDGE, other, edge)).values()
    assert action["backends"][0]["cluster"] is None
    assert actions(run(MESH, other, mesh))["default/route/0/0"]["backends"][0]["cluster"] == (
        "kube_other_web_80"
    )


def test_clusters_have_the_ready_endpoints_of_the_named_port() -> None:
    clusters = run(MESH).ir["clusters"]
    assert clusters["kube_default_web_80"] == {"endpoints": ["10.1.0.1:8080", "10.1.0.2:8080"]}
    assert clusters["kube_default_web_81"] == {"endpoints": ["10.1.0.1:8081", "10.1.0.2:8081"]}
    assert clusters["kube_default_api_80"] == {"endpoints": []}


def test_endpoints_of_both_families_are_dialled() -> None:
    six = """
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-6, labels: {kubernetes.io/service-name: web}}
addressType: IPv6
endpoints: [{addresses: ["fd00:0::0001"]}]
ports: [{name: http, port: 8080}]
"""
    assert run(MESH, six).ir["clusters"]["kube_default_web_80"]["endpoints"] == [
        "10.1.0.1:8080",
        "10.1.0.2:8080",
        "[fd00::1]:8080",
    ]


def test_endpoints_by_name_are_left_out_and_told() -> None:
    names = """
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-n, labels: {kubernetes.io/service-name: api}}
addressType: FQDN
endpoints: [{addresses: [a.example]}]
ports: [{name: http, port: 8080}]
"""
    found = run(MESH, names)
    assert found.ir["clusters"]["kube_default_api_80"] == {"endpoints": []}
    assert codes(found) == ["KGW506"]
