"""Services that decide about requests, asked over HTTP."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from tests.engine.harness import (
    PATTERN,
    Setup,
    Upstream,
    always,
    deaf_address,
    echo,
    get,
    ok,
    post,
    refused_address,
    serving,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.engine.harness import Gateway, Script

LOG = {
    "code": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%RESPONSE_CODE_DETAILS%",
}

#: As the Gateway API's ``ExternalAuth`` is translated where it says nothing else.
HTTP: dict[str, Any] = {"type": "http", "upstream_headers": None}


class Asking(Setup):
    """A set-up that asks a service, cluster ``auth``, about all requests."""

    auth: dict[str, Any]
    options: dict[str, Any]
    before: list[dict[str, Any]]

    def ir(self) -> dict[str, Any]:
        ir = super().ir()
        ir["clusters"]["auth"] = self.auth
        asking = {
            "type": "ext_authz",
            "cluster": "auth",
            "service": HTTP,
            "request_headers": [],
        } | self.options
        ir["routes"]["default"]["filters"] = [*self.before, asking]
        return ir

    def asks(self, at: str, **options: Any) -> Asking:
        """Asks the service at an address."""
        self.auth = {"endpoints": [at]}
        self.options = options
        return self


@pytest.fixture
def setup(tmp_path: Path) -> Asking:
    setup = Asking(log=LOG, log_path=str(tmp_path / "access.log"))
    setup.before = []
    return setup


@pytest.fixture
def auth() -> Iterator[Upstream]:
    """The service; the test itself answers."""
    upstream = Upstream(None)
    try:
        yield upstream
    finally:
        upstream.close()


@contextlib.contextmanager
def service(script: Script) -> Iterator[Upstream]:
    """The service; a script answers."""
    upstream = Upstream(script)
    try:
        yield upstream
    finally:
        upstream.close()


def outcome(gateway: Gateway) -> tuple[int, str, str]:
    """How the only request of a gateway ended."""
    [line] = gateway.log_lines(1)
    return line["code"], line["flags"], line["details"]


def test_a_request_waits_for_the_service(setup: Asking, auth: Upstream) -> None:
    with serving(setup.asks(auth.address), None) as (gateway, upstream):
        client = gateway.connect()
        client.send(get("/a?b=c", "authorization: Basic x", "x-secret: 1"))
        peer = auth.accept()
        line, headers, body = peer.read_request()
        assert line == "GET /a?b=c HTTP/1.1"
        assert headers == [
            ("host", "ollama"),
            ("authorization", "Basic x"),
            ("content-length", "0"),
        ]
        assert body == b""
        assert upstream.connections == 0
        peer.send(ok(b"fine", "x-user: me", "content-type: text/plain"))
        line, headers, _ = upstream.accept().read_request()
        assert line == "GET /a?b=c HTTP/1.1"
        assert dict(headers) | {"x-user": "me", "x-secret": "1"} == dict(headers)
        assert "content-type" not in dict(headers)
        gateway.reaches("ext_authz_ok", 1)


def test_a_request_that_does_not_pass_gets_the_services_answer(
    setup: Asking, auth: Upstream
) -> None:
    with serving(setup.asks(auth.address)) as (gateway, upstream):
        client = gateway.connect()
        client.send(get("/"))
        peer = auth.accept()
        peer.read_request()
        peer.send(
            b"HTTP/1.1 302 Found\r\nlocation: /login\r\nset-cookie: a\r\nset-cookie: b\r\n"
            b"content-type: text/html\r\nserver: x\r\ncontent-length: 5\r\n\r\nlogin"
        )
        response = client.read_response()
        assert (response.status, response.body) == (302, b"login")
        assert (response["location"], response["content-type"]) == ("/login", "text/html")
        assert [value for name, value in response.headers if name == "set-cookie"] == ["a", "b"]
        assert response["server"] == "kgw"
        assert outcome(gateway) == (302, "UAEX", "ext_authz_denied")
        assert (gateway.stat("ext_authz_denied"), upstream.connections) == (1, 0)


def test_a_service_without_a_length_says_all_until_it_closes(setup: Asking, auth: Upstream) -> None:
    with serving(setup.asks(auth.address)) as (gateway, _):
        client = gateway.connect()
        client.send(get("/"))
        peer = auth.accept()
        peer.read_request()
        peer.send(b"HTTP/1.1 401 Unauthorized\r\n\r\nwho are ")
        peer.send(b"you?")
        peer.close()
        response = client.read_response()
        assert (response.status, response.body) == (401, b"who are you?")


def test_connections_to_the_service_are_used_again(setup: Asking) -> None:
    with (
        service(always(ok())) as auth,
        serving(setup.asks(auth.address)) as (gateway, _),
    ):
        assert [gateway.get().status for _ in range(3)] == [200, 200, 200]
        assert auth.connections == 1


def test_a_connection_that_the_service_has_closed_is_no_failure(
    setup: Asking, auth: Upstream
) -> None:
    """An endpoint may close a connection while a question is on its way."""
    with serving(setup.asks(auth.address)) as (gateway, _):
        client = gateway.connect()
        client.send(get("/"))
        first = auth.accept()
        first.read_request()
        first.send(ok())
        assert client.read_response().status == 200
        client.send(get("/"))
        first.read_request()
        first.close()
        second = auth.accept()
        second.read_request()
        second.send(ok())
        assert client.read_response().status == 200


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 503 Service Unavailable\r\nx-a: 1\r\ncontent-length: 4\r\n\r\ndown",
        b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nab",
        b"nonsense\r\n\r\n",
        b"",
        b"HTTP/1.1 200 OK\r\n\r\n" + bytes(1024 * 1024 + 1),
    ],
    ids=["5xx", "short", "malformed", "nothing", "too long"],
)
def test_without_a_decision_a_request_is_refused(
    setup: Asking, auth: Upstream, answer: bytes
) -> None:
    with serving(setup.asks(auth.address)) as (gateway, upstream):
        client = gateway.connect()
        client.send(get("/"))
        peer = auth.accept()
        peer.read_request()
        with contextlib.suppress(OSError):  # it need not take all of what is too long
            peer.send(answer)
        peer.close()
        response = client.read_response()
        assert (response.status, response.body) == (403, b"")
        assert response.get("x-a") is None
        assert outcome(gateway) == (403, "UAEX", "ext_authz_error")
        assert (gateway.stat("ext_authz_error"), upstream.connections) == (1, 0)


def test_a_service_that_is_not_there(setup: Asking) -> None:
    with refused_address() as address, serving(setup.asks(address)) as (gateway, _):
        assert gateway.get().status == 403
        assert outcome(gateway) == (403, "UAEX", "ext_authz_error")


def test_a_service_that_does_not_take_connections(setup: Asking) -> None:
    with deaf_address() as address, serving(setup.asks(address)) as (gateway, _):
        client = gateway.connect()
        client.send(get("/"))
        gateway.settle()
        gateway.advance(0.2)
        assert client.read_response().status == 403
        assert gateway.stat("ext_authz_timeout") == 1


def test_a_service_without_endpoints(setup: Asking) -> None:
    setup.asks("")
    setup.auth = {"endpoints": []}
    with serving(setup) as (gateway, _):
        assert gateway.get().status == 403


def test_a_service_that_takes_too_long(setup: Asking, auth: Upstream) -> None:
    with serving(setup.asks(auth.address, timeout_ms=2_000)) as (gateway, _):
        client = gateway.connect()
        client.send(get("/"))
        peer = auth.accept()
        peer.read_request()
        gateway.advance(1.9)
        assert not client.is_readable()
        gateway.advance(0.1)
        assert client.read_response().status == 403
        assert outcome(gateway) == (403, "UAEX", "ext_authz_error")
        assert gateway.stat("ext_authz_timeout") == 1
        assert peer.is_closed(), "nobody waits for its answer"


def test_an_unresolved_service_refuses_all(setup: Asking) -> None:
    with serving(setup.asks("127.0.0.1:1", cluster=None)) as (gateway, upstream):
        assert gateway.get().status == 500
        assert outcome(gateway) == (500, "UAEX", "ext_authz_unresolved")
        assert upstream.connections == 0


def test_failures_may_let_pass(setup: Asking) -> None:
    with refused_address() as address:
        options = {"failure_mode_allow": True, "failure_mode_allow_header_add": True}
        with serving(setup.asks(address, **options)) as (gateway, _):
            response = gateway.get()
            seen = dict(json.loads(response.body)["headers"])
            assert seen["x-envoy-auth-failure-mode-allowed"] == "true"
            assert outcome(gateway) == (200, "-", "via_upstream")
            assert gateway.stat("ext_authz_failure_mode_allowed") == 1


def test_failures_may_have_another_status(setup: Asking) -> None:
    with (
        refused_address() as address,
        serving(setup.asks(address, status_on_error=503)) as (gateway, _),
    ):
        assert gateway.get().status == 503
        assert outcome(gateway) == (503, "UAEX", "ext_authz_error")


def test_a_call_is_cancelled_when_the_client_is_gone(setup: Asking, auth: Upstream) -> None:
    with serving(setup.asks(auth.address)) as (gateway, upstream):
        client = gateway.connect()
        client.send(get("/"))
        peer = auth.accept()
        peer.read_request()
        client.reset()
        assert peer.is_closed()
        assert outcome(gateway)[1] == "DC"
        assert upstream.connections == 0


def test_the_service_is_told_of_what_filters_before_it_changed(setup: Asking) -> None:
    setup.before = [
        {"type": "request_headers", "set": [["x-a", "2"]], "remove": ["x-user"]},
    ]
    with (
        service(echo) as auth,
        serving(setup.asks(auth.address, request_headers=["x-a", "x-user"])) as (gateway, _),
    ):
        response = gateway.get("/", "x-a: 1", "x-user: admin")
        assert response.status == 200
        seen = dict(json.loads(response.body)["headers"])
        assert seen["x-a"] == "2"
        assert "x-user" not in seen


# Bodies.


def body_options(most: int, **more: Any) -> dict[str, Any]:
    return {"body": {"max_bytes": most} | more}


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_is_told_and_goes_on(setup: Asking, auth: Upstream, chunked: bool) -> None:
    body = PATTERN[:50_000]
    with serving(setup.asks(auth.address, **body_options(50_000))) as (gateway, _):
        client = gateway.connect()
        if chunked:
            head = b"POST / HTTP/1.1\r\nhost: ollama\r\ntransfer-encoding: chunked\r\n\r\n"
            client.send(head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
        else:
            client.send(post(body))
        peer = auth.accept()
        line, headers, told = peer.read_request()
        assert (line, dict(headers)["content-length"]) == ("POST / HTTP/1.1", "50000")
        assert told == body
        peer.send(ok())
        response = client.read_response()
        assert json.loads(response.body)["body"].encode("latin-1") == body


def test_a_client_is_asked_for_the_body_that_the_service_is_told(
    setup: Asking, auth: Upstream
) -> None:
    with serving(setup.asks(auth.address, **body_options(10))) as (gateway, _):
        client = gateway.connect()
        client.send(
            b"POST / HTTP/1.1\r\nhost: ollama\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n"
        )
        assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")
        client.send(b"hi")
        peer = auth.accept()
        assert peer.read_request()[2] == b"hi"
        peer.send(ok())
        assert client.read_response().status == 200


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_long_is_refused(setup: Asking, auth: Upstream, chunked: bool) -> None:
    with serving(setup.asks(auth.address, **body_options(10))) as (gateway, upstream):
        client = gateway.connect()
        if chunked:
            head = b"POST / HTTP/1.1\r\nhost: ollama\r\ntransfer-encoding: chunked\r\n\r\n"
            client.send(head + b"b\r\n01234567890\r\n")
        else:
            client.send(post(b"01234567890"))
        response = client.read_response()
        assert (response.status, response.body) == (413, b"Payload Too Large")
        assert response["connection"] == "close"
        assert outcome(gateway) == (413, "-", "request_payload_too_large")
        assert (auth.connections, upstream.connections) == (0, 0)
        assert gateway.stat("ext_authz_too_large") == 1


def test_the_beginning_of_a_body_may_do(setup: Asking, auth: Upstream) -> None:
    body = PATTERN[:100_000]
    options = body_options(10, allow_partial=True)
    with serving(setup.asks(auth.address, **options)) as (gateway, _):
        client = gateway.connect()
        client.send(post(body[:20_000] + body[20_000:]))
        peer = auth.accept()
        _, headers, told = peer.read_request()
        assert told == body[:10]
        assert dict(headers)["x-envoy-auth-partial-body"] == "true"
        peer.send(ok())
        response = client.read_response()
        assert json.loads(response.body)["body"].encode("latin-1") == body


def test_a_body_that_is_not_told_is_not_waited_for(setup: Asking, auth: Upstream) -> None:
    with serving(setup.asks(auth.address), None) as (gateway, upstream):
        client = gateway.connect()
        client.send(b"POST / HTTP/1.1\r\nhost: ollama\r\ncontent-length: 4\r\n\r\nab")
        peer = auth.accept()
        _, headers, told = peer.read_request()
        assert (dict(headers)["content-length"], told) == ("0", b"")
        peer.send(ok())
        there = upstream.accept()
        assert there.read_until(b"\r\n\r\n")
        client.send(b"cd")
        assert there.read_exactly(4) == b"abcd"


def test_a_service_gets_a_proxy_header(setup: Asking, auth: Upstream) -> None:
    setup.asks(auth.address)
    setup.auth["proxy_protocol"] = {"version": 1}
    with serving(setup) as (gateway, _):
        client = gateway.connect()
        client.send(get("/"))
        peer = auth.accept()
        assert peer.read_until(b"\r\n").startswith(b"PROXY TCP4 127.0.0.1 127.0.0.1 ")
        peer.read_request()
        peer.send(ok())
        assert client.read_response().status == 200
