"""Options of a listener at the edge: whose address counts, which names and paths are taken."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from tests.engine.harness import Setup, always, direct, forward, ok, rule, serving

if TYPE_CHECKING:
    from pathlib import Path


def fields_of(body: bytes) -> dict[str, str]:
    return {name.lower(): value for name, value in json.loads(body)["headers"]}


@pytest.mark.parametrize(
    ("options", "client", "chain"),
    [
        ({}, "127.0.0.1", "1.1.1.1, 2.2.2.2,127.0.0.1"),
        ({"xff_trusted_hops": 1}, "2.2.2.2", "1.1.1.1, 2.2.2.2,127.0.0.1"),
        ({"xff_trusted_hops": 2}, "1.1.1.1", "1.1.1.1, 2.2.2.2,127.0.0.1"),
        ({"xff_trusted_hops": 3}, "127.0.0.1", "1.1.1.1, 2.2.2.2,127.0.0.1"),
        ({"skip_xff_append": True}, "127.0.0.1", "1.1.1.1, 2.2.2.2"),
        ({"use_remote_address": False}, None, "1.1.1.1, 2.2.2.2"),
    ],
)
def test_the_chain_is_believed_as_far_as_hops_say(
    options: dict[str, Any], client: str | None, chain: str
) -> None:
    with serving(Setup(http=options)) as (gateway, _):
        fields = fields_of(gateway.get("/", "x-forwarded-for: 1.1.1.1, 2.2.2.2").body)
        assert fields.get("x-envoy-external-address") == client
        assert fields["x-forwarded-for"] == chain


@pytest.mark.parametrize(
    ("chain", "client"),
    [
        ("6.6.6.6, 203.0.113.9, 10.0.0.3", "203.0.113.9"),
        ("6.6.6.6, 203.0.113.9", "203.0.113.9"),
        ("10.0.0.2, 10.0.0.3", "10.0.0.2"),
    ],
)
@pytest.mark.parametrize("peer_is_trusted", [True, False])
def test_proxies_of_trusted_networks_are_passed_over(
    peer_is_trusted: bool, chain: str, client: str, tmp_path: Path
) -> None:
    networks = ["10.0.0.0/8", *(["127.0.0.0/8"] if peer_is_trusted else [])]
    setup = Setup(
        http={"use_remote_address": False, "xff_trusted_cidrs": networks},
        log={"client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"},
        log_path=str(tmp_path / "log"),
    )
    with serving(setup) as (gateway, _):
        assert gateway.get("/", f"x-forwarded-for: {chain}").status == 200
        # Nothing is believed that an untrusted peer says.
        expected = client if peer_is_trusted else "127.0.0.1"
        assert gateway.log_lines(1) == [{"client": expected}]


def test_a_network_that_is_none_is_reported_and_the_rest_serves() -> None:
    http = {"use_remote_address": False, "xff_trusted_cidrs": ["10.0.0.0/8", "nowhere/9"]}
    with serving(Setup(http=http)) as (gateway, _):
        assert gateway.get().status == 200
        assert gateway.engine.problems() == ['l: "nowhere/9" is no network']


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({}, "fresh"),
        ({"preserve_external": True}, "mine"),
        ({"generate": False}, "mine"),
    ],
)
def test_request_ids_by_policy(policy: dict[str, bool], expected: str) -> None:
    http = {"request_id": policy | {"in_response": True}}
    with serving(Setup(http=http)) as (gateway, _):
        response = gateway.get("/", "x-request-id: mine")
        sent = fields_of(response.body)["x-request-id"]
        assert response["x-request-id"] == sent
        assert (sent == "mine") == (expected == "mine")


def test_answers_of_the_proxy_itself_state_the_request_id_too() -> None:
    setup = Setup(http={"request_id": {"in_response": True}}, routes={"d": direct(200, "x")})
    with serving(setup) as (gateway, _):
        assert gateway.get()["x-request-id"]
        malformed = gateway.ask(b"GET / HTTP/1.1\r\nhost: a b\r\n\r\n")
        assert malformed.status == 400
        assert malformed.get("x-request-id") is None


@pytest.mark.parametrize(
    ("mode", "upstream", "expected"),
    [
        ("overwrite", "up", "kgw"),
        ("append_if_absent", "up", "up"),
        ("append_if_absent", None, "kgw"),
        ("pass_through", "up", "up"),
        ("pass_through", None, None),
    ],
)
def test_the_server_field(mode: str, upstream: str | None, expected: str | None) -> None:
    fields = () if upstream is None else (f"server: {upstream}",)
    with serving(Setup(http={"server_header": mode}), always(ok(b"x", *fields))) as (gateway, _):
        assert gateway.get().get("server") == expected


def test_names_with_underscores() -> None:
    for policy, status, seen in [("allow", 200, "1"), ("drop", 200, None), ("reject", 400, None)]:
        with serving(Setup(http={"underscores": policy})) as (gateway, _):
            response = gateway.get("/", "x_a: 1", "x-b: 2")
            assert response.status == status
            if status == 200:
                fields = fields_of(response.body)
                assert fields.get("x_a") == seen
                assert fields["x-b"] == "2"


def test_a_refused_underscore_is_logged_as_envoy_logs_it(tmp_path: Path) -> None:
    log = {"code": "%RESPONSE_CODE%", "details": "%RESPONSE_CODE_DETAILS%"}
    setup = Setup(http={"underscores": "reject"}, log=log, log_path=str(tmp_path / "log"))
    with serving(setup) as (gateway, _):
        assert gateway.get("/", "x_a: 1").status == 400
        line = gateway.log_lines(1)[0]
        assert line == {"code": 400, "details": "http1.unexpected_underscore"}


def admin_denied(**http: Any) -> Setup:
    """What is under ``/admin`` is answered 403, everything else goes to the backend."""
    return Setup(
        http=http,
        routes={"d": direct(403), "f": {"name": "f", "action": forward("c")}},
        rules=[rule("/admin", "d"), rule("/", "f")],
    )


@pytest.mark.parametrize(
    "target",
    [
        "/admin/x",
        "/./admin/x",
        "/x/../admin/x",
        "/%61dmin/x",
        "/x/%2e%2E/admin/x",
        "//admin/x",
        "/x\\..\\admin",
        "http://ollama/x/../admin/x",
    ],
)
def test_no_spelling_of_a_denied_path_gets_past(target: str) -> None:
    with serving(admin_denied()) as (gateway, _):
        assert gateway.get(target).status == 403


@pytest.mark.parametrize(
    "target", ["/x/..%2fadmin", "/x/..;/admin", "/%c0%afadmin", "/a%00", "/a#b"]
)
def test_paths_that_only_a_backend_would_resolve_are_refused(target: str) -> None:
    with serving(admin_denied()) as (gateway, upstream):
        assert gateway.get(target).status == 400
        assert upstream.connections == 0


def test_the_matched_path_is_the_logged_and_the_forwarded_one(tmp_path: Path) -> None:
    setup = Setup(log={"path": "%REQ(:PATH)%"}, log_path=str(tmp_path / "log"))
    with serving(setup) as (gateway, _):
        body = json.loads(gateway.get("/a/../%62%2fc%e2?x=%2e").body)
        assert body["line"] == "GET /b%2Fc%E2?x=%2e HTTP/1.1"
        assert gateway.log_lines(1)[0]["path"] == "/b%2Fc%E2?x=%2e"


@pytest.mark.parametrize(
    ("policy", "status", "seen"),
    [
        ("keep_unchanged", 200, "GET /a%2Fb%5Cc?x=%2F HTTP/1.1"),
        ("reject", 400, None),
        ("unescape_and_forward", 200, "GET /a/b/c?x=%2F HTTP/1.1"),
        ("unescape_and_redirect", 307, "/a/b/c?x=%2F"),
    ],
)
def test_escaped_slashes(policy: str, status: int, seen: str | None) -> None:
    with serving(admin_denied(escaped_slashes=policy)) as (gateway, _):
        response = gateway.get("/a%2Fb%5cc?x=%2F")
        assert response.status == status
        if status == 200:
            assert json.loads(response.body)["line"] == seen
        elif status == 307:
            assert response["location"] == seen


def test_a_redirect_cannot_lead_past_a_rule() -> None:
    with serving(admin_denied(escaped_slashes="unescape_and_redirect")) as (gateway, _):
        response = gateway.get("/x%2f..%2f..%2f%2fadmin")
        assert (response.status, response["location"]) == (307, "/admin")


def test_strict_paths_refuse_escapes_of_escapes() -> None:
    for strict, status in [(False, 200), (True, 400)]:
        with serving(admin_denied(strict_paths=strict)) as (gateway, _):
            assert gateway.get("/%2561dmin").status == status
            assert gateway.get("/%09admin").status == status
            assert gateway.get("/a%20b").status == 200


def test_a_target_that_is_too_long_is_answered_414() -> None:
    with serving(Setup(http={"max_target_bytes": 8})) as (gateway, _):
        assert gateway.get("/1234567").status == 200
        response = gateway.get("/12345678")
        assert (response.status, response.body) == (414, b"URI Too Long")
