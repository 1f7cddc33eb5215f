"""Bodies: framing, streaming and back-pressure, both ways."""

from __future__ import annotations

import json
import threading

import pytest
from tests.engine.harness import PATTERN, Peer, Setup, get, ok, post, serving

MANY = 50_000_000
BOUND = 30_000_000
"""More than two hops' kernel buffers hold (10 MB each at most), less than :data:`MANY`."""


def pattern(size: int) -> bytes:
    return (PATTERN * (size // len(PATTERN) + 1))[:size]


def chunked(*chunks: bytes, last: bool = True) -> bytes:
    body = b"".join(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n" for chunk in chunks)
    return body + (b"0\r\n\r\n" if last else b"")


CHUNKED_POST = b"POST / HTTP/1.1\r\nhost: ollama\r\ntransfer-encoding: chunked\r\n\r\n"
CHUNKED_OK = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("size", [0, 1, 16_384, 65_536, 1_000_003])
def test_a_body_of_known_length_arrives_whole_with_its_length(size: int) -> None:
    body = pattern(size)

    def script(peer: Peer) -> None:
        while True:
            _, headers, received = peer.read_request()
            assert dict(headers)["content-length"] == str(size)
            peer.send(ok(received[::-1]))

    with serving(script=script) as (gateway, _):
        client = gateway.connect()
        for _ in range(2):
            sender = threading.Thread(target=client.send, args=(post(body),))
            sender.start()
            response = client.read_response()
            sender.join()
            assert response.body == body[::-1]
            assert response["content-length"] == str(size)


@pytest.mark.parametrize("size", [0, 1, 16_384, 65_536, 1_000_003])
def test_a_chunked_body_arrives_whole_and_chunked(size: int) -> None:
    body = pattern(size)
    chunks = [body[at : at + 10_000] for at in range(0, size, 10_000)]

    def script(peer: Peer) -> None:
        while True:
            _, headers, received = peer.read_request()
            assert dict(headers)["transfer-encoding"] == "chunked"
            peer.send(CHUNKED_OK + chunked(*[received[at:] for at in [0][: len(received)]]))

    with serving(script=script) as (gateway, _):
        client = gateway.connect()
        for _ in range(2):
            request = CHUNKED_POST + chunked(*chunks)
            sender = threading.Thread(target=client.send, args=(request,))
            sender.start()
            response = client.read_response()
            sender.join()
            assert response["transfer-encoding"] == "chunked"
            assert response.get("content-length") is None
            assert response.body == body


def test_a_request_body_is_passed_on_while_it_is_sent() -> None:
    with serving(script=None) as (gateway, upstream):
        client = gateway.connect()
        client.send(CHUNKED_POST + chunked(b"first", last=False))
        peer = upstream.accept()
        peer.read_head()
        assert peer.read_exactly(10) == b"5\r\nfirst\r\n"
        client.send(chunked(b"last"))
        assert peer.read_exactly(14) == b"4\r\nlast\r\n0\r\n\r\n"
        peer.send(ok())
        assert client.read_response().body == b"ok"


def test_a_response_body_is_passed_on_while_it_is_sent() -> None:
    with serving(script=None) as (gateway, upstream):
        client = gateway.connect()
        client.send(get())
        peer = upstream.accept()
        peer.read_request()
        peer.send(CHUNKED_OK + chunked(b"first", last=False))
        client.read_head()
        assert client.read_exactly(10) == b"5\r\nfirst\r\n"
        peer.send(chunked(b"last"))
        assert client.read_exactly(14) == b"4\r\nlast\r\n0\r\n\r\n"


def test_an_answer_may_begin_before_the_request_has_ended() -> None:
    with serving(script=None) as (gateway, upstream):
        client = gateway.connect()
        client.send(CHUNKED_POST + chunked(b"ping 1", last=False))
        peer = upstream.accept()
        peer.read_head()
        assert peer.read_until(b"ping 1\r\n")
        peer.send(CHUNKED_OK + chunked(b"pong 1", last=False))
        client.read_head()
        assert client.read_until(b"pong 1\r\n")
        client.send(chunked(b"ping 2"))
        assert peer.read_until(b"0\r\n\r\n") == b"6\r\nping 2\r\n0\r\n\r\n"
        peer.send(chunked(b"pong 2"))
        assert client.read_until(b"0\r\n\r\n") == b"6\r\npong 2\r\n0\r\n\r\n"
        client.send(get("/next"))
        assert peer.read_request()[0] == "GET /next HTTP/1.1"


def test_chunk_extensions_end_at_the_proxy() -> None:
    with serving(script=None) as (gateway, upstream):
        client = gateway.connect()
        client.send(CHUNKED_POST + b"3;a=b\r\nabc\r\n0;z\r\n\r\n" + get("/next"))
        peer = upstream.accept()
        peer.read_head()
        assert peer.read_until(b"0\r\n\r\n") == b"3\r\nabc\r\n0\r\n\r\n"
        peer.send(CHUNKED_OK + b"2;q\r\nde\r\n0;z\r\n\r\n")
        client.read_head()
        assert client.read_until(b"0\r\n\r\n") == b"2\r\nde\r\n0\r\n\r\n"
        assert peer.read_request()[0] == "GET /next HTTP/1.1"


def test_an_answer_ended_by_closing_becomes_a_chunked_one() -> None:
    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")

    with serving(script=script) as (gateway, upstream):
        client = gateway.connect()
        for count in (1, 2):
            client.send(get())
            response = client.read_response()
            assert response["transfer-encoding"] == "chunked"
            assert response.get("connection") is None
            assert response.body == b"until the end"
            assert upstream.connections == count


@pytest.mark.parametrize(
    ("head", "whole"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n", False),
        (CHUNKED_OK, False),
    ],
)
@pytest.mark.parametrize("reset", [False, True])
def test_an_answer_cut_short_upstream_is_visibly_cut_short(
    head: bytes, whole: bool, reset: bool
) -> None:
    part = b"part!" if b"length" in head else chunked(b"part!", last=False)
    with serving(script=None) as (gateway, upstream):
        client = gateway.connect()
        client.send(get())
        peer = upstream.accept()
        peer.read_request()
        peer.send(head + part)
        client.read_head()
        assert client.read_exactly(len(part)) == part
        if reset:
            peer.reset()
        else:
            peer.close()
        assert client.is_closed() is not whole


def test_what_came_before_a_cut_reaches_the_client() -> None:
    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\npart!")

    with serving(script=script) as (gateway, _):
        for _ in range(20):
            client = gateway.connect()
            client.send(get())
            assert client.read_head()[0] == "HTTP/1.1 200 OK"
            assert client.read_to_end() == b"part!"


def test_a_malformed_chunk_upstream_cuts_the_answer_short() -> None:
    with serving(script=None) as (gateway, upstream):
        client = gateway.connect()
        client.send(get())
        peer = upstream.accept()
        peer.read_request()
        peer.send(CHUNKED_OK + chunked(b"good", last=False) + b"zz\r\n")
        client.read_head()
        assert client.read_to_end() == b"4\r\ngood\r\n"
        assert peer.is_closed()


def test_a_client_that_does_not_read_slows_the_upstream_down() -> None:
    with serving(script=None) as (gateway, upstream):
        client = gateway.connect(receive_buffer=65_536)
        client.send(get())
        peer = upstream.accept()
        peer.read_request()
        peer.send(f"HTTP/1.1 200 OK\r\ncontent-length: {MANY}\r\n\r\n".encode())
        sent = peer.fill(MANY, gateway)
        assert sent < BOUND
        rest = threading.Thread(target=peer.send, args=(pattern(MANY)[sent:],))
        rest.start()
        assert client.read_response().body == pattern(MANY)
        rest.join()


def test_an_upstream_that_does_not_read_slows_the_client_down() -> None:
    with serving(script=None) as (gateway, upstream):
        client = gateway.connect()
        client.send(f"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {MANY}\r\n\r\n".encode())
        peer = upstream.accept()
        peer.read_until(b"\r\n\r\n")
        sent = client.fill(MANY, gateway)
        assert sent < BOUND
        rest = threading.Thread(target=client.send, args=(pattern(MANY)[sent:],))
        rest.start()
        assert peer.read_exactly(MANY) == pattern(MANY)
        rest.join()
        peer.send(ok())
        assert client.read_response().body == b"ok"


@pytest.mark.parametrize("slow", ["client", "upstream"])
def test_a_listener_says_how_much_waits_for_a_slow_reader(slow: str) -> None:
    def taken(buffer_bytes: int) -> int:
        most = 64 << 20
        head = f"content-length: {most}\r\n\r\n".encode()
        setup = Setup(http={"buffer_bytes": buffer_bytes})
        with serving(setup, None) as (gateway, upstream):
            client = gateway.connect(receive_buffer=65_536)
            if slow == "upstream":
                client.send(b"POST / HTTP/1.1\r\nhost: a\r\n" + head)
                upstream.accept().read_until(b"\r\n\r\n")
                return client.fill(most, gateway)
            client.send(get())
            peer = upstream.accept()
            peer.read_request()
            peer.send(b"HTTP/1.1 200 OK\r\n" + head)
            return peer.fill(most, gateway)

    # What the kernel's buffers hold comes on top of both.
    assert taken(16 << 20) - taken(1024) > 8 << 20


def test_pipelined_requests_wait_outside_while_an_answer_is_due() -> None:
    with serving(script=None) as (gateway, upstream):
        client = gateway.connect()
        client.send(get())
        peer = upstream.accept()
        peer.read_request()
        assert client.fill(MANY, gateway) < BOUND


@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", b"HTTP/1.1 204 X\r\n\r\n"]
)
def test_an_upstream_that_answers_without_reading_ends_the_connection(head: bytes) -> None:
    with serving(script=None) as (gateway, upstream):
        client = gateway.connect()
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf!")
        peer = upstream.accept()
        peer.read_until(b"half!")
        peer.send(head)
        assert client.read_response().status in (200, 204)
        assert client.is_closed()
        assert peer.is_closed()


def test_a_get_may_have_a_body() -> None:
    with serving() as (gateway, _):
        response = gateway.ask(b"GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody")
        assert json.loads(response.body)["body"] == "body"


def test_a_post_without_a_length_is_stated_to_be_empty() -> None:
    with serving() as (gateway, _):
        response = gateway.ask(b"POST / HTTP/1.1\r\nhost: a\r\n\r\n")
        assert dict(json.loads(response.body)["headers"])["content-length"] == "0"
