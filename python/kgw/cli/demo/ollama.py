"""A small stand-in for Ollama: enough of its HTTP API to stand behind a waypoint."""

from __future__ import annotations

import json
import socketserver
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from kgw.addresses import Address

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

GREETING = b"Ollama is running"
"""What ``GET /`` answers, as the real one does."""

_WORDS = ("The ", "fourth ", "call ", "in ", "a ", "minute ", "gets ", "429.")
_LARGEST_BODY = 1 << 20


@contextmanager
def standing_in(addresses: Sequence[Address]) -> Iterator[Address]:
    """Serves at the first of *addresses* that is free while the block runs, and yields it.

    Raises:
        OSError: none can be bound.
    """
    server = _bound(addresses)
    thread = threading.Thread(target=server.serve_forever, name="ollama", daemon=True)
    thread.start()
    try:
        host, port = server.server_address[:2]
        yield Address(str(host), port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _bound(addresses: Sequence[Address]) -> _Server:
    first_error = None
    for address in addresses:
        try:
            return _Server((address.host, address.port), _Handler)
        except OSError as error:
            first_error = first_error or error
    raise first_error or OSError("no address to listen on")


class _Server(ThreadingHTTPServer):
    """A server that asks no name server for its own name."""

    daemon_threads = True

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "ollama", self.server_address[1]


class _Handler(BaseHTTPRequestHandler):
    """Answers ``GET /``, ``GET /api/tags`` and ``POST /api/generate``."""

    protocol_version = "HTTP/1.1"
    server_version = "ollama-stand-in"
    sys_version = ""
    # A waypoint keeps its connections; one that says nothing for so long is closed.
    timeout = 300

    def do_GET(self) -> None:
        if self.path == "/":
            self._answer(200, "text/plain; charset=utf-8", GREETING)
        elif self.path == "/api/tags":
            tags = {"models": [{"name": "stand-in:latest"}]}
            self._answer(200, "application/json", json.dumps(tags).encode())
        else:
            self._answer(404, "text/plain", b"404 page not found")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        try:
            request = json.loads(self._read())
            if not isinstance(request, dict):
                raise ValueError("not an object")
        except ValueError as error:
            self._answer(400, "application/json", json.dumps({"error": str(error)}).encode())
            return
        if self.path == "/api/generate":
            self._stream(str(request.get("model", "stand-in:latest")))
        else:
            self._answer(404, "text/plain", b"404 page not found")

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: the waypoint's access log is what the demo shows."""

    def _read(self) -> bytes:
        """Reads the body, of a length or chunked."""
        if "chunked" not in self.headers.get("Transfer-Encoding", "").lower():
            length = int(self.headers.get("Content-Length", 0))
            if not 0 <= length <= _LARGEST_BODY:
                self.close_connection = True
                raise ValueError("the body is too large")
            return self.rfile.read(length)
        body = b""
        while size := int(self.rfile.readline(1024).split(b";")[0], 16):
            if len(body) + size > _LARGEST_BODY:
                self.close_connection = True
                raise ValueError("the body is too large")
            body += self.rfile.read(size)
            self.rfile.readline(1024)
        while self.rfile.readline(1024).strip():
            pass
        return body

    def _answer(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _stream(self, model: str) -> None:
        """Answers word by word, one JSON object a line, each in a chunk of its own."""
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for word in _WORDS:
            self._chunk({"model": model, "response": word, "done": False})
        self._chunk({"model": model, "response": "", "done": True})
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, line: dict[str, object]) -> None:
        data = json.dumps(line).encode() + b"\n"
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
