"""Load on kept-alive connections, and a `kgw run` to put it on."""

from __future__ import annotations

import re
import socket
import threading
from typing import TYPE_CHECKING

from tests.engine.harness import WAIT, Peer, eventually
from tests.scenario.stage import Answer, ask

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

    from tests.cli.conftest import Running

    Address = tuple[str, int]


class Run:
    """`kgw run` on a directory, on a free port."""

    def __init__(self, running: type[Running], directory: Path, *arguments: str) -> None:
        bind = ("--bind", "127.0.0.1:0")
        self.process = running("run", "-f", directory, *bind, "--workers", "2", *arguments)
        line = self.process.stderr.after("listening")
        self.process.stderr.after("serving")
        found = re.search(r"address=(\S+):(\d+)", line)
        assert found, line
        self.address = (found[1], int(found[2]))

    def get(self, path: str = "/", *fields: str) -> Answer:
        """The answer to one request on a connection of its own."""
        with socket.create_connection(self.address, WAIT) as sock:
            return ask(Peer(sock), path, *fields)

    def connect(self) -> Peer:
        """A connection to the listener."""
        return Peer(socket.create_connection(self.address, WAIT))

    def live(self) -> None:
        """Returns when the next change of the files is served."""
        self.process.stderr.after("configuration is live")


class Load:
    """Clients that ask one request after another, each on the one connection it has.

    A client ends when it is told to, or when an answer closes its connection.
    """

    def __init__(self, address: Address, clients: int = 8) -> None:
        self._clients = [_Client(address) for _ in range(clients)]

    def __enter__(self) -> Self:
        """Returns when every client has been answered a few times."""
        for client in self._clients:
            client.start()
        self.goes_on()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def goes_on(self, count: int = 10) -> None:
        """Waits until every client has got so many more answers, or failed."""
        goals = [(client, len(client.answers) + count) for client in self._clients]
        eventually(
            lambda: all(c.error or len(c.answers) >= goal for c, goal in goals), "more answers"
        )

    def stop(self) -> None:
        """Ends the clients after the answer that they wait for."""
        for client in self._clients:
            client.stopping.set()
        self.join()

    def join(self) -> None:
        """Waits until all clients have ended."""
        for client in self._clients:
            client.join(30)
            assert not client.is_alive()

    @property
    def errors(self) -> list[BaseException]:
        """What went wrong with requests: each of them is one that was lost."""
        return [client.error for client in self._clients if client.error is not None]

    @property
    def answers(self) -> list[Answer]:
        """All answers."""
        return [answer for client in self._clients for answer in client.answers]

    @property
    def closed(self) -> int:
        """How many clients ended because their connection was closed in order."""
        return sum(client.closed for client in self._clients)


class _Client(threading.Thread):
    def __init__(self, address: Address) -> None:
        super().__init__(daemon=True)
        self.peer = Peer(socket.create_connection(address, WAIT))
        self.stopping = threading.Event()
        self.answers: list[Answer] = []
        self.error: BaseException | None = None
        self.closed = False

    def run(self) -> None:
        try:
            while not self.stopping.is_set() and not self.closed:
                answer = ask(self.peer)
                self.closed = answer.sent("connection") == ["close"]
                self.answers.append(answer)
        except (OSError, EOFError, AssertionError) as error:
            self.error = error
        finally:
            self.peer.close()
