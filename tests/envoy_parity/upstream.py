"""A scripted upstream: it records every request as it came and does what ``x-up`` says.

It speaks HTTP/1.1, and HTTP/2 to those who begin with its preface; a PROXY header may come first.

``x-up`` is ``key=value;key=value`` with percent-encoded values. Keys: ``status``, ``reason``,
``body`` or ``len``, ``hdr`` (a field line, repeatable), ``chunked`` (with ``chunk`` bytes each and
``chunk_delay`` ms), ``trailer``, ``cl`` (a false length), ``close``, ``nocl`` (ends with the
connection), ``http`` (version), ``raw`` (bytes instead of a response; ``keep`` keeps the
connection), ``continue`` and ``early`` (100 or the answer before the body), ``delay`` and
``body_delay`` (ms before head and body), ``fin`` and ``rst`` (``pre`` or ``mid``), ``hang``,
``bighdr`` (bytes), ``manyhdr``, ``ws`` and ``connect`` (a tunnel that echoes), ``hints`` (103
first). Over HTTP/2 also ``h2rst`` and ``rst_mid`` (codes of a reset, before and in the answer),
``goaway`` (its code; then it closes), ``trailers_only``.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

from . import http2

Record = dict[str, Any]
Directives = dict[str, str]


class Upstreams:
    """The upstreams of one proxy in one lane: servers ``a`` to ``d`` and two dead addresses.

    No case leaves a connection to ``d`` idle, so each of its requests has a new one. ``refused``
    refuses connections; ``hang`` neither accepts nor refuses them.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.addresses: dict[str, str] = {}
        self._records: list[Record] = []
        self._lock = threading.Lock()
        self._servers: list[asyncio.Server] = []
        self._sockets: list[socket.socket] = []
        for name in "abcd":
            serve = asyncio.run_coroutine_threadsafe(self._serve(name), loop)
            self.addresses[name] = serve.result(10)
        refused = socket.socket()
        refused.bind(("127.0.0.1", 0))
        self._keep("refused", refused)
        full = socket.socket()
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        self._keep("hang", full)
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(full.getsockname())
            self._sockets.append(filler)

    def take(self) -> list[Record]:
        """Returns and forgets what was received so far."""
        with self._lock:
            records, self._records = self._records, []
        return records

    def count(self) -> int:
        """How many requests were received since the last call of ``take``."""
        with self._lock:
            return len(self._records)

    def close(self) -> None:
        """Closes the listening sockets."""
        for server in self._servers:
            server.get_loop().call_soon_threadsafe(server.close)
        for sock in self._sockets:
            sock.close()

    def _keep(self, name: str, sock: socket.socket) -> None:
        self.addresses[name] = "{}:{}".format(*sock.getsockname())
        self._sockets.append(sock)

    async def _serve(self, name: str) -> str:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = _Connection(name, reader, writer)
            with contextlib.suppress(ConnectionError, OSError, asyncio.IncompleteReadError):
                while await connection.exchange(self._add):
                    pass
            writer.close()

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        self._servers.append(server)
        return "{}:{}".format(*server.sockets[0].getsockname())

    def _add(self, record: Record) -> None:
        with self._lock:
            self._records.append(record)


def _directives(fields: list[tuple[str, str]]) -> tuple[Directives, list[str], bytes]:
    """Returns the directives, the field lines to send, and the raw bytes to send."""
    directives: Directives = {}
    lines, raw = [], b""
    text = next((value for name, value in fields if name == "x-up"), "")
    for token in filter(None, (token.strip() for token in text.split(";"))):
        key, _, value = token.partition("=")
        if key == "raw":
            raw = unquote_to_bytes(value)
            directives[key] = "1"
        elif key == "hdr":
            lines.append(unquote(value))
        else:
            directives[key] = unquote(value)
    return directives, lines, raw


