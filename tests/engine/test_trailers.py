"""Trailer fields of HTTP/1.1 pass both ways, but for those that must not be trailers."""

from __future__ import annotations

from tests.engine.harness import serving

CHUNKS = b"3\r\nabc\r\n0\r\n"
TRAILERS = b"grpc-status: 0\r\nX-Sum: a b\r\nhost: evil\r\nx-forwarded-for: 6.6.6.6\r\n\r\n"
PASSED = b"grpc-status: 0\r\nX-Sum: a b\r\n\r\n"


def test_they_pass_both_ways() -> None:
    with serving(script=None) as (gateway, upstream):
        client = gateway.connect()
        client.send(b"POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n")
        client.send(CHUNKS + TRAILERS)
        backend = upstream.accept()
        backend.read_head()
        assert backend.read_exactly(len(CHUNKS + PASSED)) == CHUNKS + PASSED
        backend.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + CHUNKS + TRAILERS)
        client.read_head()
        assert client.read_exactly(len(CHUNKS + PASSED)) == CHUNKS + PASSED


def test_none_are_made_up() -> None:
    with serving(script=None) as (gateway, upstream):
        client = gateway.connect()
        client.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
        backend = upstream.accept()
        backend.read_head()
        backend.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + CHUNKS + b"\r\n")
        client.read_head()
        assert client.read_exactly(len(CHUNKS) + 2) == CHUNKS + b"\r\n"
        client.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
        backend.read_head()


def test_malformed_ones_reach_nobody() -> None:
    with serving(script=None) as (gateway, upstream):
        client = gateway.connect()
        client.send(b"POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n")
        backend = upstream.accept()
        backend.read_head()
        client.send(CHUNKS + b"x : y\r\n\r\n")
        assert client.read_response().status == 400
        assert b"x" not in bytes(backend.buffer)
