"""DirectResponse: answers that rules give by themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml
from tests.policies.manifests import BASE, policy

import kgw

if TYPE_CHECKING:
    from kgw.testing import GatewayFactory

pytestmark = pytest.mark.fields(
    "DirectResponse.spec.body", "DirectResponse.spec.bodyFormat", "DirectResponse.spec.status"
)

ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: direct}
spec:
  parentRefs: [{name: edge}]
  rules:
  - matches: [{path: {type: PathPrefix, value: /direct}}]
    filters:
    - type: ExtensionRef
      extensionRef: {group: gateway.kgateway.dev, kind: DirectResponse, name: answer}
"""


def response(spec: dict[str, Any], name: str = "answer") -> dict[str, Any]:
    return {
        "apiVersion": "gateway.kgateway.dev/v1alpha1",
        "kind": "DirectResponse",
        "metadata": {"name": name},
        "spec": spec,
    }


def parsed() -> list[dict[str, Any]]:
    """The objects around it."""
    return [*yaml.safe_load_all(BASE), yaml.safe_load(ROUTE)]


def route(**rule: Any) -> dict[str, Any]:
    """The route, with more in its rule."""
    made: dict[str, Any] = yaml.safe_load(ROUTE)
    (own,) = made["spec"]["rules"]
    own["filters"] += rule.pop("filters", [])
    own.update(rule)
    return made


