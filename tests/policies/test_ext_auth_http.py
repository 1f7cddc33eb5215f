"""TrafficPolicy `extAuth` with a service that is asked over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.policies.manifests import BASE, extension, listener_policy, policy

import kgw
from kgw.testing import Received, Reply
from kgw.translate import PolicyOptions

if TYPE_CHECKING:
    from kgw.testing import Answer, Gateway, GatewayFactory

pytestmark = pytest.mark.fields(
    "GatewayExtension.spec.extAuth",
    "TrafficPolicy.spec.extAuth",
    without=(
        "GatewayExtension.spec.extAuth.grpcService",
        "GatewayExtension.spec.extAuth.withRequestBody.allowPartialMessage",
        "GatewayExtension.spec.extAuth.withRequestBody.packAsBytes",
        "TrafficPolicy.spec.extAuth.contextExtensions",
        "TrafficPolicy.spec.extAuth.extensionRef.namespace",
        "TrafficPolicy.spec.extAuth.withRequestBody.packAsBytes",
    ),
)

AUTH = """
apiVersion: v1
kind: Service
metadata: {name: auth}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: second}
spec: {ports: [{name: http, port: 80}]}
"""

USE = {"extAuth": {"extensionRef": {"name": "auth"}}}


def provider(
    name: str = "auth",
    *,
    http: dict[str, Any] | None = None,
    annotations: dict[str, str] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """A GatewayExtension whose service has the same name."""
    service = {"backendRef": {"name": name, "port": 80}, **(http or {})}
    made = extension(name, {"extAuth": {"httpService": service, **more}})
    made["metadata"]["annotations"] = annotations or {}
    return made


def deciding(request: Received) -> Reply:
    """Lets pass who says so."""
    if request.headers.get("authorization") == "let me in":
        return Reply(200, [("x-user", "me"), ("x-more", "1"), ("x-out", "out")], b"")
    return Reply(401, [("x-why", "so"), ("www-authenticate", "Basic")], b"who?")


def serve(kgw_proxy: GatewayFactory, *config: Any) -> Gateway:
    """A gateway whose service decides."""
    gateway = kgw_proxy([BASE, AUTH, *config])
    gateway.backend("auth").handles(deciding)
    return gateway


PASS = {"authorization": "let me in"}


def test_a_service_decides(kgw_proxy: GatewayFactory) -> None:
    gateway = serve(kgw_proxy, provider(), policy(USE))
    gateway.get("/a?b=c", headers={"x-a": "1"}).expect(
        status=401, backend=None, body="who?", details="ext_authz_denied", flags="UAEX"
    )
    seen = gateway.backend("auth").last
    assert (seen.method, seen.target, seen.headers["host"]) == ("GET", "/a?b=c", "localhost")
    assert "x-a" not in seen.headers
    # Without a list the answer's fields are not the request's, and all of a refusal's the client's.
    gateway.get("/", headers=PASS).expect(status=200, received={"headers": {"x-user": None}})
    assert gateway.get("/").headers["x-why"] == "so"
    stats = gateway.stats()
    assert (stats["ext_authz_ok"], stats["ext_authz_denied"]) == (1, 2)


def test_what_it_is_told_and_what_is_made_of_its_answers(kgw_proxy: GatewayFactory) -> None:
    http = {
        "pathPrefix": "/check",
        "authorizationRequest": {
            "headersToAdd": {
                "x-fixed": "kgw",
                "x-method": "%REQ(:METHOD)%",
                "x-client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
                "x-none": "%REQ(x-nothing)%",
            }
        },
        "authorizationResponse": {
            "headersToBackend": ["X-User"],
            "headersToClient": ["x-other"],
            "headersToClientOnSuccess": ["x-out"],
        },
    }
    extension = provider(http=http, headersToForward=["X-A"])
    gateway = serve(kgw_proxy, extension, policy(USE))
    headers = PASS | {"x-a": "1", "x-b": "2", "x-user": "root", "x-none": "mine"}
    gateway.put("/a", headers=headers).expect(
        status=200,
        headers={"x-out": "out", "x-more": None},
        received={"headers": {"x-user": "me", "x-more": None, "x-b": "2"}},
    )
    seen = gateway.backend("auth").last
    assert (seen.method, seen.target) == ("PUT", "/check/a")
    told = {name.lower(): value for name, value in seen.headers.items()}
    for name, value in (
        ("x-a", "1"),
        ("x-fixed", "kgw"),
        ("x-method", "PUT"),
        ("x-client", "127.0.0.1"),
        ("authorization", "let me in"),
    ):
        assert told[name] == value
    assert told.keys().isdisjoint({"x-b", "x-none", "x-user"})
    # Without the fields that are not named; these two are always passed on.
    gateway.get("/").expect(status=401, headers={"x-why": None, "www-authenticate": "Basic"})


def test_bodies_are_told_as_policy_or_extension_say(kgw_proxy: GatewayFactory) -> None:
    extension = provider(withRequestBody={"maxRequestBytes": 4})
    own = {**USE["extAuth"], "withRequestBody": {"maxRequestBytes": 2, "allowPartialMessage": True}}
    gateway = serve(
        kgw_proxy, extension, policy(USE), policy({"extAuth": own}, "own", section="api")
    )
    auth = gateway.backend("auth")
    gateway.post("/", headers=PASS, body=b"four").expect(status=200, received={"body": b"four"})
    assert auth.last.body == b"four"
    gateway.post("/", headers=PASS, body=b"fives").expect(status=413, backend=None)
    assert gateway.stats()["ext_authz_too_large"] == 1
    gateway.post("/api", headers=PASS, body=b"long").expect(status=200, received={"body": b"long"})
    assert auth.last.body == b"lo"
    assert auth.last.headers["x-envoy-auth-partial-body"] == "true"


def test_without_a_decision_requests_are_refused_or_pass(kgw_proxy: GatewayFactory) -> None:
    gateway = serve(kgw_proxy, provider(), policy(USE))
    gateway.backend("auth").responds(503)
    gateway.get("/", headers=PASS).expect(
        status=403, backend=None, body="", details="ext_authz_error", flags="UAEX"
    )
    gateway.apply([BASE, AUTH, provider(failOpen=True), policy(USE)])
    gateway.get("/").expect(status=200)
    gateway.backend("auth").refuses()
    gateway.get("/").expect(status=200)
    assert gateway.stats()["ext_authz_failure_mode_allowed"] == 2


@pytest.mark.parametrize(("timeout", "seconds"), [(None, 2.0), ("500ms", 0.5)])
def test_a_service_has_its_time(
    kgw_proxy: GatewayFactory, timeout: str | None, seconds: float
) -> None:
    http = {} if timeout is None else {"requestTimeout": timeout}
    gateway = serve(kgw_proxy, provider(http=http), policy(USE))
    gateway.backend("auth").hangs()
    pending = gateway.start("GET", "/", headers=PASS)
    gateway.clock.advance(seconds - 0.01)
    assert not pending.done
    gateway.clock.advance(0.02)
    pending.answer().expect(status=403, details="ext_authz_error")
    assert gateway.stats()["ext_authz_timeout"] == 1


def test_a_service_is_asked_once_more(kgw_proxy: GatewayFactory) -> None:
    backoff = {"baseInterval": "1ms", "maxInterval": "1ms"}
    http = {"retry": {"attempts": 2, "backoff": backoff}, "requestTimeout": "60s"}
    gateway = serve(kgw_proxy, provider(http=http), policy(USE))
    auth = gateway.backend("auth")
    auth.responds(503, times=2)

    def ask() -> Answer:
        """Lets the pauses pass."""
        pending = gateway.start("GET", "/", headers=PASS)
        while not pending.answered and gateway.clock.now < 60:
            gateway.clock.advance(0.001)
        return pending.answer()

    ask().expect(status=200)
    assert len(auth.requests) == 3
    assert gateway.stats()["ext_authz_retry"] == 2
    auth.responds(503)
    ask().expect(status=403)
    assert len(auth.requests) == 6


def test_it_is_turned_off_where_a_rule_says_so(kgw_proxy: GatewayFactory) -> None:
    gateway = serve(
        kgw_proxy,
        provider(),
        policy(USE, kind="Gateway", target="edge"),
        policy({"extAuth": {"disable": {}}}, "open", section="api"),
    )
    gateway.get("/").expect(status=401)
    gateway.get("/api").expect(status=200)
    assert len(gateway.backend("auth").requests) == 1


def test_what_turned_it_off_first_is_known(kgw_proxy: GatewayFactory) -> None:
    gateway = serve(
        kgw_proxy,
        provider(),
        policy(USE, kind="Gateway", target="edge"),
        policy({"extAuth": {"enablement": "DisableAll"}}, "open", section="api"),
    )
    assert [one.code for one in gateway.config.findings] == ["KGW601"]
    gateway.get("/").expect(status=401)
    gateway.get("/api").expect(status=200)


def test_decisions_are_counted_by_name(kgw_proxy: GatewayFactory) -> None:
    gateway = serve(kgw_proxy, provider(statPrefix="people"), policy(USE))
    gateway.get("/")
    gateway.get("/", headers=PASS)
    gateway.get("/", headers=PASS)
    gateway.backend("auth").responds(500)
    gateway.get("/")
    assert gateway.stats()["ext_authz"] == {
        "people": {"ok": 2, "denied": 1, "error": 1, "timeout": 0, "failure_mode_allowed": 0}
    }


ROUTED = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  gatewayClassName: kgateway
  listeners: [{name: http, port: 8080, protocol: HTTP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{name: edge}]
  rules:
  - matches: [{headers: [{name: x-user, value: me}]}]
    backendRefs: [{name: mine, port: 80}]
  - backendRefs: [{name: api, port: 80}]
---
apiVersion: v1
kind: Service
metadata: {name: api}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: mine}
spec: {ports: [{name: http, port: 80}]}
"""


