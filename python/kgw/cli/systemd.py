"""What systemd and a service say to each other: sockets at the start, states afterwards.

sd_listen_fds(3) and sd_notify(3); both are plain environment variables, and other supervisors speak
them too.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from kgw.listening import ListeningSocket, checked

if TYPE_CHECKING:
    from collections.abc import MutableMapping

_FIRST = 3
"""SD_LISTEN_FDS_START: passed descriptors begin behind stderr."""


def passed_sockets(environ: MutableMapping[str, str] = os.environ) -> list[ListeningSocket]:
    """Returns the listening sockets that this process was started with.

    The variables are removed, so that no child takes them for its own.

    Raises:
        ValueError: a descriptor is neither a listening TCP socket nor a bound one of UDP.
    """
    pid, count, names = (
        environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
    )
    if pid != str(os.getpid()):
        return []
    if not count.isascii() or not count.isdigit():
        raise ValueError(f"LISTEN_FDS={count!r} is not a number")
    known = names.split(":") if names else []
    sockets = []
    for index, descriptor in enumerate(range(_FIRST, _FIRST + int(count))):
        try:
            passed = socket.socket(fileno=descriptor)
        except OSError as error:
            raise ValueError(f"descriptor {descriptor} is not a socket: {error.strerror}") from None
        passed.set_inheritable(False)
        # systemd names a socket after its unit unless told otherwise; a listener has slashes.
        name = known[index] if index < len(known) and "/" in known[index] else None
        sockets.append(checked(ListeningSocket(name, passed)))
    return sockets


def notify(state: str, environ: MutableMapping[str, str] = os.environ) -> None:
    """Tells the supervisor *state*, if there is one that wants to know.

    A supervisor that does not listen is no reason not to serve.
    """
    path = environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.setblocking(False)
            sock.sendto(state.encode(), address)
        except OSError:
            pass
