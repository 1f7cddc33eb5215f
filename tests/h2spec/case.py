"""A case: a clause, the bytes that a client sends, and what a server may do about them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.peers import frames
from tests.peers.frames import Code
from tests.peers.h2 import Connection

Outcome = Callable[[Connection], str | None]
"""Looks at the connection after the bytes; says what is wrong, if anything is."""

Play = Callable[[Connection], object]

STREAM = 1
"""The stream that a case is about."""

PATIENCE = 2.0
"""Seconds for what must come. Where it comes, it takes a millisecond."""


@dataclass(frozen=True)
class Case:
    """One case."""

    clause: str
    """Of RFC 9113, or `HPACK` and one of RFC 7541."""
    name: str
    send: bytes | Play
    """What the client does after the handshake."""
    outcome: Outcome
    initial: tuple[tuple[int, int], ...] = ()
    """The client's first SETTINGS."""
    raw: bool = False
    """Whether `send` is instead of the client's preface."""

    @property
    def id(self) -> str:
        return f"{self.clause}: {self.name}"

    def run(self, address: tuple[str, int]) -> str | None:
        """Plays the case; returns what the server did wrong, if anything."""
        preface = b"" if self.raw else None
        with Connection(address, self.initial, preface=preface) as connection:
            if not self.raw:
                connection.handshake()
            if isinstance(self.send, bytes):
                connection.send(self.send)
            else:
                self.send(connection)
            return self.outcome(connection)


# === outcomes ===


def _seen(connection: Connection) -> str:
    stream = connection.streams[STREAM]
    return (
        f"goaway {[_name(it) for it in connection.goaways]}, closed {connection.closed}, "
        f"reset {_name(stream.reset)}, status {stream.status}, ended {stream.ended}"
    )


def _name(code: int | None) -> str:
    names = {int(it): it.name for it in Code}
    return names.get(code, str(code)) if code is not None else "none"


def connection_error(*codes: Code) -> Outcome:
    """GOAWAY with one of the codes and the connection's end (5.4.1).

    PROTOCOL_ERROR stands for any other: it is for use where no other code is (7).
    """

    def outcome(connection: Connection) -> str | None:
        connection.read(lambda: connection.closed, PATIENCE)
        if not connection.closed:
            return f"the connection was not closed: {_seen(connection)}"
        if connection.goaway not in (*codes, Code.PROTOCOL_ERROR):
            return f"no GOAWAY with {[it.name for it in codes]}: {_seen(connection)}"
        return None

    return outcome


def closes(connection: Connection) -> str | None:
    """The end of the connection, with a GOAWAY or without: what was sent may not be HTTP/2."""
    connection.read(lambda: connection.closed, PATIENCE)
    return None if connection.closed else f"the connection was not closed: {_seen(connection)}"


def stream_error(*codes: Code) -> Outcome:
    """RST_STREAM with one of the codes (5.4.2), or a connection error (5.4.1) with one.

    PROTOCOL_ERROR stands for any other, as above.
    """

    def outcome(connection: Connection) -> str | None:
        stream = connection.streams[STREAM]
        connection.read(lambda: stream.reset is not None or connection.goaways, PATIENCE)
        if stream.reset in codes or connection.goaway in (*codes, Code.PROTOCOL_ERROR):
            return None
        return f"no error of {[it.name for it in codes]}: {_seen(connection)}"

    return outcome


def malformed(connection: Connection) -> str | None:
    """RST_STREAM with PROTOCOL_ERROR, and a connection that goes on (8.1.1)."""
    stream = connection.streams[STREAM]
    connection.read(lambda: stream.over or connection.goaways, PATIENCE)
    if stream.reset != Code.PROTOCOL_ERROR:
        return f"the stream was not reset with PROTOCOL_ERROR: {_seen(connection)}"
    return serves(connection)


def undecodable(connection: Connection) -> str | None:
    """As :func:`malformed`, or a connection error: a stream's may be treated as one (5.4.2)."""
    stream = connection.streams[STREAM]
    connection.read(lambda: stream.over or connection.goaways, PATIENCE)
    if Code.PROTOCOL_ERROR not in (stream.reset, connection.goaway):
        return f"neither stream nor connection ended with PROTOCOL_ERROR: {_seen(connection)}"
    return None


def refused(connection: Connection) -> str | None:
    """As :func:`malformed`, or answered 400 (8.1.1 allows it), and a connection that goes on."""
    stream = connection.streams[STREAM]
    connection.read(lambda: stream.over or connection.goaways, PATIENCE)
    if stream.reset != Code.PROTOCOL_ERROR and not (stream.ended and stream.status == 400):
        return f"the stream was neither reset nor answered with 400: {_seen(connection)}"
    return serves(connection)


def serves(connection: Connection) -> str | None:
    """The next request on the connection is answered."""
    connection.send(frames.request(101))
    stream = connection.response(101, PATIENCE)
    ok = stream.ended and stream.status == 200
    return None if ok else f"the next request was not answered: {_seen(connection)}"


def answered(connection: Connection) -> str | None:
    """The case's own request is answered with 200."""
    stream = connection.response(STREAM, PATIENCE)
    ok = stream.ended and stream.status == 200 and not connection.goaways
    return None if ok else f"the request was not answered: {_seen(connection)}"


def answered_or_left(connection: Connection) -> str | None:
    """A request before a GOAWAY is answered; the server may go then, too."""
    stream = connection.response(STREAM, PATIENCE)
    ok = stream.ended and stream.status == 200 and connection.goaway in (None, Code.NO_ERROR)
    return None if ok else f"the request was not answered: {_seen(connection)}"


def alive(connection: Connection) -> str | None:
    """The connection goes on: a PING and a request are answered."""
    if not connection.is_alive(PATIENCE):
        return f"a PING was not answered: {_seen(connection)}"
    return serves(connection)