@pytest.mark.parametrize(("clears", "backend"), [(True, "mine"), (False, "api")])
def test_the_route_is_found_anew_if_wanted(
    kgw_proxy: GatewayFactory, clears: bool, backend: str
) -> None:
    http = {"authorizationResponse": {"headersToBackend": ["x-user"]}}
    extension = provider(http=http, clearRouteCache=clears)
    gateway = kgw_proxy([ROUTED, AUTH, extension, policy(USE)])
    gateway.backend("auth").handles(deciding)
    gateway.get("/", headers=PASS).expect(status=200, backend=backend)
    # Once for all, though the other rule has the policy as well.
    assert len(gateway.backend("auth").requests) == 1


DEEP = PolicyOptions.of(merge='{"trafficPolicy": {"extAuth": "DeepMerge"}}')


def test_several_services_are_asked_by_their_weights(kgw_proxy: GatewayFactory) -> None:
    """All have to let a request pass; of one that refuses the others are not asked."""
    second = provider("second", annotations={"kgateway.dev/policy-weight": "5"})
    other = policy({"extAuth": {"extensionRef": {"name": "second"}}}, "other")
    gateway = kgw_proxy([BASE, AUTH, provider(), second, policy(USE), other], policies=DEEP)
    gateway.backend("auth").handles(deciding)
    gateway.backend("second").handles(
        lambda request: Reply(200 if request.path == "/open" else 402, [], b"")
    )
    gateway.get("/", headers=PASS).expect(status=402)
    assert not gateway.backend("auth").requests
    gateway.get("/open").expect(status=401)
    gateway.get("/open", headers=PASS).expect(status=200, backend="api")
    assert len(gateway.backend("second").requests) == 3


