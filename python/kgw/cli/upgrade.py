"""Replacing a running process by a newer one, with no connection lost in between.

The running process waits at a unix socket. The new one connects, gets the listening sockets, starts
serving on them, and says so; only then does the old one drain. Every message is one packet of JSON:

    new → old   {"upgrade": 1}
    old → new   {"sockets": 3}                      or {"refused": "why"}
    old → new   {"listeners": ["ns/gw/web", …]}     with as many descriptors, until all are there
    new → old   {"ready": true}
    old → new   {"draining": true}

Whichever fails first, one of them serves: until it is ready the new process changes nothing, and
once it has the sockets it does not need the old one.
"""

from __future__ import annotations

import json
import os
import socket
import stat
import struct
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, Self

from kgw.errors import NotRunning
from kgw.listening import ListeningSocket, checked

if TYPE_CHECKING:
    from types import TracebackType

    from kgw.proxy import Proxy

VERSION = 1
"""Of the messages."""

PATIENCE = 60.0
"""Seconds that a new process gets from its first word to being ready."""

_STEP = 10.0
"""Seconds for each answer of the old process."""

_AT_ONCE = 64
"""Descriptors in one packet; the kernel takes 253."""

_LARGEST = 64 * 1024
"""Bytes of a packet, at most."""


class UpgradeFailed(Exception):
    """The other process does not do its part."""


class Successor:
    """The new process's side: what it took over, until the old process drains."""

    def __init__(self, path: str) -> None:
        """Gets the listening sockets of the process that waits at *path*.

        Raises:
            UpgradeFailed: nobody waits there, or what does refuses, or says what it should not.
            OSError: the path cannot be used, or nobody answers in time.
        """
        with ExitStack() as stack:
            self._peer = stack.enter_context(_unix_socket())
            self._peer.settimeout(_STEP)
            try:
                self._peer.connect(path)
            except (FileNotFoundError, ConnectionRefusedError):
                raise UpgradeFailed(f"nobody waits at {path}") from None
            _check_user(self._peer)
            _send(self._peer, {"upgrade": VERSION})
            answer, _ = _receive(self._peer)
            if "refused" in answer:
                raise UpgradeFailed(f"the process at {path} refuses: {answer['refused']}")
            self.sockets: list[ListeningSocket] = []
            stack.callback(self._close_sockets)
            while len(self.sockets) < _count(answer, "sockets"):
                self.sockets += self._next_sockets()
            stack.pop_all()

    def _next_sockets(self) -> list[ListeningSocket]:
        message, descriptors = _receive(self._peer)
        listeners = message.get("listeners")
        with ExitStack() as stack:
            passed = [socket.socket(fileno=descriptor) for descriptor in descriptors]
            for one in passed:
                stack.callback(one.close)
            if not passed or not isinstance(listeners, list) or len(listeners) != len(passed):
                raise UpgradeFailed("descriptors are missing: is the limit of open files too low?")
            try:
                sockets = [
                    checked(ListeningSocket(listener, one))
                    for listener, one in zip(listeners, passed, strict=True)
                ]
            except ValueError as error:
                raise UpgradeFailed(str(error)) from None
            stack.pop_all()
            return sockets

    def ready(self) -> bool:
        """Tells the old process to drain. Returns whether it does."""
        try:
            _send(self._peer, {"ready": True})
            answer, _ = _receive(self._peer)
        except (OSError, UpgradeFailed):
            return False
        return answer.get("draining") is True

    def close(self) -> None:
        """Lets go of the old process. If it was not told to drain, it goes on as if nothing was."""
        self._peer.close()
        self._close_sockets()

    def _close_sockets(self) -> None:
        for one in self.sockets:
            one.socket.close()


