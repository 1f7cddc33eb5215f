"""The verdict on an HTTP/2 request whose backend speaks HTTP/1: is what arrives unambiguous?"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.peers import frames
from tests.peers.h2 import Connection

from . import request_verdict

if TYPE_CHECKING:
    from .lane import Case, Lane, Patience, Verdict

INJECTED = re.compile(rb"\nx-b *:", re.IGNORECASE)
"""A field that no case sends as one: it must be the end of another."""

VICTIM_WAIT = 10.0


def judge(lane: Lane, case: Case, patience: Patience) -> Verdict:
    """Sends the case and a victim after it, and judges what came of both."""
    try:
        with Connection(lane.address) as connection:
            connection.handshake()
            connection.send(_encoded(case))
            stream = connection.streams[1]
            connection.read(lambda: stream.over or connection.goaways, patience.first)
            connection.read(lambda: stream.over, patience.more if connection.goaways else 0)
    except OSError:
        return "CRASH", "the proxy takes no more connections"
    over = connection.closed or connection.goaways or stream.reset is not None
    state = "closed" if over else "idle"
    waits, received = lane.backend.is_left_waiting(), lane.backend.received()
    harmed = _victim(lane, case["id"])
    if harmed is not None:
        return harmed
    codes = [stream.status] if stream.status is not None else []
    if not received:
        return request_verdict.kept_out(case, codes, state)
    if any(INJECTED.search(data) for data in received):
        return "UNSAFE", f"a field was injected: {received[0][:300]!r}"
    return request_verdict.let_in(case, received, waits, codes)


def _encoded(case: Case) -> bytes:
    out = b""
    for kind, stream, content, *end in case["ops"]:
        if kind == "data":
            out += frames.data(stream, content.encode("latin-1"), end=end[0])
        else:
            block = frames.block((name, value) for name, value in content)
            out += frames.headers(stream, block, end=kind == "trailers" or end[0])
    return out


def _victim(lane: Lane, case: str) -> Verdict | None:
    """A sound request on a new connection; a verdict only if it got what was not its own."""
    path = f"/victim/{case}"
    try:
        with Connection(lane.address) as connection:
            connection.send(frames.request(1, path))
            stream = connection.response(1, VICTIM_WAIT)
    except OSError:
        return "CRASH", "the proxy takes no more connections"
    if stream.status != 200 or f'"{path}"'.encode() not in stream.body:
        return "UNSAFE", f"the next client got {stream.status} {bytes(stream.body[:200])!r}"
    return None