def test_one_policy_of_several_turns_all_services_off(kgw_proxy: GatewayFactory) -> None:
    off = policy({"extAuth": {"disable": {}}}, "off")
    gateway = kgw_proxy([BASE, AUTH, provider(), policy(USE), off], policies=DEEP)
    gateway.get("/").expect(status=200)


CACHE = {"kgw.dev/ext-auth-cache": "ttl=30s; denied-ttl=5s; key=header:authorization, path"}


def test_decisions_are_remembered_if_wanted(kgw_proxy: GatewayFactory) -> None:
    http = {"authorizationResponse": {"headersToBackend": ["x-user"]}}
    gateway = serve(kgw_proxy, provider(http=http, annotations=CACHE), policy(USE))
    auth = gateway.backend("auth")

    def ask(url: str = "/", **headers: str) -> int:
        """How often the service was asked about it."""
        before = len(auth.requests)
        answer = gateway.get(url, headers=headers)
        if answer.status == 200:
            answer.expect(received={"headers": {"x-user": "me"}})
        else:
            answer.expect(status=401, body="who?", headers={"x-why": "so"})
        return len(auth.requests) - before

    assert [ask(**PASS), ask(**PASS), ask("/?a=b", **PASS)] == [1, 0, 0]
    # Another path is another request, and so is another user's, or nobody's.
    assert [ask("/b", **PASS), ask("/b", **PASS)] == [1, 0]
    assert [ask(authorization="x"), ask(authorization="y"), ask(), ask()] == [1, 1, 1, 0]
    gateway.clock.advance(5.1)
    assert [ask(), ask(**PASS)] == [1, 0]
    # A reload that leaves the service alone forgets nothing.
    limit = {"rateLimit": {"local": {"tokenBucket": {"maxTokens": 99, "fillInterval": "60s"}}}}
    both = [provider(http=http, annotations=CACHE), policy({**USE, **limit})]
    gateway.apply([BASE, AUTH, *both])
    assert ask(**PASS) == 0
    gateway.clock.advance(25)
    assert [ask(**PASS), ask(**PASS)] == [1, 0]
    assert gateway.stats()["ext_authz_cached"] == 7


