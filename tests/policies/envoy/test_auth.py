"""kgw and Envoy judge the same requests in the same way: users, API keys, origins.

Envoy gets configurations of its own filters, as kgateway writes them, kgw the policies they are
written from.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from tests.engine.harness import Upstream
from tests.policies.envoy.envoy import Backend, ask, bootstrap, fields, listener, running, typed
from tests.policies.manifests import BASE, policy, secret

import kgw.testing

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.envoy

HOST = "shop.example:8080"


def _sha(password: str) -> str:
    return "{SHA}" + base64.b64encode(hashlib.sha1(password.encode()).digest()).decode()


USERS = [f"alice:{_sha('secret')}", f"bob:{_sha('a:b')}"]

KEYS = {"alice": "k-1", "bob": "k+2/=="}

ORIGINS: list[dict[str, Any]] = [
    {"exact": "a.example"},
    {"prefix": "PRE", "ignoreCase": True},
    {"suffix": ".suf"},
    {"contains": "mid"},
    {"safeRegex": r"r\d+(:1)?"},
]

CORS_ORIGINS = ["https://a.example", "https://*.b.example", "http://c.example:8080"]


def _percent(name: str, number: int) -> dict[str, Any]:
    value = {"numerator": number, "denominator": "HUNDRED"}
    return {name: {"default_value": value, "runtime_key": f"kgw.{name}"}}


def _matcher(one: dict[str, Any]) -> dict[str, Any]:
    found = {name: value for name, value in one.items() if name not in ("ignoreCase", "safeRegex")}
    if "safeRegex" in one:
        found["safe_regex"] = {"regex": one["safeRegex"]}
    if "ignoreCase" in one:
        found["ignore_case"] = one["ignoreCase"]
    return found


_CORS = {
    "@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy",
    "allow_origin_string_match": [
        {"exact": "https://a.example"},
        {"safe_regex": {"regex": r"https://.*\.b\.example"}},
        {"exact": "http://c.example:8080"},
    ],
    "allow_methods": "GET, PUT",
    "allow_headers": "x-1",
    "expose_headers": "x-out",
    "allow_credentials": True,
    "max_age": "600",
}


def _keys(*sources: dict[str, str], **forwarding: Any) -> Any:
    credentials = [{"key": key, "client": client} for client, key in KEYS.items()]
    return typed(
        "api_key_auth",
        "ApiKeyAuth",
        credentials=credentials,
        key_sources=list(sources),
        forwarding=forwarding,
    )


ENVOY = {
    "users": listener(
        "users", typed("basic_auth", "BasicAuth", users={"inline_string": "\n".join(USERS)})
    ),
    "keys": listener("keys", _keys({"header": "api-key"}, hide_credentials=True)),
    "places": listener(
        "places",
        _keys(
            {"header": "x-key", "query": "key"},
            {"cookie": "key"},
            header="x-client",
            hide_credentials=True,
        ),
    ),
    "kept": listener("kept", _keys({"query": "key"}, {"cookie": "key"}, header="x-client")),
    "csrf": listener(
        "csrf",
        typed(
            "csrf",
            "CsrfPolicy",
            **_percent("filter_enabled", 100),
            additional_origins=[_matcher(one) for one in ORIGINS],
        ),
    ),
    "csrf shadow": listener(
        "csrf shadow",
        typed(
            "csrf",
            "CsrfPolicy",
            **_percent("filter_enabled", 0),
            **_percent("shadow_enabled", 100),
        ),
    ),
    "cors": listener("cors", typed("cors", "Cors"), per_route={"envoy.filters.http.cors": _CORS}),
}

_REF = {"secretRef": {"name": "keys"}}

KGW: dict[str, dict[str, Any]] = {
    "users": {"basicAuth": {"users": USERS}},
    "keys": {"apiKeyAuth": _REF},
    "places": {
        "apiKeyAuth": {
            **_REF,
            "keySources": [{"header": "x-key", "query": "key"}, {"cookie": "key"}],
            "clientIdHeader": "x-client",
        }
    },
    "kept": {
        "apiKeyAuth": {
            **_REF,
            "keySources": [{"query": "key"}, {"cookie": "key"}],
            "clientIdHeader": "x-client",
            "forwardCredential": True,
        }
    },
    "csrf": {"csrf": {"percentageEnabled": 100, "additionalOrigins": ORIGINS}},
    "csrf shadow": {"csrf": {"percentageShadowed": 100}},
    "cors": {
        "cors": {
            "allowOrigins": CORS_ORIGINS,
            "allowMethods": ["GET", "PUT"],
            "allowHeaders": ["x-1"],
            "exposeHeaders": ["x-out"],
            "allowCredentials": True,
            "maxAge": 600,
        }
    },
}


@dataclass
class Seen:
    """What came of a request."""

    status: int
    headers: dict[str, list[str]]
    body: bytes
    details: str | None
    flags: str
    #: What the backend got: the request line, and header fields.
    backend: tuple[str, dict[str, list[str]]] | None


class Sides:
    """Both proxies."""

    def __init__(
        self, ports: dict[str, int], backend: Backend, ours: dict[str, kgw.testing.Gateway]
    ):
        self._ports = ports
        self._backend = backend
        self._ours = ours

    def envoy(self, kind: str, method: str, target: str, pairs: list[tuple[str, str]]) -> Seen:
        """What Envoy does."""
        answer = ask(self._ports[kind], method, target, HOST, pairs)
        told = {name.lower(): value for name, value in answer.headers}
        backend = None
        if not self._backend.asked.empty():
            line, got, _ = self._backend.asked.get()
            backend = (line, fields(got))
        flags = told.get("x-flags", "-")
        return Seen(
            answer.status,
            fields(answer.headers),
            answer.body,
            told.get("x-details"),
            "" if flags == "-" else flags,
            backend,
        )

    def kgw(self, kind: str, method: str, target: str, pairs: list[tuple[str, str]]) -> Seen:
        """What kgw does."""
        answer = self._ours[kind].request(method, target, headers=pairs, host=HOST)
        backend = None
        if answer.received is not None:
            got = answer.received
            line = f"{got.method} {got.target} HTTP/1.1"
            backend = (line, fields(got.headers.items()))
        return Seen(
            answer.status,
            fields(answer.headers.items()),
            answer.body,
            None if backend else answer.details,
            answer.flags,
            backend,
        )


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sides]:
    """Both proxies."""
    backend = Backend()
    with contextlib.ExitStack() as stack:
        upstream = Upstream(backend)
        stack.callback(upstream.close)
        config = bootstrap(upstream.address, *ENVOY.values())
        ports = stack.enter_context(running(tmp_path_factory.mktemp("envoy"), config))
        ours = {}
        for kind, spec in KGW.items():
            inside: list[Any] = [BASE, secret("keys", KEYS), policy(spec)]
            gateway = stack.enter_context(kgw.testing.Gateway(inside))
            gateway.backend("api").responds(
                200,
                {"x-answer": "1", "access-control-allow-origin": "https://own"},
                b"fine",
            )
            ours[kind] = gateway
        yield Sides(ports, backend, ours)


def _basic(text: str) -> list[tuple[str, str]]:
    return [("authorization", "Basic " + base64.b64encode(text.encode()).decode())]


USER_FIELDS = {
    "none": [],
    "right": _basic("alice:secret"),
    "with a colon": _basic("bob:a:b"),
    "wrong": _basic("alice:Secret"),
    "nobody": _basic("eve:secret"),
    "empty": _basic(""),
    "no colon": _basic("alice"),
    "no password": _basic("alice:"),
    "no name": _basic(":secret"),
    "without padding": [("authorization", "Basic YWxpY2U6c2VjcmV0")],
    "no base64": [("authorization", "Basic ???")],
    "another scheme": [("authorization", "Bearer alice:secret")],
    "no scheme": [("authorization", "alice:secret")],
    "nothing in the field": [("authorization", "")],
    "only the scheme": [("authorization", "Basic")],
}


@pytest.mark.parametrize("case", USER_FIELDS)
@pytest.mark.parametrize("target", ["/", "/a/b?c=d"])
def test_users(sides: Sides, case: str, target: str) -> None:
    asked = ("users", "GET", target, USER_FIELDS[case])
    assert sides.kgw(*asked) == sides.envoy(*asked)


KEY_REQUESTS: dict[str, tuple[str, str, list[tuple[str, str]]]] = {
    "none": ("keys", "/", []),
    "right": ("keys", "/", [("api-key", "k-1")]),
    "as a bearer": ("keys", "/", [("api-key", "Bearer k-1")]),
    "a bearer in lower case": ("keys", "/", [("api-key", "bearer k-1")]),
    "wrong": ("keys", "/", [("api-key", "k-2")]),
    "empty": ("keys", "/", [("api-key", "")]),
    "query where a field is wanted": ("keys", "/?api-key=k-1", []),
    "field of several": ("places", "/", [("x-key", "k+2/==")]),
    "cookie of the next": ("places", "/", [("cookie", "key=k-1")]),
    "wrong field before right query": ("places", "/?key=k-1", [("x-key", "x")]),
    "query among others": ("kept", "/a?b=c&key=k-1&d=e", []),
    "query with percents": ("kept", "/?key=k%2B2%2F%3D%3D", []),
    "query with a plus": ("kept", "/?key=k+2/==", []),
    "the first of several": ("kept", "/?key=x&key=k-1", []),
    "cookie": ("kept", "/", [("cookie", "key=k-1")]),
    "cookie among others": ("kept", "/", [("cookie", "a=b; key=k-1; c=d")]),
    "another cookie": ("kept", "/", [("cookie", "xkey=k-1")]),
    "stated client": ("kept", "/?key=k-1", [("x-client", "root")]),
}


@pytest.mark.parametrize("case", KEY_REQUESTS)
def test_keys(sides: Sides, case: str) -> None:
    kind, target, pairs = KEY_REQUESTS[case]
    asked = (kind, "GET", target, pairs)
    assert sides.kgw(*asked) == sides.envoy(*asked)


def test_a_source_of_several_places(sides: Sides) -> None:
    """Envoy looks at the field alone; kgw at the query as well, as kgateway documents it."""
    none: list[tuple[str, str]] = []
    asked = ("places", "GET", "/?key=k-1", none)
    assert sides.envoy(*asked).details == "missing_api_key"
    ours = sides.kgw(*asked)
    assert ours.backend is not None
    assert ours.backend[0] == "GET / HTTP/1.1"
    both = ("places", "GET", "/?key=k-1", [("x-key", "k-1")])
    theirs, ours = sides.envoy(*both), sides.kgw(*both)
    assert (theirs.status, ours.status) == (200, 200)
    # What Envoy did not look at it does not hide.
    assert [one.backend and one.backend[0] for one in (theirs, ours)] == [
        "GET /?key=k-1 HTTP/1.1",
        "GET / HTTP/1.1",
    ]


CSRF_FIELDS = {
    "none": [],
    "own": [("origin", f"http://{HOST}")],
    "own over https": [("origin", f"https://{HOST}")],
    "own without port": [("origin", "http://shop.example")],
    "null": [("origin", "null")],
    "other": [("origin", "http://evil.example")],
    "no url": [("origin", HOST)],
    "empty": [("origin", "")],
    "referer": [("referer", f"http://{HOST}/page?a=b")],
    "other referer": [("referer", "http://evil.example/page")],
    "referer with user": [("referer", f"http://{HOST}@evil.example/")],
    "origin before referer": [("origin", "http://evil.example"), ("referer", f"http://{HOST}/")],
    "exact": [("origin", "https://a.example")],
    "exact in another case": [("origin", "https://A.example")],
    "exact with port": [("origin", "https://a.example:1")],
    "prefix": [("origin", "https://prefix.example")],
    "suffix": [("origin", "https://x.suf")],
    "contains": [("origin", "https://amidst")],
    "regex": [("origin", "https://r12:1")],
    "part of the regex": [("origin", "https://r12:11")],
}


@pytest.mark.parametrize("case", CSRF_FIELDS)
@pytest.mark.parametrize("method", ["POST", "DELETE", "GET"])
def test_origins_of_changes(sides: Sides, case: str, method: str) -> None:
    pairs = [*CSRF_FIELDS[case], ("content-length", "0")]
    ours, theirs = (side("csrf", method, "/", pairs) for side in (sides.kgw, sides.envoy))
    if case == "referer with user" and ours.backend is not None:
        # Envoy's edge takes such a field off.
        ours.backend[1].pop("referer")
    assert ours == theirs


def test_origins_of_changes_that_are_counted_only(sides: Sides) -> None:
    asked = ("csrf shadow", "POST", "/", [("origin", "https://b"), ("content-length", "0")])
    assert sides.kgw(*asked) == sides.envoy(*asked)


_PREFLIGHT = [("access-control-request-method", "PUT"), ("access-control-request-headers", "x-1")]

#: Where kgw answers as Envoy does, but for `vary`, which only kgw states.
CORS_REQUESTS: dict[str, tuple[str, list[tuple[str, str]]]] = {
    "no origin": ("GET", []),
    "allowed": ("GET", [("origin", "https://a.example")]),
    "allowed by a pattern": ("GET", [("origin", "https://x.y.b.example")]),
    "allowed with a port": ("PUT", [("origin", "http://c.example:8080"), ("content-length", "0")]),
    "preflight": ("OPTIONS", [("origin", "https://a.example"), *_PREFLIGHT]),
    "preflight by a pattern": ("OPTIONS", [("origin", "https://x.b.example"), *_PREFLIGHT]),
    "preflight without a method": ("OPTIONS", [("origin", "https://a.example")]),
    "preflight without an origin": ("OPTIONS", _PREFLIGHT),
}


@pytest.mark.parametrize("case", CORS_REQUESTS)
def test_origins_that_are_allowed(sides: Sides, case: str) -> None:
    method, pairs = CORS_REQUESTS[case]
    ours, theirs = (side("cors", method, "/", pairs) for side in (sides.kgw, sides.envoy))
    assert ours.headers.pop("vary") == ["origin"]
    if not pairs or pairs is _PREFLIGHT:
        # Envoy leaves a backend's own word where nobody asks.
        assert theirs.headers.pop("access-control-allow-origin") == ["https://own"]
    if ours.backend is None:
        # Envoy does not make this answer as it makes its others, so that it lacks its details.
        assert (ours.details, theirs.details) == ("cors_response", None)
        theirs.details = ours.details
    assert ours == theirs


def test_origins_that_are_not_allowed(sides: Sides) -> None:
    """Envoy passes preflight requests on; kgw says itself that the page may do nothing."""
    pairs = [("origin", "https://evil.example"), *_PREFLIGHT]
    assert sides.envoy("cors", "OPTIONS", "/", pairs).backend is not None
    ours = sides.kgw("cors", "OPTIONS", "/", pairs)
    assert (ours.status, ours.backend, ours.details) == (200, None, "cors_response")
    assert not [name for name in ours.headers if name.startswith("access-control")]
