"""TrafficPolicy `csrf`: what changes something has to come from a page of its own host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.policies.manifests import BASE, policy

import kgw

if TYPE_CHECKING:
    from kgw.testing import Gateway, GatewayFactory

pytestmark = pytest.mark.fields("TrafficPolicy.spec.csrf")

HOST = "shop.example:8080"


def csrf(**more: Any) -> dict[str, Any]:
    """The spec of a policy."""
    return {"csrf": {"percentageEnabled": 100, **more}}


def post(gateway: Gateway, **headers: str) -> int:
    """The status of a request that changes something."""
    return gateway.post("/", headers=headers, host=HOST).status


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_what_changes_something_has_to_come_from_its_host(
    kgw_proxy: GatewayFactory, method: str
) -> None:
    gateway = kgw_proxy([BASE, policy(csrf())])

    def ask(**headers: str) -> Any:
        return gateway.request(method, "/", headers=headers, host=HOST)

    ask(origin="http://shop.example:8080").expect(status=200)
    ask(referer="https://shop.example:8080/page").expect(status=200)
    for headers in (
        {"origin": "http://evil.example"},
        {"origin": "http://shop.example"},
        {"origin": "null"},
        {"referer": "http://evil.example/shop.example:8080"},
        {"origin": "http://evil.example", "referer": "http://shop.example:8080/"},
        {},
    ):
        ask(**headers).expect(
            status=403,
            backend=None,
            body="Invalid origin",
            details="csrf_origin_mismatch",
            flags="",
        )
    stats = gateway.stats()
    assert stats["csrf_request_valid"] == 2
    assert stats["csrf_request_invalid"] == 5
    assert stats["csrf_missing_source_origin"] == 1


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_what_changes_nothing_may_come_from_anywhere(
    kgw_proxy: GatewayFactory, method: str
) -> None:
    gateway = kgw_proxy([BASE, policy(csrf())])
    headers = {"origin": "http://evil.example"}
    gateway.request(method, "/", headers=headers, host=HOST).expect(status=200)


@pytest.mark.parametrize(
    ("matcher", "passes", "does_not"),
    [
        ({"exact": "a.example"}, "a.example", "A.example"),
        ({"exact": "a.example", "ignoreCase": True}, "A.example", "b.example"),
        ({"prefix": "www."}, "www.example:1", "WWW.example"),
        ({"prefix": "www.", "ignoreCase": True}, "WWW.example", "ww.example"),
        ({"suffix": ".example"}, "a.example", "a.example:1"),
        ({"suffix": ".EXAMPLE", "ignoreCase": True}, "a.example", "a.example2"),
        ({"contains": ".b."}, "a.b.c", "a.B.c"),
        ({"contains": ".b.", "ignoreCase": True}, "a.B.c", "a.c"),
        ({"safeRegex": r"(a|b)\.example(:\d+)?"}, "b.example:80", "xa.example"),
        ({"safeRegex": "(?i)a", "ignoreCase": True}, "A", "b"),
    ],
)
def test_pages_of_other_hosts_may_be_allowed(
    kgw_proxy: GatewayFactory, matcher: dict[str, Any], passes: str, does_not: str
) -> None:
    gateway = kgw_proxy([BASE, policy(csrf(additionalOrigins=[{"exact": "x"}, matcher]))])
    assert post(gateway, origin=f"https://{passes}") == 200
    assert post(gateway, origin=f"https://{does_not}") == 403


def test_a_share_may_be_counted_only(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy([BASE, policy({"csrf": {"percentageShadowed": 100}})])
    assert post(gateway, origin="http://evil.example") == 200
    assert gateway.stats()["csrf_request_invalid"] == 1


@pytest.mark.parametrize("spec", [{}, {"percentageEnabled": 0}, {"percentageShadowed": 0}])
def test_without_a_share_nothing_is_judged(kgw_proxy: GatewayFactory, spec: dict[str, Any]) -> None:
    gateway = kgw_proxy([BASE, policy({"csrf": spec})])
    assert post(gateway, origin="http://evil.example") == 200
    assert gateway.stats()["csrf_request_invalid"] == 0


def test_a_share_of_the_requests_is_judged(kgw_proxy: GatewayFactory) -> None:
    """That all of 200 pass, or none does, has a chance of 2 in 2^200."""
    gateway = kgw_proxy([BASE, policy(csrf(percentageEnabled=50))])
    found = {post(gateway, origin="http://evil.example") for _ in range(200)}
    assert found == {200, 403}


def test_a_rule_may_turn_it_off(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy(
        [
            BASE,
            policy(csrf(), kind="Gateway", target="edge"),
            policy(csrf(percentageEnabled=0), "open", section="api"),
        ]
    )
    headers = {"origin": "http://evil.example"}
    gateway.post("/", headers=headers).expect(status=403)
    gateway.post("/api", headers=headers).expect(status=200)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            {"percentageEnabled": 1, "percentageShadowed": 1},
            "at most one of the fields in [percentageEnabled percentageShadowed] may be set",
        ),
        (
            {"additionalOrigins": [{}]},
            "exactly one of the fields in [exact prefix suffix contains safeRegex] must be set",
        ),
        (
            {"additionalOrigins": [{"exact": "a", "prefix": "b"}]},
            "exactly one of the fields in [exact prefix suffix contains safeRegex] must be set",
        ),
        ({"percentageEnabled": 101}, "100"),
    ],
)
def test_what_makes_no_sense_is_refused(
    kgw_proxy: GatewayFactory, spec: dict[str, Any], message: str
) -> None:
    with pytest.raises(kgw.ConfigError) as raised:
        kgw_proxy([BASE, policy({"csrf": spec})])
    assert message in str(raised.value)


def test_a_broken_expression_takes_the_targets_out_of_service(kgw_proxy: GatewayFactory) -> None:
    spec = csrf(additionalOrigins=[{"exact": "a"}, {"safeRegex": "("}])
    with pytest.raises(kgw.ConfigError) as raised:
        kgw_proxy([BASE, policy(spec)])
    assert "regular expression cannot be used" in str(raised.value)
    assert "additionalOrigins[1].safeRegex" in str(raised.value)
    gateway = kgw_proxy([BASE, policy(spec)], strict=False)
    gateway.get("/").expect(status=500, backend=None)