def test_failures_are_not_remembered(kgw_proxy: GatewayFactory) -> None:
    gateway = serve(kgw_proxy, provider(annotations=CACHE), policy(USE))
    gateway.backend("auth").responds(503, times=1)
    gateway.get("/", headers=PASS).expect(status=403)
    gateway.get("/", headers=PASS).expect(status=200)


def test_in_shadow_the_service_is_asked_and_not_obeyed(kgw_proxy: GatewayFactory) -> None:
    spec = policy(USE, annotations={"kgw.dev/shadow": "true"})
    http = {"authorizationResponse": {"headersToBackend": ["x-user"]}}
    gateway = serve(kgw_proxy, provider(http=http), spec)
    gateway.get("/").expect(status=200)
    gateway.get("/", headers=PASS).expect(status=200, received={"headers": {"x-user": None}})
    assert len(gateway.backend("auth").requests) == 2
    assert gateway.stats()["shadow_denied"] == 1


def _wrong(spec: dict[str, Any], annotations: dict[str, str] | None = None) -> dict[str, Any]:
    made = extension("auth", {"extAuth": spec})
    made["metadata"]["annotations"] = annotations or {}
    return made


_REF = {"backendRef": {"name": "auth", "port": 80}}


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (_wrong({"httpService": {"backendRef": {"name": "none", "port": 80}}}), "none not found"),
        (
            _wrong({"httpService": {**_REF, "pathPrefix": "/a?b"}}),
            "pathPrefix '/a?b' is not a path",
        ),
        (
            _wrong(
                {"httpService": {**_REF, "authorizationRequest": {"headersToAdd": {"host": "a"}}}}
            ),
            "header field host cannot be changed by a filter",
        ),
        (
            _wrong(
                {"httpService": {**_REF, "authorizationRequest": {"headersToAdd": {"a": "%NO%"}}}}
            ),
            "headersToAdd a: ",
        ),
        (_wrong({"httpService": _REF, "headersToForward": ["a b"]}), "'a b' is not a header field"),
        (
            _wrong({"httpService": _REF}, {"kgw.dev/ext-auth-cache": "ttl=1s"}),
            "ttl= and key= are needed",
        ),
        (
            _wrong({"httpService": _REF}, {"kgw.dev/ext-auth-cache": "ttl=2h; key=path"}),
            "ttl= is at most 1h",
        ),
        (
            _wrong({"httpService": _REF}, {"kgw.dev/ext-auth-cache": "ttl=1s; key=body"}),
            "key= has 'body'",
        ),
        (
            _wrong(
                {"httpService": _REF, "withRequestBody": {"maxRequestBytes": 1}},
                {"kgw.dev/ext-auth-cache": "ttl=1s; key=path"},
            ),
            "decisions about bodies are not remembered",
        ),
        (extension("other", {"extAuth": {"httpService": _REF}}), "auth not found"),
    ],
)
def test_what_cannot_be_used_takes_its_targets_out_of_service(
    kgw_proxy: GatewayFactory, made: dict[str, Any], message: str
) -> None:
    with pytest.raises(kgw.ConfigError) as raised:
        kgw_proxy([BASE, AUTH, made, policy(USE)])
    assert message in str(raised.value)
    gateway = kgw_proxy([BASE, AUTH, made, policy(USE)], strict=False)
    gateway.get("/", headers=PASS).expect(status=500, backend=None)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (_wrong({}), "exactly one of the fields in [grpcService httpService] must be set"),
        (
            _wrong({"httpService": _REF, "grpcService": _REF}),
            "exactly one of the fields in [grpcService httpService] must be set",
        ),
        (_wrong({"httpService": {**_REF, "requestTimeout": "0s"}}), "timeout must be at least 1ms"),
    ],
)
def test_what_is_no_service_is_refused(
    kgw_proxy: GatewayFactory, made: dict[str, Any], message: str
) -> None:
    with pytest.raises(kgw.ConfigError) as raised:
        kgw_proxy([BASE, AUTH, made, policy(USE)])
    assert message in str(raised.value)


