"""``rateLimit.global``: limits that a rate limit service keeps (Envoy's protocol)."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from tests.engine.harness import refused_address
from tests.policies.manifests import extension, policy
from tests.policies.rate_limit_service import (
    DAY,
    HOUR,
    MINUTE,
    Descriptor,
    Extra,
    Limit,
    Question,
    RateLimitService,
    serving,
)
from tests.policies.shared_limits import ROUTE, by, header, limited, provider, service
from tests.rpc.authorizer import encode
from tests.scenario.conftest import stage as stage
from tests.scenario.stage import EDGE, log_lines

import kgw

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.scenario.stage import Scene, Stage

pytestmark = pytest.mark.fields(
    "GatewayExtension.spec.rateLimit",
    "HTTPListenerPolicy.spec.targetRefs",
    "ListenerPolicy.spec.default.httpSettings.accessLog.fileSink.stringFormat",
    "TrafficPolicy.spec.rateLimit.global.descriptors.entries.generic",
    "TrafficPolicy.spec.rateLimit.global.descriptors.entries.header",
)

USER = by(header("x-user"))

LOG = """
apiVersion: gateway.kgateway.dev/v1alpha1
kind: HTTPListenerPolicy
metadata: {{name: log}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: edge}}]
  accessLog:
  - fileSink:
      path: {path}
      stringFormat: "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%
        %DYNAMIC_METADATA(envoy.filters.http.ratelimit:tier)%\\n"
