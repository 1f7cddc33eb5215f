"""Requests from pages of other origins."""

from __future__ import annotations

from typing import Any

from tests.conformance import rules
from tests.conformance.infra import INFRA, Infra, Reply, route
from tests.conformance.suite import conformance

PREFLIGHT = "access-control-request-method"
ASKED = "access-control-request-headers"
ALLOW = "access-control-allow-"


def cors(**fields: Any) -> dict[str, Any]:
    return {"type": "CORS", "cors": fields}


ROUTES = {
    "cors-multiple-origins-methods-headers": [
        rules.rule(
            "/cors-1",
            cors(
                allowOrigins=["https://www.foo.com", "https://*.bar.com"],
                allowMethods=["GET", "OPTIONS"],
                allowHeaders=["x-header-1", "x-header-2"],
                exposeHeaders=["x-header-3", "x-header-4"],
                allowCredentials=True,
                maxAge=3600,
            ),
        )
    ],
    "cors-wildcard-methods": [
        rules.rule("/cors-2", cors(allowOrigins=["https://www.foo.com"], allowMethods=["*"]))
    ],
    "cors-wildcard-origin": [
        rules.rule(
            "/cors-wildcard-origin",
            cors(allowOrigins=["*"], allowMethods=["PUT"], allowCredentials=False),
        )
    ],
    "cors-wildcard-methods-headers": [
        rules.rule(
            path,
            cors(
                allowOrigins=["*"],
                allowMethods=["*"],
                allowHeaders=["*"],
                allowCredentials=credentials,
            ),
        )
        for path, credentials in (
            ("/cors-wildcard-methods-headers", True),
            ("/cors-wildcard-methods-headers-unauth", False),
        )
    ],
}


def names(reply: Reply, field: str) -> set[str]:
    """The names in a field of an answer."""
    return {one.strip() for one in (reply.header(field) or "").split(",")}


def preflight(infra: Infra, path: str, origin: str, method: str, asked: str | None = None) -> Reply:
    headers = {"Origin": origin, PREFLIGHT: method} | ({ASKED: asked} if asked else {})
    reply = infra.request("same-namespace", path, method="OPTIONS", headers=headers)
    assert reply.status in (200, 204)
    assert reply.body == b""
    return reply


@conformance("HTTPRouteCORS")
def test_HTTPRouteCORS(infra: Infra) -> None:
    infra.apply(*(route(rules.text(*ones), name=name) for name, ones in ROUTES.items()))
    infra.accepted("same-namespace", *ROUTES)

    # Exact origins, and any number of labels for a wildcard.
    for origin in ("https://www.foo.com", "https://www.bar.com", "https://xpto.www.bar.com"):
        reply = preflight(infra, "/cors-1", origin, "GET", "x-header-1, x-header-2")
        assert reply.header(f"{ALLOW}origin") == origin
        assert names(reply, f"{ALLOW}methods") == {"GET", "OPTIONS"}
        assert names(reply, f"{ALLOW}headers") == {"x-header-1", "x-header-2"}
        exposed = names(reply, "access-control-expose-headers")
        assert exposed == {"x-header-3", "x-header-4"}
        assert reply.header("access-control-max-age") == "3600"
        assert reply.header(f"{ALLOW}credentials") == "true"

    reply = preflight(infra, "/cors-1", "https://foobar.com", "GET")
    assert reply.header(f"{ALLOW}origin") is None

    # Methods of a wildcard, and no credentials unless they are allowed.
    reply = preflight(infra, "/cors-2", "https://www.foo.com", "POST")
    assert reply.header(f"{ALLOW}methods") in ("POST", "*")
    assert reply.header(f"{ALLOW}origin") == "https://www.foo.com"
    assert reply.header(f"{ALLOW}credentials") is None

    # All origins.
    for origin in ("https://foobar.com", "https://foobar.com:12345"):
        reply = preflight(infra, "/cors-wildcard-origin", origin, "PUT")
        assert reply.header(f"{ALLOW}origin") in (origin, "*")
        assert reply.header(f"{ALLOW}methods") == "PUT"
        assert reply.header(f"{ALLOW}credentials") is None

    # All methods and fields: with credentials they are named.
    asked = "x-header-1, x-header-2"
    for path, credentials in (
        ("/cors-wildcard-methods-headers", True),
        ("/cors-wildcard-methods-headers-unauth", False),
    ):
        reply = preflight(infra, path, "https://other.foo.com", "PUT", asked)
        found = names(reply, f"{ALLOW}headers")
        assert found == {"x-header-1", "x-header-2"} or (not credentials and found == {"*"})
        wildcard = () if credentials else ("*",)
        assert reply.header(f"{ALLOW}origin") in ("https://other.foo.com", *wildcard)
        assert reply.header(f"{ALLOW}methods") in ("PUT", *wildcard)
        assert reply.header(f"{ALLOW}credentials") == ("true" if credentials else None)

    assert not infra.requests[f"{INFRA}/infra-backend-v1"], "a preflight request was passed on"

    # Requests themselves, whatever their origin, are for the backend.
    for path, method, origin, allowed in (
        ("/cors-1", "GET", "https://www.foo.com", ("https://www.foo.com",)),
        ("/cors-1", "GET", "https://www.bar.com", ("https://www.bar.com",)),
        ("/cors-1", "GET", "https://foobar.com", (None,)),
        ("/cors-wildcard-origin", "PUT", "https://foobar.com", ("https://foobar.com", "*")),
        (
            "/cors-wildcard-origin",
            "PUT",
            "https://foobar.com:12345",
            ("https://foobar.com:12345", "*"),
        ),
        ("/cors-wildcard-methods-headers", "GET", "https://a.com", ("https://a.com",)),
        ("/cors-wildcard-methods-headers-unauth", "GET", "https://a.com", ("https://a.com", "*")),
    ):
        headers = {"Origin": origin, PREFLIGHT: "GET"}
        reply = infra.request("same-namespace", path, method=method, headers=headers)
        assert reply.backend == "infra-backend-v1"
        assert reply.header(f"{ALLOW}origin") in allowed
        may = path in ("/cors-1", "/cors-wildcard-methods-headers") and allowed != (None,)
        assert reply.header(f"{ALLOW}credentials") == ("true" if may else None)
