"""Keeping upstream connections, and what happens when a kept one has died."""

from __future__ import annotations

import pytest
from tests.engine.harness import Peer, Setup, always, eventually, get, ok, post, serving


def test_a_connection_is_used_again_by_other_clients() -> None:
    with serving() as (gateway, upstream):
        for _ in range(5):
            assert gateway.get().status == 200
        assert upstream.connections == 1
        gateway.reaches("upstream_rq_reused", 4)


def test_requests_at_the_same_time_have_connections_of_their_own() -> None:
    with serving(script=None) as (gateway, upstream):
        clients = [gateway.connect() for _ in range(3)]
        for client in clients:
            client.send(get())
        peers = [upstream.accept() for _ in clients]
        for peer in peers:
            peer.read_request()
            peer.send(ok())
        for client in clients:
            assert client.read_response().status == 200
        eventually(lambda: gateway.stat("upstream_cx_idle") == 3, "three idle connections")


def test_a_connection_that_the_upstream_closes_is_not_used_again() -> None:
    with serving(script=None) as (gateway, upstream):
        client = gateway.connect()
        client.send(get())
        first = upstream.accept()
        first.read_request()
        first.send(ok())
        client.read_response()
        first.close()
        gateway.settle()
        client.send(post(b"body"))
        second = upstream.accept()
        assert second.read_request()[2] == b"body"
        second.send(ok())
        assert client.read_response().status == 200
        assert gateway.stat("upstream_rq_retry_reused") == 0


def used_once(gateway_client: Peer, upstream_accept: Peer) -> None:
    upstream_accept.read_request()
    upstream_accept.send(ok(b"first"))
    assert gateway_client.read_response().body == b"first"


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("reset", [False, True])
def test_a_request_that_crossed_with_a_close_is_sent_again_once(method: str, reset: bool) -> None:
    request = f"{method} /again HTTP/1.1\r\nhost: a\r\n\r\n".encode()
    with serving(script=None) as (gateway, upstream):
        client = gateway.connect()
        client.send(get())
        first = upstream.accept()
        used_once(client, first)
        client.send(request)
        assert first.read_head()[0] == f"{method} /again HTTP/1.1"
        if reset:
            first.reset()
        else:
            first.close()
        second = upstream.accept()
        assert second.read_request()[0] == f"{method} /again HTTP/1.1"
        second.send(ok(b"" if method == "HEAD" else b"second"))
        response = client.read_response(head=method == "HEAD")
        assert response.status == 200
        gateway.reaches("upstream_rq_retry_reused", 1)


def test_it_is_not_sent_a_third_time() -> None:
    with serving(script=None) as (gateway, upstream):
        client = gateway.connect()
        client.send(get())
        first = upstream.accept()
        used_once(client, first)
        client.send(get("/again"))
        first.read_head()
        first.close()
        second = upstream.accept()
        second.read_head()
        second.close()
        response = client.read_response()
        assert (response.status, response.get("connection")) == (503, None)
        assert response.body.endswith(b"connection termination")
        assert upstream.connections == 2


def test_a_request_on_a_fresh_connection_is_not_sent_again() -> None:
    with serving(script=None) as (gateway, upstream):
        client = gateway.connect()
        client.send(get())
        peer = upstream.accept()
        peer.read_head()
        peer.close()
        assert client.read_response().status == 503
        assert upstream.connections == 1


@pytest.mark.parametrize(
    "request_again",
    [
        post(b"body"),
        post(b""),
        b"PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nput",
        b"PATCH / HTTP/1.1\r\nhost: a\r\n\r\n",
    ],
)
def test_a_request_that_cannot_be_repeated_safely_is_not(request_again: bytes) -> None:
    with serving(script=None) as (gateway, upstream):
        client = gateway.connect()
        client.send(get())
        first = upstream.accept()
        used_once(client, first)
        client.send(request_again)
        first.read_request()
        first.close()
        response = client.read_response()
        assert response.status == 503
        assert upstream.connections == 1
        client.send(get("/after"))
        second = upstream.accept()
        assert second.read_head()[0] == "GET /after HTTP/1.1"


def test_an_answer_that_began_is_not_asked_for_again() -> None:
    with serving(script=None) as (gateway, upstream):
        client = gateway.connect()
        client.send(get())
        first = upstream.accept()
        used_once(client, first)
        client.send(get("/again"))
        first.read_head()
        first.send(b"HTTP/1.1 200 O")
        gateway.settle()
        first.close()
        assert client.read_response().status == 502
        assert upstream.connections == 1


@pytest.mark.parametrize("late", [False, True])
def test_bytes_that_nobody_asked_for_end_an_idle_connection(late: bool) -> None:
    unasked = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison"
    with serving(script=None) as (gateway, upstream):
        client = gateway.connect()
        client.send(get("/1"))
        first = upstream.accept()
        first.read_request()
        if late:
            first.send(ok(b"good"))
            assert client.read_response().body == b"good"
            first.send(unasked)
            gateway.settle()
        else:
            first.send(ok(b"good") + unasked)
            assert client.read_response().body == b"good"
        client.send(get("/2"))
        second = upstream.accept()
        assert second.read_head()[0] == "GET /2 HTTP/1.1"
        second.send(ok(b"better"))
        assert client.read_response().body == b"better"
        assert first.is_closed()


def test_a_connection_of_http_1_0_is_used_again_only_if_it_says_so() -> None:
    def script(peer: Peer) -> None:
        while True:
            line, _, _ = peer.read_request()
            keep = b"connection: keep-alive\r\n" if "/keep" in line else b""
            peer.send(b"HTTP/1.0 200 OK\r\n" + keep + b"content-length: 2\r\n\r\nok")

    with serving(script=script) as (gateway, upstream):
        client = gateway.connect()
        for path, connections in [("/keep", 1), ("/no", 1), ("/keep", 2), ("/keep", 2)]:
            client.send(get(path))
            response = client.read_response()
            assert response.raw_head.startswith(b"HTTP/1.1 200 OK\r\n")
            assert upstream.connections == connections


def test_endpoints_take_turns() -> None:
    with (
        serving(Setup(), always(ok(b"one"))) as (gateway, one),
        serving(Setup(), always(ok(b"other"))) as (_, other),
    ):
        gateway.apply(Setup(endpoints=[one.address, other.address]))
        bodies = [gateway.get().body for _ in range(6)]
        # Each worker starts anywhere and goes on in turn.
        assert bodies in ([b"one", b"other"] * 3, [b"other", b"one"] * 3)


def test_a_removed_endpoints_connections_are_closed() -> None:
    with serving(script=None) as (gateway, upstream), serving() as (_, other):
        client = gateway.connect()
        client.send(get())
        peer = upstream.accept()
        used_once(client, peer)
        gateway.apply(Setup(endpoints=[other.address]))
        assert peer.is_closed()
        client.send(get())
        assert client.read_response().status == 200
        eventually(lambda: gateway.stat("upstream_cx_idle") == 1, "one idle connection")
