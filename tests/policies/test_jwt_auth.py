"""TrafficPolicy `jwtAuth`: who calls, by signed tokens, whose keys are here or at a server."""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from tests.policies.manifests import BASE, after, extension, policy

import kgw

if TYPE_CHECKING:
    from collections.abc import Callable

    from kgw.testing import Gateway, GatewayFactory

pytestmark = pytest.mark.fields(
    "GatewayExtension.spec.jwt",
    "TrafficPolicy.spec.jwtAuth",
    without=("TrafficPolicy.spec.jwtAuth.extensionRef.namespace",),
)

ISSUER = "https://issuer.example"
SECRET = b"a secret of the issuer"

JWKS_SERVER = """
apiVersion: v1
kind: Service
metadata: {name: issuer}
spec: {ports: [{name: http, port: 8080}]}
"""


def _encoded(data: bytes | dict[str, Any]) -> str:
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _token(secret: bytes = SECRET, *, kid: str | None = None, **claims: Any) -> str:
    header = {"alg": "HS256"} | ({} if kid is None else {"kid": kid})
    payload = {"iss": ISSUER, "sub": "ann"} | claims
    message = f"{_encoded(header)}.{_encoded(payload)}"
    signature = hmac.new(secret, message.encode(), hashlib.sha256).digest()
    return f"{message}.{_encoded(signature)}"


def _key(secret: bytes = SECRET, kid: str | None = None) -> dict[str, str]:
    key = {"kty": "oct", "alg": "HS256", "k": _encoded(secret)}
    return key if kid is None else key | {"kid": kid}


def _keys(*keys: dict[str, str]) -> str:
    return json.dumps({"keys": list(keys or [_key()])})


LOCAL = {"local": {"inline": _keys()}}


def _provider(name: str = "main", jwks: Any = LOCAL, **more: Any) -> dict[str, Any]:
    return {"name": name, "issuer": ISSUER, "jwks": jwks, **more}


def _jwt(*providers: dict[str, Any], **more: Any) -> list[Any]:
    spec = {"jwt": {"providers": list(providers), **more}}
    auth = policy({"jwtAuth": {"extensionRef": {"name": "issuers"}}}, "auth")
    return [BASE, extension("issuers", spec), auth]


def _bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


# === Tokens ===