"""


@pytest.fixture
def limiter() -> Iterator[tuple[RateLimitService, str]]:
    """A service that lets a user make two requests, and its address."""
    found = RateLimitService({(("x-user", ""),): Limit(2)})
    with serving(found) as address:
        yield found, address


def serve(stage: Stage, address: str, *manifests: str, **more: Any) -> Scene:
    """Serves a route that is limited; ``service`` and more are fields of the extension."""
    stage.service("web")
    # A server in Python on a busy machine can take longer than the default's 100 ms.
    more.setdefault("timeout", "10s")
    settings = more.pop("service", None)
    return stage.serve(
        EDGE,
        ROUTE,
        service("limiter", address),
        provider("grpcService", settings, **more),
        *(manifests or (limited(USER),)),
    )


def test_what_is_over_the_limit_is_answered_429(
    stage: Stage, limiter: tuple[RateLimitService, str], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    manifests = (limited(USER), LOG.format(path=log))
    scene = serve(stage, limiter[1], *manifests)
    answers = [scene.get("/", "x-user: ann") for _ in range(3)]
    assert [one.status for one in answers] == [200, 200, 429]
    last = answers[-1]
    assert (last.body, last.sent("x-envoy-ratelimited")) == (b"", ["true"])
    assert last.sent("content-length") == ["0"]
    assert last.sent("x-ratelimit-limit") == []
    assert answers[0].sent("x-envoy-ratelimited") == []
    assert scene.get("/", "x-user: bob").status == 200
    assert scene.stat("ratelimit_ok") == 3
    assert scene.stat("ratelimit_over_limit") == 1
    assert scene.stat("rate_limited") == 1
    assert log_lines(log, 4)[2] == "429 RL request_rate_limited -"


def test_the_service_is_asked_in_its_protocol(
    stage: Stage, limiter: tuple[RateLimitService, str]
) -> None:
    asked, address = limiter
    descriptors = (
        by({"type": "Generic", "generic": {"key": "tier", "value": "gold"}}, header("x-user")),
        by({"type": "RemoteAddress"}, {"type": "Path"}),
        by(header("x-absent"), {"type": "Path"}),
        by(header("x-user")),
    )
    scene = serve(stage, address, limited(*descriptors))
    scene.get("/a?b=c", "x-user: ann")
    (question,) = asked.questions()
    assert question == Question(
        "shop",
        (
            Descriptor((("tier", "gold"), ("x-user", "ann"))),
            Descriptor((("remote_address", "127.0.0.1"), ("path", "/a?b=c"))),
            Descriptor((("x-user", "ann"),)),
        ),
        0,
    )
    assert question.timeout is not None
    assert 0 < question.timeout <= 10


def test_a_request_that_no_descriptor_is_for_is_not_asked_about(
    stage: Stage, limiter: tuple[RateLimitService, str]
) -> None:
    asked, address = limiter
    scene = serve(stage, address)
    assert scene.get("/").status == 200
    assert asked.questions() == []
    assert scene.stat("ratelimit_ok") == 0


def test_descriptors_of_kgw_s_own_kinds(
    stage: Stage, limiter: tuple[RateLimitService, str]
) -> None:
    asked, address = limiter
    limit = by(
        {"type": "Method"},
        {"type": "Host"},
        {"type": "Path", "path": {"query": False}, "key": "where"},
        {"type": "Query", "query": "q"},
        {"type": "Cookie", "cookie": "session"},
        {"type": "RemoteAddress", "remoteAddress": {"ipv4PrefixLength": 8}},
    )
    scene = serve(stage, address, limited(limit, by({"type": "Principal"})))
    scene.get("/a?q=1%202&q=3", "cookie: a=b; session=s1", host="Example.org:80")
    (question,) = asked.questions()
    assert question.descriptors == (
        Descriptor(
            (
                ("method", "GET"),
                ("host", "example.org"),
                ("where", "/a"),
                ("q", "1 2"),
                ("session", "s1"),
                ("remote_address", "127.0.0.0/8"),
            )
        ),
    )


def test_several_values_may_be_counted_by_themselves(
    stage: Stage, limiter: tuple[RateLimitService, str]
) -> None:
    asked, address = limiter
    every = {"type": "Query", "query": "q", "values": "Each"}
    scene = serve(stage, address, limited(by(every, {"type": "Method"})))
    scene.get("/?q=1&q=2")
    (question,) = asked.questions()
    assert [one.entries[0] for one in question.descriptors] == [("q", "1"), ("q", "2")]


def test_a_descriptor_may_have_its_own_limit_and_hits(
    stage: Stage, limiter: tuple[RateLimitService, str]
) -> None:
    asked, address = limiter
    descriptors = (
        by(header("x-user"), limit={"requests": 5, "unit": "Hour"}, hitsAddend={"value": 3}),
        by({"type": "Method"}, limit={"requests": 9, "unit": "Day"}),
    )
    scene = serve(stage, address, limited(*descriptors, hits={"header": "x-cost"}))
    assert scene.get("/", "x-user: ann", "x-cost: 2").status == 200
    assert scene.get("/", "x-user: ann", "x-cost: 0").status == 429
    assert scene.get("/", "x-cost: 0").status == 200
    first, second = asked.questions()
    user = Descriptor((("x-user", "ann"),), (5, HOUR), 3)
    assert first.descriptors == (user, Descriptor((("method", "GET"),), (9, DAY)))
    assert first.hits == 2
    # What costs nothing is not counted; a descriptor with hits of its own is.
    assert second.descriptors == (user,)


def test_what_the_service_adds_to_requests_and_answers(
    stage: Stage, limiter: tuple[RateLimitService, str], tmp_path: Path
) -> None:
    asked, address = limiter
    log = tmp_path / "log"
    asked.extra = Extra(
        response=(("x-more", "1"), ("X-More", "2"), ("content-type", "text/x")),
        request=(("x-tier", "gold"), ("content-length", "9")),
        body=b"slow down",
        metadata={"tier": "gold"},
    )
    scene = serve(stage, address, limited(USER), LOG.format(path=log))
    passed = scene.get("/", "x-user: ann", "x-tier: own")
    assert passed.received("x-tier") == ["own", "gold"]
    assert passed.received("content-length") == []
    assert passed.sent("x-more") == ["1", "2"]
    scene.get("/", "x-user: ann")
    refused = scene.get("/", "x-user: ann")
    assert (refused.status, refused.body) == (429, b"slow down")
    assert refused.sent("content-type") == ["text/x"]
    assert refused.sent("x-more") == ["1", "2"]
    assert log_lines(log, 3)[2] == "429 RL request_rate_limited gold"


def test_answers_say_what_is_left(stage: Stage, limiter: tuple[RateLimitService, str]) -> None:
    asked, address = limiter
    asked.limits[("method", ""),] = Limit(10, MINUTE, "all")
    descriptors = (USER, by({"type": "Method"}), by({"type": "Host"}))
    scene = serve(stage, address, limited(*descriptors), xRateLimitHeaders="DraftVersion03")
    for left, status in (("1", 200), ("0", 200), ("0", 429)):
        answer = scene.get("/", "x-user: ann")
        assert answer.status == status
        assert answer.sent("x-ratelimit-limit") == ['2, 2;w=60, 10;w=60;name="all"']
        assert answer.sent("x-ratelimit-remaining") == [left]
        assert answer.sent("x-ratelimit-reset") == ["17"]


def _fails(context: grpc.ServicerContext) -> bytes | None:
    context.abort(grpc.StatusCode.INTERNAL, "no")
    return None


def _babbles(_context: grpc.ServicerContext) -> bytes:
    return b"\xff\xff"


def _adds_what_no_message_can_have(_context: grpc.ServicerContext) -> bytes:
    return encode({1: 1, 3: {1: "a b", 2: "c"}})


FAILURES = {
    "fails": _fails,
    "babbles": _babbles,
    "adds what no message can have": _adds_what_no_message_can_have,
}


@pytest.mark.parametrize("script", FAILURES.values(), ids=FAILURES)
@pytest.mark.parametrize("fail_open", [True, False])
def test_without_a_decision_requests_go_on_unless_they_are_not_to(
    stage: Stage,
    limiter: tuple[RateLimitService, str],
    script: Callable[[grpc.ServicerContext], bytes | None],
    fail_open: bool,
    tmp_path: Path,
) -> None:
    asked, address = limiter
    asked.script = script
    log = tmp_path / "log"
    manifests = (limited(USER), LOG.format(path=log))
    scene = serve(stage, address, *manifests, failOpen=fail_open)
    answer = scene.get("/", "x-user: ann")
    (line,) = log_lines(log, 1)
    assert scene.stat("ratelimit_error") == 1
    assert scene.stat("ratelimit_failure_mode_allowed") == int(fail_open)
    if fail_open:
        assert answer.backend == "web"
        assert line == "200 - via_upstream -"
    else:
        assert (answer.status, answer.body) == (500, b"")
        assert line == "500 RLSE rate_limiter_error -"


@pytest.mark.parametrize("fail_open", [True, False])
def test_a_service_that_is_not_there_is_no_decision(stage: Stage, fail_open: bool) -> None:
    with refused_address() as address:
        scene = serve(stage, address, failOpen=fail_open)
        assert scene.get("/", "x-user: ann").status == (200 if fail_open else 500)
        assert scene.stat("ratelimit_error") == 1
        assert scene.stat("ratelimit_timeout") == 0


def test_a_service_that_takes_too_long_is_no_decision(
    stage: Stage, limiter: tuple[RateLimitService, str]
) -> None:
    asked, address = limiter
    going_on, is_asked = threading.Event(), threading.Event()

    def waits(_context: grpc.ServicerContext) -> bytes | None:
        is_asked.set()
        going_on.wait()
        return None

    asked.script = waits
    scene = serve(stage, address, timeout="150ms", failOpen=False)
    try:
        peer = scene.connect()
        peer.send(b"GET / HTTP/1.1\r\nhost: a\r\nx-user: ann\r\n\r\n")
        assert is_asked.wait(5)
        scene.clock.advance(0.149)
        scene.settle()
        assert not peer.is_readable()
        scene.clock.advance(0.001)
        assert peer.read_response().status == 500
        assert scene.stat("ratelimit_timeout") == 1
    finally:
        going_on.set()


def test_a_call_that_fails_is_made_again_if_it_is_to_be(
    stage: Stage, limiter: tuple[RateLimitService, str]
) -> None:
    asked, address = limiter
    failures = 2

    def is_away_twice(context: grpc.ServicerContext) -> bytes | None:
        nonlocal failures
        if failures:
            failures -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "not yet")
        return None

    asked.script = is_away_twice
    backoff = {"baseInterval": "1ms", "maxInterval": "2ms"}
    retry = {"attempts": 2, "backoff": backoff}
    scene = serve(stage, address, service={"retry": retry}, timeout="10s")
    peer = scene.connect()
    peer.send(b"GET / HTTP/1.1\r\nhost: a\r\nx-user: ann\r\n\r\n")
    for _ in range(2):
        asked.asked.get(timeout=5)
        # The time until the next call; the call before may be being answered still.
        while not peer.is_readable() and asked.asked.empty():
            scene.clock.advance(0.002)
            scene.settle()
    assert peer.read_response().status == 200
    assert scene.stat("ratelimit_ok") == 1
    assert scene.stat("ratelimit_error") == 0


def test_the_service_s_name_is_the_authority_unless_another_is_given(
    stage: Stage, limiter: tuple[RateLimitService, str]
) -> None:
    """gRPC's server keeps it to itself, so a byte-level one is asked."""
    config = stage.config(
        EDGE, ROUTE, service("limiter", limiter[1]), provider("grpcService"), limited(USER)
    )
    assert _asked(config)["service"]["authority"] == "limiter.default"
    named = provider("grpcService", {"authority": "limits.example", "requestTimeout": "20ms"})
    config = stage.config(EDGE, ROUTE, service("limiter", limiter[1]), named, limited(USER))
    asked = _asked(config)
    assert asked["service"]["authority"] == "limits.example"
    assert (asked["service"]["request_timeout_ms"], asked["timeout_ms"]) == (20, 100)


