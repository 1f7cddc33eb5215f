"""Streams of events on their way through a template, event by event."""

from __future__ import annotations

from typing import Any

import pytest
from tests.engine.harness import Peer, Setup, forward, get, serving

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ntransfer-encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def setup(transform: dict[str, Any], direction: str = "response") -> Setup:
    filters = [{"type": "transformation", direction: transform}]
    return Setup(routes={"r": {"name": "r", "filters": filters, "action": forward("c")}})


def sse(value: str, **more: Any) -> dict[str, Any]:
    return {"framing": "server_sent", "value": value} | more


def read_chunk(peer: Peer) -> bytes:
    size = int(peer.read_until(b"\r\n"), 16)
    return peer.read_exactly(size + 2)[:-2]


def test_templates_of_heads_hold_no_body_back() -> None:
    field = ["x-a", "{{ header(':path') }}{{ header(':status') }}"]
    filters = [
        {"type": "transformation", "request": {"set": [field]}, "response": {"set": [field]}}
    ]
    routes = {"r": {"name": "r", "filters": filters, "action": forward("c")}}
    with serving(Setup(routes=routes), None) as (gateway, upstream):
        client = gateway.connect()
        client.send(b"POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\n")
        backend = upstream.accept()
        _, fields, _ = backend.read_head()
        assert ("x-a", "/a") in fields
        client.send(b"hello")
        assert backend.read_exactly(5) == b"hello"
        backend.send(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n")
        _, fields, _ = client.read_head()
        assert ("x-a", "200") in fields
        assert ("content-length", "5") in fields
        backend.send(b"world")
        assert client.read_exactly(5) == b"world"


def test_an_event_is_there_before_the_next_one_has_begun() -> None:
    value = '{"t": {{ delta | upper | tojson }}}'
    transform: dict[str, Any] = {
        "parse_as": "json",
        "stream": sse(value),
        "set": [["x-seen", "{{ header('content-type') }}"]],
    }
    with serving(setup(transform), None) as (gateway, upstream):
        client = gateway.connect()
        client.send(get())
        backend = upstream.accept()
        backend.read_request()
        backend.send(HEAD % b"text/event-stream")
        for word in ("a", "b"):
            event = f'event: x\nid: 1\ndata: {{"delta": "{word}"}}\n\n'.encode()
            # In pieces: nothing goes on before the blank line.
            backend.send(chunk(event[:20]))
            backend.send(chunk(event[20:]))
            if word == "a":
                _, fields, _ = client.read_head()
                assert ("x-seen", "text/event-stream") in fields
                assert "content-length" not in [name for name, _ in fields]
            # The backend has sent nothing else.
            got = b""
            while not got.endswith(b"\n\n"):
                got += read_chunk(client)
            assert got == f'event: x\nid: 1\ndata: {{"t": "{word.upper()}"}}\n\n'.encode()
        backend.send(chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        rest = client.read_until(b"0\r\n\r\n")
        assert b"data: [DONE]\n\n" in rest


def test_lines_of_json_of_a_request() -> None:
    stream = {"framing": "json_lines", "value": "{{ context()[0] }}"}
    transform: dict[str, Any] = {"parse_as": "json", "stream": stream}
    with serving(setup(transform, "request"), None) as (gateway, upstream):
        client = gateway.connect()
        client.send(
            b"POST / HTTP/1.1\r\nhost: a\r\ncontent-type: application/x-ndjson\r\n"
            b'content-length: 16\r\n\r\n["a"]\n'
        )
        backend = upstream.accept()
        _, fields, _ = backend.read_head()
        names = {name.lower(): value for name, value in fields}
        assert names["transfer-encoding"] == "chunked"
        assert "content-length" not in names
        assert read_chunk(backend) == b"a\n"
        client.send(b'[[1]]\n["')
        assert read_chunk(backend) == b"[1]\n"
        client.send(b"b")
        client.send(b"]")
        # What is left at the end is an event, and not JSON here: nothing goes on untransformed.
        assert backend.read_exactly(5) == b"0\r\n\r\n"
        assert gateway.stats()["transformation_template_failed"] == 1


def test_events_that_cannot_be_transformed_are_left_out() -> None:
    body = b'data: {"a": 1}\n\ndata: no JSON\n\ndata: {"b": 1}\n\n: note\n\ndata: {"a": 2}\n\n'
    transform: dict[str, Any] = {"parse_as": "json", "stream": sse("{{ a }}")}

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(HEAD % b"text/event-stream; charset=utf-8" + chunk(body) + b"0\r\n\r\n")

    with serving(setup(transform), script) as (gateway, _):
        client = gateway.connect()
        client.send(get())
        # One event is not JSON, and of another one the template makes nothing.
        assert client.read_response().body == b"data: 1\n\n: note\n\ndata: 2\n\n"
        assert gateway.stats()["transformation_template_failed"] == 1


@pytest.mark.parametrize("content_type", [b"application/json", b"text/plain"])
def test_other_bodies_are_transformed_as_a_whole_if_at_all(content_type: bytes) -> None:
    def script(peer: Peer) -> None:
        while True:
            peer.read_request()
            peer.send(HEAD % content_type + chunk(b'{"a": 1}') + b"0\r\n\r\n")

    for more, expected in (({}, b'{"a": 1}'), ({"body": "whole: {{ a }}"}, b"whole: 1")):
        transform: dict[str, Any] = {"parse_as": "json", "stream": sse("event"), **more}
        with serving(setup(transform), script) as (gateway, _):
            client = gateway.connect()
            client.send(get())
            assert client.read_response().body == expected


def test_compressed_events_are_not_passed_on_unread() -> None:
    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: gzip\r\n"
            b"content-length: 3\r\n\r\nabc"
        )

    with serving(setup({"stream": sse("x")}), script) as (gateway, _):
        client = gateway.connect()
        client.send(get())
        response = client.read_response()
        assert response.status == 400
        assert response.body == b"compressed events in transformation template"


def test_a_message_with_too_long_an_event_is_cut_short() -> None:
    with serving(setup({"stream": sse("{{ body() }}!", max_event_bytes=64)}), None) as (
        gateway,
        upstream,
    ):
        client = gateway.connect()
        client.send(get())
        backend = upstream.accept()
        backend.read_request()
        backend.send(HEAD % b"text/event-stream" + chunk(b"data: a\n\n"))
        client.read_head()
        assert read_chunk(client) == b"data: a!\n\n"
        backend.send(chunk(b"data: " + b"x" * 100 + b"\n\n"))
        with pytest.raises((EOFError, ConnectionResetError)):
            client.read_until(b"0\r\n\r\n")
        assert gateway.stats()["transformation_event_too_long"] == 1


def test_a_template_that_makes_much_of_little_waits_for_its_reader() -> None:
    """What comes of 200 events of a few bytes is 6 MB, of which little is ever kept."""
    events = b"data: a\n\n" * 200

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(HEAD % b"text/event-stream" + chunk(events) + b"0\r\n\r\n")

    with serving(setup({"stream": sse("{{ 'x' * 30000 }}")}), script) as (gateway, _):
        client = gateway.connect()
        client.send(get())
        body = client.read_response().body
        assert len(body) == 200 * (len(b"data: ") + 30_000 + 2)
