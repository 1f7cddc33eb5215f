"""The server's side of HTTP/1.1 on a blocking socket, for fake backends.

What arrives comes from the gateway, which has checked it. So this is strict and small: what it does
not expect is an error of the test's set-up, and ends the connection.
"""

from __future__ import annotations

import http
import select
import socket
from typing import TYPE_CHECKING, NamedTuple

from kgw.errors import IncompleteProxyHeader, ProtocolError
from kgw.proxyproto import parse_proxy_header
from kgw.testing.headers import Headers

if TYPE_CHECKING:
    from collections.abc import Callable

    from kgw.proxyproto import ProxyHeader

__all__ = ["Message", "Reader", "response"]

MAX_HEAD = 1 << 20
"""Bytes of a request head; the gateway's own limit is far lower."""

MAX_BODY = 1 << 28
"""Bytes of a body, which a test reads as a whole."""


class Message(NamedTuple):
    """A request without its body."""

    method: str
    target: str
    headers: Headers


class Reader:
    """Reads requests off a socket.

    Every method raises `EOFError` if the connection ends first, and `ProtocolError` for what is no
    request.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._buffer = bytearray()

    def proxy_header(self) -> ProxyHeader:
        """Reads a PROXY protocol header."""
        while True:
            try:
                header = parse_proxy_header(self._buffer)
            except IncompleteProxyHeader:
                self._receive()
            else:
                del self._buffer[: header.length]
                return header

    def head(self) -> Message | None:
        """Reads a request up to its body; none if the connection ends in front of it."""
        try:
            raw = self._until(b"\r\n\r\n", MAX_HEAD)
        except EOFError:
            if self._buffer:
                raise
            return None
        first, *lines = raw.decode("utf-8", "surrogateescape").split("\r\n")
        words = first.split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            raise ProtocolError(f"not a request of HTTP/1.1: {first!r}")
        fields = (line.partition(":") for line in lines)
        headers = Headers([(name, value.strip(" \t")) for name, _, value in fields])
        return Message(words[0], words[1], headers)

    def body(self, headers: Headers) -> tuple[bytes, Headers]:
        """Reads the body of a request with these header fields, and its trailers."""
        if "transfer-encoding" in headers:
            return self._chunked()
        return self._exactly(_size(headers.get("content-length", "0"), 10)), Headers()

    def _chunked(self) -> tuple[bytes, Headers]:
        body = bytearray()
        while size := _size(self._line().partition(b";")[0].decode("latin-1"), 16):
            body += self._exactly(size)
            self._line()
        trailers = []
        while line := self._line():
            name, _, value = line.decode("utf-8", "surrogateescape").partition(":")
            trailers.append((name, value.strip(" \t")))
        return bytes(body), Headers(trailers)

    def _line(self) -> bytes:
        return self._until(b"\r\n", MAX_HEAD)

    def _until(self, mark: bytes, most: int) -> bytes:
        """Reads up to a mark, which is taken and not returned."""
        while (at := self._buffer.find(mark)) < 0:
            if len(self._buffer) > most:
                raise ProtocolError(f"no end within {most} bytes")
            self._receive()
        found = bytes(self._buffer[:at])
        del self._buffer[: at + len(mark)]
        return found

    def _exactly(self, count: int) -> bytes:
        if count > MAX_BODY:
            raise ProtocolError(f"a body of {count} bytes is more than a fake backend reads")
        while len(self._buffer) < count:
            self._receive()
        found = bytes(self._buffer[:count])
        del self._buffer[:count]
        return found

    def _receive(self) -> None:
        data = self._socket.recv(65536)
        if not data:
            raise EOFError
        self._buffer += data


def _size(text: str, base: int) -> int:
    try:
        return int(text, base)
    except ValueError:
        raise ProtocolError(f"{text!r} is not a length") from None


def response(status: int, headers: Headers, body: bytes, request: Message) -> bytes:
    """Returns an answer as bytes; how its body is framed is as *headers* say, else a length."""
    try:
        reason = http.HTTPStatus(status).phrase
    except ValueError:
        reason = ""
    fields = list(headers.pairs)
    bodyless = status < 200 or status in (204, 304)
    framed = "content-length" in headers or "transfer-encoding" in headers
    if not bodyless and not framed:
        fields.append(("Content-Length", str(len(body))))
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in fields)]
    head = "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape")
    if bodyless or request.method == "HEAD":
        return head
    if "transfer-encoding" in headers:
        chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
        return head + chunk + b"0\r\n\r\n"
    return head + body


def is_closed(sock: socket.socket) -> Callable[[], bool]:
    """Returns what tells whether the peer has ended a connection on which it sends nothing."""

    def closed() -> bool:
        poll = select.poll()  # an object of each call's own: several threads ask, and cannot share
        try:
            poll.register(sock, select.POLLIN)
            return bool(poll.poll(0)) and not sock.recv(1, socket.MSG_PEEK)
        except (OSError, ValueError):  # the latter of a socket that was closed on this side
            return True

    return closed
