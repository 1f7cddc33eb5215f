"""What every server must take: each frame and each representation in its plain use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.peers import frames
from tests.peers.frames import INDEXING, LITERAL, NEVER, Code, Flag, Kind, Setting

from .case import PATIENCE, Case, alive, answered, answered_or_left, serves

if TYPE_CHECKING:
    from tests.peers.h2 import Connection

POST = frames.request(1, method="POST", end=False)
GET_BLOCK = frames.block(frames.request_fields())
PSEUDO = frames.indexed(2) + frames.indexed(6) + frames.indexed(4) + b"\x01" + frames.string("a")
"""`:method GET`, `:scheme http`, `:path /` from the static table, and an authority."""

# RFC 7541 C.4 and C.6 give these codings.
CODED_NAME = bytes.fromhex("25a849e95ba97d7f")
CODED_VALUE = bytes.fromhex("25a849e95bb8e8b4bf")
CODED_HOST = bytes.fromhex("f1e3c2e5f23a6ba0ab90f4ff")
CODED_NO_CACHE = bytes.fromhex("a8eb10649cbf")


def _padded(kind: Kind, flags: int, stream: int, payload: bytes, padding: int) -> bytes:
    padded = bytes([padding]) + payload + bytes(padding)
    return frames.frame(kind, flags | Flag.PADDED, stream, padded)


def _field(form: int, prefix: int, index: int, value: bytes) -> bytes:
    return frames.headers(1, PSEUDO + frames.integer(index, prefix, form) + value)


def _new_field(form: int, *, coded: bool) -> bytes:
    if coded:
        name, value = (frames.string(it, huffman=True) for it in (CODED_NAME, CODED_VALUE))
        return frames.headers(1, PSEUDO + bytes([form]) + name + value)
    return frames.headers(1, PSEUDO + frames.literal("custom-key", "custom-value", form))


def _after_a_response(connection: Connection) -> None:
    connection.send(frames.request(1))
    connection.response(1, PATIENCE)
    connection.send(frames.priority(1))


def _head(connection: Connection) -> None:
    connection.send(frames.request(1, method="HEAD"))
    assert not connection.response(1, PATIENCE).body


def _second_settings(connection: Connection) -> None:
    acked = connection.settings_acked
    connection.send(frames.settings([(Setting.HEADER_TABLE_SIZE, 0)]))
    assert connection.read(lambda: connection.settings_acked > acked, PATIENCE)


def _trailers(connection: Connection) -> None:
    connection.send(POST + frames.data(1, b"body"))
    connection.send(frames.headers(1, frames.block([("x-checksum", "1")])))


def _ping_twice(connection: Connection) -> None:
    connection.send(frames.ping(b"abcdefgh"))
    assert connection.read(lambda: b"abcdefgh" in connection.pings, PATIENCE)


def _goaway_with_a_stream(connection: Connection) -> None:
    """A client that says goodbye still gets the answer to what it asked before."""
    connection.send(POST + frames.goaway(Code.NO_ERROR) + frames.data(1, b"x", end=True))


CASES = [
    Case("3.4", "a preface and nothing else", b"", alive),
    Case("5.1", "PRIORITY on an idle stream", frames.priority(3) + frames.request(1), answered),
    Case(
        "5.1",
        "WINDOW_UPDATE on a half-closed stream",
        frames.request(1) + frames.window_update(1, 100),
        answered,
    ),
    Case(
        "5.1",
        "PRIORITY on a half-closed stream",
        frames.request(1) + frames.priority(1),
        answered,
    ),
    Case(
        "5.1", "RST_STREAM on a half-closed stream", frames.request(1) + frames.rst_stream(1), alive
    ),
    Case("5.1", "PRIORITY on a closed stream", _after_a_response, alive),
    Case("6.1", "one DATA frame", POST + frames.data(1, b"body", end=True), answered),
    Case(
        "6.1",
        "several DATA frames",
        POST + frames.data(1, b"bo") + frames.data(1, b"dy") + frames.data(1, end=True),
        answered,
    ),
    Case("6.1", "DATA with padding", POST + _padded(Kind.DATA, 1, 1, b"body", 20), answered),
    Case("6.1", "DATA of padding alone", POST + _padded(Kind.DATA, 1, 1, b"", 255), answered),
    Case("6.2", "HEADERS", frames.request(1), answered),
    Case("6.2", "HEADERS with padding", _padded(Kind.HEADERS, 5, 1, GET_BLOCK, 20), answered),
    Case(
        "6.2",
        "HEADERS with a priority",
        frames.frame(Kind.HEADERS, 5 | Flag.PRIORITY, 1, b"\0\0\0\0\x10" + GET_BLOCK),
        answered,
    ),
    Case(
        "6.2",
        "HEADERS with a priority and padding",
        _padded(Kind.HEADERS, 5 | Flag.PRIORITY, 1, b"\0\0\0\0\x10" + GET_BLOCK, 3),
        answered,
    ),
    Case("6.3", "the lowest weight", frames.priority(1, weight=0) + frames.request(1), answered),
    Case("6.3", "the highest weight", frames.priority(1, weight=255) + frames.request(1), answered),
    Case("6.3", "a dependency", frames.priority(1, depends_on=3) + frames.request(1), answered),
    Case(
        "6.3",
        "an exclusive dependency",
        frames.priority(1, depends_on=1 << 31 | 3) + frames.request(1),
        answered,
    ),
    Case(
        "6.3",
        "PRIORITY of a higher stream before a lower one is opened",
        frames.priority(7) + frames.request(1),
        answered,
    ),
    Case("6.4", "RST_STREAM on an open stream", POST + frames.rst_stream(1), alive),
    Case("6.5", "a second SETTINGS is acknowledged", _second_settings, alive),
    Case("6.5", "an empty SETTINGS", frames.settings(), alive),
    Case("6.7", "PING is answered with its octets", _ping_twice, alive),
    Case("6.8", "GOAWAY ends nothing that was asked", _goaway_with_a_stream, answered_or_left),
    Case("6.9", "WINDOW_UPDATE of the connection", frames.window_update(0, 1), alive),
    Case(
        "6.9",
        "WINDOW_UPDATE of a stream",
        POST + frames.window_update(1, 1) + frames.data(1, end=True),
        answered,
    ),
    Case(
        "6.10",
        "one CONTINUATION",
        frames.headers(1, GET_BLOCK[:7], complete=False) + frames.continuation(1, GET_BLOCK[7:]),
        answered,
    ),
    Case(
        "6.10",
        "several CONTINUATION frames",
        frames.headers(1, GET_BLOCK[:5], complete=False)
        + frames.continuation(1, GET_BLOCK[5:11], complete=False)
        + frames.continuation(1, GET_BLOCK[11:17], complete=False)
        + frames.continuation(1, GET_BLOCK[17:]),
        answered,
    ),
    Case("8.1", "GET", frames.request(1), answered),
    Case("8.1", "HEAD has no body in its answer", _head, answered),
    Case("8.1", "POST", POST + frames.data(1, b"body", end=True), answered),
    Case("8.1", "POST with trailers", _trailers, answered),
    Case("8.1", "two requests at once", frames.request(1) + frames.request(3), answered),
    Case(
        "8.2.3",
        "cookies in several fields",
        frames.request(1, "/", *[("cookie", "a=b")] * 3),
        answered,
    ),
    Case("8.2.2", "TE: trailers", frames.request(1, "/", ("te", "trailers")), answered),
    Case(
        "8.3.1",
        "no authority, but a host",
        frames.headers(1, frames.block([*frames.request_fields()[:3], ("host", "lab.test")])),
        answered,
    ),
    Case("HPACK 6.1", "an indexed field", frames.headers(1, PSEUDO + frames.indexed(16)), answered),
    *(
        Case(f"HPACK {clause}", f"a {form_name} literal, {how}", send, answered)
        for clause, form_name, form, prefix in (
            ("6.2.1", "indexing", INDEXING, 6),
            ("6.2.2", "plain", LITERAL, 4),
            ("6.2.3", "never indexed", NEVER, 4),
        )
        for how, send in (
            ("indexed name", _field(form, prefix, 24, frames.string("no-cache"))),
            (
                "indexed name, coded",
                _field(form, prefix, 24, frames.string(CODED_NO_CACHE, huffman=True)),
            ),
            ("new name", _new_field(form, coded=False)),
            ("new name, coded", _new_field(form, coded=True)),
        )
    ),
    Case(
        "HPACK 2.3.2",
        "a field from the dynamic table",
        frames.headers(1, PSEUDO + frames.literal("x-a", "b", INDEXING) + frames.indexed(62)),
        answered,
    ),
    Case(
        "HPACK 5.2",
        "a coded authority",
        frames.headers(
            1,
            frames.indexed(2)
            + frames.indexed(6)
            + frames.indexed(4)
            + b"\x01"
            + frames.string(CODED_HOST, huffman=True),
        ),
        answered,
    ),
    Case("HPACK 6.3", "a table size", frames.headers(1, frames.table_size(0) + PSEUDO), answered),
    Case(
        "HPACK 6.3",
        "two table sizes",
        frames.headers(1, frames.table_size(0) + frames.table_size(4096) + PSEUDO),
        answered,
    ),
    Case("6.5.2", "an unknown parameter", frames.settings([(0xFF, 1)]), serves),
]
