"""Services that decide about requests, called over gRPC: grpcio serves them."""

from __future__ import annotations

import contextlib
import json
import threading
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from tests.engine.harness import WAIT, Gateway, Setup, echo, forward, get, post, serving
from tests.rpc.authorizer import Authorizer, Check, allowed, denied, field, inside
from tests.rpc.authorizer import serving as authorizing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LOG = {
    "code": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "user": "%DYNAMIC_METADATA(envoy.filters.http.ext_authz:user)%",
}


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup(log=LOG, log_path=str(tmp_path / "access.log"))


@contextlib.contextmanager
def asking(
    setup: Setup,
    answer: bytes | Callable[[Check, grpc.ServicerContext], bytes],
    service: dict[str, Any] | None = None,
    **options: Any,
) -> Iterator[tuple[Gateway, Authorizer]]:
    """A gateway that asks an authorizer about every request."""
    authorizer = Authorizer(answer)
    with authorizing(authorizer) as address:
        setup.clusters = {"auth": {"endpoints": [address], "protocol": "http2"}}
        called = {"type": "grpc", "authority": "auth.example"} | (service or {})
        # In real time: grpcio takes as long as it takes.
        filter_ = {"type": "ext_authz", "cluster": "auth", "service": called, "timeout_ms": 10_000}
        route = {"name": "default", "action": forward("c"), "filters": [filter_ | options]}
        setup.routes = {"default": route}
        with serving(setup, echo) as (gateway, _):
            yield gateway, authorizer


def seen(body: bytes) -> dict[str, str]:
    """The header fields that the backend got."""
    return dict(json.loads(body)["headers"])


def test_the_service_is_told_what_is_asked(setup: Setup) -> None:
    extensions = {"context_extensions": {"tenant": "a"}}
    with asking(setup, allowed(), extensions) as (gateway, authorizer):
        assert gateway.get("/a?b=c", "X-A: 1", "x-a: 2").status == 200
        check = authorizer.question()
        texts = {number: check.text(number) for number in (2, 4, 5, 6, 10)}
        assert texts == {2: "GET", 4: "/a?b=c", 5: "ollama", 6: "http", 10: "HTTP/1.1"}
        assert check.text(1) == check.headers["x-request-id"]
        told = {":method": "GET", ":path": "/a?b=c", ":authority": "ollama", "x-a": "1,2"}
        assert check.headers | told == check.headers
        assert check.map(check.attributes, 10) == {"tenant": "a"}
        for peer in (1, 2):
            assert inside(check.attributes, peer, 1, 1, 2) == b"127.0.0.1"
        assert inside(check.attributes, 2, 1, 1, 3) == gateway.port


def test_only_the_fields_that_are_named_are_told(setup: Setup) -> None:
    with asking(setup, allowed(), request_headers=["x-a"]) as (gateway, authorizer):
        assert gateway.get("/", "x-a: 1", "x-b: 2").status == 200
        assert authorizer.question().headers == {"x-a": "1"}


def test_a_request_that_passes_is_changed(setup: Setup) -> None:
    answer = allowed(
        headers=[
            field("x-set", "2"),
            field("x-append", "2", append=True),
            field("x-not-there", "2", append=True),
            field("x-absent", "2", action=1),
            field("x-kept", "2", action=1),
            field("x-replaced", "2", action=3),
        ],
        remove=["x-secret"],
        response=[field("x-checked", "yes")],
        query={"y": "2"},
        metadata={"user": "me"},
    )
    with asking(setup, answer) as (gateway, _):
        fields = [f"x-{name}: 1" for name in ("set", "append", "kept", "secret")]
        response = gateway.get("/a?x=1", *fields)
        assert response.status == 200
        assert response["x-checked"] == "yes"
        names = ["x-set", "x-append", "x-not-there", "x-absent", "x-kept", "x-replaced", "x-secret"]
        values: dict[str, list[str]] = {name: [] for name in names}
        for name, value in json.loads(response.body)["headers"]:
            if name in values:
                values[name].append(value)
        assert values == {
            "x-set": ["2"],
            "x-append": ["1", "2"],
            "x-not-there": [],
            "x-absent": ["2"],
            "x-kept": ["1"],
            "x-replaced": [],
            "x-secret": [],
        }
        assert json.loads(response.body)["line"] == "GET /a?x=1&y=2 HTTP/1.1"
        [line] = gateway.log_lines(1)
        assert (line["code"], line["user"]) == (200, "me")


def test_a_denial_is_what_the_client_gets(setup: Setup) -> None:
    headers = [field("www-authenticate", "Basic"), field("content-length", "9")]
    with asking(setup, denied(401, "who are you?", headers)) as (gateway, _):
        response = gateway.get()
        assert (response.status, response.body) == (401, b"who are you?")
        assert response["www-authenticate"] == "Basic"
        [line] = gateway.log_lines(1)
        assert (line["flags"], line["details"]) == ("UAEX", "ext_authz_denied")


def test_a_status_alone_is_a_denial(setup: Setup) -> None:
    with asking(setup, b"\x0a\x02\x08\x07") as (gateway, _):
        response = gateway.get()
        assert (response.status, response.body) == (403, b"")


def test_an_empty_answer_lets_pass(setup: Setup) -> None:
    with asking(setup, b"") as (gateway, _):
        assert gateway.get().status == 200


def fail(_: Check, context: grpc.ServicerContext) -> bytes:
    context.abort(grpc.StatusCode.INTERNAL, "no")
    raise AssertionError("abort returned")


@pytest.mark.parametrize(
    "answer",
    [fail, b"\xff", allowed(headers=[field("a b", "1")]), denied(700)],
    ids=["failure", "nonsense", "field", "status"],
)
def test_without_a_decision_a_request_is_refused(
    setup: Setup, answer: bytes | Callable[[Check, grpc.ServicerContext], bytes]
) -> None:
    with asking(setup, answer) as (gateway, _):
        response = gateway.get()
        assert (response.status, response.body) == (403, b"")
        [line] = gateway.log_lines(1)
        assert (line["flags"], line["details"]) == ("UAEX", "ext_authz_error")


def test_the_service_is_told_bodies(setup: Setup) -> None:
    def answer(check: Check, _: grpc.ServicerContext) -> bytes:
        return allowed(headers=[field("x-told", check.text(11))])

    with asking(setup, answer, body={"max_bytes": 100}) as (gateway, authorizer):
        response = gateway.ask(post(b"hello"))
        assert response.status == 200
        assert (seen(response.body)["x-told"], json.loads(response.body)["body"]) == (
            "hello",
            "hello",
        )
        check = authorizer.question()
        assert check.headers["x-envoy-auth-partial-body"] == "false"
        assert inside(check.http, 9) == 5


def test_calls_share_a_connection(setup: Setup) -> None:
    with asking(setup, allowed()) as (gateway, _):
        assert [gateway.get().status for _ in range(5)] == [200] * 5
        # One for the service, one for the backend of each client's connection.
        assert gateway.stat("upstream_cx_total") <= 1 + 5
        assert gateway.stat("ext_authz_ok") == 5


def test_a_call_is_cancelled_when_the_client_is_gone(setup: Setup) -> None:
    cancelled = threading.Event()

    def wait(_: Check, context: grpc.ServicerContext) -> bytes:
        context.add_callback(cancelled.set)
        cancelled.wait(4 * WAIT)
        return allowed()

    with asking(setup, wait) as (gateway, authorizer):
        client = gateway.connect()
        client.send(get("/"))
        authorizer.question()
        client.reset()
        assert cancelled.wait(WAIT)
