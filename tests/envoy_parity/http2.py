"""HTTP/2 on both ends of a case: the client that plays ``h2`` items, and the upstream's side.

An ``h2`` item is a stream: ``fields`` (pairs, pseudo-fields first; ``request`` makes the usual four
from ``METHOD host/path``), ``data``, ``trailers``, ``end`` (false leaves it open), ``rst`` (a code
sent after it), ``repeat`` (``[name, bytes]``, one long field). ``hex`` is sent as it is, between
streams. ``await``, ``wait`` and ``close`` are as in ``exchange``. ``goaway`` in ``rest`` stands for
a GOAWAY frame and its code. A stream that got ``tunnel`` bytes counts as finished.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from .upstream import Directives, Record

Case = dict[str, Any]
Fields = list[tuple[str, str]]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
GOAWAY = 7


def _connection(*, client: bool) -> h2.connection.H2Connection:
    config = h2.config.H2Configuration(
        client_side=client,
        header_encoding="latin-1",
        validate_outbound_headers=False,
        normalize_outbound_headers=False,
        validate_inbound_headers=False,
        normalize_inbound_headers=False,
    )
    return h2.connection.H2Connection(config)


class Client:
    """Plays the items of a case on a connected socket."""

    def __init__(self, sock: socket.socket, case: Case, deadline: float, linger: float) -> None:
        self.sock, self.case, self.deadline, self.linger = sock, case, deadline, linger
        self.protocol = _connection(client=True)
        self.streams: dict[int, dict[str, Any]] = {}
        self.finished = 0
        self.end, self.rest = "open", ""
        self.buffer = b""
        self.tunnel = int(case.get("tunnel", 0))

    def run(self) -> tuple[list[dict[str, Any]], str, str]:
        """Returns what ``exchange.run`` returns."""
        self.protocol.initiate_connection()
        self._flush()
        for item in self.case["h2"]:
            self._play(item)
            if self.end != "open":
                break
        if self.end == "open":
            wanted = sum("fields" in it or "request" in it for it in self.case["h2"])
            self._receive(int(self.case.get("responses", wanted)), self.deadline)
            self._receive(None, time.monotonic() + self.linger)
        self.sock.close()
        for stream in self.streams.values():
            stream["body_bytes"] = len(stream["body"])
            stream["body"] = stream["body"][:400].decode("latin-1")
        return list(self.streams.values()), self.end, self.rest

    def _play(self, item: Case) -> None:
        if "await" in item:
            self._receive(int(item["await"]), self.deadline)
        if "wait" in item:
            until = time.monotonic() + float(item["wait"])
            self._receive(None, until)
            time.sleep(max(0.0, until - time.monotonic()))  # the case says when to send
        if "hex" in item:
            self._send(bytes.fromhex(item["hex"]))
        if "fields" in item or "request" in item:
            with contextlib.suppress(h2.exceptions.ProtocolError):  # the proxy ended the connection
                self._open(item)
        if item.get("close"):
            self.sock.close()
            self.end = "by client"

    def _open(self, item: Case) -> None:
        stream = self.protocol.get_next_available_stream_id()
        self.streams[stream] = {"version": "2", "fields": [], "body": b"", "complete": False}
        last = not ({"data", "trailers"} & item.keys()) and item.get("end", True)
        self.protocol.send_headers(stream, _fields(item), end_stream=last)
        if "data" in item:
            last = "trailers" not in item and item.get("end", True)
            self.protocol.send_data(stream, item["data"].encode("latin-1"), end_stream=last)
        if "trailers" in item:
            self.protocol.send_headers(stream, _pairs(item["trailers"]), end_stream=True)
        self._flush()
        if "rst" in item:
            self._receive(None, time.monotonic() + float(item.get("rst_after", 0.2)))
            self.protocol.reset_stream(stream, int(item["rst"]))
            self.finished += 1
            self._flush()

    def _flush(self) -> None:
        self._send(self.protocol.data_to_send())

    def _send(self, data: bytes) -> None:
        self.sock.settimeout(max(0.1, self.deadline - time.monotonic()))
        with contextlib.suppress(OSError):  # the proxy may have closed already
            self.sock.sendall(data)

    def _receive(self, finished: int | None, until: float) -> None:
        while self.end == "open" and (finished is None or self.finished < finished):
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
                return
            try:
                events = self.protocol.receive_data(self._without_goaway(data))
            except h2.exceptions.ProtocolError as error:
                self.rest += f"error {type(error).__name__};"
                return
            for event in events:
                self._take(event)
            self._flush()

    def _without_goaway(self, data: bytes) -> bytes:
        """The whole frames that have come. GOAWAY is noted here: the library would stop at it."""
        self.buffer += data
        frames = b""
        while len(self.buffer) >= 9:
            size = 9 + int.from_bytes(self.buffer[:3], "big")
            if len(self.buffer) < size:
                break
            frame, self.buffer = self.buffer[:size], self.buffer[size:]
            if frame[3] == GOAWAY:
                self.rest += f"goaway {int.from_bytes(frame[13:17], 'big')};"
            else:
                frames += frame
        return frames

    def _take(self, event: h2.events.Event) -> None:
        stream = self.streams.get(getattr(event, "stream_id", None) or 0)
        if stream is None:
            return
        if isinstance(event, h2.events.ResponseReceived):
            fields = _texts(event.headers)
            stream["status"] = int(dict(fields)[":status"])
            stream["fields"] = [it for it in fields if not it[0].startswith(":")]
        elif isinstance(event, h2.events.InformationalResponseReceived):
            stream.setdefault("interim", []).append(dict(_texts(event.headers))[":status"])
        elif isinstance(event, h2.events.DataReceived):
            if len(stream["body"]) < self.tunnel <= len(stream["body"]) + len(event.data):
                self.finished += 1
            stream["body"] += event.data
            length = event.flow_controlled_length or 0
            self.protocol.acknowledge_received_data(length, event.stream_id or 0)
        elif isinstance(event, h2.events.TrailersReceived):
            stream["trailers"] = [f"{name}: {value}" for name, value in _texts(event.headers)]
        elif isinstance(event, h2.events.StreamEnded):
            stream["complete"] = True
            self.finished += 1
        elif isinstance(event, h2.events.StreamReset):
            stream["reset"] = int(event.error_code or 0)
            self.finished += not stream["complete"]


def _fields(item: Case) -> Fields:
    fields: Fields = []
    if "request" in item:
        method, _, target = item["request"].partition(" ")
        host, _, path = target.partition("/")
        fields = [
            (":method", method),
            (":scheme", "http"),
            (":authority", host),
            (":path", f"/{path}"),
        ]
    fields += _pairs(item.get("fields", []))
    if "repeat" in item:
        name, size = item["repeat"]
        fields.append((name, "a" * size))
    return fields


def _pairs(pairs: list[list[str]]) -> Fields:
    return [(str(name), str(value)) for name, value in pairs]


def _texts(headers: Any) -> Fields:
    return [(str(name), str(value)) for name, value in headers]


class Upstream:
    """Serves an HTTP/2 connection, of which the client's preface was read."""

    def __init__(
        self,
        name: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        parse: Callable[[Fields], tuple[Directives, list[str], bytes]],
    ) -> None:
        self.name, self.reader, self.writer, self.parse = name, reader, writer, parse
        self.protocol = _connection(client=False)
        self.records: dict[int, Record] = {}
        self.fields: dict[int, Fields] = {}
        self.tasks: set[asyncio.Task[None]] = set()

    async def serve(self, add: Callable[[Record], None], about: Record) -> None:
        """Serves until the peer closes; each record starts as ``about``."""
        connect = {h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL: 1}
        self.protocol.local_settings = h2.settings.Settings(client=False, initial_values=connect)
        self.protocol.initiate_connection()
        self.protocol.receive_data(PREFACE)
        try:
            while True:
                await self._flush()
                data = await self.reader.read(65536)
                if not data:
                    return
                for event in self.protocol.receive_data(data):
                    self._take(event, add, about)
        except h2.exceptions.ProtocolError:
            await self._flush()  # the GOAWAY, of a case or of ours
        finally:
            for task in self.tasks:
                task.cancel()

    def _take(self, event: h2.events.Event, add: Callable[[Record], None], about: Record) -> None:
        if isinstance(event, h2.events.ConnectionTerminated):
            return
        stream = getattr(event, "stream_id", None) or 0
        if isinstance(event, h2.events.RequestReceived):
            fields = _texts(event.headers)
            pseudo = {name: value for name, value in fields if name.startswith(":")}
            line = f"{pseudo.pop(':method', None)} {pseudo.pop(':path', None)} HTTP/2"
            record: Record = {"upstream": self.name, "line": line, "body": "", "body_bytes": 0}
            record["fields"] = [f"{name}: {value}" for name, value in fields if name[0] != ":"]
            self.records[stream] = record | pseudo | about
            self.fields[stream] = fields
            add(self.records[stream])
            if ":protocol" in pseudo or "early" in self.parse(fields)[0]:
                self._start(stream)
        elif isinstance(event, h2.events.DataReceived):
            text = event.data.decode("latin-1")
            self.records[stream]["body"] += text[:300]
            self.records[stream]["body_bytes"] += len(text)
            self.protocol.acknowledge_received_data(event.flow_controlled_length or 0, stream)
            if ":protocol" in self.records[stream]:
                self.protocol.send_data(stream, b"echo:" + event.data)
        elif isinstance(event, h2.events.TrailersReceived):
            lines = [f"{name}: {value}" for name, value in _texts(event.headers)]
            self.records[stream]["trailers"] = lines
        elif isinstance(event, h2.events.StreamEnded):
            self._start(stream)
        elif isinstance(event, h2.events.StreamReset) and stream in self.records:
            self.records[stream]["reset"] = int(event.error_code or 0)

    def _start(self, stream: int) -> None:
        fields = self.fields.pop(stream, None)
        if fields is not None:
            task = asyncio.get_running_loop().create_task(self._answer(stream, fields))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def _flush(self) -> None:
        self.writer.write(self.protocol.data_to_send())
        await self.writer.drain()

    async def _answer(self, stream: int, fields: Fields) -> None:
        directives, lines, raw = self.parse(fields)
        if "hang" in directives:
            return
        await asyncio.sleep(int(directives.get("delay", "0")) / 1000)  # the case says so
        with contextlib.suppress(h2.exceptions.ProtocolError, ConnectionError):
            if raw:
                self.writer.write(raw)
            elif "h2rst" in directives:
                self.protocol.reset_stream(stream, int(directives["h2rst"]))
            elif "goaway" in directives:
                self.protocol.close_connection(int(directives["goaway"]))
            elif "fin" not in directives:
                await self._respond(stream, directives, lines)
            await self._flush()
            if "goaway" in directives or "fin" in directives:
                self.writer.close()

    async def _respond(self, stream: int, directives: Directives, lines: list[str]) -> None:
        fields = [(":status", directives.get("status", "200"))]
        for line in lines or ["content-type: text/plain"]:
            name, _, value = line.partition(":")
            fields.append((name.strip(), value.strip()))
        fields.append(("x-upstream", self.name))
        if "bighdr" in directives:
            fields.append(("x-big", "b" * int(directives["bighdr"])))
        body = directives.get("body", "x" * int(directives.get("len", "0")) or "ok").encode()
        tunnel = ":protocol" in self.records[stream]
        bodiless = self.records[stream]["line"].startswith("HEAD ")
        only = bodiless or "trailers_only" in directives
        self.protocol.send_headers(stream, fields, end_stream=only)
        if only or tunnel:
            return
        if "rst_mid" in directives:
            self.protocol.send_data(stream, body)
            await self._flush()
            await asyncio.sleep(0.1)  # the answer must be on its way before the reset
            self.protocol.reset_stream(stream, int(directives["rst_mid"]))
            return
        self.protocol.send_data(stream, body, end_stream="trailer" not in directives)
        if "trailer" in directives:
            name, _, value = directives["trailer"].partition(":")
            self.protocol.send_headers(stream, [(name, value.strip())], end_stream=True)
