"""The frames: RFC 9113 6."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.peers import frames
from tests.peers.frames import Code, Flag, Kind, Setting

from .case import PATIENCE, Case, alive, answered, connection_error, stream_error

if TYPE_CHECKING:
    from tests.peers.h2 import Connection

POST = frames.request(1, method="POST", end=False)
GET = frames.request(1)
BLOCK = frames.block(frames.request_fields())
LARGEST = (1 << 31) - 1

PROTOCOL = connection_error(Code.PROTOCOL_ERROR)
FRAME_SIZE = connection_error(Code.FRAME_SIZE_ERROR)
FLOW = connection_error(Code.FLOW_CONTROL_ERROR)


def _one_octet_at_a_time(connection: Connection) -> None:
    """A window of one octet: the answer's body begins with one DATA frame of one octet."""
    connection.opens_windows = False
    connection.send(GET)
    stream = connection.streams[1]
    assert connection.read(lambda: stream.body, PATIENCE)
    assert len(stream.body) == 1
    connection.opens_windows = True
    connection.send(frames.window_update(1, 65535))


def _window_opened_later(connection: Connection) -> None:
    """The window of an open stream follows the initial one."""
    connection.opens_windows = False
    connection.send(GET)
    stream = connection.streams[1]
    assert connection.read(lambda: stream.status, PATIENCE)
    assert connection.is_alive(PATIENCE)
    assert not stream.body
    connection.send(frames.settings([(Setting.INITIAL_WINDOW_SIZE, 1)]))
    assert connection.read(lambda: stream.body, PATIENCE)
    assert len(stream.body) == 1
    connection.send(frames.settings([(Setting.INITIAL_WINDOW_SIZE, 65535)]))


def _negative_window(connection: Connection) -> None:
    """A window below nought must be filled up before anything is sent."""
    connection.opens_windows = False
    connection.send(GET)
    stream = connection.streams[1]
    assert connection.read(lambda: len(stream.body) == 3, PATIENCE)
    connection.send(frames.settings([(Setting.INITIAL_WINDOW_SIZE, 1)]))
    connection.send(frames.window_update(1, 2))
    assert connection.is_alive(PATIENCE)
    assert len(stream.body) == 3
    connection.send(frames.window_update(1, 1))
    assert connection.read(lambda: len(stream.body) == 4, PATIENCE)
    connection.send(frames.window_update(1, 65535))


def _settings_are_acknowledged(connection: Connection) -> None:
    acked = connection.settings_acked
    connection.send(frames.settings([(Setting.ENABLE_PUSH, 0)]))
    assert connection.read(lambda: connection.settings_acked == acked + 1, PATIENCE)


def _ping_is_not_answered_twice(connection: Connection) -> None:
    connection.send(frames.ping(b"answered", ack=True) + frames.ping(b"is asked"))
    assert connection.read(lambda: b"is asked" in connection.pings, PATIENCE)
    assert len(connection.pings) == 1


