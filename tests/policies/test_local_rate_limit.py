"""TrafficPolicy `rateLimit.local`: who is limited, by what, and what clients are told."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pytest
from tests.policies.manifests import BASE, policy

import kgw
from kgw.api.kgateway.traffic import rate_limit

if TYPE_CHECKING:
    from pydantic import BaseModel

    from kgw.testing import Gateway, GatewayFactory

pytestmark = pytest.mark.fields(
    "TrafficPolicy.spec.rateLimit.local.percentEnabled",
    "TrafficPolicy.spec.rateLimit.local.percentEnforced",
    "TrafficPolicy.spec.rateLimit.local.tokenBucket.tokensPerFill",
)

TWO: dict[str, Any] = {"maxTokens": 2, "tokensPerFill": 2, "fillInterval": "60s"}
ONE: dict[str, Any] = {"maxTokens": 1, "fillInterval": "60s"}
NONE_LEFT = "local_rate_limited"


def limit(bucket: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """The spec of a policy with a bucket, and further fields."""
    local = ({} if bucket is None else {"tokenBucket": bucket}) | more
    return {"rateLimit": {"local": local}}


def by(*entries: dict[str, Any], bucket: dict[str, Any] | None = None, **more: Any) -> Any:
    """A policy of one descriptor, and no bucket for all."""
    descriptor = {"entries": list(entries), "tokenBucket": bucket or ONE, **more}
    return policy(limit(kgw={"descriptors": [descriptor]}))


def statuses(gateway: Gateway, count: int, url: str = "/", **options: Any) -> list[int]:
    return [gateway.get(url, **options).status for _ in range(count)]


# === What kgateway has ===


def test_what_is_over_the_limit_is_refused(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy([BASE, policy(limit(TWO))])
    assert statuses(gateway, 2) == [200, 200]
    answer = gateway.get("/").expect(status=429, backend=None, flags="RL")
    assert answer.text == NONE_LEFT
    assert answer.details == "local_rate_limited"
    assert answer.headers["retry-after"] == "30"
    assert not any("ratelimit" in name.lower() for name in answer.headers)
    gateway.clock.advance(30)
    assert statuses(gateway, 2) == [200, 429]


def test_an_inherited_limit_is_turned_off_by_an_empty_one(kgw_proxy: GatewayFactory) -> None:
    wide = policy(limit(ONE), kind="Gateway", target="edge")
    gateway = kgw_proxy([BASE, wide, policy(limit(), "off", section="api")])
    assert statuses(gateway, 3) == [200, 429, 429]
    assert statuses(gateway, 3, "/api") == [200, 200, 200]


@pytest.mark.parametrize(("enabled", "enforced"), [(0, 100), (100, 0), (0, 0)])
def test_nothing_is_refused_of_what_is_not_counted_or_not_enforced(
    kgw_proxy: GatewayFactory, enabled: int, enforced: int
) -> None:
    gateway = kgw_proxy(
        [BASE, policy(limit(ONE, percentEnabled=enabled, percentEnforced=enforced))]
    )
    assert statuses(gateway, 3) == [200, 200, 200]


@pytest.mark.parametrize("share", ["percentEnabled", "percentEnforced"])
def test_a_share_of_the_requests_is_refused(kgw_proxy: GatewayFactory, share: str) -> None:
    gateway = kgw_proxy([BASE, policy(limit(ONE, **{share: 30}))])
    refused = statuses(gateway, 400).count(429)
    # 120 are to be expected; six standard deviations are 55.
    assert 65 <= refused <= 175
    not_enforced = gateway.stats()["rate_limit_not_enforced"]
    # Of those that are counted, the first has the token.
    assert not_enforced == (0 if share == "percentEnabled" else 399 - refused)


def test_a_request_that_is_not_refused_is_marked(kgw_proxy: GatewayFactory) -> None:
    marks = [{"name": "x-over", "value": "yes"}]
    gateway = kgw_proxy(
        [BASE, policy(limit(ONE, percentEnforced=0, kgw={"notEnforcedHeaders": marks}))]
    )
    assert statuses(gateway, 3) == [200, 200, 200]
    marked = [one.headers.get("x-over") for one in gateway.backend("api").requests]
    assert marked == [None, "yes", "yes"]


# === Keys ===


@pytest.mark.parametrize(
    ("entry", "one", "same", "other"),
    [
        (
            {"type": "Header", "name": "x-user"},
            {"headers": {"x-user": "anna"}},
            {"headers": {"X-User": "anna"}},
            {"headers": {"x-user": "bert"}},
        ),
        (
            {"type": "Cookie", "name": "id"},
            {"headers": {"cookie": "id=1; theme=dark"}},
            {"headers": {"cookie": 'theme=light; id="1"'}},
            {"headers": {"cookie": "id=2; theme=dark"}},
        ),
        (
            {"type": "QueryParameter", "name": "key"},
            {"url": "/?key=a%20b"},
            {"url": "/other?x=1&key=a+b"},
            {"url": "/?key=b"},
        ),
        ({"type": "Path"}, {"url": "/a?x=1"}, {"url": "/./a?x=2"}, {"url": "/b"}),
        (
            {"type": "Host"},
            {"host": "a.example"},
            {"host": "A.example:8080"},
            {"host": "b.example"},
        ),
        ({"type": "RemoteAddress"}, {}, {"url": "/other"}, {"source": "127.0.0.2"}),
        (
            {"type": "RemoteAddress", "ipv4PrefixLength": 24},
            {"source": "127.0.0.1"},
            {"source": "127.0.0.2"},
            {"source": "127.0.1.1"},
        ),
    ],
    ids=["header", "cookie", "query parameter", "path", "host", "address", "network"],
)
def test_each_value_has_a_bucket_of_its_own(
    kgw_proxy: GatewayFactory,
    entry: dict[str, Any],
    one: dict[str, Any],
    same: dict[str, Any],
    other: dict[str, Any],
) -> None:
    gateway = kgw_proxy([BASE, by(entry)])
    calls = (one, same, other, other)
    assert [gateway.request("GET", **call).status for call in calls] == [200, 429, 200, 429]


def test_each_method_has_a_bucket_of_its_own(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy([BASE, by({"type": "Method"})])
    methods = ("GET", "GET", "PUT", "PUT")
    assert [gateway.request(one).status for one in methods] == [200, 429, 200, 429]


def test_each_workload_of_the_mesh_has_a_bucket_of_its_own(kgw_proxy: GatewayFactory) -> None:
    entry = {"type": "Principal"}
    limited = by(entry)
    limited["spec"]["targetRefs"][0] |= {"kind": "Gateway", "name": "way"}
    gateway = kgw_proxy([WAYPOINT, limited])
    call = "spiffe://cluster.local/ns/default/sa/{}".format
    seen = [
        gateway.get("http://shop/", identity=call(name)).status for name in ("a", "a", "b", "b")
    ]
    assert seen == [200, 429, 200, 429]
    assert statuses(gateway, 3, "http://shop/") == [200] * 3, "without an identity: not counted"


WAYPOINT = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: way}
spec:
  gatewayClassName: kgateway-waypoint
  listeners: [{name: proxy, port: 15088, protocol: istio.io/PROXY}]
---
apiVersion: v1
kind: Service
metadata: {name: shop, labels: {istio.io/use-waypoint: way}}
spec: {clusterIP: 10.96.0.9, ports: [{name: http, port: 80}]}
"""


