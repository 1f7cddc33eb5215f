"""An end of an HTTP/2 connection that keeps all it is told and refuses nothing."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from hpack import Decoder
from hpack.exceptions import HPACKError

from .frames import PREFACE, Flag, Kind, ping, settings, window_update

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

WAIT = 5.0
"""Seconds that a test waits for what must come."""


@dataclass
class Stream:
    """What the other end sent on a stream."""

    fields: list[list[tuple[bytes, bytes]]] = field(default_factory=list)
    """The fields of each header block: interim responses, response, trailers."""
    body: bytearray = field(default_factory=bytearray)
    ended: bool = False
    reset: int | None = None

    @property
    def status(self) -> int | None:
        """The status of the last response head, interim ones included."""
        found = [int(value) for block in self.fields for name, value in block if name == b":status"]
        return found[-1] if found else None

    @property
    def over(self) -> bool:
        return self.ended or self.reset is not None

    def values(self, name: str) -> list[str]:
        wanted = name.encode()
        return [
            value.decode("latin-1")
            for block in self.fields
            for key, value in block
            if key == wanted
        ]


class Endpoint:
    """One end. Answers SETTINGS and PING, and reopens windows; all else is the test's to do."""

    def __init__(self, sock: socket.socket, *, opens_windows: bool = True) -> None:
        self.sock = sock
        self.sock.settimeout(WAIT)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.opens_windows = opens_windows
        self.streams: defaultdict[int, Stream] = defaultdict(Stream)
        self.settings: dict[int, int] | None = None
        self.settings_acked = 0
        self.pings: list[bytes] = []
        self.goaways: list[int] = []
        self.last_stream: int | None = None
        self.closed = False
        self.frames = 0
        self._buffer = bytearray()
        self._block = bytearray()
        self._decoder = Decoder()
        self._decoder.max_header_list_size = 1 << 24

    def send(self, data: bytes | bytearray) -> bool:
        """Sends; returns whether the connection takes bytes, and took these within :data:`WAIT`."""
        self.sock.settimeout(WAIT)
        try:
            self.sock.sendall(data)
        except TimeoutError:
            return False
        except OSError:
            self._end()
        return not self.closed

    def read(self, until: Callable[[], object], seconds: float = WAIT) -> bool:
        """Reads until ``until`` holds or the connection ends; returns whether it holds."""
        deadline = time.monotonic() + seconds
        while not until():
            left = deadline - time.monotonic()
            if self.closed or left <= 0:
                return bool(until())
            self.sock.settimeout(left)
            try:
                received = self.sock.recv(262_144)
            except TimeoutError:
                continue
            except OSError:
                received = b""
            if not received:
                self.closed = True
            self._buffer += received
            self._take_frames()
        return True

    def response(self, stream: int, seconds: float = WAIT) -> Stream:
        """Waits for the end of a stream or of the connection."""
        self.read(lambda: self.streams[stream].over, seconds)
        return self.streams[stream]

    def is_alive(self, seconds: float = WAIT) -> bool:
        """Whether the other end answers a PING."""
        payload = f"{len(self.pings):08}".encode()
        self.send(ping(payload))
        return self.read(lambda: payload in self.pings, seconds)

    @property
    def goaway(self) -> int | None:
        """The code of the last GOAWAY."""
        return self.goaways[-1] if self.goaways else None

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.close()

    def reset(self) -> None:
        """Closes with RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _end(self) -> None:
        """Takes what arrived before the connection broke: a GOAWAY explains why it did."""
        self.sock.settimeout(0.5)
        with contextlib.suppress(OSError):
            while received := self.sock.recv(262_144):
                self._buffer += received
        self.closed = True
        self._take_frames()

    def _take_frames(self) -> None:
        while len(self._buffer) >= 9:
            end = 9 + int.from_bytes(self._buffer[:3], "big")
            if len(self._buffer) < end:
                return
            head, payload = bytes(self._buffer[:9]), bytes(self._buffer[9:end])
            del self._buffer[:end]
            self.frames += 1
            self._take(head[3], head[4], int.from_bytes(head[5:], "big") & 0x7FFFFFFF, payload)

    def _take(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        match kind:
            case Kind.SETTINGS if flags & Flag.ACK:
                self.settings_acked += 1
            case Kind.SETTINGS:
                pairs = [payload[at : at + 6] for at in range(0, len(payload), 6)]
                self.settings = {
                    int.from_bytes(it[:2], "big"): int.from_bytes(it[2:], "big") for it in pairs
                }
                self._reply(settings(flags=Flag.ACK))
            case Kind.PING if flags & Flag.ACK:
                self.pings.append(payload)
            case Kind.PING:
                self._reply(ping(payload, ack=True))
            case Kind.GOAWAY:
                self.last_stream = int.from_bytes(payload[:4], "big")
                self.goaways.append(int.from_bytes(payload[4:8], "big"))
            case Kind.RST_STREAM:
                self.streams[number].reset = int.from_bytes(payload[:4], "big")
            case Kind.HEADERS | Kind.CONTINUATION:
                self._take_block(flags, number, payload, kind == Kind.HEADERS)
            case Kind.DATA:
                self.streams[number].body += payload
                self.streams[number].ended |= bool(flags & Flag.END_STREAM)
                if payload and self.opens_windows:
                    size = len(payload)
                    self._reply(window_update(0, size) + window_update(number, size))

    def _take_block(self, flags: int, number: int, payload: bytes, first: bool) -> None:
        stream = self.streams[number]
        if first:
            self._block.clear()
            self._ends = bool(flags & Flag.END_STREAM)
        self._block += payload
        if flags & Flag.END_HEADERS:
            with contextlib.suppress(HPACKError):
                decoded = self._decoder.decode(bytes(self._block), raw=True)
                stream.fields.append([(bytes(name), bytes(value)) for name, value in decoded])
            stream.ended |= self._ends

    def _reply(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            self.sock.sendall(data)


class Connection(Endpoint):
    """A client's end, which has sent its preface."""

    def __init__(
        self,
        address: tuple[str, int],
        initial: Iterable[tuple[int, int]] = (),
        *,
        preface: bytes | None = None,
        opens_windows: bool = True,
    ) -> None:
        super().__init__(socket.create_connection(address, WAIT), opens_windows=opens_windows)
        self.send(PREFACE + settings(initial) if preface is None else preface)

    def handshake(self) -> None:
        """Waits for the server's SETTINGS and for its acknowledgement of ours."""
        self.read(lambda: self.settings is not None and self.settings_acked)


class Accepted(Endpoint):
    """A server's end, which takes the client's preface and has sent its own."""

    def __init__(self, sock: socket.socket, initial: Iterable[tuple[int, int]] = ()) -> None:
        super().__init__(sock)
        preface = b""
        while len(preface) < len(PREFACE):
            received = self.sock.recv(len(PREFACE) - len(preface))
            if not received:
                raise EOFError(f"closed within the preface: {preface!r}")
            preface += received
        assert preface == PREFACE
        self.send(settings(initial))