class _Connection:
    def __init__(
        self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.name, self.reader, self.writer = name, reader, writer
        self.about: Record = {}

    async def exchange(self, add: Any) -> bool:
        """Serves one request; returns whether the connection goes on."""
        head = (await self.reader.readuntil(b"\r\n\r\n"))[:-4].decode("latin-1")
        if not head:
            self.about["proxy_header"] = await self._proxy_header()
            return True
        if head == "PRI * HTTP/2.0":
            await self.reader.readexactly(len("SM\r\n\r\n"))
            upstream = http2.Upstream(self.name, self.reader, self.writer, _directives)
            await upstream.serve(add, self.about)
            return False
        line, *lines = head.split("\r\n")
        if line.startswith("PROXY "):
            _, family, source, target, source_port, target_port = line.split(" ")
            self.about["proxy_header"] = (
                f"v1 {family} {source}:{source_port} {target}:{target_port}"
            )
            line, *lines = lines
        fields = [
            (name.strip().lower(), value.strip())
            for name, _, value in (it.partition(":") for it in lines)
        ]
        record: Record = {"upstream": self.name, "line": line, "fields": lines} | self.about
        add(record)
        directives, extra, raw = _directives(fields)
        if "continue" in directives:
            await self._send(b"HTTP/1.1 100 Continue\r\n\r\n")
        if "early" not in directives:
            await self._body(dict(fields), record)
        if "ws" in directives or "connect" in directives:
            await self._tunnel(dict(fields), "ws" in directives, extra, record)
            return False
        return await self._act(line.split(" ")[0], directives, extra, raw)

    async def _proxy_header(self) -> str:
        rest = await self.reader.readexactly(12)
        command, family, size = struct.unpack("!BBH", rest[8:])
        body = await self.reader.readexactly(size)
        width, kind = (4, socket.AF_INET) if family == 0x11 else (16, socket.AF_INET6)
        hosts = [socket.inet_ntop(kind, body[at : at + width]) for at in (0, width)]
        ports = struct.unpack("!HH", body[2 * width : 2 * width + 4])
        addresses = " ".join(f"{host}:{port}" for host, port in zip(hosts, ports, strict=True))
        return f"v2 {command:x} {family:x} {addresses} {body[2 * width + 4 :].hex()}"

    async def _tunnel(
        self, fields: dict[str, str], websocket: bool, extra: list[str], record: Record
    ) -> None:
        head = ["HTTP/1.1 200 OK", *extra]
        if websocket:
            head = ["HTTP/1.1 101 Switching Protocols", f"Upgrade: {fields.get('upgrade')}"]
            head += ["Connection: Upgrade", *extra]
        await self._send(("\r\n".join(head) + "\r\n\r\n").encode("latin-1"))
        record["tunnel"] = ""
        while data := await self.reader.read(65536):
            record["tunnel"] += data.decode("latin-1")
            await self._send(b"echo:" + data)
        record["tunnel_end"] = True

    async def _body(self, fields: dict[str, str], record: Record) -> None:
        body = b""
        try:
            if "chunked" in fields.get("transfer-encoding", "").lower():
                record["framing"] = "chunked"
                while size := int((await self._line()).split(b";")[0], 16):
                    body += await self.reader.readexactly(size)
                    await self._line()
                while trailer := await self._line():
                    record.setdefault("trailers", []).append(trailer.decode("latin-1"))
            elif "content-length" in fields:
                body = await self.reader.readexactly(int(fields["content-length"]))
        except asyncio.IncompleteReadError as short:
            body += short.partial
            record["cut"] = True
            raise
        finally:
            record["body_bytes"] = len(body)
            record["body"] = body[:300].decode("latin-1")

    async def _line(self) -> bytes:
        return (await self.reader.readuntil(b"\r\n"))[:-2]

    async def _send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def _reset(self) -> None:
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def _peer_gone(self, seconds: float | None) -> bool:
        """Waits; returns early, and true, when the peer closes."""
        try:
            return not await asyncio.wait_for(self.reader.read(65536), seconds)
        except TimeoutError:
            return False

    async def _act(self, method: str, directives: Directives, extra: list[str], raw: bytes) -> bool:
        if directives.get("rst") == "pre":
            self._reset()
            return False
        if directives.get("fin") == "pre":
            return False
        if "hang" in directives:
            await self._peer_gone(None)
            return False
        if "delay" in directives and await self._peer_gone(_seconds(directives["delay"])):
            return False
        if "raw" in directives:
            await self._send(raw)
            return "keep" in directives
        return await self._respond(method, directives, extra)

    async def _respond(self, method: str, directives: Directives, extra: list[str]) -> bool:
        if "hints" in directives:
            await self._send(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n")
        status = int(directives.get("status", "200"))
        body = directives.get("body", "x" * int(directives.get("len", "0")) or "ok").encode()
        chunked = "chunked" in directives or "trailer" in directives
        no_body = method == "HEAD" or status in (204, 304)
        ends = "close" in directives or "nocl" in directives or directives.get("http") == "1.0"
        await self._send(self._head(directives, extra, status, len(body), chunked=chunked))
        if no_body:
            return not ends
        if "body_delay" in directives and await self._peer_gone(_seconds(directives["body_delay"])):
            return False
        if "mid" in (directives.get("fin"), directives.get("rst")):
            half = body[: len(body) // 2]
            await self._send(b"%x\r\n%s\r\n" % (len(half), half) if chunked else half)
            await asyncio.sleep(0.1)  # the half must be on its way before the reset
            if "rst" in directives:
                self._reset()
            return False
        if not chunked:
            await self._send(body)
            return not ends
        step = int(directives.get("chunk", str(len(body))))
        for start in range(0, len(body), step):
            part = body[start : start + step]
            await self._send(b"%x\r\n%s\r\n" % (len(part), part))
            if "chunk_delay" in directives and await self._peer_gone(
                _seconds(directives["chunk_delay"])
            ):
                return False
        trailer = f"{directives['trailer']}\r\n" if "trailer" in directives else ""
        await self._send(f"0\r\n{trailer}\r\n".encode())
        return not ends

    def _head(
        self, directives: Directives, extra: list[str], status: int, size: int, *, chunked: bool
    ) -> bytes:
        reason = directives.get("reason", "OK" if status == 200 else "Status")
        lines = [f"HTTP/{directives.get('http', '1.1')} {status} {reason}"]
        lines += extra or ["Content-Type: text/plain"]
        lines.append(f"X-Upstream: {self.name}")
        if "bighdr" in directives:
            lines.append("X-Big: " + "b" * int(directives["bighdr"]))
        lines += [f"X-M{number}: 1" for number in range(int(directives.get("manyhdr", "0")))]
        if chunked:
            lines.append("Transfer-Encoding: chunked")
        elif "nocl" not in directives and status not in (204, 304):
            lines.append(f"Content-Length: {directives.get('cl', size)}")
        if "close" in directives:
            lines.append("Connection: close")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _seconds(milliseconds: str) -> float:
    return int(milliseconds) / 1000
