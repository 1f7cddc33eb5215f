"""Clients of HTTP/2 that keep streams going, heed GOAWAY, and count requests that are lost."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import Counter
from typing import TYPE_CHECKING

from tests.engine.h2peer import LARGEST_STREAM, H2Peer, Message
from tests.engine.harness import WAIT, Peer, eventually

if TYPE_CHECKING:
    from typing import Self

    from tests.lifecycle.load import Address

STREAMS = 5
"""How many requests a client has under way on its connection."""


class Http2Load:
    """Clients that open a stream whenever one has ended, each on one connection at a time.

    A GOAWAY ends a connection: no stream is opened on it any more, and those up to its last one are
    read to their end. Streams above it were not processed, and are no loss (RFC 9113 6.8). Anything
    else without a whole answer is one, and nothing is retried.
    """

    def __init__(self, address: Address, *, clients: int = 4) -> None:
        self.address = address
        self.stopping = threading.Event()
        self._clients = [_Client(self) for _ in range(clients)]

    def __enter__(self) -> Self:
        for client in self._clients:
            client.start()
        self.goes_on()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends the clients after the answers that they wait for."""
        self.stopping.set()
        self.join()

    def goes_on(self, count: int = 2 * STREAMS) -> None:
        """Waits until every client has got so many more answers, or has ended."""
        goals = [(client, client.statuses.total() + count) for client in self._clients]
        eventually(
            lambda: all(not c.is_alive() or c.statuses.total() >= goal for c, goal in goals),
            "more answers",
        )

    def join(self) -> None:
        """Waits until all clients have ended."""
        for client in self._clients:
            client.join(30)
            assert not client.is_alive()

    @property
    def lost(self) -> list[str]:
        """What went wrong with requests that were sent."""
        return [what for client in self._clients for what in client.lost]

    @property
    def refused(self) -> int:
        """How many clients ended because nobody listened any more."""
        return sum(client.refused for client in self._clients)

    @property
    def connections(self) -> int:
        """How many connections were opened."""
        return sum(client.connections for client in self._clients)

    @property
    def unprocessed(self) -> int:
        """How many streams were above the last one of a GOAWAY."""
        return sum(client.unprocessed for client in self._clients)

    @property
    def statuses(self) -> Counter[int]:
        """Answers by status."""
        return sum((client.statuses for client in self._clients), Counter[int]())


def last_of(connection: H2Peer) -> int:
    """The last stream that the server takes."""
    return min((last for last, _ in connection.goaways), default=LARGEST_STREAM)


class _Client(threading.Thread):
    def __init__(self, load: Http2Load) -> None:
        super().__init__(daemon=True)
        self._load = load
        self.statuses: Counter[int] = Counter()
        self.lost: list[str] = []
        self.connections = 0
        self.refused = False
        self.unprocessed = 0

    def run(self) -> None:
        while not self._load.stopping.is_set() and not self.lost:
            try:
                peer = Peer(socket.create_connection(self._load.address, WAIT))
            except ConnectionRefusedError:
                self.refused = True
                return
            self.connections += 1
            with contextlib.closing(peer):
                self._use(peer)

    def _use(self, peer: Peer) -> None:
        connection = H2Peer(peer)
        waiting: dict[int, Message] = {}
        reason = "no answer"

        def moved() -> bool:
            return bool(connection.goaways) or any(one.over() for one in waiting.values())

        def goes_on() -> bool:
            return not connection.goaways and not self._load.stopping.is_set()

        try:
            while waiting or goes_on():
                while goes_on() and len(waiting) < STREAMS:
                    stream = connection.request()
                    waiting[stream] = connection.message(stream)
                connection.pump(moved)
                for stream, message in list(waiting.items()):
                    if connection.goaways and stream > last_of(connection):
                        self.unprocessed += 1
                        del waiting[stream]
                    elif connection.goaways:
                        self._count(stream, connection.response(stream))
                        del waiting[stream]
                    elif message.over():
                        self._count(stream, message)
                        del waiting[stream]
        except (OSError, EOFError) as error:
            reason = repr(error)
        for stream, message in waiting.items():
            # The end may have come while another stream was read to its own.
            if stream > last_of(connection):
                self.unprocessed += 1
            elif message.over():
                self._count(stream, message)
            else:
                self.lost.append(f"stream {stream}: {reason}")

    def _count(self, stream: int, found: Message) -> None:
        if found.reset is not None:
            self.lost.append(f"stream {stream}: reset {found.reset}")
        else:
            self.statuses[found.status] += 1
