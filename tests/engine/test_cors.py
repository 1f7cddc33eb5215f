"""CORS: preflight requests, and what answers say to pages of other origins."""

from __future__ import annotations

from typing import Any

import pytest
from tests.engine.harness import Setup, always, direct, forward, get, ok, serving

ORIGIN = "https://www.foo.com"
ASKING = (f"origin: {ORIGIN}", "access-control-request-method: PUT")


def shared(*filters: dict[str, Any], action: Any = None, **fields: Any) -> Setup:
    cors = {"type": "cors", "allow_origins": [ORIGIN], "max_age_s": 5, **fields}
    route = {
        "name": "default",
        "filters": [cors, *filters],
        "action": action or forward("c"),
    }
    return Setup(routes={"default": route})


def preflight(*fields: str) -> bytes:
    return get("/", *fields).replace(b"GET", b"OPTIONS", 1)


def said(response: Any) -> dict[str, str]:
    return {
        name.lower(): value
        for name, value in response.headers
        if name.lower().startswith("access-control-") or name.lower() == "vary"
    }


def test_a_preflight_request_is_answered_and_nothing_else_happens_to_it() -> None:
    limit = {
        "type": "local_rate_limit",
        "bucket": "none",
        "max_tokens": 0,
        "tokens_per_fill": 1,
        "fill_interval_ns": 1_000_000_000,
    }
    change = {"type": "response_headers", "set": [["x-set", "1"]]}
    with serving(shared(limit, change, allow_methods=["PUT"])) as (gateway, upstream):
        response = gateway.ask(preflight(*ASKING))
        assert (response.status, response.body) == (200, b"")
        assert said(response) == {
            "access-control-allow-origin": ORIGIN,
            "access-control-allow-methods": "PUT",
            "access-control-max-age": "5",
            "vary": "origin",
        }
        assert response["content-length"] == "0"
        assert response.get("x-set") is None
        refused = gateway.ask(preflight("origin: https://other", ASKING[1]))
        assert (refused.status, said(refused)) == (200, {"vary": "origin"})
        assert upstream.connections == 0
        assert gateway.stat("cors_preflight") == 2


def test_other_options_requests_are_passed_on() -> None:
    with serving(shared(), always(ok(b"theirs"))) as (gateway, _):
        assert gateway.ask(preflight(f"origin: {ORIGIN}")).body == b"theirs"
        assert gateway.ask(preflight(ASKING[1])).body == b"theirs"


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        (
            f"origin: {ORIGIN}",
            {
                "access-control-allow-origin": ORIGIN,
                "access-control-allow-credentials": "true",
                "access-control-expose-headers": "x-1",
                "vary": "origin",
            },
        ),
        ("origin: https://other", {"vary": "origin"}),
        ("x: y", {"vary": "origin"}),
    ],
)
def test_what_a_backend_says_is_replaced(origin: str, expected: dict[str, str]) -> None:
    answer = ok(b"ok", "Access-Control-Allow-Origin: *", "access-control-allow-credentials: true")
    setup = shared(allow_credentials=True, expose_headers=["x-1"])
    with serving(setup, always(answer)) as (gateway, _):
        response = gateway.get("/", origin)
        assert (response.status, said(response)) == (200, expected)


@pytest.mark.parametrize(
    "action", [forward(), direct(403)["action"], {"type": "redirect", "status": 302}]
)
def test_pages_may_read_the_proxys_own_answers(action: dict[str, Any]) -> None:
    with serving(shared(action=action)) as (gateway, _):
        response = gateway.get("/", f"origin: {ORIGIN}")
        assert said(response) == {"access-control-allow-origin": ORIGIN, "vary": "origin"}


def test_the_origin_is_the_clients_whatever_filters_make_of_it() -> None:
    change = {"type": "request_headers", "remove": ["origin"]}
    with serving(shared(change)) as (gateway, _):
        response = gateway.get("/", f"origin: {ORIGIN}")
        assert response["access-control-allow-origin"] == ORIGIN


def test_a_backend_may_have_its_own() -> None:
    setup = shared()
    own = {"type": "cors", "allow_origins": ["https://own"], "max_age_s": 7}
    backend = {"cluster": "c", "weight": 1, "filters": [own]}
    setup.routes["default"]["action"]["backends"] = [backend]
    with serving(setup) as (gateway, upstream):
        response = gateway.ask(preflight("origin: https://own", ASKING[1]))
        assert response["access-control-allow-origin"] == "https://own"
        assert response["access-control-max-age"] == "7"
        assert said(gateway.ask(preflight(*ASKING))) == {"vary": "origin"}
        assert upstream.connections == 0


def test_grpc_web_is_read_across_origins() -> None:
    setup = shared({"type": "grpc_web"}, action=forward())
    with serving(setup) as (gateway, _):
        fields = ["content-type: application/grpc-web+proto", f"origin: {ORIGIN}"]
        lines = ["POST /a.B/C HTTP/1.1", "host: a", *fields, "content-length: 0", "", ""]
        response = gateway.ask("\r\n".join(lines).encode())
        assert response["content-type"].startswith("application/grpc-web")
        assert said(response) == {"access-control-allow-origin": ORIGIN, "vary": "origin"}


def test_an_origin_that_is_none_breaks_the_route() -> None:
    with serving(shared(allow_origins=["nonsense"])) as (gateway, _):
        assert gateway.get().status == 500
