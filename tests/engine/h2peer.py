"""A peer that speaks HTTP/2 in frames: it says what a test wants, also what no library would."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from hpack import Decoder, Encoder

if TYPE_CHECKING:
    from .harness import Gateway, Peer, Script

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = range(5)
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(5, 10)

END_STREAM = ACK = 0x1
END_HEADERS = 0x4

MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 3, 4, 5
ENABLE_CONNECT_PROTOCOL = 8

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR = 0, 1, 2
FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR = 6, 7, 8, 9
ENHANCE_YOUR_CALM = 11

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DEFAULT_WINDOW = 65_535
LARGEST_STREAM = 2**31 - 1

Fields = Iterable[tuple[str, str]]


class Frame(NamedTuple):
    """A frame as it arrived."""

    kind: int
    flags: int
    stream: int
    payload: bytes

    def number(self) -> int:
        """The error code of a reset, or the increment of a window."""
        return int.from_bytes(self.payload[:4], "big")


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack("!I", len(payload))[1:] + struct.pack("!BBI", kind, flags, stream) + payload


@dataclass
class Message:
    """What has arrived of the peer's message on a stream."""

    headers: list[tuple[str, str]] = field(default_factory=list)
    interim: list[int] = field(default_factory=list)
    body: bytes = b""
    trailers: list[tuple[str, str]] | None = None
    ended: bool = False
    reset: int | None = None

    @property
    def status(self) -> int:
        return int(self[":status"])

    def __getitem__(self, name: str) -> str:
        return next(value for key, value in self.headers if key == name)

    def get(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)

    def names(self) -> list[str]:
        return [name for name, _ in self.headers]

    def over(self) -> bool:
        return self.ended or self.reset is not None


