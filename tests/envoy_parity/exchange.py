"""The client of a case: sends its bytes as they are and writes down what comes back.

A case is a mapping with these keys (times in seconds):

``id``, ``about``; ``target``: the listener (``main``); ``send``: what to send, one item or a list;
``pp``: a PROXY header before it, in the same segment with ``pp_join``; ``method``: request methods,
to know which responses have no body (``GET``); ``responses``: how many final responses to wait for
(1); ``timeout``: how long (8); ``linger``: how long to watch an open connection after that (0.15);
``times`` and ``interval``: repetitions on new connections and the pause between them; ``settle``:
how long to wait at the end for what happens without the client; ``upstream``: requests that must
have come to the upstreams before that; ``tunnel``: bytes to wait for after
the responses; ``tls``: the client's side of TLS (``sni``, and the options of ``certificates``);
``h2``: HTTP/2 instead, as ``http2`` says.

An item is a text or a mapping: ``data`` or ``hex``, ``repeat``, ``then`` (sent after it), ``await``
(responses to wait for first), ``wait`` (before sending), ``bytewise`` (bytes per segment) and
``every`` (pause between segments), ``half_close``, ``close``, ``rst``.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import struct
import time
from typing import Any

from . import certificates, http2

Case = dict[str, Any]
Response = dict[str, Any]

TIMEOUT = 8.0
LINGER = 0.15
CLOSE_WAIT = 3.0
"""Seconds to wait for the close that a response announces."""

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"


def run(case: Case, address: tuple[str, int]) -> tuple[list[Response], str, str]:
    """Returns the responses, how the connection ended, and the bytes that were no response."""
    sock = socket.create_connection(address, TIMEOUT)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if "tls" in case:
        try:
            sock = _encrypted(sock, case["tls"])
        except OSError as error:
            return [], "no TLS", "" if isinstance(error, ssl.SSLError) else "closed"
    if "h2" not in case:
        return _Client(case, sock).run()
    if "pp" in case:
        sock.sendall(proxy_header(case["pp"]))
    deadline = time.monotonic() + float(case.get("timeout", TIMEOUT))
    return http2.Client(sock, case, deadline, float(case.get("linger", LINGER))).run()


def _encrypted(sock: socket.socket, options: dict[str, Any]) -> socket.socket:
    context = certificates.context(options)
    return context.wrap_socket(sock, server_hostname=options.get("sni"))


class _Client:
    def __init__(self, case: Case, sock: socket.socket) -> None:
        self.case = case
        self.sock = sock
        methods = case.get("method", "GET")
        self.parser = Parser([methods] if isinstance(methods, str) else methods)
        self.end = "open"
        self.deadline = time.monotonic() + float(case.get("timeout", TIMEOUT))

    def run(self) -> tuple[list[Response], str, str]:
        for item in self._items():
            self._send(item)
            if self.end.startswith("by client"):
                break
        if not self.end.startswith("by client"):
            self._receive(int(self.case.get("responses", 1)), self.deadline)
            self._receive(None, self.deadline, int(self.case.get("tunnel", 0)))
            linger = float(self.case.get("linger", LINGER))
            if self.parser.announces_close():
                linger = max(linger, CLOSE_WAIT)
            self._receive(None, time.monotonic() + linger)
        self.sock.close()
        return self.parser.responses, self.end, self.parser.buffer[:300].decode("latin-1")

    def _items(self) -> list[Case]:
        sent = self.case.get("send", [])
        items = [
            {"data": it} if isinstance(it, str) else it
            for it in (sent if isinstance(sent, list) else [sent])
        ]
        if "pp" in self.case:
            header = {"hex": proxy_header(self.case["pp"]).hex()}
            if self.case.get("pp_join"):
                header["then"] = items.pop(0)["data"]
            items.insert(0, header)
        return items

    def _send(self, item: Case) -> None:
        if "await" in item:
            self._receive(int(item["await"]), self.deadline)
        if "wait" in item:
            until = time.monotonic() + float(item["wait"])
            self._receive(None, until)
            time.sleep(max(0.0, until - time.monotonic()))  # the case says when to send
        data = (
            bytes.fromhex(item["hex"]) if "hex" in item else item.get("data", "").encode("latin-1")
        )
        data = data * int(item.get("repeat", 1)) + item.get("then", "").encode("latin-1")
        self.sock.settimeout(TIMEOUT)
        with contextlib.suppress(OSError):  # the proxy may have closed already
            step = int(item.get("bytewise", len(data) or 1))
            for start in range(0, len(data), step):
                self.sock.sendall(data[start : start + step])
                time.sleep(float(item.get("every", 0)))  # the case sends slowly
            if item.get("half_close"):
                self.sock.shutdown(socket.SHUT_WR)
        if item.get("rst"):
            linger = struct.pack("ii", 1, 0)
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        if item.get("rst") or item.get("close"):
            self.sock.close()
            self.end = "by client"

    def _receive(self, responses: int | None, until: float, tunnelled: int | None = None) -> None:
        """Reads until there are so many final responses, or so many bytes after them, or the time
        is over, or the peer closes."""
        while (
            self.end == "open"
            and (responses is None or self.parser.final < responses)
            and (tunnelled is None or len(self.parser.buffer) < tunnelled)
        ):
            left = until - time.monotonic()
            if left <= 0:
                return
            self.sock.settimeout(left)
            try:
                data = self.sock.recv(65536)
            except TimeoutError:
                return
            except OSError:
                data = b""
            if not data:
                self.end = "closed"
            self.parser.feed(data, at_end=not data)


class Parser:
    """Cuts a byte stream into HTTP/1.1 responses."""

    def __init__(self, methods: list[str]) -> None:
        self.methods = methods
        self.buffer = b""
        self.responses: list[Response] = []
        self.final = 0
        self.tunnel = False

    def feed(self, data: bytes, *, at_end: bool) -> None:
        """Takes more bytes, or the end of them."""
        self.buffer += data
        while not self.tunnel and self._response(at_end):
            pass

    def announces_close(self) -> bool:
        """Whether the last response says that the connection closes."""
        last = self.responses[-1]["fields"] if self.responses else []
        return ("connection", "close") in [(name.lower(), value.lower()) for name, value in last]

    def _response(self, at_end: bool) -> bool:
        head, mark, rest = self.buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        status_line = re.fullmatch(r"HTTP/(\d\.\d) (\d{3})(?: (.*))?", first)
        if not mark or status_line is None:
            return False
        status = int(status_line[2])
        pairs = [line.partition(":") for line in lines]
        fields = [(name, value.removeprefix(" ")) for name, _, value in pairs]
        response: Response = {
            "status": status,
            "version": status_line[1],
            "reason": status_line[3] or "",
            "fields": fields,
        }
        method = self.methods[min(self.final, len(self.methods) - 1)]
        self.tunnel = status == 101 or (method == "CONNECT" and 200 <= status < 300)
        if 100 <= status < 200 or self.tunnel:
            self.responses.append(response)
            self.buffer = rest
            self.final += self.tunnel
            return True
        body = self._body(response, rest, at_end)
        if body is None:
            return False
        response["body_bytes"] = len(body)
        response["body"] = body[:400].decode("latin-1")
        self.responses.append(response)
        self.final += 1
        return True

    def _body(self, response: Response, rest: bytes, at_end: bool) -> bytes | None:
        """Returns the body and drops it from the buffer; none while it is not complete."""
        values = {name.lower(): value for name, value in response["fields"]}
        method = self.methods[min(self.final, len(self.methods) - 1)]
        if method == "HEAD" or response["status"] in (204, 304):
            response["framing"] = "none"
            self.buffer = rest
            return b""
        if "chunked" in values.get("transfer-encoding", "").lower():
            response["framing"] = "chunked"
            return self._chunked(response, rest, at_end)
        if "content-length" in values:
            response["framing"] = "length"
            size = int(values["content-length"])
            response["complete"] = len(rest) >= size
        else:
            response["framing"] = "close"
            size = len(rest)
            response["complete"] = at_end
        if not response["complete"] and not at_end:
            return None
        self.buffer = rest[size:]
        return rest[:size]

    def _chunked(self, response: Response, rest: bytes, at_end: bool) -> bytes | None:
        body = b""
        while True:
            line, mark, after = rest.partition(b"\r\n")
            size = int(line.split(b";")[0], 16) if mark else 0
            complete = bool(mark) and len(after) >= size + 2
            body += after[:size]
            if not complete or size == 0:
                break
            rest = after[size + 2 :]
        trailers, mark, left = (b"\r\n" + after).partition(b"\r\n\r\n")
        response["complete"] = complete and bool(mark)
        if not response["complete"]:
            if at_end:
                self.buffer = b""
                return body
            return None
        if trailers:
            response["trailers"] = trailers[2:].decode("latin-1").split("\r\n")
        self.buffer = left
        return body


def proxy_header(header: dict[str, Any]) -> bytes:
    """A PROXY header: ``raw`` text, or ``v``, ``src``, ``dst``, ``tlvs`` and what is wrong."""
    if "raw" in header:
        return str(header["raw"]).encode("latin-1")
    (source, source_port), (target, target_port) = (
        _endpoint(header.get("src", "10.1.2.3:4567")),
        _endpoint(header.get("dst", "10.9.8.7:80")),
    )
    v6 = ":" in source
    if header.get("v", 2) == 1:
        kind = "TCP6" if v6 else "TCP4"
        return f"PROXY {kind} {source} {target} {source_port} {target_port}\r\n".encode()
    family = socket.AF_INET6 if v6 else socket.AF_INET
    body = b""
    if not header.get("noaddr"):
        body += socket.inet_pton(family, source) + socket.inet_pton(family, target)
        body += struct.pack("!HH", source_port, target_port)
    for kind, value in header.get("tlvs", []):
        data = value.encode("latin-1") if isinstance(value, str) else b"z" * value
        body += struct.pack("!BH", kind, len(data)) + data
    body += bytes.fromhex(header.get("tail_hex", ""))
    command, form = header.get("cmd", 0x21), header.get("fam", 0x21 if v6 else 0x11)
    return SIGNATURE + struct.pack("!BBH", command, form, header.get("len", len(body))) + body


def _endpoint(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)
