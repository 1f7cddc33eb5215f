"""TrafficPolicy: time-outs, retries, rewrites, header modifiers and hosts of mirrors."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import pytest
from tests.policies.manifests import BASE, after, policy

import kgw

if TYPE_CHECKING:
    from kgw.testing import GatewayFactory

pytestmark = pytest.mark.fields(
    "TrafficPolicy.spec.headerModifiers",
    "TrafficPolicy.spec.requestMirror",
    "TrafficPolicy.spec.retry",
    "TrafficPolicy.spec.timeouts",
    "TrafficPolicy.spec.urlRewrite",
    without=("TrafficPolicy.spec.retry.backoffBaseInterval",),
)


def _secret(**data: str) -> dict[str, Any]:
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "data": encoded}


# === Time-outs ===


def test_a_request_may_take_as_long_as_the_policy_says(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy([BASE, policy({"timeouts": {"request": "2s"}})])
    gateway.backend("api").hangs()
    answer = gateway.get("/").expect(status=504, flags="UT")
    assert answer.at == pytest.approx(2, abs=0.01)


def test_a_stream_may_be_idle_as_long_as_the_policy_says(kgw_proxy: GatewayFactory) -> None:
    idle = {"timeouts": {"request": "0s", "streamIdle": "7s"}}
    gateway = kgw_proxy([BASE, policy(idle)])
    gateway.backend("api").hangs()
    answer = gateway.get("/").expect(status=504, flags="SI")
    assert answer.details == "stream_idle_timeout"
    assert answer.at == pytest.approx(7, abs=0.01)


# === Retries ===

#: Time goes on by itself in these tests, and may run ahead of connections.
ENDLESS = {"timeouts": {"request": "0s"}}


@pytest.mark.parametrize(
    ("retry", "status", "attempts"),
    [
        ({"retryOn": ["5xx"]}, 500, 2),
        ({"retryOn": ["gateway-error"]}, 500, 1),
        ({"retryOn": ["gateway-error"]}, 503, 2),
        ({"retryOn": ["retriable-4xx"]}, 409, 2),
        ({"retryOn": ["retriable-4xx"]}, 404, 1),
        ({"statusCodes": [404, 418]}, 418, 2),
        ({"retryOn": ["retriable-status-codes"], "statusCodes": [404]}, 404, 2),
        ({"retryOn": ["connect-failure"]}, 503, 1),
        ({"retryOn": ["5xx"], "attempts": 4}, 500, 5),
        ({"retryOn": ["5xx"], "attempts": 0}, 500, 1),
    ],
)
def test_answers_are_asked_for_again(
    kgw_proxy: GatewayFactory, retry: dict[str, Any], status: int, attempts: int
) -> None:
    gateway = kgw_proxy([BASE, policy({"retry": retry, **ENDLESS})])
    gateway.backend("api").responds(status)
    after(gateway).expect(status=status)
    assert len(gateway.backend("api").requests) == attempts


@pytest.mark.parametrize(
    ("conditions", "attempts"),
    [
        (["reset"], 2),
        (["5xx"], 2),
        (["connect-failure", "refused-stream"], 1),
        (["reset-before-request"], 1),
    ],
)
def test_a_lost_connection_is_retried_where_that_is_a_condition(
    kgw_proxy: GatewayFactory, conditions: list[str], attempts: int
) -> None:
    gateway = kgw_proxy([BASE, policy({"retry": {"retryOn": conditions}, **ENDLESS})])
    gateway.backend("api").resets()
    after(gateway).expect(status=503)
    assert len(gateway.backend("api").requests) == attempts


def test_an_attempt_has_a_time_of_its_own(kgw_proxy: GatewayFactory) -> None:
    retry = {"retryOn": ["5xx"], "perTryTimeout": "2s", "attempts": 1}
    gateway = kgw_proxy([BASE, policy({"retry": retry})])
    gateway.backend("api").hangs(times=1)
    answer = after(gateway, step=0.01).expect(status=200)
    assert answer.at >= 2
    assert len(gateway.backend("api").requests) == 2


def test_the_retries_of_a_rule_go_before_those_of_a_policy(kgw_proxy: GatewayFactory) -> None:
    rule = BASE.replace(
        "  - name: api\n", "  - name: api\n    retry: {codes: [503], attempts: 3}\n"
    )
    gateway = kgw_proxy([rule, policy({"retry": {"retryOn": ["5xx"], "attempts": 1}, **ENDLESS})])
    gateway.backend("api").responds(503)
    after(gateway, "/api").expect(status=503)
    after(gateway).expect(status=503)
    assert len(gateway.backend("api").requests) == 4 + 2


# === Rewrites ===


@pytest.mark.parametrize(
    ("pattern", "substitution", "path", "expected"),
    [
        (r"^/service/([^/]+)(/.*)$", r"\2/of/\1", "/service/a/b?c=/d", "/b/of/a?c=/d"),
        (r"/old", "/new", "/old/x/old", "/new/x/new"),
        (r"^/none", "/x", "/other", "/other"),
        (r"^/", "", "/a", "/a"),
    ],
)
def test_matches_in_paths_are_replaced(
    kgw_proxy: GatewayFactory, pattern: str, substitution: str, path: str, expected: str
) -> None:
    rewrite = {"pathRegex": {"pattern": pattern, "substitution": substitution or r"\0"}}
    gateway = kgw_proxy([BASE, policy({"urlRewrite": rewrite})])
    answer = gateway.get(path).expect(status=200)
    assert answer.received is not None
    assert answer.received.target == expected
    original = answer.received.headers.get("x-envoy-original-path")
    assert original == (None if path == expected and substitution != "" else path)


def test_the_rewrite_of_a_rule_goes_before_that_of_a_policy(kgw_proxy: GatewayFactory) -> None:
    filters = (
        "    filters: [{type: URLRewrite, urlRewrite: "
        "{path: {type: ReplaceFullPath, replaceFullPath: /rule}}}]\n"
    )
    rule = BASE.replace("  - name: api\n", f"  - name: api\n{filters}")
    rewrite = {"pathRegex": {"pattern": "^.*$", "substitution": "/policy"}}
    gateway = kgw_proxy([rule, policy({"urlRewrite": rewrite})])
    targets = [gateway.get(path).received for path in ("/api", "/")]
    assert [one.target for one in targets if one] == ["/rule", "/policy"]


def test_an_expression_that_cannot_be_used_makes_the_policy_invalid(
    kgw_proxy: GatewayFactory,
) -> None:
    rewrite = {"pathRegex": {"pattern": "(a)", "substitution": r"\2"}}
    gateway = kgw_proxy([BASE, policy({"urlRewrite": rewrite})], strict=False)
    gateway.get("/").expect(status=500, backend=None)
    (found,) = [one for one in gateway.config.findings if one.code == "KGW406"]
    assert "the pattern has no group 2" in found.message


# === Header modifiers ===


def test_fields_are_set_added_and_removed(kgw_proxy: GatewayFactory) -> None:
    modifiers = {
        "request": {
            "set": [{"name": "x-set", "value": "1"}],
            "add": [{"name": "x-add", "value": "2"}],
            "remove": ["x-gone"],
        },
        "response": {"set": [{"name": "x-answer", "value": "3"}], "remove": ["x-inner"]},
    }
    gateway = kgw_proxy([BASE, policy({"headerModifiers": modifiers})])
    gateway.backend("api").responds(200, headers={"x-inner": "1"})
    answer = gateway.get("/", headers={"x-set": "0", "x-add": "0", "x-gone": "0"})
    assert answer.received is not None
    received = answer.received.headers
    assert received["x-set"] == "1"
    assert received.all("x-add") == ["0", "2"]
    assert "x-gone" not in received
    assert answer.headers["x-answer"] == "3"
    assert "x-inner" not in answer.headers


def test_values_can_be_in_secrets(kgw_proxy: GatewayFactory) -> None:
    headers = [
        {"name": "x-key", "secretRef": {"name": "keys", "key": "token"}},
        {"name": "token", "secretRef": {"name": "keys"}},
        {"secretRef": {"name": "keys", "key": "x-other"}},
    ]
    modifiers = {"headerModifiers": {"request": {"set": headers}}}
    secret = _secret(token="t0p\n", **{"x-other": "o"})
    gateway = kgw_proxy([BASE, policy(modifiers), secret])
    received = gateway.get("/").received
    assert received is not None
    assert [received.headers[name] for name in ("x-key", "token", "x-other")] == ["t0p", "t0p", "o"]
    assert "t0p" not in repr(gateway.config.resources)
    gateway.apply([BASE, policy(modifiers), _secret(token="new", **{"x-other": "o"})])
    received = gateway.get("/").received
    assert received is not None
    assert received.headers["x-key"] == "new"


def test_a_key_that_is_missing_makes_the_policy_invalid(kgw_proxy: GatewayFactory) -> None:
    header = {"name": "x-key", "secretRef": {"name": "keys", "key": "nothing"}}
    modifiers = {"headerModifiers": {"request": {"set": [header]}}}
    gateway = kgw_proxy([BASE, policy(modifiers), _secret(token="t0p")], strict=False)
    gateway.get("/").expect(status=500, backend=None)
    (found,) = [one for one in gateway.config.findings if one.code == "KGW431"]
    assert found.message == "Secret default/keys has no nothing"


def test_fields_of_the_proxy_may_not_be_changed() -> None:
    modifiers = {"headerModifiers": {"request": {"remove": ["Content-Length"]}}}
    config = kgw.Config.from_objects([policy(modifiers)])
    assert "KGW407" in {one.code for one in config.findings}


# === What the CRD refuses ===


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"retry": {}}, "retryOn or statusCodes must be set."),
        (
            {
                "retry": {"statusCodes": [500], "perTryTimeout": "2s"},
                "timeouts": {"request": "2s"},
            },
            "retry.perTryTimeout must be less than timeouts.request",
        ),
        (
            {"headerModifiers": {}},
            "at least one of the fields in [request response] must be set",
        ),
        (
            {"headerModifiers": {"request": {"set": [{"value": "a"}]}}},
            "name is required when using an inline value",
        ),
        (
            {"faultInjection": {}},
            "at least one of the fields in [delay abort responseRateLimit disable] must be set",
        ),
        (
            {"faultInjection": {"abort": {}}},
            "exactly one of the fields in [httpStatus grpcStatus] must be set",
        ),
    ],
)
def test_what_the_crd_refuses_is_refused(spec: dict[str, Any], message: str) -> None:
    config = kgw.Config.from_objects([policy(spec)])
    assert any(message in one.message for one in config.findings)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("autoHostRewrite", True),
        ("urlRewrite", {"pathRegex": {"pattern": "a", "substitution": "b"}}),
    ],
)
def test_some_fields_are_for_routes_alone(name: str, value: object) -> None:
    config = kgw.Config.from_objects([policy({name: value}, kind="Gateway", target="edge")])
    message = f"{name} can only be used when targeting HTTPRoute resources"
    assert any(message in one.message for one in config.findings)


# === Mirrors ===


@pytest.mark.parametrize(
    ("mirror", "host"),
    [
        ({"disableShadowHostSuffixAppend": True}, "shop.example"),
        ({"disableShadowHostSuffixAppend": False}, "shop.example-shadow"),
        ({"hostRewriteLiteral": "copies.example"}, "copies.example"),
    ],
)
def test_copies_ask_for_the_host_that_the_policy_says(
    kgw_proxy: GatewayFactory, mirror: dict[str, Any], host: str
) -> None:
    copy = "{type: RequestMirror, requestMirror: {backendRef: {name: copies, port: 80}}}"
    rule = BASE.replace("  - name: api\n", f"  - name: api\n    filters: [{copy}]\n")
    service = BASE.rpartition("---")[2].replace("name: api", "name: copies")
    gateway = kgw_proxy([rule, service, policy({"requestMirror": mirror})])
    copies = gateway.backend("copies")
    gateway.get("/api", host="shop.example").expect(status=200, backend="api")
    for _ in range(100):
        if copies.requests:
            break
        gateway.get("/", host="shop.example").expect(status=200)  # gives the copy time
    assert copies.last.headers["host"] == host


@pytest.mark.parametrize("direction", ["request", "response"])
def test_values_of_both_directions_can_be_in_secrets_of_other_namespaces(
    kgw_proxy: GatewayFactory, direction: str
) -> None:
    ref = {"name": "keys", "namespace": "vault", "key": "token"}
    change = {
        "set": [{"name": "x-set", "secretRef": ref}],
        "add": [{"name": "x-add", "secretRef": ref}, {"name": "x-plain", "value": "p"}],
    }
    secret = _secret(token="t0p")
    secret["metadata"]["namespace"] = "vault"
    grant = {
        "apiVersion": "gateway.networking.k8s.io/v1beta1",
        "kind": "ReferenceGrant",
        "metadata": {"name": "keys", "namespace": "vault"},
        "spec": {
            "from": [
                {"group": "gateway.kgateway.dev", "kind": "TrafficPolicy", "namespace": "default"}
            ],
            "to": [{"group": "", "kind": "Secret"}],
        },
    }
    modifiers = {"headerModifiers": {direction: change}}
    gateway = kgw_proxy([BASE, policy(modifiers), secret, grant])
    gateway.backend("api").responds(200, headers={"x-set": "0", "x-add": "0"})
    answer = gateway.get("/", headers={"x-set": "0", "x-add": "0"}).expect(status=200)
    assert answer.received is not None
    headers = answer.received.headers if direction == "request" else answer.headers
    assert headers["x-set"] == "t0p"
    assert headers.all("x-add") == ["0", "t0p"]
    assert headers["x-plain"] == "p"
