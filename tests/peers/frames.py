"""HTTP/2 frames and HPACK blocks as bytes (RFC 9113, RFC 7541); nothing is checked."""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

Text = str | bytes
Fields = list[tuple[Text, Text]]


class Kind(IntEnum):
    """Frame types (RFC 9113 6)."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Flag(IntFlag):
    """Frame flags; what a bit means depends on the frame's type."""

    NONE = 0
    END_STREAM = 1
    ACK = 1
    END_HEADERS = 4
    PADDED = 8
    PRIORITY = 32


class Setting(IntEnum):
    """Parameters of SETTINGS (RFC 9113 6.5.2)."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6
    ENABLE_CONNECT_PROTOCOL = 8


class Code(IntEnum):
    """Error codes (RFC 9113 7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame with a true length."""
    head = len(payload).to_bytes(3, "big") + bytes([kind, flags])
    return head + stream.to_bytes(4, "big") + payload


def settings(values: Iterable[tuple[int, int]] = (), *, flags: int = 0) -> bytes:
    payload = b"".join(key.to_bytes(2, "big") + value.to_bytes(4, "big") for key, value in values)
    return frame(Kind.SETTINGS, flags, 0, payload)


def headers(stream: int, block: bytes, *, end: bool = True, complete: bool = True) -> bytes:
    """HEADERS; ``end`` ends the stream, ``complete`` the header block."""
    flags = (Flag.END_STREAM if end else 0) | (Flag.END_HEADERS if complete else 0)
    return frame(Kind.HEADERS, flags, stream, block)


def continuation(stream: int, block: bytes, *, complete: bool = True) -> bytes:
    return frame(Kind.CONTINUATION, Flag.END_HEADERS if complete else 0, stream, block)


def data(stream: int, payload: bytes = b"", *, end: bool = False) -> bytes:
    return frame(Kind.DATA, Flag.END_STREAM if end else 0, stream, payload)


def rst_stream(stream: int, code: int = Code.CANCEL) -> bytes:
    return frame(Kind.RST_STREAM, 0, stream, code.to_bytes(4, "big"))


def window_update(stream: int, increment: int) -> bytes:
    return frame(Kind.WINDOW_UPDATE, 0, stream, increment.to_bytes(4, "big"))


def ping(payload: bytes = b"8 octets", *, ack: bool = False) -> bytes:
    return frame(Kind.PING, Flag.ACK if ack else 0, 0, payload)


def goaway(code: int, last_stream: int = 0, *, stream: int = 0) -> bytes:
    payload = last_stream.to_bytes(4, "big") + code.to_bytes(4, "big")
    return frame(Kind.GOAWAY, 0, stream, payload)


def priority(stream: int, depends_on: int = 0, weight: int = 15) -> bytes:
    return frame(Kind.PRIORITY, 0, stream, depends_on.to_bytes(4, "big") + bytes([weight]))


# === HPACK ===


def integer(value: int, prefix: int, first: int = 0) -> bytes:
    """An integer with a prefix of ``prefix`` bits below the bits of ``first`` (RFC 7541 5.1)."""
    limit = (1 << prefix) - 1
    if value < limit:
        return bytes([first | value])
    encoded = [first | limit]
    value -= limit
    while value >= 128:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes([*encoded, value])


def string(value: Text, *, huffman: bool = False) -> bytes:
    """A string literal; with ``huffman``, bytes that are already coded (RFC 7541 5.2)."""
    encoded = value.encode("latin-1") if isinstance(value, str) else value
    return integer(len(encoded), 7, 128 if huffman else 0) + encoded


LITERAL = 0x00
"""A literal that is not indexed (RFC 7541 6.2.2)."""
INDEXING = 0x40
"""A literal that enters the dynamic table (RFC 7541 6.2.1)."""
NEVER = 0x10
"""A literal that no one may index (RFC 7541 6.2.3)."""


def literal(name: Text, value: Text, form: int = LITERAL) -> bytes:
    return bytes([form]) + string(name) + string(value)


def indexed(index: int) -> bytes:
    """A field of the tables (RFC 7541 6.1)."""
    return integer(index, 7, 128)


def table_size(size: int) -> bytes:
    """A change of the dynamic table's size (RFC 7541 6.3)."""
    return integer(size, 5, 32)


def block(fields: Iterable[tuple[Text, Text]]) -> bytes:
    return b"".join(literal(name, value) for name, value in fields)


def request_fields(path: str = "/", method: str = "GET") -> Fields:
    return [
        (":method", method),
        (":scheme", "http"),
        (":path", path),
        (":authority", "lab.test"),
    ]


def request(
    stream: int, path: str = "/", *more: tuple[Text, Text], method: str = "GET", end: bool = True
) -> bytes:
    """A sound request in one HEADERS frame; ``more`` fields make it what the test wants."""
    return headers(stream, block([*request_fields(path, method), *more]), end=end)
