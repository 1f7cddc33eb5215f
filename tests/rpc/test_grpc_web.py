"""gRPC-Web over HTTP/1.1 to a gRPC service."""

from __future__ import annotations

import base64
import contextlib
import struct
from typing import TYPE_CHECKING

import pytest
from tests.engine.harness import Gateway, Response, direct, eventually, forward, post
from tests.rpc.calls import service, setup

if TYPE_CHECKING:
    from collections.abc import Iterator

WEB = "application/grpc-web"
TEXT = "application/grpc-web-text"


@contextlib.contextmanager
def translating() -> Iterator[Gateway]:
    """A gateway that translates for a service."""
    with service() as (_, address):
        made = setup(address)
        action = forward("c")
        made.routes = {
            "r": {"name": "r", "filters": [{"type": "grpc_web"}], "action": action},
            "no": direct(503, "back soon") | {"filters": [{"type": "grpc_web"}]},
        }
        made.rules = [
            {"path": {"prefix": "/"}, "rank": {"name": "r"}, "route": "r"},
            {"path": {"prefix": "/test.Service/No"}, "rank": {"name": "no"}, "route": "no"},
        ]
        gateway = Gateway(made)
        try:
            yield gateway
        finally:
            gateway.close()


def message(payload: bytes) -> bytes:
    """A frame of a message."""
    return b"\0" + struct.pack(">I", len(payload)) + payload


def frames(body: bytes) -> list[tuple[int, bytes]]:
    """The frames of a body: flags and payload."""
    found = []
    while body:
        flags, length = struct.unpack(">BI", body[:5])
        found.append((flags, body[5 : 5 + length]))
        assert len(found[-1][1]) == length
        body = body[5 + length :]
    return found


def trailers(payload: bytes) -> dict[str, str]:
    """The fields of a frame of trailers."""
    assert payload.endswith(b"\r\n")
    lines = payload.decode().removesuffix("\r\n").split("\r\n")
    return dict(line.split(": ", 1) for line in lines)


def decoded(text: bytes) -> bytes:
    """Base64 whose parts may each be padded."""
    return b"".join(base64.b64decode(text[at : at + 4]) for at in range(0, len(text), 4))


def call(gateway: Gateway, method: str, body: bytes, content_type: str) -> Response:
    """Calls a method of the service."""
    fields = (f"content-type: {content_type}", f"accept: {content_type}", "x-grpc-web: 1")
    return gateway.ask(post(body, *fields, path=f"/test.Service/{method}"))


@pytest.mark.parametrize("suffix", ["", "+proto"])
def test_a_call_in_binary(suffix: str) -> None:
    with translating() as gateway:
        response = call(gateway, "Echo", message(b"hello"), WEB + suffix)
        assert response.status == 200
        assert response["content-type"] == "application/grpc-web+proto"
        assert response["before"] == "1"
        (_, answer), (flags, last) = frames(response.body)
        assert answer == b"hello"
        assert flags == 0x80
        fields = trailers(last)
        assert fields["grpc-status"] == "0"
        assert fields["behind"] == "2"


def test_a_call_in_text() -> None:
    with translating() as gateway:
        # Two messages, each padded on its own.
        body = base64.b64encode(message(b"a")) + base64.b64encode(message(b"bc"))
        response = call(gateway, "Join", body, TEXT)
        assert response["content-type"] == "application/grpc-web-text+proto"
        (_, answer), (flags, last) = frames(decoded(response.body))
        assert answer == b"a,bc"
        assert flags == 0x80
        assert trailers(last)["grpc-status"] == "0"


@pytest.mark.parametrize("content_type", [WEB, TEXT])
def test_many_messages(content_type: str) -> None:
    with translating() as gateway:
        body = message(b"500")
        text = content_type == TEXT
        response = call(gateway, "Count", base64.b64encode(body) if text else body, content_type)
        *answers, (flags, last) = frames(decoded(response.body) if text else response.body)
        assert [int(answer) for _, answer in answers] == list(range(500))
        assert flags == 0x80
        assert trailers(last)["grpc-status"] == "0"


def test_a_failure() -> None:
    with translating() as gateway:
        response = call(gateway, "Fail", message(b"gone"), WEB)
        assert response.status == 200
        [(flags, last)] = frames(response.body)
        assert flags == 0x80
        fields = trailers(last)
        assert (fields["grpc-status"], fields["grpc-message"]) == ("5", "gone")


def test_an_answer_of_the_proxys_own() -> None:
    with translating() as gateway:
        response = call(gateway, "No", message(b""), WEB)
        assert response.status == 200
        assert response["content-type"] == "application/grpc-web+proto"
        [(flags, last)] = frames(response.body)
        assert flags == 0x80
        assert trailers(last) == {"grpc-status": "14", "grpc-message": "back soon"}


def test_a_calls_deadline() -> None:
    with translating() as gateway:
        client = gateway.connect()
        fields = (f"content-type: {WEB}", "grpc-timeout: 9S")
        client.send(post(message(b""), *fields, path="/test.Service/Wait"))
        eventually(lambda: gateway.stat("upstream_rq_total") == 1)
        gateway.advance(9.1)
        [(_, last)] = frames(client.read_response().body)
        fields_of_status = trailers(last)
        assert fields_of_status["grpc-status"] == "4"
        assert fields_of_status["grpc-message"] == "downstream duration timeout"


def test_text_that_is_not_base64() -> None:
    with translating() as gateway:
        response = call(gateway, "Echo", b"!!!!", TEXT)
        [(_, last)] = frames(decoded(response.body))
        fields = trailers(last)
        assert fields["grpc-status"] == "13"
        assert fields["grpc-message"] == "Bad gRPC-web request, invalid base64 data."