class H2Peer:
    """One end of an HTTP/2 connection.

    SETTINGS and PING are acknowledged as they are read, and received data is given back to the
    windows, unless told otherwise. Nothing is read but in :meth:`pump` and what calls it.
    """

    def __init__(
        self,
        peer: Peer,
        *,
        client: bool = True,
        preface: bytes = PREFACE,
        settings: dict[int, int] | None = None,
        give_back: bool = True,
    ) -> None:
        self.peer = peer
        self.give_back = give_back
        self.answer_pings = True
        self.encoder = Encoder()
        self.decoder = Decoder()
        self.messages: dict[int, Message] = {}
        self.opened: list[int] = []
        """The peer's streams whose head has arrived and that :meth:`accept` has not returned."""
        self.seen: list[Frame] = []
        """Frames that are about no stream, and window updates."""
        self.settings: dict[int, int] = {}
        self.goaways: list[tuple[int, int]] = []
        """The last stream and the error of each GOAWAY."""
        self.last_opened = 0
        self._block = b""
        if client:
            self.peer.send(preface)
        else:
            assert peer.read_exactly(len(PREFACE)) == PREFACE
        self.frame(SETTINGS, payload=settings_of(settings or {}))

    # Sending.

    def frame(self, kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> None:
        self.peer.send(frame(kind, flags, stream, payload))

    def block(self, fields: Fields) -> bytes:
        """The fields in HPACK, whatever they are."""
        return bytes(self.encoder.encode(list(fields)))

    def headers(self, stream: int, fields: Fields, *, end: bool = False) -> None:
        """Sends a head or trailers, in as many frames as it takes."""
        block = self.block(fields)
        first, rest = block[:16_384], block[16_384:]
        flags = END_STREAM if end else 0
        self.frame(HEADERS, flags | (0 if rest else END_HEADERS), stream, first)
        while rest:
            first, rest = rest[:16_384], rest[16_384:]
            self.frame(CONTINUATION, 0 if rest else END_HEADERS, stream, first)

    def data(self, stream: int, data: bytes = b"", *, end: bool = False) -> None:
        """Sends data in frames of at most 16 KiB, whatever the windows are."""
        for at in range(0, max(len(data), 1), 16_384):
            piece = data[at : at + 16_384]
            last = end and at + 16_384 >= len(data)
            self.frame(DATA, END_STREAM if last else 0, stream, piece)

    def reset(self, stream: int, code: int = CANCEL) -> None:
        self.frame(RST_STREAM, 0, stream, struct.pack("!I", code))

    def goaway(self, last: int, code: int = NO_ERROR) -> None:
        self.frame(GOAWAY, 0, 0, struct.pack("!II", last, code))

    def window_update(self, stream: int, increment: int) -> None:
        self.frame(WINDOW_UPDATE, 0, stream, struct.pack("!I", increment))

    def ping(self, payload: bytes = b"12345678") -> None:
        """Sends a PING and reads until it is acknowledged: what was sent before has been read."""
        self.frame(PING, 0, 0, payload)
        self.pump(lambda: any(seen == Frame(PING, ACK, 0, payload) for seen in self.seen))
        self.seen = [seen for seen in self.seen if seen.kind != PING]

    def request(
        self,
        path: str = "/",
        *fields: tuple[str, str],
        method: str = "GET",
        host: str = "ollama",
        body: bytes | None = None,
        end: bool = True,
    ) -> int:
        """Opens a stream with a request and returns its number."""
        self.last_opened += 2 if self.last_opened else 1
        stream = self.last_opened
        head = [(":method", method), (":scheme", "http"), (":authority", host), (":path", path)]
        self.headers(stream, [*head, *fields], end=end and body is None)
        if body is not None:
            self.data(stream, body, end=end)
        return stream

    def connect(self, authority: str, *fields: tuple[str, str]) -> int:
        """Opens a stream with a CONNECT request."""
        self.last_opened += 2 if self.last_opened else 1
        head = [(":method", "CONNECT"), (":authority", authority)]
        self.headers(self.last_opened, [*head, *fields])
        return self.last_opened

    def extended_connect(self, protocol: str, *fields: tuple[str, str], path: str = "/") -> int:
        """Opens a stream that asks for another protocol (RFC 8441)."""
        return self.request(path, (":protocol", protocol), *fields, method="CONNECT", end=False)

    def respond(
        self,
        stream: int,
        *fields: tuple[str, str],
        status: int = 200,
        body: bytes | None = None,
        end: bool = True,
    ) -> None:
        head = [(":status", str(status)), *fields]
        self.headers(stream, head, end=end and body is None)
        if body is not None:
            self.data(stream, body, end=end)

    # Receiving.

    def message(self, stream: int) -> Message:
        return self.messages.setdefault(stream, Message())

    def read_frame(self) -> Frame:
        head = self.peer.read_exactly(9)
        length = int.from_bytes(head[:3], "big")
        kind, flags, stream = struct.unpack("!BBI", head[3:])
        return Frame(kind, flags, stream, self.peer.read_exactly(length))

    def pump(self, until: Callable[[], object]) -> None:
        """Reads frames until ``until`` holds."""
        while not until():
            self._take(self.read_frame())

    def head(self, stream: int) -> Message:
        """Reads until the head of the peer's message is there."""
        message = self.message(stream)
        self.pump(lambda: message.headers or message.over())
        return message

    def response(self, stream: int) -> Message:
        """Reads until the peer's message has ended or was reset."""
        message = self.message(stream)
        self.pump(message.over)
        return message

    def reset_of(self, stream: int) -> int | None:
        """Reads until the peer has reset the stream, and returns the error."""
        message = self.message(stream)
        self.pump(lambda: message.reset is not None)
        return message.reset

    def body_of(self, stream: int, length: int) -> bytes:
        """Reads until ``length`` bytes of the peer's body are there."""
        message = self.message(stream)
        self.pump(lambda: len(message.body) >= length or message.over())
        return message.body

    def accept(self) -> int:
        """Reads until the peer has opened a stream, and returns its number."""
        self.pump(lambda: self.opened)
        return self.opened.pop(0)

    def read_to_end(self) -> None:
        """Reads frames until the peer closes the connection; a reset is an error."""
        try:
            while True:
                self._take(self.read_frame())
        except EOFError:
            assert not self.peer.buffer, bytes(self.peer.buffer)

    def ask(self, path: str = "/", *fields: tuple[str, str], **more: object) -> Message:
        """Sends a request and returns its answer."""
        return self.response(self.request(path, *fields, **more))  # type: ignore[arg-type]  # passed on

    def _take(self, found: Frame) -> None:
        message = self.messages.get(found.stream)
        if found.kind == DATA:
            assert message is not None
            message.body += found.payload
            message.ended |= bool(found.flags & END_STREAM)
            if self.give_back and found.payload:
                increment = struct.pack("!I", len(found.payload))
                self._reply(WINDOW_UPDATE, 0, 0, increment)
                if not message.ended:
                    self._reply(WINDOW_UPDATE, 0, found.stream, increment)
        elif found.kind in (HEADERS, CONTINUATION):
            if found.kind == HEADERS:
                self._ends = bool(found.flags & END_STREAM)
            self._block += found.payload
            if found.flags & END_HEADERS:
                block, self._block = self._block, b""
                self._take_fields(found.stream, block)
        elif found.kind == RST_STREAM:
            self.message(found.stream).reset = found.number()
        elif found.kind == GOAWAY:
            last, code = struct.unpack("!II", found.payload[:8])
            self.goaways.append((last, code))
        elif found.kind == SETTINGS and not found.flags & ACK:
            self.settings.update(struct.iter_unpack("!HI", found.payload))
            self._reply(SETTINGS, ACK, 0, b"")
        elif found.kind == PING and not found.flags & ACK and self.answer_pings:
            self._reply(PING, ACK, 0, found.payload)
        else:
            self.seen.append(found)

    def _reply(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        # The peer may have closed behind what is being read.
        with contextlib.suppress(ConnectionError):
            self.frame(kind, flags, stream, payload)

    def _take_fields(self, stream: int, block: bytes) -> None:
        fields = [(str(name), str(value)) for name, value in self.decoder.decode(block)]
        if stream not in self.messages:
            self.opened.append(stream)
        message = self.message(stream)
        status = dict(fields).get(":status", "")
        if status.startswith("1"):
            message.interim.append(int(status))
            return
        if message.headers:
            message.trailers = fields
        else:
            message.headers = fields
        message.ended |= self._ends

    def close(self) -> None:
        self.peer.close()


def settings_of(settings: dict[int, int]) -> bytes:
    return b"".join(struct.pack("!HI", *setting) for setting in settings.items())


def h2_client(
    gateway: Gateway,
    prefix: bytes = b"",
    *,
    settings: dict[int, int] | None = None,
    give_back: bool = True,
    receive_buffer: int | None = None,
) -> H2Peer:
    """A client with prior knowledge; ``prefix`` goes before its preface."""
    peer = gateway.connect(receive_buffer=receive_buffer)
    peer.send(prefix)
    return H2Peer(peer, settings=settings, give_back=give_back)


def h2_script(
    serve: Callable[[H2Peer, int], None], settings: dict[int, int] | None = None
) -> Script:
    """A script for an upstream that speaks HTTP/2: ``serve`` is called for each whole request."""

    def script(peer: Peer) -> None:
        server = H2Peer(peer, client=False, settings=settings)
        while True:
            stream = server.accept()
            server.response(stream)
            serve(server, stream)

    return script


def h2_always(*fields: tuple[str, str], body: bytes = b"ok") -> Script:
    """A script that gives the same answer to every request over HTTP/2."""
    return h2_script(lambda server, stream: server.respond(stream, *fields, body=body))


def settled(gateway: Gateway, *peers: H2Peer) -> None:
    """Returns once the gateway has read what the peers sent, and acted on it."""
    for peer in peers:
        peer.ping()
    gateway.settle()
