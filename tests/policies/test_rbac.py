"""TrafficPolicy `rbac`: requests that are allowed or refused by conditions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.policies.manifests import BASE, policy

import kgw
from kgw.api.kgateway.traffic.rbac import Authorization

if TYPE_CHECKING:
    from kgw.testing import GatewayFactory

pytestmark = pytest.mark.fields("TrafficPolicy.spec.rbac")


def _rbac(*conditions: str, action: str | None = None) -> dict[str, Any]:
    rbac: dict[str, Any] = {"policy": {"matchExpressions": list(conditions)}}
    return {"rbac": rbac if action is None else {"action": action, **rbac}}


WAYPOINT = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint}
spec:
  gatewayClassName: kgateway-waypoint
  listeners: [{name: proxy, port: 15088, protocol: istio.io/PROXY}]
---
apiVersion: v1
kind: Service
metadata: {name: api, labels: {istio.io/use-waypoint: waypoint}}
spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80}]}
"""

ADMIN = "request.headers['x-role'] == 'admin'"


def test_who_matches_is_allowed_and_nobody_else(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy([BASE, policy(_rbac(ADMIN, "request.path == '/public'"))])
    gateway.get("/", headers={"x-role": "admin"}).expect(status=200, backend="api")
    gateway.get("/public").expect(status=200)
    for headers in ({"x-role": "user"}, {}):
        answer = gateway.get("/", headers=headers).expect(status=403, backend=None, flags="")
        assert answer.text == "RBAC: access denied"
        assert answer.details == "rbac_access_denied_matched_policy[deny-request]"
    stats = gateway.stats()
    assert (stats["rbac_allowed"], stats["rbac_denied"]) == (2, 2)


def test_who_matches_a_denial_is_refused_and_nobody_else(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy([BASE, policy(_rbac(ADMIN, action="Deny"))])
    answer = gateway.get("/", headers={"x-role": "admin"}).expect(status=403)
    assert answer.details == "rbac_access_denied_matched_policy[deny-request]"
    gateway.get("/", headers={"x-role": "user"}).expect(status=200)
    # What is missing matches nothing.
    gateway.get("/").expect(status=200)


@pytest.mark.parametrize(
    "condition",
    [
        "request.method == 'GET' && request.url_path == '/x' && request.query == 'a=1'",
        "request.path == '/x?a=1' && request.host == 'shop.example' && request.scheme == 'http'",
        "request.headers[':authority'] == request.host && request.headers['host'] == request.host",
        "request.headers['x-two'] == '1,2' && request.headers['X-TWO'].contains(',')",
        "request.useragent == 'tests' && request.referer == 'http://a.example/'",
        "request.protocol == 'HTTP/1.1' && request.size == 0 && request.total_size > 0",
        "request.headers.exists(name, name == 'x-two') && !('cookie' in request.headers)",
        "request.id.size() == 36 && request.time > timestamp('2020-01-01T00:00:00Z')",
        "source.address.startsWith('127.0.0.1:') && source.port > 0 && destination.port > 0",
        "!connection.mtls && connection.requested_server_name == '' && connection.id >= 0u",
        "!has(connection.tls_version) && !has(source.principal) && size(filter_state) == 0",
        "xds.cluster_name.contains('api') && xds.route_name != ''",
        "size(metadata.filter_metadata) == 0 || true",
        "request.path.matches('^/x[?]a=[0-9]+$') && request.headers['x-two'].split(',')[1] == '2'",
    ],
)
def test_conditions_are_about_envoys_attributes(condition: str, kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy([BASE, policy(_rbac(condition))])
    headers = [
        ("x-two", "1"),
        ("x-two", "2"),
        ("user-agent", "tests"),
        ("referer", "http://a.example/"),
    ]
    gateway.get("http://shop.example/x?a=1", headers=headers).expect(status=200)


def test_the_most_specific_policy_alone_counts(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy(
        [
            BASE,
            policy(_rbac("false"), "nobody", kind="Gateway", target="edge"),
            policy(_rbac("true"), "all", section="api"),
        ]
    )
    gateway.get("/api").expect(status=200)
    gateway.get("/").expect(status=403)


def test_a_policy_in_shadow_refuses_nobody(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy([BASE, policy(_rbac(ADMIN), annotations={"kgw.dev/shadow": "true"})])
    gateway.get("/").expect(status=200)
    gateway.get("/", headers={"x-role": "admin"}).expect(status=200)
    stats = gateway.stats()
    assert (stats["rbac_shadow_allowed"], stats["rbac_shadow_denied"]) == (1, 1)
    assert (stats["rbac_allowed"], stats["rbac_denied"], stats["shadow_denied"]) == (0, 0, 1)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("request.path ==", "the expression has no end"),
        ("requst.path == '/'", "undeclared reference to 'requst'"),
        ("request.paht == '/'", "there is no attribute 'request.paht'"),
        ("request.path.startswith('/')", "undeclared reference to 'startswith'"),
        ("response.code == 200", "'response.code' is known only when the request is over"),
        ("'admin'", "the result is never true or false"),
    ],
)
def test_what_is_no_condition_makes_the_policy_invalid(
    condition: str, message: str, kgw_proxy: GatewayFactory
) -> None:
    gateway = kgw_proxy([BASE, policy(_rbac("true", condition))], strict=False)
    (found,) = [one for one in gateway.config.findings if one.code == "KGW450"]
    assert message in found.message
    # What is to be protected and cannot be is not served.
    gateway.get("/").expect(status=500, backend=None)


def test_the_mesh_says_who_calls(kgw_proxy: GatewayFactory) -> None:
    who = "spiffe://cluster.local/ns/default/sa/client"
    conditions = (
        f"source.principal == '{who}'",
        f"string(filter_state['io.istio.peer_principal']) == '{who}' && false",
    )
    rbac = policy(_rbac(*conditions), kind="Gateway", target="waypoint")
    gateway = kgw_proxy([WAYPOINT, rbac])
    gateway.get("http://api.default.svc.cluster.local/", identity=who).expect(status=200)
    other = "spiffe://cluster.local/ns/default/sa/other"
    gateway.get("http://api.default.svc.cluster.local/", identity=other).expect(status=403)
    gateway.get("http://api.default.svc.cluster.local/").expect(status=403)


@pytest.mark.parametrize(
    "rbac",
    [
        {},
        {"policy": {}},
        {"policy": {"matchExpressions": []}},
        {"policy": {"matchExpressions": [""]}},
        {"policy": {"matchExpressions": ["true"] * 257}},
        {"policy": {"matchExpressions": ["x" * 16385]}},
        {"action": "Log", "policy": {"matchExpressions": ["true"]}},
    ],
)
def test_what_the_crd_refuses_is_refused(rbac: dict[str, Any]) -> None:
    config = kgw.Config.from_objects([policy({"rbac": rbac})])
    assert config.findings


def test_conditions_are_written_in_python() -> None:
    made = Authorization.of("true", action="Deny")
    assert made.action == "Deny"
    assert made.policy.match_expressions == ("true",)
