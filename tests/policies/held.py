"""A backend whose requests wait until a test answers them."""

from __future__ import annotations

import queue
import threading
from dataclasses import dataclass, field

from tests.engine.harness import WAIT, Peer, ok


@dataclass
class Asked:
    """A request that arrived."""

    line: str
    peer: Peer
    _answer: bytes = b""
    _answered: threading.Event = field(default_factory=threading.Event)

    def answer(self, answer: bytes = b"") -> None:
        """Sends an answer, 200 unless another is given."""
        self._answer = answer or ok()
        self._answered.set()

    def drop(self) -> None:
        """Closes the connection without an answer."""
        self._answered.set()

    def wait(self) -> bytes:
        """The answer, once the test has given it; nothing to close the connection."""
        self._answered.wait(WAIT)
        return self._answer


class Held:
    """The script of such a backend."""

    def __init__(self) -> None:
        self._arrived: queue.SimpleQueue[Asked] = queue.SimpleQueue()

    def __call__(self, peer: Peer) -> None:
        while True:
            line, _, _ = peer.read_request()
            asked = Asked(line, peer)
            self._arrived.put(asked)
            answer = asked.wait()
            if not answer:
                return
            peer.send(answer)

    def next(self) -> Asked:
        """The next request that arrives."""
        return self._arrived.get(timeout=WAIT)

    def is_quiet(self) -> bool:
        """Whether no other has arrived."""
        return self._arrived.empty()
