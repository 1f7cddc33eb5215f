"""A panel of plausible lenient servers: do two of them frame the same bytes differently?

That makes "ambiguous" a property of the bytes that were forwarded, not an opinion.
"""

from __future__ import annotations

import re
from itertools import product
from typing import NamedTuple

Message = tuple[bytes, bytes] | str
"""Target and body, or how reading ended: ``wait`` or ``reject``."""


class Server(NamedTuple):
    """How one server reads."""

    lf_ends_lines: bool
    cr_ends_lines: bool
    coding_wins: bool
    coding: str
    first_length: bool
    fold: str
    space_before_colon: bool
    chunk_line: str


def _servers() -> list[Server]:
    found = []
    lines = ((False, False), (True, False), (False, True))
    folds = (("join", True), ("own", True), ("drop", False))
    codings = ("exact", "last", "contains", "trim")
    chunks = ("crlf", "lf", "cr", "skip")
    for line, wins, coding, first, fold, chunk in product(
        lines, (True, False), codings, (True, False), folds, chunks
    ):
        found.append(Server(*line, wins, coding, first, *fold, chunk))
    return found


SERVERS = _servers()


def is_ambiguous(data: bytes) -> bool:
    """Whether two servers of the panel see different messages."""
    first = _messages(data, SERVERS[0])
    return any(_messages(data, server) != first for server in SERVERS[1:])


def _messages(data: bytes, server: Server) -> list[Message]:
    if server.cr_ends_lines:
        data = re.sub(rb"\r(?!\n)", b"\r\n", data)
    found: list[Message] = []
    position = 0
    while len(found) < 12:
        while data[position : position + 2] == b"\r\n":
            position += 2
        if position >= len(data):
            break
        mark = re.compile(rb"\n\r?\n" if server.lf_ends_lines else rb"\r\n\r\n")
        end = mark.search(data, position)
        if end is None:
            found.append("wait")
            break
        head = data[position : end.start()]
        lines = head.split(b"\n") if server.lf_ends_lines else head.split(b"\r\n")
        if server.lf_ends_lines:
            lines = [line.removesuffix(b"\r") for line in lines]
        request_line = lines[0].split()
        if len(request_line) < 2:
            found.append("reject")
            break
        fields = _fields(lines[1:], server)
        body = _body(data, end.end(), fields, server)
        if isinstance(body, str):
            found.append(body)
            break
        content, position = body
        found.append((request_line[1], content))
    return found


def _fields(lines: list[bytes], server: Server) -> list[tuple[bytes, bytes]]:
    fields: list[tuple[bytes, bytes]] = []
    for line in lines:
        if line[:1] in (b" ", b"\t"):
            if server.fold == "join" and fields:
                fields[-1] = (fields[-1][0], fields[-1][1] + b" " + line.strip())
                continue
            if server.fold != "own":
                continue
            line = line.strip()
        name, colon, value = line.partition(b":")
        if not colon or (name != name.rstrip() and not server.space_before_colon):
            continue
        fields.append((name.rstrip().lower(), value.strip(b" \t")))
    return fields


def _is_chunked(codings: list[bytes], how: str) -> bool:
    if how == "exact":
        return any(coding.lower() == b"chunked" for coding in codings)
    if how == "last":
        return bool(codings) and codings[-1].lower().split(b",")[-1].strip() == b"chunked"
    if how == "contains":
        return any(b"chunked" in coding.lower() for coding in codings)
    trimmed = (re.sub(rb"[\x00-\x20\x7f-\xff\"']", b"", coding.lower()) for coding in codings)
    return b"chunked" in trimmed


def _body(
    data: bytes, position: int, fields: list[tuple[bytes, bytes]], server: Server
) -> tuple[bytes, int] | str:
    codings = [value for name, value in fields if name == b"transfer-encoding"]
    lengths = [value for name, value in fields if name == b"content-length"]
    if _is_chunked(codings, server.coding) and (server.coding_wins or not lengths):
        return _chunked(data, position, server)
    length = 0
    if lengths:
        text = lengths[0].split(b",")[0] if server.first_length else lengths[-1].split(b",")[-1]
        number = re.match(rb"\+?([0-9]+)", text.strip())
        length = int(number[1]) if number else 0
    if len(data) < position + length:
        return "wait"
    return data[position : position + length], position + length


def _chunked(data: bytes, position: int, server: Server) -> tuple[bytes, int] | str:
    short = server.lf_ends_lines or server.chunk_line == "lf"
    body = b""
    while True:
        end = data.find(b"\n" if short else b"\r\n", position)
        step = 1 if short else 2
        if server.chunk_line == "cr":
            carriage = data.find(b"\r", position)
            if carriage >= 0 and (end < 0 or carriage < end):
                end, step = carriage, 2
        if end < 0:
            return "wait"
        line = re.match(rb"\s*\+?(?:0[xX])?([0-9A-Fa-f]+)", data[position:end])
        if line is None:
            return "reject"
        size = int(line[1], 16)
        position = end + step
        if size == 0:
            return _after_trailers(data, position, body)
        if len(data) < position + size:
            return "wait"
        body += data[position : position + size]
        position += size
        if data[position : position + 2] == b"\r\n":
            position += 2
        elif data[position : position + 1] == b"\n" and server.lf_ends_lines:
            position += 1
        elif server.chunk_line == "skip":
            position += 2
        else:
            return "reject"


def _after_trailers(data: bytes, position: int, body: bytes) -> tuple[bytes, int] | str:
    while True:
        end = data.find(b"\n", position)
        if end < 0:
            return "wait"
        line = data[position:end].strip(b"\r")
        position = end + 1
        if not line:
            return body, position
