"""A strict reader of HTTP/1.1 requests (RFC 9112): what they are, and what is wrong with them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum

TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
TARGET = re.compile(rb"[!-~]+")
LENGTH = re.compile(rb"[0-9]{1,18}")
CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})(.*)", re.DOTALL)
CHUNK_EXTENSIONS = re.compile(
    rb"([ \t]*;[ \t]*[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
    rb"([ \t]*=[ \t]*([!#$%&'*+\-.^_`|~0-9A-Za-z]+"
    rb'|"([^"\\\x00-\x08\x0a-\x1f\x7f]|\\[\t -~\x80-\xff])*"))?)+'
)
CONTROL = re.compile(rb"[\x01-\x08\x0b\x0c\x0e-\x1f\x7f]")

UNSAFE = {
    *("bare-lf", "bare-cr", "nul", "obs-fold", "space-before-colon", "no-colon", "empty-name"),
    *("leading-space", "te-and-cl", "many-cl", "bad-cl", "many-te", "bad-te", "te-in-1.0"),
    *("bad-chunk-size", "bad-chunk-extension", "bad-chunk-end", "partial"),
}
"""Faults that make a forwarded message unsafe, whatever the proxy's own reading of it was."""


class State(Enum):
    OK = "ok"
    INCOMPLETE = "incomplete"
    BAD = "bad"


@dataclass
class Request:
    """One request as a strict reader sees it."""

    method: bytes
    target: bytes
    version: bytes
    fields: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.fields if key.lower() == name]


@dataclass
class Reading:
    """Where reading one request came to."""

    state: State
    request: Request | None
    end: int
    faults: set[str]


def read(data: bytes, start: int = 0) -> Reading:
    """Reads the request at ``start``; goes on past faults that do not touch the framing."""
    faults: set[str] = set()
    end = data.find(b"\r\n\r\n", start)
    bare = re.compile(rb"\n\r?\n").search(data, start) is not None
    if end < 0:
        if bare:
            return Reading(State.BAD, None, len(data), {"bare-lf"})
        return Reading(State.INCOMPLETE, None, start, faults)
    head = data[start:end]
    if b"\0" in head:
        faults.add("nul")
    if re.search(rb"(?<!\r)\n", head):
        faults.add("bare-lf")
    if re.search(rb"\r(?!\n)", head):
        faults.add("bare-cr")
    first, *lines = head.split(b"\r\n")
    parts = first.split(b" ")
    if len(parts) < 2:
        return Reading(State.BAD, None, len(data), faults | {"bad-request-line"})
    if len(parts) != 3:
        faults.add("bad-request-line")
    request = Request(parts[0], b" ".join(parts[1:-1]), parts[-1], _fields(lines, faults))
    if not TOKEN.fullmatch(request.method):
        faults.add("bad-method")
    if not TARGET.fullmatch(request.target):
        faults.add("bad-target")
    if request.version not in (b"HTTP/1.1", b"HTTP/1.0"):
        faults.add("bad-version")
    return _body(request, data, end + 4, faults)


def read_all(data: bytes) -> tuple[list[Request], set[str], bool]:
    """All requests of a connection, all faults, and whether the last request is whole."""
    requests: list[Request] = []
    faults: set[str] = set()
    position = 0
    while position < len(data):
        reading = read(data, position)
        faults |= reading.faults
        if reading.request is not None:
            requests.append(reading.request)
        if reading.state is State.INCOMPLETE:
            if reading.request is None and data[position:].strip():
                faults.add("partial")
            return requests, faults, False
        if reading.state is State.BAD:
            break
        position = reading.end
    return requests, faults, True


def _fields(lines: list[bytes], faults: set[str]) -> list[tuple[bytes, bytes]]:
    fields: list[tuple[bytes, bytes]] = []
    for line in lines:
        name, colon, value = line.partition(b":")
        if line[:1] in (b" ", b"\t"):
            faults.add("obs-fold" if fields else "leading-space")
            continue
        if not colon:
            faults.add("no-colon")
            continue
        if name != name.rstrip(b" \t"):
            faults.add("space-before-colon")
        elif not name:
            faults.add("empty-name")
        elif not TOKEN.fullmatch(name):
            faults.add("bad-name")
        value = value.strip(b" \t")
        if CONTROL.search(value):
            faults.add("control-in-value")
        fields.append((name, value))
    return fields


def _body(request: Request, data: bytes, position: int, faults: set[str]) -> Reading:
    codings, lengths = request.values(b"transfer-encoding"), request.values(b"content-length")
    if codings and lengths:
        faults.add("te-and-cl")
    if len(codings) > 1:
        faults.add("many-te")
    if len(lengths) > 1:
        faults.add("many-cl")
    if codings and request.version == b"HTTP/1.0":
        faults.add("te-in-1.0")
    if codings:
        if len(codings) > 1 or codings[0].lower() != b"chunked":
            return Reading(State.BAD, request, len(data), faults | {"bad-te"})
        return _chunked(request, data, position, faults)
    if not lengths:
        return Reading(State.OK, request, position, faults)
    if not all(LENGTH.fullmatch(length) for length in lengths):
        return Reading(State.BAD, request, len(data), faults | {"bad-cl"})
    if len(set(map(int, lengths))) > 1:
        return Reading(State.BAD, request, len(data), faults)
    end = position + int(lengths[0])
    request.body = data[position:end]
    if len(data) < end:
        return Reading(State.INCOMPLETE, request, len(data), faults)
    return Reading(State.OK, request, end, faults)


def _chunked(request: Request, data: bytes, position: int, faults: set[str]) -> Reading:
    while True:
        line_end = data.find(b"\r\n", position)
        if line_end < 0:
            return Reading(State.INCOMPLETE, request, len(data), faults)
        line = CHUNK_SIZE.fullmatch(data[position:line_end])
        if line is None:
            return Reading(State.BAD, request, len(data), faults | {"bad-chunk-size"})
        if line[2] and not CHUNK_EXTENSIONS.fullmatch(line[2]):
            faults.add("bad-chunk-extension")
        size = int(line[1], 16)
        position = line_end + 2
        if size == 0:
            return _trailers(request, data, position, faults)
        end = position + size
        if len(data) < end + 2:
            request.body += data[position:end]
            return Reading(State.INCOMPLETE, request, len(data), faults)
        request.body += data[position:end]
        if data[end : end + 2] != b"\r\n":
            return Reading(State.BAD, request, len(data), faults | {"bad-chunk-end"})
        position = end + 2


def _trailers(request: Request, data: bytes, position: int, faults: set[str]) -> Reading:
    while True:
        end = data.find(b"\r\n", position)
        if end < 0:
            return Reading(State.INCOMPLETE, request, len(data), faults)
        line = data[position:end]
        position = end + 2
        if not line:
            return Reading(State.OK, request, position, faults)
        if b"\n" in line or b"\r" in line:
            faults.add("bare-lf")
        if b":" not in line:
            faults.add("no-colon")