def test_who_has_a_token_passes_and_nobody_else(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy(_jwt(_provider()))
    answer = gateway.get("/", headers=_bearer(_token())).expect(status=200, backend="api")
    assert answer.received is not None
    assert "authorization" not in answer.received.headers
    answer = gateway.get("http://shop.example/x?a=1").expect(status=401, backend=None, flags="")
    assert answer.text == "Jwt is missing"
    assert answer.headers["www-authenticate"] == 'Bearer realm="http://shop.example/x?a=1"'
    assert answer.details == "jwt_authn_access_denied{Jwt_is_missing}"
    answer = gateway.get("/", headers=_bearer(_token(b"forged"))).expect(status=401)
    assert answer.text == "Jwt verification fails"
    assert answer.headers["www-authenticate"].endswith(', error="invalid_token"')
    stats = gateway.stats()
    assert (stats["jwt_allowed"], stats["jwt_denied"]) == (1, 2)


def test_times_are_checked_with_a_skew_of_a_minute(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy(_jwt(_provider()))
    # The clock stands still, at about the time of the wall.
    start = gateway.get("/", headers=_bearer(_token())).log["start_time"]
    now = int(_seconds(start))
    good = _bearer(_token(exp=now + 100, nbf=now + 30))
    gateway.get("/", headers=good).expect(status=200)
    early = gateway.get("/", headers=_bearer(_token(nbf=now + 90))).expect(status=401)
    assert early.text == "Jwt not yet valid"
    gateway.clock.advance(150)
    gateway.get("/", headers=good).expect(status=200)
    gateway.clock.advance(15)
    # It was verified before, and has expired since.
    late = gateway.get("/", headers=good).expect(status=401)
    assert late.text == "Jwt is expired"
    assert gateway.stats()["jwt_cache_hit"] == 2


def _seconds(text: str) -> float:
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def test_audiences_and_issuers_are_those_of_the_provider(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy(_jwt(_provider(audiences=["api.example", "other"])))
    gateway.get("/", headers=_bearer(_token(aud=["x", "https://api.example/"]))).expect(status=200)
    answer = gateway.get("/", headers=_bearer(_token(aud="x"))).expect(status=403)
    assert answer.text == "Audiences in Jwt are not allowed"
    answer = gateway.get("/", headers=_bearer(_token(iss="x", aud="other"))).expect(status=401)
    assert answer.text == "Jwt issuer is not configured"


def test_providers_are_alternatives(kgw_proxy: GatewayFactory) -> None:
    other = {"local": {"inline": _keys(_key(b"of another"))}}
    gateway = kgw_proxy(_jwt(_provider(), _provider("other", other, issuer="https://other")))
    gateway.get("/", headers=_bearer(_token())).expect(status=200)
    gateway.get("/", headers=_bearer(_token(b"of another", iss="https://other"))).expect(status=200)
    gateway.get("/", headers=_bearer(_token(iss="https://other"))).expect(status=401)
    gateway.get("/", headers=_bearer(_token(b"of another"))).expect(status=401)


def test_without_a_token_a_request_may_pass(kgw_proxy: GatewayFactory) -> None:
    claims = [{"name": "sub", "header": "x-sub"}]
    provider = _provider(claimsToHeaders=claims)
    gateway = kgw_proxy(_jwt(provider, validationMode="AllowMissing"))
    answer = gateway.get("/", headers={"x-sub": "spoofed"}).expect(status=200)
    assert answer.received is not None
    assert "x-sub" not in answer.received.headers
    gateway.get("/", headers=_bearer(_token(b"forged"))).expect(status=401)


# === Where tokens are ===


@pytest.mark.parametrize(
    ("source", "headers", "path", "target"),
    [
        (None, _bearer(_token()), "/x?a=1", "/x?a=1"),
        (None, {}, f"/x?a=1&access_token={_token()}", "/x?a=1"),
        ({"header": {"header": "X-Token"}}, {"x-token": _token()}, "/x", "/x"),
        (
            {"header": {"header": "x-token", "prefix": "Token "}},
            {"x-token": f"Token {_token()}"},
            "/x",
            "/x",
        ),
        ({"queryParameter": "key"}, {}, f"/x?key={_token()}", "/x"),
    ],
)
def test_tokens_are_where_the_provider_says(
    source: Any, headers: dict[str, str], path: str, target: str, kgw_proxy: GatewayFactory
) -> None:
    more = {} if source is None else {"tokenSource": source}
    gateway = kgw_proxy(_jwt(_provider(**more)))
    answer = gateway.get(path, headers=headers).expect(status=200)
    assert answer.received is not None
    assert answer.received.target == target
    assert not {"authorization", "x-token"} & set(answer.received.headers)
    gateway.get("/", headers={"x-other": _token()}).expect(status=401)


def test_tokens_go_on_where_the_provider_says(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy(_jwt(_provider(forwardToken=True)))
    answer = gateway.get("/", headers=_bearer(_token())).expect(status=200)
    assert answer.received is not None
    assert answer.received.headers["authorization"] == f"Bearer {_token()}"


# === What becomes of claims ===


def test_claims_become_header_fields_that_no_client_can_send(kgw_proxy: GatewayFactory) -> None:
    names = ("sub", "org.unit", "groups", "level", "missing")
    claims = [{"name": one, "header": f"x-{one.replace('.', '-')}"} for one in names]
    gateway = kgw_proxy(_jwt(_provider(claimsToHeaders=claims)))
    token = _token(org={"unit": "u1"}, groups=["a"], level=7)
    headers = _bearer(token) | {"x-sub": "spoofed", "x-missing": "spoofed"}
    answer = gateway.get("/", headers=headers).expect(status=200)
    assert answer.received is not None
    got = {name: answer.received.headers.get(f"x-{name}") for name in ("sub", "org-unit", "level")}
    assert got == {"sub": "ann", "org-unit": "u1", "level": "7"}
    assert json.loads(base64.b64decode(answer.received.headers["x-groups"])) == ["a"]
    assert "x-missing" not in answer.received.headers


def test_a_route_may_be_chosen_by_a_claim(kgw_proxy: GatewayFactory) -> None:
    by_claim = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: by-claim}
spec:
  parentRefs: [{name: edge}]
  rules:
  - name: ann
    matches: [{headers: [{name: x-sub, value: ann}]}]
    backendRefs: [{name: ann, port: 80}]
---
apiVersion: v1
kind: Service
metadata: {name: ann}
spec: {ports: [{name: http, port: 80}]}
"""
    claims = [{"name": "sub", "header": "x-sub"}]
    gateway = kgw_proxy([*_jwt(_provider(claimsToHeaders=claims)), by_claim])
    gateway.get("/", headers=_bearer(_token())).expect(status=200, backend="ann")
    gateway.get("/", headers=_bearer(_token(sub="bob"))).expect(status=200, backend="api")


def test_conditions_see_claims(kgw_proxy: GatewayFactory) -> None:
    payload = "metadata.filter_metadata['envoy.filters.http.jwt_authn']['payload']"
    rbac = {"rbac": {"policy": {"matchExpressions": [f"'admins' in {payload}.groups"]}}}
    gateway = kgw_proxy([*_jwt(_provider()), policy(rbac, "admins")])
    gateway.get("/", headers=_bearer(_token(groups=["users", "admins"]))).expect(status=200)
    gateway.get("/", headers=_bearer(_token(groups=["users"]))).expect(status=403)
    gateway.get("/", headers=_bearer(_token())).expect(status=403)
    gateway.get("/").expect(status=401)


def test_it_is_turned_off_where_a_rule_says_so(kgw_proxy: GatewayFactory) -> None:
    off = policy({"jwtAuth": {"disable": {}}}, "off", section="api")
    gateway = kgw_proxy([*_jwt(_provider()), off])
    gateway.get("/api").expect(status=200)
    gateway.get("/").expect(status=401)


def test_a_policy_in_shadow_refuses_nobody(kgw_proxy: GatewayFactory) -> None:
    manifests = _jwt(_provider())
    manifests[-1]["metadata"]["annotations"] = {"kgw.dev/shadow": "true"}
    gateway = kgw_proxy(manifests)
    answer = gateway.get("/", headers=_bearer(_token())).expect(status=200)
    assert answer.received is not None
    assert "authorization" in answer.received.headers
    gateway.get("/").expect(status=200)
    stats = gateway.stats()
    assert (stats["shadow_denied"], stats["jwt_denied"], stats["jwt_allowed"]) == (1, 0, 0)


# === Keys ===


def test_keys_are_in_a_config_map(kgw_proxy: GatewayFactory) -> None:
    jwks = {"local": {"configMapRef": {"name": "keys"}}}
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "keys"},
        "data": {"jwks": _keys()},
    }
    gateway = kgw_proxy([*_jwt(_provider(jwks=jwks)), config_map])
    gateway.get("/", headers=_bearer(_token())).expect(status=200)
    changed = config_map | {"data": {"jwks": _keys(_key(b"new"))}}
    gateway.apply([*_jwt(_provider(jwks=jwks)), changed])
    gateway.get("/", headers=_bearer(_token())).expect(status=401)
    gateway.get("/", headers=_bearer(_token(b"new"))).expect(status=200)


@pytest.mark.parametrize(
    ("jwks", "code", "message"),
    [
        ({"local": {"inline": "nothing"}}, "KGW451", "neither a key, nor a set of keys"),
        ({"local": {"inline": '{"keys": []}'}}, "KGW451", "no key that is valid"),
        ({"local": {"configMapRef": {"name": "no"}}}, "KGW307", "ConfigMap default/no not found"),
        ({"local": {"configMapRef": {"name": "empty"}}}, "KGW431", "has no key jwks"),
    ],
)
def test_keys_that_verify_nothing_make_the_policy_invalid(
    jwks: Any, code: str, message: str, kgw_proxy: GatewayFactory
) -> None:
    empty = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "empty"}}
    gateway = kgw_proxy([*_jwt(_provider(jwks=jwks)), empty], strict=False)
    gateway.get("/", headers=_bearer(_token())).expect(status=500, backend=None)
    assert any(one.code == code and message in one.message for one in gateway.config.findings), (
        gateway.config.findings
    )


# === Keys of a server ===


def _remote(**more: Any) -> dict[str, Any]:
    return {
        "remote": {
            "url": "https://issuer.example/keys?v=1",
            "backendRef": {"name": "issuer", "port": 8080},
            **more,
        }
    }


def _with_server(kgw_proxy: GatewayFactory, **more: Any) -> Gateway:
    gateway = kgw_proxy([*_jwt(_provider(jwks=_remote(**more))), JWKS_SERVER])
    gateway.backend("issuer").responds(body=_keys(_key(kid="one")))
    return gateway


def _pass(gateway: Gateway, is_over: Callable[[], bool], *, step: float = 0.02) -> None:
    """Lets time go by until something has happened in the background."""
    deadline = time.monotonic() + 10
    while not is_over():
        assert time.monotonic() < deadline
        if step:
            gateway.clock.advance(step)
        time.sleep(0.005)  # what is waited for happens at real sockets


def test_keys_are_fetched_once_and_kept(kgw_proxy: GatewayFactory) -> None:
    gateway = _with_server(kgw_proxy)
    for _ in range(3):
        gateway.get("/", headers=_bearer(_token(kid="one"))).expect(status=200)
    (asked,) = gateway.backend("issuer").requests
    assert (asked.method, asked.target) == ("GET", "/keys?v=1")
    assert asked.headers["host"] == "issuer.example"
    assert gateway.stats()["jwks_fetch_success"] == 1
    # A token that is refused anyway fetches nothing.
    gateway.get("/", headers=_bearer(_token(kid="one", iss="x"))).expect(status=401)
    assert len(gateway.backend("issuer").requests) == 1


def test_keys_are_fetched_again_when_they_are_old(kgw_proxy: GatewayFactory) -> None:
    gateway = _with_server(kgw_proxy, cacheDuration="60s")
    gateway.get("/", headers=_bearer(_token(kid="one"))).expect(status=200)
    gateway.backend("issuer").responds(body=_keys(_key(b"new", "one")))
    gateway.clock.advance(61)
    gateway.get("/", headers=_bearer(_token(b"new", kid="one"))).expect(status=200)
    # What the old key verified is not believed any more.
    gateway.get("/", headers=_bearer(_token(kid="one"))).expect(status=401)


def test_an_unknown_key_has_them_fetched_now_and_then(kgw_proxy: GatewayFactory) -> None:
    gateway = _with_server(kgw_proxy)
    gateway.get("/", headers=_bearer(_token(kid="one"))).expect(status=200)
    gateway.backend("issuer").responds(body=_keys(_key(kid="one"), _key(b"new", "two")))
    new = _bearer(_token(b"new", kid="two"))
    answer = gateway.get("/", headers=new).expect(status=401)
    assert answer.text == "Jwks doesn't have key to match kid or alg from Jwt"
    gateway.clock.advance(6)
    gateway.get("/", headers=new).expect(status=200)
    for number in range(5):
        gateway.get("/", headers=_bearer(_token(kid=f"no-{number}"))).expect(status=401)
    assert len(gateway.backend("issuer").requests) == 2


def test_the_last_good_keys_outlive_their_server(kgw_proxy: GatewayFactory) -> None:
    gateway = _with_server(kgw_proxy, cacheDuration="60s")
    gateway.get("/", headers=_bearer(_token(kid="one"))).expect(status=200)
    gateway.backend("issuer").responds(500)
    gateway.clock.advance(100)
    gateway.get("/", headers=_bearer(_token(kid="one"))).expect(status=200)
    assert gateway.stats()["jwks_fetch_failed"] == 1
    gateway.clock.advance(3700)
    answer = gateway.get("/", headers=_bearer(_token(kid="one"))).expect(status=401)
    assert answer.text == "Jwks remote fetch is failed"


@pytest.mark.parametrize("fails", ["refuses", "resets", "answers", "lies"])
def test_a_server_without_keys_refuses_requests_at_once(
    fails: str, kgw_proxy: GatewayFactory
) -> None:
    gateway = _with_server(kgw_proxy)
    server = gateway.backend("issuer")
    breaking: dict[str, Callable[[], object]] = {
        "refuses": server.refuses,
        "resets": server.resets,
        "answers": lambda: server.responds(404),
        "lies": lambda: server.responds(body="nothing"),
    }
    breaking[fails]()
    for _ in range(3):
        answer = gateway.get("/", headers=_bearer(_token(kid="one"))).expect(status=401)
        assert answer.text == "Jwks remote fetch is failed"
    assert gateway.stats()["jwks_fetch_failed"] == 1


def test_a_server_that_hangs_is_waited_for_as_long_as_kgateway_does(
    kgw_proxy: GatewayFactory,
) -> None:
    manifests = [
        *_jwt(_provider(jwks=_remote(), tokenSource={"queryParameter": "key"})),
        JWKS_SERVER,
    ]
    gateway = kgw_proxy(manifests)
    gateway.backend("issuer").hangs()
    answer = after(gateway, f"/?key={_token()}").expect(status=401)
    assert answer.text == "Jwks remote fetch is failed"
    assert answer.at == pytest.approx(5, abs=0.5)


def test_a_fetch_is_tried_again(kgw_proxy: GatewayFactory) -> None:
    retry = {"numRetries": 2, "backOff": {"baseInterval": "10ms", "maxInterval": "20ms"}}
    manifests = [
        *_jwt(_provider(jwks=_remote(retryPolicy=retry), tokenSource={"queryParameter": "key"})),
        JWKS_SERVER,
    ]
    gateway = kgw_proxy(manifests)
    server = gateway.backend("issuer")
    server.responds(body=_keys())
    server.responds(503, times=2)
    pending = gateway.start("GET", f"/?key={_token()}")
    _pass(gateway, lambda: pending.answered)
    pending.answer().expect(status=200)
    assert len(server.requests) == 3


def test_keys_are_fetched_in_the_background(kgw_proxy: GatewayFactory) -> None:
    fetch = {"failedRefetchDuration": "2s", "fastListener": True}
    gateway = _with_server(kgw_proxy, asyncFetch=fetch, cacheDuration="60s")
    server = gateway.backend("issuer")

    def fetched(count: int) -> None:
        # Time goes by: the first fetch may have come before the server knew its keys.
        _pass(gateway, lambda: gateway.stats()["jwks_fetch_success"] >= count)

    fetched(1)
    before = len(server.requests)
    gateway.clock.advance(56)
    fetched(2)
    assert len(server.requests) > before
    gateway.get("/", headers=_bearer(_token(kid="one"))).expect(status=200)


@pytest.mark.parametrize(
    ("jwt", "message"),
    [
        ({"name": "a", "jwks": {}}, "exactly one of the fields in [local remote] must be set"),
        (
            {"name": "a", "jwks": {"local": {}}},
            "exactly one of the fields in [inline configMapRef] must be set",
        ),
        (
            {"name": "a", "jwks": LOCAL, "tokenSource": {}},
            "exactly one of the fields in [header queryParameter] must be set",
        ),
        (
            {"name": "a", "jwks": _remote(cacheDuration="0s")},
            "cacheDuration must be at least 1ms",
        ),
        (
            {"name": "a", "jwks": _remote(asyncFetch={"failedRefetchDuration": "0s"})},
            "failedRefetchDuration must be at least 1ms",
        ),
        (
            {
                "name": "a",
                "jwks": _remote(
                    retryPolicy={"backOff": {"baseInterval": "2s", "maxInterval": "1s"}}
                ),
            },
            "maxInterval must be greater than or equal to baseInterval",
        ),
        ({"name": "a", "jwks": _remote(url="keys")}, "url must be a URL"),
    ],
)
def test_what_the_crd_refuses_is_refused(jwt: dict[str, Any], message: str) -> None:
    config = kgw.Config.from_objects([extension("issuers", {"jwt": {"providers": [jwt]}})])
    assert any(message in one.message for one in config.findings), config.findings
