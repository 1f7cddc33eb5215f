"""References of ``ExternalAuth`` filters: conditions and findings."""

from __future__ import annotations

import pytest
from tests.translate.support import EDGE, codes, condition, filters, load, run, verdict

HTTP_ROUTE = "HTTPRoute default/route"

AUTH = """
apiVersion: v1
kind: Service
metadata: {name: auth}
spec: {clusterIP: 10.0.0.9, ports: [{name: whatever, port: 9000}]}
"""


def route(auth: str, more: str = "") -> str:
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: route}}
spec:
  parentRefs: [{{name: edge}}]
  rules:
  - filters: [{{type: ExternalAuth, externalAuth: {auth}}}{more}]
    backendRefs: [{{name: web, port: 80}}]
"""


def to(ref: str) -> str:
    return route(f"{{protocol: HTTP, backendRef: {ref}, http: {{}}}}")


def test_a_service_that_is_found_is_asked() -> None:
    found = run(EDGE, AUTH, to("{name: auth, port: 9000}"))
    assert verdict(found, HTTP_ROUTE, "Accepted") == ("True", "Accepted")
    assert verdict(found, HTTP_ROUTE, "ResolvedRefs") == ("True", "ResolvedRefs")
    assert codes(found) == []
    assert filters(found)["default/route/0/0"] == [
        {
            "type": "ext_authz",
            "cluster": "kube_default_auth_9000",
            "timeout_ms": 2000,
            "service": {"type": "http", "upstream_headers": None},
            "request_headers": [],
        }
    ]
    assert "kube_default_auth_9000" in found.ir["clusters"]


def test_a_service_that_is_called_is_spoken_to_in_http_2() -> None:
    auth = "{protocol: GRPC, backendRef: {name: auth, port: 9000}, grpc: {}}"
    found = run(EDGE, AUTH, route(auth))
    [filter_] = filters(found)["default/route/0/0"]
    assert filter_["service"] == {"type": "grpc", "authority": "auth.default"}
    assert "request_headers" not in filter_
    assert found.ir["clusters"][filter_["cluster"]]["protocol"] == "http2"


def test_all_options() -> None:
    http = "path: auth/, allowedHeaders: [X-A], allowedResponseHeaders: [x-user]"
    ref = "backendRef: {name: auth, port: 9000}"
    auth = f"{{protocol: HTTP, {ref}, http: {{{http}}}, forwardBody: {{maxSize: 10}}}}"
    [filter_] = filters(run(EDGE, AUTH, route(auth)))["default/route/0/0"]
    assert filter_["service"] == {
        "type": "http",
        "path_prefix": "/auth",
        "upstream_headers": ["x-user"],
    }
    assert filter_["request_headers"] == ["X-A"]
    assert filter_["body"] == {"max_bytes": 10}


@pytest.mark.parametrize(
    ("ref", "code", "reason"),
    [
        ("{name: aut, port: 9000}", "KGW307", "BackendNotFound"),
        ("{name: auth, port: 9001}", "KGW307", "BackendNotFound"),
        ("{group: a.example, kind: A, name: auth}", "KGW309", "InvalidKind"),
        ("{name: auth, namespace: other, port: 9000}", "KGW308", "RefNotPermitted"),
    ],
)
def test_a_service_that_is_not_found_refuses_all(ref: str, code: str, reason: str) -> None:
    other = AUTH.replace("{name: auth}", "{name: auth, namespace: other}")
    found = run(EDGE, AUTH, other, to(ref))
    assert verdict(found, HTTP_ROUTE, "Accepted") == ("True", "Accepted")
    assert verdict(found, HTTP_ROUTE, "ResolvedRefs") == ("False", reason)
    assert code in codes(found)
    [filter_] = filters(found)["default/route/0/0"]
    assert filter_["cluster"] is None


def test_a_finding_is_where_the_fault_is() -> None:
    found = run(EDGE, AUTH, to("{name: aut, port: 9000}"))
    [finding] = found.findings
    where = ("spec", "rules", 0, "filters", 0, "externalAuth", "backendRef", "name")
    assert finding.path == where
    assert finding.hint == "did you mean `auth`?"
    message = condition(found, HTTP_ROUTE, "ResolvedRefs").message
    assert message == "Service default/aut not found"


def test_the_rule_says_what_is_asked_first() -> None:
    modifier = ", {type: RequestHeaderModifier, requestHeaderModifier: {remove: [x-a]}}"
    auth = "{protocol: HTTP, backendRef: {name: auth, port: 9000}, http: {}}"
    found = run(EDGE, AUTH, route(auth, modifier))
    kinds = [one["type"] for one in filters(found)["default/route/0/0"]]
    assert kinds == ["ext_authz", "request_headers"]


@pytest.mark.parametrize(
    ("auth", "message"),
    [
        ("protocol: HTTP, REF", "http must be specified"),
        ("protocol: GRPC, REF", "grpc must be specified"),
        ("protocol: GRPC, REF, grpc: {}, http: {}", "must be 'HTTP'"),
        ("protocol: HTTP, backendRef: {name: a}, http: {}", "Must have port"),
        ("protocol: HTTP, REF, http: {allowedHeaders: [a, a]}", "`a` is named twice"),
        ("protocol: HTTP, REF, http: {allowedHeaders: ['a b']}", "a b"),
        ("protocol: HTTP, REF, http: {path: '/?'}", "/?"),
        ("protocol: HTTP, REF, http: {}, forwardBody: {maxSize: -1}", "-1"),
    ],
)
def test_what_an_api_server_would_refuse(auth: str, message: str) -> None:
    text = route(f"{{{auth.replace('REF', 'backendRef: {name: a, port: 1}')}}}")
    errors = [str(one) for one in load(text).findings if one.severity == "error"]
    assert any(message in one for one in errors), errors