CASES = [
    Case("6.1", "DATA on stream 0", frames.data(0, b"x"), PROTOCOL),
    Case(
        "6.1",
        "DATA on a stream that is half-closed",
        GET + frames.data(1, b"x"),
        stream_error(Code.STREAM_CLOSED),
    ),
    Case(
        "6.1",
        "DATA with padding as long as the frame",
        POST + frames.frame(Kind.DATA, Flag.PADDED, 1, b"\x05body!"[:5]),
        PROTOCOL,
    ),
    Case(
        "6.1",
        "DATA with a pad length and nothing else",
        POST + frames.frame(Kind.DATA, Flag.PADDED, 1, b""),
        connection_error(Code.FRAME_SIZE_ERROR, Code.PROTOCOL_ERROR),
    ),
    Case(
        "6.2",
        "PRIORITY before the header block is complete",
        frames.headers(1, BLOCK, complete=False) + frames.priority(1),
        PROTOCOL,
    ),
    Case(
        "6.2",
        "HEADERS of another stream before the header block is complete",
        frames.headers(1, BLOCK, complete=False) + frames.headers(3, BLOCK),
        PROTOCOL,
    ),
    Case(
        "6.2",
        "DATA before the header block is complete",
        frames.headers(1, BLOCK, end=False, complete=False) + frames.data(1, b"x"),
        PROTOCOL,
    ),
    Case("6.2", "HEADERS on stream 0", frames.headers(0, BLOCK), PROTOCOL),
    Case(
        "6.2",
        "HEADERS with padding longer than the frame",
        frames.frame(Kind.HEADERS, 5 | Flag.PADDED, 1, b"\xff" + BLOCK),
        PROTOCOL,
    ),
    Case(
        "6.2",
        "HEADERS too short for their priority",
        frames.frame(Kind.HEADERS, 5 | Flag.PRIORITY, 1, b"\0\0\0"),
        connection_error(Code.FRAME_SIZE_ERROR, Code.PROTOCOL_ERROR),
    ),
    Case("6.3", "PRIORITY on stream 0", frames.priority(0), PROTOCOL),
    Case(
        "6.3",
        "PRIORITY of 4 octets",
        POST + frames.frame(Kind.PRIORITY, 0, 1, bytes(4)),
        stream_error(Code.FRAME_SIZE_ERROR),
    ),
    Case("6.4", "RST_STREAM on stream 0", frames.rst_stream(0), PROTOCOL),
    Case("6.4", "RST_STREAM on an idle stream", frames.rst_stream(7), PROTOCOL),
    Case(
        "6.4",
        "RST_STREAM of 3 octets",
        POST + frames.frame(Kind.RST_STREAM, 0, 1, b"abc"),
        FRAME_SIZE,
    ),
    Case("6.5", "SETTINGS with ACK and a payload", frames.settings([(1, 0)], flags=1), FRAME_SIZE),
    Case("6.5", "SETTINGS on a stream", POST + frames.frame(Kind.SETTINGS, 0, 1, b""), PROTOCOL),
    Case("6.5", "SETTINGS of 3 octets", frames.frame(Kind.SETTINGS, 0, 0, b"abc"), FRAME_SIZE),
    Case("6.5.2", "ENABLE_PUSH of 2", frames.settings([(Setting.ENABLE_PUSH, 2)]), PROTOCOL),
    Case(
        "6.5.2",
        "INITIAL_WINDOW_SIZE of 2^31",
        frames.settings([(Setting.INITIAL_WINDOW_SIZE, LARGEST + 1)]),
        FLOW,
    ),
    Case(
        "6.5.2",
        "MAX_FRAME_SIZE below 2^14",
        frames.settings([(Setting.MAX_FRAME_SIZE, 16383)]),
        PROTOCOL,
    ),
    Case(
        "6.5.2",
        "MAX_FRAME_SIZE of 2^24",
        frames.settings([(Setting.MAX_FRAME_SIZE, 1 << 24)]),
        PROTOCOL,
    ),
    Case("6.5.2", "an unknown parameter", frames.settings([(0x99, 7)]), alive),
    Case(
        "6.5.3",
        "the last of several values holds",
        _one_octet_at_a_time,
        answered,
        initial=((Setting.INITIAL_WINDOW_SIZE, 100), (Setting.INITIAL_WINDOW_SIZE, 1)),
    ),
    Case("6.5.3", "SETTINGS are acknowledged", _settings_are_acknowledged, alive),
    Case(
        "6.6",
        "PUSH_PROMISE of a client",
        GET + frames.frame(Kind.PUSH_PROMISE, 4, 1, b"\0\0\0\x02"),
        PROTOCOL,
    ),
    Case("6.7", "PING with ACK is not answered", _ping_is_not_answered_twice, alive),
    Case("6.7", "PING on a stream", POST + frames.frame(Kind.PING, 0, 1, bytes(8)), PROTOCOL),
    Case("6.7", "PING of 6 octets", frames.frame(Kind.PING, 0, 0, bytes(6)), FRAME_SIZE),
    Case("6.8", "GOAWAY on a stream", POST + frames.goaway(0, stream=1), PROTOCOL),
    Case("6.8", "GOAWAY of 4 octets", frames.frame(Kind.GOAWAY, 0, 0, bytes(4)), FRAME_SIZE),
    Case("6.9", "WINDOW_UPDATE of 0", frames.window_update(0, 0), PROTOCOL),
    Case(
        "6.9",
        "WINDOW_UPDATE of 0 on a stream",
        POST + frames.window_update(1, 0),
        stream_error(Code.PROTOCOL_ERROR),
    ),
    Case(
        "6.9",
        "WINDOW_UPDATE of 3 octets",
        frames.frame(Kind.WINDOW_UPDATE, 0, 0, b"abc"),
        FRAME_SIZE,
    ),
    Case(
        "6.9.1",
        "no more is sent than the window holds",
        _one_octet_at_a_time,
        answered,
        initial=((Setting.INITIAL_WINDOW_SIZE, 1),),
    ),
    Case(
        "6.9.1",
        "a window of the connection above 2^31-1",
        frames.window_update(0, LARGEST) + frames.window_update(0, LARGEST),
        FLOW,
    ),
    Case(
        "6.9.1",
        "a window of a stream above 2^31-1",
        POST + frames.window_update(1, LARGEST) + frames.window_update(1, LARGEST),
        stream_error(Code.FLOW_CONTROL_ERROR),
    ),
    Case(
        "6.9.2",
        "a new initial window changes that of an open stream",
        _window_opened_later,
        answered,
        initial=((Setting.INITIAL_WINDOW_SIZE, 0),),
    ),
    Case(
        "6.9.2",
        "a window below 0",
        _negative_window,
        answered,
        initial=((Setting.INITIAL_WINDOW_SIZE, 3),),
    ),
    Case(
        "6.9.2",
        "an initial window that takes an open stream's above 2^31-1",
        POST
        + frames.window_update(1, LARGEST - 65535)
        + frames.settings([(Setting.INITIAL_WINDOW_SIZE, 65536)]),
        FLOW,
    ),
    Case(
        "6.10",
        "DATA between HEADERS and CONTINUATION",
        frames.headers(1, BLOCK, end=False, complete=False)
        + frames.continuation(1, b"", complete=False)
        + frames.data(1, b"x"),
        PROTOCOL,
    ),
    Case(
        "6.10",
        "CONTINUATION on stream 0",
        frames.headers(1, BLOCK, complete=False) + frames.continuation(0, b""),
        PROTOCOL,
    ),
    Case(
        "6.10",
        "CONTINUATION of another stream",
        frames.headers(1, BLOCK, complete=False) + frames.continuation(3, b""),
        PROTOCOL,
    ),
    Case("6.10", "CONTINUATION after END_HEADERS", POST + frames.continuation(1, BLOCK), PROTOCOL),
    Case(
        "6.10",
        "CONTINUATION after a CONTINUATION with END_HEADERS",
        frames.headers(1, BLOCK, end=False, complete=False)
        + frames.continuation(1, b"")
        + frames.continuation(1, b""),
        PROTOCOL,
    ),
    Case(
        "6.10",
        "CONTINUATION after DATA",
        POST + frames.data(1, b"x") + frames.continuation(1, b""),
        PROTOCOL,
    ),
]
