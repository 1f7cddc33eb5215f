"""A connected socket in an event loop, asyncio's or trio's: nothing is read ahead of who asks."""

from __future__ import annotations

import socket

import anyio

__all__ = ["Stream"]

_CHUNK = 64 * 1024
"""Bytes read at once, at most."""


class Stream:
    """A connected socket that does not block. One task reads at a time, and one writes."""

    __slots__ = ("socket",)

    def __init__(self, connected: socket.socket) -> None:
        self.socket: socket.socket = connected

    async def receive(self, most: int = _CHUNK) -> bytes:
        """Waits for bytes and returns them; none is the end.

        Raises:
            OSError: the connection is broken.
        """
        while True:
            try:
                return self.socket.recv(most)
            except BlockingIOError:
                await anyio.wait_readable(self.socket)

    async def send(self, data: bytes) -> None:
        """Sends all of *data*. If cancelled, a part of it may have been sent.

        Raises:
            OSError: the connection is broken.
        """
        sent = 0
        while True:
            try:
                sent += self.socket.send(data[sent:] if sent else data)
            except BlockingIOError:
                await anyio.wait_writable(self.socket)
                continue
            if sent >= len(data):
                return

    def is_quiet(self) -> bool:
        """Whether the connection is open, and nothing waits to be read."""
        try:
            self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def close(self) -> None:
        """Closes the connection; nobody may be waiting for it."""
        self.socket.close()
