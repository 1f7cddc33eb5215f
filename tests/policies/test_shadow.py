"""`kgw.dev/shadow`: policies that are evaluated, counted and noted, and not enforced."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.policies.manifests import BASE, policy

if TYPE_CHECKING:
    from kgw.testing import GatewayFactory

LIMIT = {"rateLimit": {"local": {"tokenBucket": {"maxTokens": 1, "fillInterval": "60s"}}}}


def _in_shadow(spec: dict[str, Any], name: str = "trial", fields: str = "true") -> dict[str, Any]:
    return policy(spec, name, annotations={"kgw.dev/shadow": fields})


def test_a_limit_in_shadow_refuses_nobody_and_says_whom_it_would_have(
    kgw_proxy: GatewayFactory,
) -> None:
    gateway = kgw_proxy([BASE, _in_shadow(LIMIT)])
    for _ in range(3):
        gateway.get("/").expect(status=200, backend="api", flags="")
    assert gateway.stats()["shadow_denied"] == 2
    assert gateway.stats()["rate_limited"] == 0


def test_what_is_in_shadow_displaces_nothing(kgw_proxy: GatewayFactory) -> None:
    wide = {"rateLimit": {"local": {"tokenBucket": {"maxTokens": 2, "fillInterval": "60s"}}}}
    gateway = kgw_proxy(
        [BASE, policy(wide, kind="Gateway", target="edge"), _in_shadow(LIMIT, "narrow")]
    )
    assert [gateway.get("/").status for _ in range(4)] == [200, 200, 429, 429]
    assert gateway.stats()["shadow_denied"] == 1


def test_only_the_fields_that_are_named_are_tried_out(kgw_proxy: GatewayFactory) -> None:
    both = {**LIMIT, "buffer": {"maxRequestSize": 10}}
    gateway = kgw_proxy([BASE, _in_shadow(both, fields="rateLimit")])
    for _ in range(3):
        gateway.post("/", body=b"0123456789").expect(status=200)
    gateway.post("/", body=b"0123456789a").expect(status=413)


def test_a_body_is_passed_on_whole_whatever_the_shadow_says(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy([BASE, _in_shadow({"buffer": {"maxRequestSize": 10}})])
    answer = gateway.post("/", body=b"x" * 100_000).expect(status=200)
    assert answer.received is not None
    assert answer.received.body == b"x" * 100_000
    assert gateway.stats()["shadow_denied"] == 1