class UpgradeSocket:
    """The running process's side: where it waits for its successor."""

    def __init__(self, path: str, *, replace: bool = False) -> None:
        """Waits at *path*, which only this user can connect to.

        Args:
            path: where. What a process left there that is gone is replaced.
            replace: whether the process that waits there may be one that is just being replaced.

        Raises:
            OSError: it cannot be bound, or another process waits there.
        """
        if not replace and _is_answered(path):
            raise FileExistsError(f"another process waits at {path} (--upgrade takes its place)")
        if os.path.lexists(path) and not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise FileExistsError(f"{path} is not a socket")
        self._path = path
        self._listener = _unix_socket()
        beside = f"{path}.{os.getpid()}"
        try:
            with suppress(FileNotFoundError):
                os.unlink(beside)
            self._listener.bind(beside)
            # Nobody can connect before it listens.
            os.chmod(beside, 0o600)
            self._listener.listen()
            self._inode = os.stat(beside).st_ino
            os.rename(beside, path)
        except OSError as error:
            self._listener.close()
            # Errors of sockets do not say which path they are about.
            raise OSError(error.errno, error.strerror, path) from None
        except BaseException:
            self._listener.close()
            raise
        self._listener.setblocking(False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Takes the socket away, unless it is the successor's by now."""
        self._listener.close()
        with suppress(OSError):
            if os.stat(self._path).st_ino == self._inode:
                os.unlink(self._path)

    async def accept(self) -> Predecessor:
        """Returns the next process that asks to take over."""
        import anyio

        while True:
            await anyio.wait_readable(self._listener)
            with suppress(OSError):
                peer, _ = self._listener.accept()
                peer.setblocking(False)
                return Predecessor(peer)


class Predecessor:
    """The running process's side of one attempt to replace it."""

    def __init__(self, peer: socket.socket) -> None:
        self._peer = peer

    async def hand_over(self, proxy: Proxy) -> None:
        """Returns once the new process is ready, and has been told that this one drains.

        Raises:
            UpgradeFailed: the new process does not do its part.
            OSError: it went away, or took longer than `PATIENCE`.
        """
        import anyio

        with self._peer, anyio.fail_after(PATIENCE):
            _check_user(self._peer)
            hello = await self._receive()
            if hello.get("upgrade") != VERSION:
                await self._send({"refused": f"only version {VERSION} of the messages is known"})
                raise UpgradeFailed(f"it does not speak version {VERSION}")
            try:
                sockets = proxy.listening_sockets()
            except NotRunning as error:
                await self._send({"refused": str(error)})
                raise UpgradeFailed(str(error)) from None
            try:
                await self._send({"sockets": len(sockets)})
                for start in range(0, len(sockets), _AT_ONCE):
                    part = sockets[start : start + _AT_ONCE]
                    await self._send(
                        {"listeners": [one.listener for one in part]},
                        [one.socket.fileno() for one in part],
                    )
            finally:
                for one in sockets:
                    one.socket.close()
            if (await self._receive()).get("ready") is not True:
                raise UpgradeFailed("it did not say that it is ready")
            with suppress(OSError):
                # It serves already, whether or not it hears this.
                await self._send({"draining": True})

    async def _receive(self) -> dict[str, Any]:
        import anyio

        await anyio.wait_readable(self._peer)
        message, _ = _receive(self._peer)
        return message

    async def _send(self, message: dict[str, Any], descriptors: list[int] | None = None) -> None:
        import anyio

        while True:
            await anyio.wait_writable(self._peer)
            with suppress(BlockingIOError):
                return _send(self._peer, message, descriptors or [])


# === Packets ===


def _unix_socket() -> socket.socket:
    # Packets: a message and its descriptors stay together.
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _send(peer: socket.socket, message: dict[str, Any], descriptors: list[int] = []) -> None:  # noqa: B006 - only read
    data = json.dumps(message).encode()
    if descriptors:
        socket.send_fds(peer, [data], descriptors)
    else:
        peer.send(data)


def _receive(peer: socket.socket) -> tuple[dict[str, Any], list[int]]:
    data, descriptors, flags, _ = socket.recv_fds(peer, _LARGEST, _AT_ONCE, socket.MSG_CMSG_CLOEXEC)
    try:
        if not data:
            raise UpgradeFailed("the other process ended")
        if flags & (socket.MSG_CTRUNC | socket.MSG_TRUNC):
            raise UpgradeFailed("a message is cut: is the limit of open files too low?")
        message = json.loads(data)
        if not isinstance(message, dict):
            raise UpgradeFailed("a message is no object")
    except ValueError:
        _close(descriptors)
        raise UpgradeFailed("a message is not JSON") from None
    except UpgradeFailed:
        _close(descriptors)
        raise
    return message, list(descriptors)


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _count(message: dict[str, Any], name: str) -> int:
    count = message.get(name)
    if not isinstance(count, int) or not 0 < count < 1 << 20:
        raise UpgradeFailed(f"{count!r} is no number of {name}")
    return count


def _check_user(peer: socket.socket) -> None:
    """Refuses a process of another user. Raises `UpgradeFailed`."""
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, user, _ = struct.unpack("3i", credentials)
    if user != os.geteuid():
        raise UpgradeFailed(f"it belongs to another user ({user})")


def _is_answered(path: str) -> bool:
    with _unix_socket() as probe:
        probe.settimeout(_STEP)
        try:
            probe.connect(path)
        except (BlockingIOError, TimeoutError):
            return True  # so many are asking that there is no room for one more
        except OSError:
            return False
        return True