def test_a_policy_says_exactly_one_thing(kgw_proxy: GatewayFactory) -> None:
    for auth in ({}, {"disable": {}, **USE["extAuth"]}):
        with pytest.raises(kgw.ConfigError) as raised:
            kgw_proxy([BASE, AUTH, provider(), policy({"extAuth": auth})])
        assert "exactly one of the fields in [extensionRef disable]" in str(raised.value)


def test_who_was_refused_is_asked_nothing_about(kgw_proxy: GatewayFactory) -> None:
    """An access list is in front of the service, a limit behind it."""
    limit = {"rateLimit": {"local": {"tokenBucket": {"maxTokens": 1, "fillInterval": "60s"}}}}
    acl = {"defaultAction": "allow", "rules": [{"cidrs": ["10.0.0.0/8"], "action": "deny"}]}
    gateway = serve(
        kgw_proxy,
        listener_policy({"proxyProtocol": {}}),
        provider(),
        policy({**USE, **limit, "acl": acl}),
    )
    gateway.get("/", source="10.0.0.1").expect(status=403, details="http-acl:_denied_by_policy")
    assert not gateway.backend("auth").requests
    for _ in range(2):
        gateway.get("/", source="11.0.0.1").expect(status=401)
    gateway.get("/", source="11.0.0.1", headers=PASS).expect(status=200)
    gateway.get("/", source="11.0.0.1", headers=PASS).expect(status=429)
