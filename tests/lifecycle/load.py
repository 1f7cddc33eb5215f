"""Clients that reuse connections, go on when told to close, and count requests that are lost."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from typing import TYPE_CHECKING

from tests.engine.harness import WAIT, Peer, eventually, get

if TYPE_CHECKING:
    from typing import Self

Address = tuple[str, int]


class Load:
    """Clients that send one request after another on kept-alive connections.

    An answer that closes its connection is followed by a new connection. Any request that was begun
    and got no whole answer is a lost one, also on a connection that was reused: nothing is retried.
    """

    def __init__(self, address: Address, *, clients: int = 8, thinking: float = 0.0) -> None:
        self.address = address
        self.stopping = threading.Event()
        self._clients = [_Client(self, thinking * n / clients) for n in range(clients)]

    def __enter__(self) -> Self:
        for client in self._clients:
            client.start()
        self.goes_on()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def goes_on(self, count: int = 5) -> None:
        """Waits until every client has got so many more answers, or has ended."""
        goals = [(client, client.answers + count) for client in self._clients]
        eventually(
            lambda: all(not c.is_alive() or c.answers >= goal for c, goal in goals), "more answers"
        )

    def stop(self) -> None:
        """Ends the clients after the answer that they wait for."""
        self.stopping.set()
        self.join()

    def join(self) -> None:
        """Waits until all clients have ended."""
        for client in self._clients:
            client.join(30)
            assert not client.is_alive()

    @property
    def lost(self) -> list[BaseException]:
        """What went wrong with requests that were sent, one for each."""
        return [client.lost for client in self._clients if client.lost is not None]

    @property
    def refused(self) -> int:
        """How many clients ended because nobody listened any more."""
        return sum(client.refused for client in self._clients)

    @property
    def statuses(self) -> Counter[int]:
        """Answers by status."""
        return sum((client.statuses for client in self._clients), Counter[int]())

    @property
    def connections(self) -> int:
        """How many connections were opened."""
        return sum(client.connections for client in self._clients)


class _Client(threading.Thread):
    def __init__(self, load: Load, thinking: float) -> None:
        super().__init__(daemon=True)
        self._load = load
        self._thinking = thinking
        self.statuses: Counter[int] = Counter()
        self.connections = 0
        self.lost: BaseException | None = None
        self.refused = False

    @property
    def answers(self) -> int:
        return self.statuses.total()

    def run(self) -> None:
        while not self._load.stopping.is_set() and self.lost is None:
            try:
                peer = Peer(socket.create_connection(self._load.address, WAIT))
            except ConnectionRefusedError:
                self.refused = True
                return
            self.connections += 1
            try:
                self._use(peer)
            except (OSError, EOFError) as error:
                self.lost = error
            finally:
                peer.close()

    def _use(self, peer: Peer) -> None:
        while not self._load.stopping.is_set():
            peer.send(get())
            answer = peer.read_response()
            self.statuses[answer.status] += 1
            if answer.get("connection") == "close":
                return
            self._load.stopping.wait(self._thinking)