def _asked(config: kgw.Config) -> dict[str, Any]:
    """The filter of the only limit."""
    routes = config.ir["routes"].values()
    found = [one for route in routes for one in route.get("filters", ())]
    (limit,) = [one for one in found if one["type"] == "global_rate_limit"]
    assert isinstance(limit, dict)
    return limit


def test_a_limit_in_shadow_is_asked_about_and_refuses_nobody(
    stage: Stage, limiter: tuple[RateLimitService, str]
) -> None:
    asked, address = limiter
    asked.extra = Extra(request=(("x-tier", "gold"),), response=(("x-more", "1"),))
    spec = {"extensionRef": {"name": "limiter"}, "descriptors": [USER]}
    shadow = policy(
        {"rateLimit": {"global": spec}}, target="r", annotations={"kgw.dev/shadow": "true"}
    )
    scene = serve(stage, address, json.dumps(shadow))
    for _ in range(3):
        answer = scene.get("/", "x-user: ann")
        assert (answer.status, answer.received("x-tier"), answer.sent("x-more")) == (200, [], [])
    assert len(asked.questions()) == 3
    assert scene.stat("shadow_denied") == 1


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (None, "GatewayExtension default/limiter not found"),
        ({"rateLimit": {"domain": "shop"}}, "[grpcService redis]"),
        (
            {"rateLimit": {"domain": "", "redis": {"backendRef": {"name": "a", "port": 1}}}},
            "domain must not be empty",
        ),
        (
            {
                "rateLimit": {
                    "domain": "shop",
                    "grpcService": {"backendRef": {"name": "nobody", "port": 1}},
                }
            },
            "Service default/nobody not found",
        ),
    ],
)
def test_a_policy_whose_extension_cannot_be_used_takes_its_routes_out_of_service(
    stage: Stage, spec: dict[str, Any] | None, message: str
) -> None:
    web = stage.service("web")
    extensions = [] if spec is None else [json.dumps(extension("limiter", spec))]
    scene = stage.serve(EDGE, ROUTE, *extensions, limited(USER), strict=False)
    assert scene.get("/", "x-user: ann").status == 500
    assert web.connections == 0
    findings = stage.config(EDGE, ROUTE, *extensions, limited(USER)).findings
    assert any(message in one.message for one in findings), findings


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"type": "Generic"}, "exactly one entry type must be specified"),
        ({"type": "Generic", "header": "a"}, "exactly one entry type must be specified"),
        ({"type": "Header"}, "exactly one entry type must be specified"),
        ({"type": "Path", "header": "a"}, "exactly one entry type must be specified"),
        ({"type": "Path", "remoteAddress": {}}, "exactly one entry type must be specified"),
        ({"type": "Query", "cookie": "a"}, "exactly one entry type must be specified"),
        ({"type": "Nothing"}, "Generic"),
        ({"type": "RemoteAddress", "remoteAddress": {"ipv4PrefixLength": 33}}, "32"),
    ],
)
def test_an_entry_is_one_thing(entry: dict[str, Any], message: str) -> None:
    config = kgw.Config.from_objects([json.loads(limited(by(entry)))])
    said = [f"{one.message} {one.legal or ''}" for one in config.findings]
    assert any(message in one for one in said), said
