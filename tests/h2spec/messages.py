"""Requests and their fields: RFC 9113 8, and the header compression of RFC 7541."""

from __future__ import annotations

from tests.peers import frames
from tests.peers.frames import INDEXING, Code, Fields, Text

from .case import Case, connection_error, malformed, refused, stream_error, undecodable

FIELDS = frames.request_fields()
BLOCK = frames.block(FIELDS)
COMPRESSION = connection_error(Code.COMPRESSION_ERROR)

CONNECTION_SPECIFIC = (
    ("connection", "keep-alive"),
    ("keep-alive", "timeout=5"),
    ("proxy-connection", "keep-alive"),
    ("transfer-encoding", "chunked"),
    ("upgrade", "h2c"),
)


def _with(*more: tuple[Text, Text]) -> bytes:
    return frames.headers(1, frames.block([*FIELDS, *more]))


def _without(name: str) -> Fields:
    return [it for it in FIELDS if it[0] != name]


def _post(*more: tuple[Text, Text]) -> bytes:
    return frames.request(1, "/", *more, method="POST", end=False)


def _twice(name: str) -> bytes:
    (it,) = (it for it in FIELDS if it[0] == name)
    return frames.headers(1, frames.block([it, *FIELDS]))


CASES = [
    Case(
        "8.1",
        "a second HEADERS that does not end the stream",
        _post() + frames.headers(1, frames.block([("x-a", "b")]), end=False),
        malformed,
    ),
    Case("8.2", "a name with upper case", _with(("X-Upper", "a")), undecodable),
    Case("8.2.1", "a name with a blank", _with(("x a", "b")), undecodable),
    Case("8.2.1", "a name with a colon inside", _with(("x:a", "b")), undecodable),
    Case("8.2.1", "a name with a control byte", _with((b"x\x01", "b")), undecodable),
    Case("8.2.1", "a name with a byte above ASCII", _with((b"x\xff", "b")), undecodable),
    Case("8.2.1", "an empty name", _with(("", "b")), undecodable),
    Case("8.2.1", "a value with NUL", _with(("x-a", b"a\0b")), undecodable),
    Case("8.2.1", "a value with CR", _with(("x-a", b"a\rb")), undecodable),
    Case("8.2.1", "a value with LF", _with(("x-a", b"a\nb")), undecodable),
    Case("8.2.1", "a value that begins with a blank", _with(("x-a", b" a")), refused),
    Case("8.2.1", "a value that ends with a blank", _with(("x-a", b"a ")), refused),
    *(
        Case("8.2.2", f"the field {name}", _with((name, value)), malformed)
        for name, value in CONNECTION_SPECIFIC
    ),
    Case("8.2.2", "TE other than trailers", _with(("te", "trailers, deflate")), malformed),
    Case("8.3", "an unknown pseudo-field", _with((":unknown", "a")), undecodable),
    Case("8.3", "a pseudo-field of responses", _with((":status", "200")), malformed),
    Case(
        "8.3",
        "a pseudo-field in trailers",
        _post() + frames.data(1, b"x") + frames.headers(1, frames.block([(":method", "GET")])),
        malformed,
    ),
    Case(
        "8.3",
        "a pseudo-field after a field",
        frames.headers(1, frames.block([*FIELDS[:3], ("x-a", "b"), FIELDS[3]])),
        malformed,
    ),
    Case("8.3.1", "an empty :path", frames.request(1, ""), malformed),
    Case("8.3.1", "a :path without a slash", frames.request(1, "nowhere"), refused),
    *(
        Case("8.3.1", f"no {name}", frames.headers(1, frames.block(_without(name))), malformed)
        for name in (":method", ":scheme", ":path")
    ),
    *(
        Case("8.3.1", f"{name} twice", _twice(name), malformed)
        for name in (":method", ":scheme", ":path", ":authority")
    ),
    Case("8.3.1", "host that differs from :authority", _with(("host", "other.test")), refused),
    Case(
        "8.3.1",
        "user information in :authority",
        frames.headers(1, frames.block([*FIELDS[:3], (":authority", "user@lab.test")])),
        refused,
    ),
    Case(
        "8.1.1",
        "a content-length above the DATA",
        _post(("content-length", "5")) + frames.data(1, b"body", end=True),
        malformed,
    ),
    Case(
        "8.1.1",
        "a content-length below the DATA",
        _post(("content-length", "3")) + frames.data(1, b"body", end=True),
        malformed,
    ),
    Case(
        "8.1.1",
        "a content-length that is not the sum of several DATA",
        _post(("content-length", "1")) + frames.data(1, b"bo") + frames.data(1, b"dy", end=True),
        malformed,
    ),
    Case("8.1.1", "a content-length and no DATA", _with(("content-length", "1")), malformed),
    Case(
        "8.1.1",
        "two content-lengths",
        _post(("content-length", "4"), ("content-length", "5")) + frames.data(1, b"body", end=True),
        refused,
    ),
    Case("8.1.1", "a content-length that is no number", _with(("content-length", "+0")), refused),
    Case(
        "8.5",
        "CONNECT with a path",
        frames.headers(1, frames.block([(":method", "CONNECT"), *FIELDS[1:]])),
        refused,
    ),
    Case(
        "8.4",
        "PUSH_PROMISE of a client",
        _post() + frames.frame(frames.Kind.PUSH_PROMISE, 4, 1, b"\0\0\0\x02" + BLOCK),
        connection_error(Code.PROTOCOL_ERROR),
    ),
    Case(
        "HPACK 2.3.3",
        "an index beyond the tables",
        frames.headers(1, BLOCK + frames.indexed(70)),
        COMPRESSION,
    ),
    Case(
        "HPACK 2.3.3",
        "a name's index beyond the tables",
        frames.headers(1, BLOCK + frames.integer(70, 6, INDEXING) + frames.string("a")),
        COMPRESSION,
    ),
    Case(
        "HPACK 4.2",
        "a table size at the end of a block",
        frames.headers(1, BLOCK + frames.table_size(1)),
        COMPRESSION,
    ),
    Case(
        "HPACK 5.1",
        "an integer that never ends",
        frames.headers(1, BLOCK + b"\xff" * 16),
        COMPRESSION,
    ),
    Case(
        "HPACK 5.2",
        "a coding padded by more than 7 bits",
        frames.headers(
            1, BLOCK + b"\x00" + frames.string("x") + frames.string(b"\x1f\xff", huffman=True)
        ),
        COMPRESSION,
    ),
    Case(
        "HPACK 5.2",
        "a coding padded with zeros",
        frames.headers(
            1, BLOCK + b"\x00" + frames.string("x") + frames.string(b"\x18", huffman=True)
        ),
        COMPRESSION,
    ),
    Case(
        "HPACK 5.2",
        "a coding with EOS inside",
        frames.headers(
            1, BLOCK + b"\x00" + frames.string("x") + frames.string(b"\xff" * 4, huffman=True)
        ),
        COMPRESSION,
    ),
    Case(
        "HPACK 5.2",
        "a string longer than its block",
        frames.headers(1, BLOCK + b"\x00\x01x\x7eab"),
        COMPRESSION,
    ),
    Case("HPACK 6.1", "index 0", frames.headers(1, BLOCK + b"\x80"), COMPRESSION),
    Case(
        "HPACK 6.3",
        "a table size above SETTINGS_HEADER_TABLE_SIZE",
        frames.headers(1, frames.table_size(1 << 20) + BLOCK),
        COMPRESSION,
    ),
    Case(
        "HPACK 4.1",
        "a block longer than the server takes",
        b"".join(
            [
                frames.headers(1, BLOCK, complete=False),
                *[frames.continuation(1, frames.literal("x", "v" * 16000), complete=False)] * 6,
                frames.continuation(1, b""),
            ]
        ),
        stream_error(Code.PROTOCOL_ERROR, Code.ENHANCE_YOUR_CALM, Code.INTERNAL_ERROR),
    ),
]