def test_a_value_that_is_missing_is_not_counted(kgw_proxy: GatewayFactory) -> None:
    entries = {"type": "Header", "name": "x-user"}, {"type": "Cookie", "name": "id"}
    gateway = kgw_proxy([BASE, by(*entries)])
    assert statuses(gateway, 3, headers={"x-user": "anna"}) == [200] * 3
    both = {"x-user": "anna", "cookie": "id=1"}
    assert statuses(gateway, 2, headers=both) == [200, 429]
    assert statuses(gateway, 2, headers=both | {"cookie": "id=2"}) == [200, 429]


def test_only_requests_with_a_certain_value_are_counted(kgw_proxy: GatewayFactory) -> None:
    trial = {"type": "Header", "name": "x-plan", "value": "trial"}
    gateway = kgw_proxy([BASE, by(trial)])
    assert statuses(gateway, 2, headers={"x-plan": "gold"}) == [200, 200]
    assert statuses(gateway, 2, headers={"x-plan": "trial"}) == [200, 429]


def test_what_a_client_calls_itself_runs_into_no_other(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy([BASE, by(*({"type": "Header", "name": name} for name in ("x-a", "x-b")))])
    assert statuses(gateway, 2, headers={"x-a": "1", "x-b": "23"}) == [200, 429]
    assert statuses(gateway, 2, headers={"x-a": "12", "x-b": "3"}) == [200, 429]


def test_no_more_buckets_are_kept_than_may_be(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy([BASE, by({"type": "Header", "name": "x-user"}, maxKeys=2)])
    for user in ("a", "b", "c"):
        assert gateway.get("/", headers={"x-user": user}).status == 200
    again = {user: gateway.get("/", headers={"x-user": user}).status for user in ("c", "b", "a")}
    assert again["c"] == 429
    assert 200 in again.values(), "one was forgotten, and is new"


def test_a_python_filter_says_what_counts(kgw_proxy: GatewayFactory) -> None:
    def setup(proxy: kgw.Proxy) -> None:
        @proxy.filter("tenants", routes="*")
        def tenants(request: kgw.Request) -> None:
            request.rate_limit_key = request.headers["x-tenant"]

    gateway = kgw_proxy([BASE, policy(limit(ONE, kgw={"headers": ["XRateLimit"]}))], setup=setup)
    calls = ("a", "a", "b", "b")
    seen = [gateway.get("/", headers={"x-tenant": one}).status for one in calls]
    assert seen == [200, 429, 200, 429]


# === Several buckets ===


def descriptors(*found: tuple[str, dict[str, Any]], **more: Any) -> dict[str, Any]:
    """Descriptors by a header field of a fixed value each."""
    return {
        "descriptors": [
            {"entries": [{"type": "Header", "name": name, "value": "1"}], "tokenBucket": bucket}
            for name, bucket in found
        ],
        **more,
    }


def test_a_request_takes_of_all_its_descriptors_and_of_the_bucket_of_all(
    kgw_proxy: GatewayFactory,
) -> None:
    found = descriptors(("x-a", TWO), ("x-b", TWO | {"maxTokens": 4}))
    gateway = kgw_proxy([BASE, policy(limit(TWO | {"maxTokens": 3}, kgw=found))])
    assert statuses(gateway, 3, headers={"x-a": "1"}) == [200, 200, 429]
    # What x-a has refused has left the token of all.
    assert statuses(gateway, 2, headers={"x-b": "1"}) == [200, 429]


def test_of_what_is_refused_later_the_tokens_of_descriptors_are_gone(
    kgw_proxy: GatewayFactory,
) -> None:
    found = descriptors(("x-a", TWO))
    gateway = kgw_proxy([BASE, policy(limit(ONE, kgw=found))])
    assert statuses(gateway, 1) == [200]
    refused = [gateway.get("/", headers={"x-a": "1"}).expect(status=429) for _ in range(3)]
    waits = [answer.headers["retry-after"] for answer in refused]
    assert waits == ["60", "60", "30"], "the last one is refused by its descriptor"


def test_the_bucket_of_all_may_be_for_the_others_only(kgw_proxy: GatewayFactory) -> None:
    found = descriptors(("x-a", TWO), consumeTokenBucket="Unmatched")
    gateway = kgw_proxy([BASE, policy(limit(ONE, kgw=found))])
    assert statuses(gateway, 3, headers={"x-a": "1"}) == [200, 200, 429]
    assert statuses(gateway, 2) == [200, 429]


# === Costs ===


def test_a_request_takes_as_many_tokens_as_it_costs(kgw_proxy: GatewayFactory) -> None:
    five = TWO | {"maxTokens": 5}
    gateway = kgw_proxy([BASE, policy(limit(five, kgw={"cost": {"tokens": 2}}))])
    assert statuses(gateway, 3) == [200, 200, 429]


def test_a_header_says_what_a_request_costs(kgw_proxy: GatewayFactory) -> None:
    cost = {"header": "x-cost", "max": 8}
    ten = {"maxTokens": 10, "fillInterval": "60s"}
    gateway = kgw_proxy([BASE, policy(limit(ten, kgw={"cost": cost, "headers": ["XRateLimit"]}))])
    left = [
        gateway.get("/", headers=headers).headers["x-ratelimit-remaining"]
        for headers in ({"x-cost": "3"}, {}, {"x-cost": "zero"}, {"x-cost": "0"}, {"x-cost": "1"})
    ]
    assert left == ["7", "6", "5", "4", "3"]
    gateway.clock.advance(3600)
    answer = gateway.get("/", headers={"x-cost": "1000"}).expect(status=200)
    assert answer.headers["x-ratelimit-remaining"] == "2"


def test_a_descriptor_has_a_cost_of_its_own(kgw_proxy: GatewayFactory) -> None:
    four = TWO | {"maxTokens": 4}
    found = descriptors(("x-a", four))
    found["descriptors"][0]["cost"] = {"tokens": 2}
    gateway = kgw_proxy([BASE, policy(limit(four, kgw=found))])
    assert statuses(gateway, 3, headers={"x-a": "1"}) == [200, 200, 429]
    assert statuses(gateway, 3) == [200, 200, 429]


def test_what_costs_more_than_a_bucket_holds_is_not_told_to_come_back(
    kgw_proxy: GatewayFactory,
) -> None:
    gateway = kgw_proxy([BASE, policy(limit(TWO, kgw={"cost": {"tokens": 3}}))])
    assert "retry-after" not in gateway.get("/").expect(status=429).headers


# === What clients are told ===


def test_every_answer_tells_the_limit_as_envoy_does(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy([BASE, policy(limit(TWO, kgw={"headers": ["XRateLimit"]}))])

    def told() -> tuple[int, tuple[str, ...]]:
        answer = gateway.get("/")
        names = ("limit", "remaining", "reset")
        return answer.status, tuple(answer.headers[f"x-ratelimit-{name}"] for name in names)

    assert told() == (200, ("2", "1", "0"))
    assert told() == (200, ("2", "0", "30"))
    assert told() == (429, ("2", "0", "30"))
    gateway.clock.advance(15.5)
    assert told() == (429, ("2", "0", "15"))


def test_every_answer_tells_all_limits_as_the_ietf_has_it(kgw_proxy: GatewayFactory) -> None:
    found = descriptors(("x-a", ONE), headers=["RateLimit"])
    found["descriptors"][0]["name"] = "per plan"
    gateway = kgw_proxy([BASE, policy(limit(TWO, kgw=found))])
    answer = gateway.get("/").expect(status=200)
    assert answer.headers["ratelimit-policy"] == '"default";q=2;w=60'
    assert answer.headers["ratelimit"] == '"default";r=1;t=30'
    answer = gateway.get("/", headers={"x-a": "1"}).expect(status=200)
    assert answer.headers["ratelimit-policy"] == '"per plan";q=1;w=60, "default";q=2;w=60'
    assert answer.headers["ratelimit"] == '"per plan";r=0;t=60, "default";r=0;t=60'


def test_a_descriptor_is_called_by_what_it_is_made_of(kgw_proxy: GatewayFactory) -> None:
    entries = [{"type": "RemoteAddress"}, {"type": "Header", "name": "x-a", "value": "secret"}]
    descriptor = {"entries": entries, "tokenBucket": ONE}
    found = {"descriptors": [descriptor], "headers": ["RateLimit", "XRateLimit"]}
    gateway = kgw_proxy([BASE, policy(limit(kgw=found))])
    answer = gateway.get("/", headers={"x-a": "secret"}).expect(status=200)
    assert answer.headers["ratelimit"] == '"RemoteAddress, Header x-a";r=0;t=60'
    assert answer.headers["x-ratelimit-remaining"] == "0"
    assert "ratelimit" not in gateway.get("/").headers, "no limit is for it"


def test_a_limit_that_is_not_enforced_is_told_nevertheless(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy(
        [BASE, policy(limit(ONE, percentEnforced=0, kgw={"headers": ["XRateLimit"]}))]
    )
    for _ in range(2):
        answer = gateway.get("/").expect(status=200)
        assert answer.headers["x-ratelimit-remaining"] == "0"
        assert answer.headers["x-ratelimit-reset"] == "60"


def test_the_reply_is_as_the_policy_wants_it(kgw_proxy: GatewayFactory) -> None:
    response = {
        "status": 503,
        "body": '{"error": "slow down"}',
        "headers": [
            {"name": "content-type", "value": "application/json"},
            {"name": "x-shop", "value": "closed"},
        ],
    }
    gateway = kgw_proxy([BASE, policy(limit(ONE, kgw={"response": response}))])
    assert "x-shop" not in gateway.get("/").expect(status=200).headers
    answer = gateway.get("/").expect(status=503, backend=None, flags="RL")
    assert answer.json() == {"error": "slow down"}
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-shop"] == "closed"
    assert answer.headers["retry-after"] == "60"


def test_nobody_is_told_to_come_back_if_that_is_not_wanted(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy([BASE, policy(limit(ONE, kgw={"retryAfter": False}))])
    assert statuses(gateway, 1) == [200]
    answer = gateway.get("/").expect(status=429)
    assert "retry-after" not in answer.headers
    assert answer.text == NONE_LEFT


# === Waiting ===

QUEUE = {"maxWait": "12s", "maxWaiting": 2}
SECONDS = {"maxTokens": 1, "fillInterval": "4s"}


def test_requests_over_the_limit_wait_for_tokens_in_order(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy([BASE, policy(limit(SECONDS, kgw={"queue": QUEUE}))])
    gateway.get("/").expect(status=200)
    first, second = gateway.start("GET", "/"), gateway.start("GET", "/")
    assert gateway.stats()["rate_limit_queue_active"] == 2
    answer = gateway.get("/").expect(status=429)
    assert answer.headers["retry-after"] == "12", "two wait already"
    gateway.clock.advance(3.9)
    assert not first.answered
    gateway.clock.advance(0.1)
    assert first.answer().status == 200
    assert not second.answered
    gateway.clock.advance(4)
    assert second.answer().status == 200
    stats = gateway.stats()
    assert (stats["rate_limit_queued"], stats["rate_limit_queue_active"]) == (2, 0)
    assert stats["rate_limited"] == 1


def test_who_would_have_to_wait_too_long_is_refused_at_once(kgw_proxy: GatewayFactory) -> None:
    queue = QUEUE | {"maxWait": "3999ms"}
    gateway = kgw_proxy([BASE, policy(limit(SECONDS, kgw={"queue": queue}))])
    assert statuses(gateway, 2) == [200, 429]
    gateway.clock.advance(0.001)
    pending = gateway.start("GET", "/")
    assert not pending.answered
    gateway.clock.advance(3.999)
    assert pending.answer().status == 200


def test_a_request_waits_for_the_slowest_of_its_buckets_and_has_taken_nothing_if_refused(
    kgw_proxy: GatewayFactory,
) -> None:
    found = descriptors(("x-a", {"maxTokens": 1, "fillInterval": "8s"}), queue=QUEUE)
    gateway = kgw_proxy([BASE, policy(limit(SECONDS, kgw=found))])
    gateway.get("/", headers={"x-a": "1"}).expect(status=200)
    waiting = gateway.start("GET", "/", headers={"x-a": "1"})
    # Its second token would be there after 16 s only.
    gateway.get("/", headers={"x-a": "1"}).expect(status=429)
    other = gateway.start("GET", "/")
    gateway.clock.advance(7)
    assert not waiting.answered
    assert not other.answered, "the one that waits has reserved the token before"
    gateway.clock.advance(1)
    assert waiting.answer().status == 200
    assert other.answer().status == 200


def test_nobody_waits_beyond_the_time_of_the_route(kgw_proxy: GatewayFactory) -> None:
    spec = limit(SECONDS, kgw={"queue": QUEUE}) | {"timeouts": {"request": "3s"}}
    gateway = kgw_proxy([BASE, policy(spec)])
    assert statuses(gateway, 2) == [200, 429]
    gateway.clock.advance(2)
    pending = gateway.start("GET", "/")
    assert not pending.answered
    gateway.clock.advance(2)
    assert pending.answer().status == 200


def test_in_shadow_nobody_waits(kgw_proxy: GatewayFactory) -> None:
    spec = limit(SECONDS, kgw={"queue": {"maxWait": "4s"}})
    gateway = kgw_proxy([BASE, policy(spec, annotations={"kgw.dev/shadow": "true"})])
    assert statuses(gateway, 3) == [200, 200, 200]
    assert gateway.stats()["shadow_denied"] == 1, "the second would have waited"


# === Changes ===


def test_a_change_of_one_descriptor_leaves_the_tokens_of_others_alone(
    kgw_proxy: GatewayFactory,
) -> None:
    def manifests(second: dict[str, Any]) -> list[Any]:
        found = descriptors(("x-a", ONE), ("x-b", second))
        found["descriptors"].reverse()
        return [BASE, policy(limit(kgw=found))]

    gateway = kgw_proxy(manifests(ONE))
    both = [{"x-a": "1"}, {"x-b": "1"}]
    assert [gateway.get("/", headers=one).status for one in both] == [200, 200]
    gateway.apply(manifests(TWO))
    assert [gateway.get("/", headers=one).status for one in both] == [429, 200]


# === What is refused ===

ADDRESS = {"type": "RemoteAddress"}


NAMED = "name must be set for the types Header, QueryParameter, Cookie and JWTClaim only"


def of(*entries: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A limit of a descriptor."""
    return {"kgw": {"descriptors": [{"entries": list(entries), "tokenBucket": ONE, **more}]}}


def with_options(**options: Any) -> dict[str, Any]:
    """A limit with options."""
    return {"tokenBucket": ONE, "kgw": options}


@pytest.mark.parametrize(
    ("local", "message"),
    [
        ({"kgw": {}}, "tokenBucket or kgw.descriptors must be set"),
        (of({"type": "Header"}), NAMED),
        (of({"type": "Path", "name": "a"}), NAMED),
        (
            of({"type": "Path", "ipv4PrefixLength": 8}),
            "prefix lengths are for the type RemoteAddress only",
        ),
        (
            {"kgw": {"descriptors": of(ADDRESS)["kgw"]["descriptors"] * 2}},
            "descriptors must not have the same entries",
        ),
        (with_options(headers=["RateLimit"] * 2), "headers must not contain duplicates"),
        (with_options(cost={"max": 3}), "max needs a header"),
        (
            with_options(cost={"tokens": 4, "header": "a", "max": 3}),
            "max must not be less than tokens",
        ),
        (with_options(queue={"maxWait": "61s"}), "maxWait must be between 1ms and 60s"),
        (with_options(queue={"maxWait": "0s"}), "maxWait must be between 1ms and 60s"),
        ({"tokenBucket": ONE | {"fillInterval": "49ms"}}, "fillInterval must be at least 50ms"),
    ],
)
def test_what_contradicts_itself_is_refused(local: dict[str, Any], message: str) -> None:
    config = kgw.Config.from_objects([policy({"rateLimit": {"local": local}})])
    assert any(message in one.message for one in config.errors)


@pytest.mark.parametrize(
    ("local", "path"),
    [
        ({"percentEnabled": 101}, "percentEnabled"),
        ({"percentEnforced": -1}, "percentEnforced"),
        ({"tokenBucket": {"maxTokens": 0, "fillInterval": "1s"}}, "tokenBucket.maxTokens"),
        (
            {"tokenBucket": {"maxTokens": 1, "tokensPerFill": 0, "fillInterval": "1s"}},
            "tokenBucket.tokensPerFill",
        ),
        ({"tokenBucket": {"maxTokens": 1}}, "tokenBucket"),
        (with_options(response={"status": 200}), "kgw.response.status"),
        (with_options(headers=["X"]), "kgw.headers[0]"),
        (with_options(notEnforcedHeaders=[{"name": "a b", "value": "c"}]), "notEnforcedHeaders[0]"),
        (with_options(queue={"maxWait": "1s", "maxWaiting": 0}), "kgw.queue.maxWaiting"),
        (of(), "entries"),
        (of({"type": "Body"}), "entries[0].type"),
        (of(ADDRESS, maxKeys=0), "maxKeys"),
        (of(ADDRESS, name="\u00e4"), "descriptors[0].name"),
    ],
)
def test_what_the_schema_refuses_is_refused(local: dict[str, Any], path: str) -> None:
    config = kgw.Config.from_objects([policy({"rateLimit": {"local": local}})])
    assert any(path in str(one.field) for one in config.errors), config.errors


def test_a_limit_by_something_is_made_in_python(kgw_proxy: GatewayFactory) -> None:
    from kgw.api import LocalRateLimit, TrafficPolicy

    user = rate_limit.LocalRateLimitEntry(type="Header", name="x-user")
    made = TrafficPolicy.of(
        "limit",
        rate_limit=LocalRateLimit.of(1, per="60s", by=[user]),
    )
    spec = made.model_dump(by_alias=True, exclude_unset=True)["spec"]
    gateway = kgw_proxy([BASE, policy({"rateLimit": spec["rateLimit"]})])
    assert statuses(gateway, 2, headers={"x-user": "a"}) == [200, 429]
    assert statuses(gateway, 2, headers={"x-user": "b"}) == [200, 429]


# === The page about it ===

PAGE = Path(__file__).parents[2] / "docs/rate-limits.md"


def test_the_page_is_true(kgw_proxy: GatewayFactory) -> None:
    plain, fragment = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    plain = plain.replace("name: shop", "name: web")
    gateway = kgw_proxy([BASE, plain])
    assert statuses(gateway, 4) == [200, 200, 200, 429]
    head = plain[: plain.index("  rateLimit:")]
    gateway.apply([BASE, head + textwrap.indent(fragment, "  ")])
    answer = gateway.get("/").expect(status=200)
    told = [f"{name}: {answer.headers[name.lower()]}" for name in ("RateLimit-Policy", "RateLimit")]
    shown = re.findall(r"^RateLimit.*$", PAGE.read_text(), re.MULTILINE)
    assert told == [shown[0], shown[1].replace("r=412", "r=999")]


def test_the_page_names_every_field() -> None:
    page = PAGE.read_text()
    models: list[type[BaseModel]] = [
        rate_limit.LocalRateLimit,
        rate_limit.LocalRateLimitOptions,
        rate_limit.LocalRateLimitDescriptor,
        rate_limit.LocalRateLimitEntry,
        rate_limit.RateLimitCost,
        rate_limit.RateLimitResponse,
        rate_limit.RateLimitQueue,
        rate_limit.TokenBucket,
    ]
    names = [field.alias for model in models for field in model.model_fields.values()]
    assert [name for name in names if f"{name}" not in page] == []
    kinds = get_args(rate_limit.LocalRateLimitEntry.model_fields["type"].annotation)
    assert [kind for kind in kinds if f"`{kind}`" not in page] == []
