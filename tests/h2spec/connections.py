"""Prefaces, frames and streams: RFC 9113 3.4, 4, 5 and 7."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.peers import frames
from tests.peers.frames import PREFACE, Code, Flag, Kind

from .case import (
    PATIENCE,
    Case,
    Play,
    alive,
    answered,
    answered_or_left,
    closes,
    connection_error,
    serves,
    stream_error,
)

if TYPE_CHECKING:
    from tests.peers.h2 import Connection

POST = frames.request(1, method="POST", end=False)
GET = frames.request(1)
BLOCK = frames.block(frames.request_fields())
UNKNOWN = 0x16

PROTOCOL = connection_error(Code.PROTOCOL_ERROR)
STREAM_CLOSED = stream_error(Code.STREAM_CLOSED)


def _closed_stream(then: bytes) -> Play:
    def play(connection: Connection) -> None:
        connection.send(GET)
        connection.response(1, PATIENCE)
        connection.send(then)

    return play


def _exceeds_its_streams(connection: Connection) -> None:
    """Stream 1 is the last of more than may be open at a time."""
    assert connection.settings is not None
    most = connection.settings.get(frames.Setting.MAX_CONCURRENT_STREAMS, 0)
    assert 0 < most < 10_000, "a server must bound its clients' streams"
    numbers = range(1, 2 * most + 3, 2)
    connection.send(
        b"".join(frames.request(number, method="POST", end=False) for number in numbers)
    )
    last = connection.streams[numbers[-1]]
    connection.read(lambda: last.reset is not None or connection.goaways, PATIENCE)
    connection.streams[1] = last


def _ping_then_close(connection: Connection) -> None:
    connection.send(frames.frame(Kind.PING, 0, 0, b"too short"[:6]))


CASES = [
    Case(
        "3.4",
        "no preface",
        b"GET / HTTP/2.0\r\n\r\nSM\r\n\r\n" + frames.settings(),
        closes,
        raw=True,
    ),
    Case("3.4", "a preface that ends wrong", PREFACE[:-4] + b"XX\r\n\r\n", closes, raw=True),
    Case("3.4", "no SETTINGS after the preface", PREFACE + frames.ping(), closes, raw=True),
    Case("4.1", "a frame of unknown type", frames.frame(UNKNOWN, 0, 0, b"content"), alive),
    Case("4.1", "an undefined flag", frames.frame(Kind.PING, 0x16, 0, bytes(8)), alive),
    Case("4.1", "the reserved bit", frames.frame(Kind.PING, 0, 1 << 31, bytes(8)), alive),
    Case(
        "4.1",
        "a frame of unknown type on a stream",
        POST + frames.frame(UNKNOWN, 0xFF, 1, b"x") + frames.data(1, end=True),
        answered,
    ),
    Case("4.2", "DATA of 2^14 octets", POST + frames.data(1, bytes(16384), end=True), answered),
    Case(
        "4.2",
        "DATA of more than SETTINGS_MAX_FRAME_SIZE",
        POST + frames.data(1, bytes(16385), end=True),
        stream_error(Code.FRAME_SIZE_ERROR),
    ),
    Case(
        "4.2",
        "HEADERS of more than SETTINGS_MAX_FRAME_SIZE",
        frames.headers(1, BLOCK + frames.block([("x-long", "v" * 16384)])),
        connection_error(Code.FRAME_SIZE_ERROR),
    ),
    Case(
        "4.2",
        "SETTINGS of more than SETTINGS_MAX_FRAME_SIZE",
        frames.settings([(0xFF, 1)] * 2731),
        connection_error(Code.FRAME_SIZE_ERROR, Code.ENHANCE_YOUR_CALM),
    ),
    Case(
        "4.3",
        "a header block that does not decode",
        frames.headers(1, BLOCK + b"\x40"),
        connection_error(Code.COMPRESSION_ERROR),
    ),
    Case(
        "4.3",
        "PRIORITY inside a header block",
        frames.headers(1, BLOCK, complete=False) + frames.priority(1) + frames.continuation(1, b""),
        PROTOCOL,
    ),
    Case(
        "4.3",
        "HEADERS of another stream inside a header block",
        frames.headers(1, BLOCK, complete=False) + frames.request(3),
        PROTOCOL,
    ),
    Case("5.1", "idle: DATA", frames.data(1, b"x", end=True), PROTOCOL),
    Case("5.1", "idle: RST_STREAM", frames.rst_stream(1), PROTOCOL),
    Case("5.1", "idle: WINDOW_UPDATE", frames.window_update(1, 100), PROTOCOL),
    Case("5.1", "idle: CONTINUATION", frames.continuation(1, BLOCK), PROTOCOL),
    Case("5.1", "half-closed: DATA", GET + frames.data(1, b"x", end=True), STREAM_CLOSED),
    Case("5.1", "half-closed: HEADERS", GET + GET, STREAM_CLOSED),
    Case("5.1", "half-closed: CONTINUATION", GET + frames.continuation(1, BLOCK), PROTOCOL),
    Case(
        "5.1",
        "reset by the client: DATA",
        POST + frames.rst_stream(1) + frames.data(1, b"x", end=True),
        STREAM_CLOSED,
    ),
    Case("5.1", "reset by the client: HEADERS", POST + frames.rst_stream(1) + GET, STREAM_CLOSED),
    Case(
        "5.1",
        "reset by the client: CONTINUATION",
        POST + frames.rst_stream(1) + frames.continuation(1, BLOCK),
        PROTOCOL,
    ),
    Case("5.1", "closed: DATA", _closed_stream(frames.data(1, b"x", end=True)), STREAM_CLOSED),
    Case(
        "5.1",
        "closed: HEADERS",
        _closed_stream(GET),
        connection_error(Code.STREAM_CLOSED, Code.PROTOCOL_ERROR),
    ),
    Case("5.1", "closed: CONTINUATION", _closed_stream(frames.continuation(1, BLOCK)), PROTOCOL),
    Case("5.1", "closed: WINDOW_UPDATE", _closed_stream(frames.window_update(1, 1)), alive),
    Case("5.1", "closed: RST_STREAM", _closed_stream(frames.rst_stream(1)), alive),
    Case("5.1.1", "an even stream", frames.request(2), PROTOCOL),
    Case("5.1.1", "a stream below the last", frames.request(5) + frames.request(3), PROTOCOL),
    Case(
        "5.1.2",
        "more streams than SETTINGS_MAX_CONCURRENT_STREAMS",
        _exceeds_its_streams,
        stream_error(Code.PROTOCOL_ERROR, Code.REFUSED_STREAM, Code.ENHANCE_YOUR_CALM),
    ),
    Case(
        "RFC 7540 5.3.1",
        "HEADERS that depend on their own stream",
        frames.frame(Kind.HEADERS, 5 | Flag.PRIORITY, 1, b"\0\0\0\x01\x10" + BLOCK),
        stream_error(Code.PROTOCOL_ERROR),
    ),
    Case(
        "RFC 7540 5.3.1",
        "PRIORITY that depends on its own stream",
        frames.priority(1, 1),
        stream_error(Code.PROTOCOL_ERROR),
    ),
    Case(
        "5.4.1",
        "a connection error ends the connection",
        _ping_then_close,
        connection_error(Code.FRAME_SIZE_ERROR),
    ),
    Case("5.5", "an unknown frame between frames", frames.frame(UNKNOWN, 0, 0, b"x"), serves),
    Case(
        "5.5",
        "an unknown frame inside a header block",
        frames.headers(1, BLOCK, complete=False)
        + frames.frame(UNKNOWN, 0, 0, b"x")
        + frames.continuation(1, b""),
        PROTOCOL,
    ),
    Case(
        "7",
        "GOAWAY with an unknown code",
        frames.request(1) + frames.goaway(0xFF),
        answered_or_left,
    ),
    Case("7", "RST_STREAM with an unknown code", POST + frames.rst_stream(1, 0xFF), alive),
]