def test_a_rule_answers_by_itself(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy([BASE, ROUTE, response({"status": 410, "body": "It is gone."})])
    answer = gateway.get("/direct").expect(status=410, backend=None)
    assert answer.text == "It is gone."
    assert answer.headers["content-type"] == "text/plain"
    assert answer.details == "direct_response"
    gateway.get("/api").expect(status=200, backend="api")


def test_a_body_is_not_needed(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy([BASE, ROUTE, response({"status": 204})])
    answer = gateway.get("/direct").expect(status=204, backend=None)
    assert answer.body == b""
    assert "content-type" not in answer.headers


def test_a_text_is_made_of_the_request(kgw_proxy: GatewayFactory) -> None:
    text = "%REQ(:METHOD)% %REQ(X-NAME)% %REQ(X-NONE)% %LOCAL_REPLY_BODY% %RESPONSE_CODE%"
    spec = {"status": 503, "body": "later", "bodyFormat": {"text": text}}
    gateway = kgw_proxy([BASE, ROUTE, response(spec)])
    answer = gateway.post("/direct", headers={"x-name": "ada"}).expect(status=503, backend=None)
    # The status is not known before the answer is (Envoy).
    assert answer.text == "POST ada - later 0"
    assert answer.headers["content-type"] == "text/plain"


def test_an_object_is_json(kgw_proxy: GatewayFactory) -> None:
    body = {"error": {"path": "%REQ(:PATH)%", "code": "%RESPONSE_CODE%"}, "fixed": [1, True]}
    spec = {"status": 404, "bodyFormat": {"json": body}}
    gateway = kgw_proxy([BASE, ROUTE, response(spec)])
    answer = gateway.get('/direct?"').expect(status=404, backend=None)
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {"error": {"path": '/direct?"', "code": 0}, "fixed": [1, True]}


def test_the_media_type_is_what_it_is_said_to_be(kgw_proxy: GatewayFactory) -> None:
    given = {"text": "<h1>%REQ(:AUTHORITY)%</h1>", "contentType": "text/html; charset=utf-8"}
    gateway = kgw_proxy([BASE, ROUTE, response({"status": 200, "bodyFormat": given})])
    answer = gateway.get("http://a.example/direct").expect(status=200, backend=None)
    assert answer.text == "<h1>a.example</h1>"
    assert answer.headers["content-type"] == "text/html; charset=utf-8"


def test_filters_and_policies_of_the_rule_count(kgw_proxy: GatewayFactory) -> None:
    added = {
        "type": "ResponseHeaderModifier",
        "responseHeaderModifier": {"set": [{"name": "x-from", "value": "rule"}]},
    }
    limit = {"rateLimit": {"local": {"tokenBucket": {"maxTokens": 1, "fillInterval": "60s"}}}}
    gateway = kgw_proxy(
        [
            BASE,
            route(filters=[added]),
            response({"status": 200, "body": "first"}),
            policy(limit, target="direct"),
        ]
    )
    answer = gateway.get("/direct").expect(status=200, backend=None)
    assert (answer.text, answer.headers["x-from"]) == ("first", "rule")
    gateway.get("/direct").expect(status=429, backend=None)


def test_calls_get_the_status_of_grpc(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy([BASE, ROUTE, response({"status": 503, "body": "later"})])
    answer = gateway.post("/direct", headers={"content-type": "application/grpc"})
    answer.expect(status=200, backend=None)
    assert (answer.headers["grpc-status"], answer.headers["grpc-message"]) == ("14", "later")


def test_without_one_the_rule_answers_500(kgw_proxy: GatewayFactory) -> None:
    given: list[str | dict[str, Any]] = [BASE, ROUTE, response({"status": 200}, "answers")]
    gateway = kgw_proxy(given, strict=False)
    gateway.get("/direct").expect(status=500, backend=None)
    (finding,) = [one for one in gateway.config.findings if one.code == "KGW307"]
    assert finding.message == "DirectResponse default/answer not found"
    assert finding.hint == "did you mean `answers`?"


@pytest.mark.parametrize(
    "body_format",
    [
        {"text": "%NO_SUCH_OPERATOR%"},
        {"json": {"a": "%REQ(%"}},
        {"text": "a", "contentType": "a\nb"},
    ],
)
def test_one_that_cannot_be_used_answers_500(
    kgw_proxy: GatewayFactory, body_format: dict[str, Any]
) -> None:
    given = response({"status": 200, "bodyFormat": body_format})
    gateway = kgw_proxy([BASE, ROUTE, given], strict=False)
    gateway.get("/direct").expect(status=500, backend=None)
    gateway.get("/api").expect(status=200)
    assert "KGW408" in [one.code for one in gateway.config.findings]


@pytest.mark.parametrize(
    "more",
    [
        {"backendRefs": [{"name": "api", "port": 80}]},
        {"filters": [{"type": "RequestRedirect", "requestRedirect": {"hostname": "b"}}]},
        {"filters": [yaml.safe_load(ROUTE)["spec"]["rules"][0]["filters"][0]]},
    ],
    ids=["backends", "redirect", "twice"],
)
def test_nothing_else_answers_beside_it(kgw_proxy: GatewayFactory, more: dict[str, Any]) -> None:
    answer = response({"status": 200, "body": "ok"})
    given: list[str | dict[str, Any]] = [BASE, route(**more), answer]
    gateway = kgw_proxy(given, strict=False)
    gateway.get("/direct").expect(status=500, backend=None)
    assert "KGW426" in [one.code for one in gateway.config.findings]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"status": 199}, "`199` is out of bounds"),
        ({"status": 600}, "`600` is out of bounds"),
        ({"body": "a"}, "required"),
        ({"status": 200, "body": ""}, "`''` is out of bounds"),
        ({"status": 200, "body": "x" * 4097}, "is out of bounds"),
        (
            {"status": 200, "bodyFormat": {"contentType": "text/html"}},
            "exactly one of the fields in [json text] must be set",
        ),
        (
            {"status": 200, "bodyFormat": {"json": {}, "text": "a"}},
            "exactly one of the fields in [json text] must be set",
        ),
    ],
)
def test_what_the_crd_refuses_is_refused(spec: dict[str, Any], message: str) -> None:
    config = kgw.Config.from_objects([*parsed(), response(spec)])
    assert any(message in one.message for one in config.findings), config.findings


def test_its_status_names_the_gateways_that_give_it() -> None:
    config = kgw.Config.from_objects([*parsed(), response({"status": 200})])
    (status,) = [one for key, one in config.statuses.items() if key.kind == "DirectResponse"]
    (ancestor,) = status.ancestors
    assert ancestor.ref["name"] == "edge"
    found = {one.type: (one.status, one.reason) for one in ancestor.conditions}
    assert found == {"Accepted": ("True", "Valid"), "Attached": ("True", "Attached")}


def test_a_change_counts_from_the_next_request_on(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy([BASE, ROUTE, response({"status": 200, "body": "one"})])
    assert gateway.get("/direct").text == "one"
    gateway.apply([BASE, ROUTE, response({"status": 200, "body": "two"})])
    assert gateway.get("/direct").text == "two"
