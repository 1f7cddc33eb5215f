"""Answers without a body: HEAD, 204, 304, and the interim 1xx; ``Expect: 100-continue``."""

from __future__ import annotations

import pytest
from tests.engine.harness import Setup, always, direct, forward, get, ok, rule, serving

HEAD = b"HEAD / HTTP/1.1\r\nhost: ollama\r\n\r\n"


def test_an_answer_to_head_keeps_its_length_and_has_no_body() -> None:
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 12345\r\n\r\n"
    with serving(script=always(answer)) as (gateway, upstream):
        client = gateway.connect()
        for _ in range(3):
            client.send(HEAD)
            response = client.read_response(head=True)
            assert (response.status, response["content-length"]) == (200, "12345")
        gateway.settle()
        assert not client.is_readable()
        assert upstream.connections == 1


def test_a_local_reply_to_head_keeps_its_length_and_has_no_body() -> None:
    with serving(Setup(routes={"d": direct(200, "twelve bytes")})) as (gateway, _):
        client = gateway.connect()
        client.send(HEAD + get())
        response = client.read_response(head=True)
        assert (response.status, response["content-length"]) == (200, "12")
        assert client.read_response().body == b"twelve bytes"


@pytest.mark.parametrize(
    ("status", "fields", "length"),
    [
        ("204 No Content", b"", None),
        ("204 No Content", b"content-length: 0\r\n", None),
        ("304 Not Modified", b"", None),
        ("304 Not Modified", b"content-length: 7\r\n", "7"),
        ("304 Not Modified", b'etag: "x"\r\ntransfer-encoding: chunked\r\n', None),
    ],
)
def test_204_and_304_have_no_body(status: str, fields: bytes, length: str | None) -> None:
    answer = f"HTTP/1.1 {status}\r\n".encode() + fields + b"\r\n"
    with serving(script=always(answer)) as (gateway, upstream):
        client = gateway.connect()
        for _ in range(2):
            client.send(get())
            response = client.read_response()
            assert response.raw_head.startswith(f"HTTP/1.1 {status}\r\n".encode())
            assert response.get("content-length") == length
        assert not client.is_readable()
        assert upstream.connections == 1


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_a_local_204_or_304_has_no_body(status: str) -> None:
    code = int(status.split()[0])
    setup = Setup(routes={"d": direct(code, "not allowed"), "o": direct(200, "ok")})
    setup.rules = [rule("/", "d"), rule("/o", "o")]
    with serving(setup) as (gateway, _):
        client = gateway.connect()
        client.send(get() + get("/o"))
        response = client.read_response()
        assert response.status == code
        if code == 204:
            assert response.get("content-length") is None
        assert client.read_response().body == b"ok"


@pytest.mark.parametrize(
    "interim",
    [
        b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 102 Processing\r\n\r\n",
    ],
)
def test_interim_answers_are_not_passed_on(interim: bytes) -> None:
    with serving(script=always(interim * 3 + ok(b"final", "x-a: b"))) as (gateway, upstream):
        client = gateway.connect()
        for _ in range(2):
            client.send(get())
            response = client.read_response()
            assert (response.status, response.body, response["x-a"]) == (200, b"final", "b")
            assert response.get("link") is None
        assert upstream.connections == 1


def test_interim_answers_without_end_are_refused() -> None:
    with serving(script=always(b"HTTP/1.1 103 E\r\n\r\n" * 1000)) as (gateway, _):
        assert gateway.get().status == 502


def test_a_protocol_switch_nobody_asked_for_is_refused() -> None:
    answer = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nraw"
    with serving(script=always(answer)) as (gateway, _):
        response = gateway.get()
        assert response.status == 502
        assert response.body.endswith(b"reset reason: protocol error")


EXPECTING = b"POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-Continue\r\ncontent-length: 4\r\n\r\n"


def test_the_proxy_itself_tells_a_client_to_continue() -> None:
    with serving(script=None) as (gateway, upstream):
        client = gateway.connect()
        client.send(EXPECTING)
        peer = upstream.accept()
        _, headers, _ = peer.read_head()
        assert "expect" not in [name.lower() for name, _ in headers]
        assert client.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b"body")
        assert peer.read_exactly(4) == b"body"
        peer.send(b"HTTP/1.1 100 Continue\r\n\r\n" + ok())
        assert client.read_response().status == 200


def test_a_client_that_did_not_wait_is_not_told_to_continue() -> None:
    with serving() as (gateway, _):
        assert gateway.ask(EXPECTING + b"body").status == 200


def test_a_client_whose_request_is_refused_is_not_told_to_continue() -> None:
    with serving(Setup(routes={"d": direct(403, "no")})) as (gateway, _):
        client = gateway.connect()
        client.send(EXPECTING)
        response = client.read_response()
        assert response.status == 403
        assert response["connection"] == "close"
        assert client.is_closed()


def test_another_expectation_is_the_upstreams_affair() -> None:
    with serving(script=None) as (gateway, upstream):
        client = gateway.connect()
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\nexpect: x\r\ncontent-length: 0\r\n\r\n")
        peer = upstream.accept()
        assert dict(peer.read_head()[1])["expect"] == "x"


def test_an_answer_to_head_has_no_body_whatever_the_request_says_of_itself() -> None:
    routes = {
        "web": {"name": "web", "filters": [{"type": "grpc_web"}], "action": forward("c")},
    }
    with serving(Setup(routes=routes), always(ok(b"")[:-2] + b"\r\n")) as (gateway, _):
        client = gateway.connect()
        head = HEAD[:-2] + b"content-type: application/grpc-web\r\n\r\n"
        client.send(head + get())
        assert client.read_response(head=True).status == 200
        response = client.read_response()
        assert (response.status, response.body) == (200, b"")
        gateway.settle()
        assert not client.is_readable()
