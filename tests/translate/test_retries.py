"""Retries, time-outs and sessions of rules in the representation."""

from __future__ import annotations

from typing import Any

import pytest
from tests.translate.support import EDGE, ROUTE, actions, run, run_all


def action(rule: str) -> dict[str, Any]:
    """The action of a route's only rule."""
    text = ROUTE.replace("port: 80}]}]", f"port: 80}}], {rule}}}]")
    found: dict[str, Any]
    (found,) = actions(run(EDGE, text)).values()
    return found


@pytest.mark.parametrize(
    ("retry", "expected"),
    [
        ("{}", (1, [], 25, 250)),
        ("{attempts: 3, codes: [500, 404]}", (3, [500, 404], 25, 250)),
        ("{backoff: 100ms}", (1, [], 100, 1_000)),
        ("{backoff: 0s}", (1, [], 0, 0)),
    ],
)
def test_retries(retry: str, expected: tuple[object, ...]) -> None:
    assert tuple(action(f"retry: {retry}")["retry"].values()) == expected


def test_more_attempts_than_the_engine_counts_are_not_its_end() -> None:
    found = action("retry: {attempts: 99999999999}, timeouts: {backendRequest: 99999h}")
    assert found["retry"]["attempts"] < 2**32
    assert found["request_timeout_ms"] < 2**63


def test_without_retries_there_are_none() -> None:
    assert "retry" not in action("timeouts: {request: 1s}")


@pytest.mark.parametrize(
    ("timeouts", "retry", "total", "attempt"),
    [
        # As kgateway, and as Envoy where there are no retries.
        ("{}", None, 15_000, None),
        ("{request: 0s}", None, 0, None),
        ("{request: 3s, backendRequest: 0s}", None, 3_000, None),
        ("{backendRequest: 2s}", None, 2_000, 2_000),
        ("{request: 0s, backendRequest: 2s}", None, 0, 2_000),
        ("{}", "{attempts: 3}", 15_000, None),
        ("{request: 3s, backendRequest: 2s}", "{attempts: 3}", 3_000, 2_000),
        ("{request: 0s, backendRequest: 2s}", "{attempts: 3}", 0, 2_000),
        # All attempts have their time: 4 x 10 s, and 3 waits of 1 s at most.
        ("{backendRequest: 10s}", "{attempts: 3, backoff: 100ms}", 43_000, 10_000),
    ],
)
def test_time_outs(timeouts: str, retry: str | None, total: int, attempt: int | None) -> None:
    more = "" if retry is None else f", retry: {retry}"
    found = action(f"timeouts: {timeouts}{more}")
    assert found["request_timeout_ms"] == total
    assert found.get("backend_request_timeout_ms") == attempt


@pytest.mark.parametrize(
    ("retry", "code"),
    [
        ("{attempts: 0}", "KGW207"),
        ("{codes: [399]}", "KGW207"),
        ("{codes: [600]}", "KGW207"),
        ("{codes: [500, 500]}", "KGW208"),
        ("{backoff: 1.5s}", "KGW207"),
    ],
)
def test_what_an_api_server_refuses(retry: str, code: str) -> None:
    text = ROUTE.replace("port: 80}]}]", f"port: 80}}], retry: {retry}}}]")
    _, findings = run_all(EDGE, text)
    assert code in [one.code for one in findings]


@pytest.mark.parametrize(
    ("given", "token", "more"),
    [
        # As the Gateway API has it from 1.7 on, and as 1.6 has it.
        ("{cookie: {name: s}}", {"type": "cookie", "name": "s", "path": "/"}, {}),
        ("{sessionName: s}", {"type": "cookie", "name": "s", "path": "/"}, {}),
        (
            "{cookie: {name: s, path: /a, lifetimeType: Permanent}, absoluteTimeout: 1h}",
            {"type": "cookie", "name": "s", "path": "/a", "permanent": True},
            {"absolute_timeout_ms": 3_600_000},
        ),
        (
            "{sessionName: s, cookieConfig: {lifetimeType: Permanent}, absoluteTimeout: 1h}",
            {"type": "cookie", "name": "s", "path": "/", "permanent": True},
            {"absolute_timeout_ms": 3_600_000},
        ),
        ("{type: Header, header: {name: x-s}}", {"type": "header", "name": "x-s"}, {}),
        ("{type: Header, sessionName: x-s}", {"type": "header", "name": "x-s"}, {}),
        (
            "{cookie: {name: s}, absoluteTimeout: 30s}",
            {"type": "cookie", "name": "s", "path": "/"},
            {"absolute_timeout_ms": 30_000},
        ),
    ],
)
def test_sessions(given: str, token: dict[str, Any], more: dict[str, Any]) -> None:
    (found,) = action(f"sessionPersistence: {given}")["sessions"]
    scope = "HTTPRoute/default/route/0"
    assert found == {"scope": scope, "backends": [0], "token": token, **more}


@pytest.mark.parametrize(
    "given",
    [
        "{cookie: {lifetimeType: Permanent}}",
        "{cookieConfig: {lifetimeType: Permanent}}",
        "{type: Header, cookie: {}}",
        "{type: Header, cookieConfig: {}}",
        "{header: {name: a}}",
        "{type: Header, header: {}}",
        "{cookie: {}, cookieConfig: {}}",
        "{cookie: {name: 'a b'}}",
        "{sessionName: 'a b'}",
        "{cookie: {path: '/; Domain=example.org'}}",
        "{type: Header, header: {name: Host}}",
        "{type: Header, sessionName: connection}",
    ],
)
def test_sessions_that_an_api_server_refuses(given: str) -> None:
    text = ROUTE.replace("port: 80}]}]", f"port: 80}}], sessionPersistence: {given}}}]")
    _, findings = run_all(EDGE, text)
    assert {"KGW204", "KGW207", "KGW208"} & {one.code for one in findings}


def test_calls_have_sessions_too() -> None:
    text = ROUTE.replace("HTTPRoute", "GRPCRoute").replace(
        "port: 80}]}]", "port: 80}], sessionPersistence: {type: Header, header: {name: x-s}}}]"
    )
    (found,) = actions(run(EDGE, text)).values()
    (session,) = found["sessions"]
    assert session["scope"] == "GRPCRoute/default/route/0"
    assert session["token"] == {"type": "header", "name": "x-s"}
