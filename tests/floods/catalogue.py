"""The floods: what is sent again and again on one HTTP/2 connection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.peers import frames
from tests.peers.frames import INDEXING, Kind

if TYPE_CHECKING:
    from collections.abc import Callable

HANG = frames.block(frames.request_fields("/hang"))
HANG_POST = frames.block(frames.request_fields("/hang", "POST"))
LARGEST = (1 << 31) - 1


@dataclass(frozen=True)
class Flood:
    """One flood."""

    name: str
    part: Callable[[int], bytes]
    """The part with a number, counted from 0."""
    first: bytes = b""
    """What goes before the parts."""
    most: int = 100_000
    """Parts after which the proxy has not ended the connection, and will not."""


def _stream(number: int) -> int:
    return 2 * number + 1


def _post(number: int) -> bytes:
    return frames.headers(_stream(number), HANG_POST, end=False)


def _get(number: int, more: bytes = b"") -> bytes:
    return frames.headers(_stream(number), HANG + more)


def _bomb(number: int) -> bytes:
    """A large entry of the dynamic table, then thousands of references of one byte."""
    if number == 0:
        return _get(0, frames.literal("x", "a" * 3800, INDEXING))
    return _get(number, frames.indexed(62) * 15_000)


FLOODS = [
    Flood("rapid reset", lambda i: _get(i) + frames.rst_stream(_stream(i))),
    Flood("reset by WINDOW_UPDATE of 0", lambda i: _post(i) + frames.window_update(_stream(i), 0)),
    Flood(
        "reset by WINDOW_UPDATE above 2^31-1",
        lambda i: _post(i) + frames.window_update(_stream(i), LARGEST),
    ),
    Flood("reset by DATA after the end", lambda i: _get(i) + frames.data(_stream(i), b"x")),
    Flood("reset by HEADERS after the end", lambda i: _get(i) + _get(i)),
    Flood(
        "reset by PRIORITY of 4 octets",
        lambda i: _post(i) + frames.frame(Kind.PRIORITY, 0, _stream(i), bytes(4)),
    ),
    Flood("malformed requests", lambda i: _get(i, frames.literal("X-Upper", "a"))),
    Flood(
        "content-length without DATA",
        lambda i: _get(i, frames.literal("content-length", "9")),
    ),
    Flood(
        "CONTINUATION with fields",
        lambda i: frames.continuation(1, frames.literal(f"x-{i}", "v" * 100), complete=False),
        first=frames.headers(1, HANG, complete=False),
    ),
    Flood(
        "CONTINUATION without fields",
        lambda _: frames.continuation(1, b"", complete=False),
        first=frames.headers(1, HANG, complete=False),
    ),
    Flood("PING", lambda _: frames.ping()),
    Flood("PING with ACK", lambda _: frames.ping(ack=True)),
    Flood("empty SETTINGS", lambda _: frames.settings()),
    Flood("SETTINGS with ACK", lambda _: frames.settings(flags=1)),
    Flood("SETTINGS of the table size", lambda i: frames.settings([(1, 4096 * (i % 2))])),
    Flood("PRIORITY", lambda i: frames.priority(2 * (i % 1000) + 1)),
    Flood("WINDOW_UPDATE of the connection", lambda _: frames.window_update(0, 1)),
    Flood(
        "WINDOW_UPDATE of a stream",
        lambda _: frames.window_update(1, 1),
        first=_post(0),
    ),
    Flood("empty DATA", lambda _: frames.data(1), first=_post(0)),
    Flood(
        "DATA of padding alone",
        lambda _: frames.frame(Kind.DATA, 8, 1, b"\x03" + bytes(3)),
        first=_post(0),
    ),
    Flood("unknown frames", lambda _: frames.frame(0xBE, 0, 0, b"x" * 8)),
    Flood("unknown frames of a stream", lambda _: frames.frame(0xBE, 0, 1, b""), first=_post(0)),
    Flood("GOAWAY", lambda _: frames.goaway(0)),
    Flood("RST_STREAM of a closed stream", lambda _: frames.rst_stream(1), first=_get(0)),
    Flood("streams that stay open", _post, most=20_000),
    Flood("requests that stay open", _get, most=20_000),
    Flood("a header bomb", _bomb, most=200),
    Flood(
        "cookie crumbs",
        lambda i: _get(i, frames.literal("cookie", "a") * 1500),
        most=500,
    ),
    Flood(
        "fields without names and values",
        lambda i: _get(i, b"\x40\x00\x00" * 200),
        most=4000,
    ),
]
