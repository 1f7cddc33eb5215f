"""The data plane: threads, sockets, snapshots. ``kgw.Proxy`` is the public face of it."""

import os
import socket
from collections.abc import Sequence
from typing import final

from kgw._native.access_log import Tap
from kgw._native.bridge import Bridge

__all__ = ["IR_VERSION", "Engine"]

IR_VERSION: int
"""The version of the intermediate representation that the engine reads."""

@final
class Engine:
    """A data plane.

    Made, then started once, then joined once. Methods may be called from any thread; those that can
    take time release the GIL. In a forked child every method raises :class:`kgw.errors.NotRunning`.
    """

    def __new__(
        cls,
        *,
        workers: int | None = None,
        manual_clock: bool = False,
        max_connections: int | None = None,
        max_memory: int | None = None,
        memory_usage_file: str | os.PathLike[str] | None = None,
        bridge: Bridge | None = None,
        backends: Sequence[tuple[str, socket.socket]] = ...,
    ) -> Engine:
        """Makes an engine that does nothing yet.

        Args:
            workers: number of worker threads, 1 to 1024; by default one per CPU that the process
                may use, cgroup quotas included.
            manual_clock: whether time stands still until :meth:`advance`, for tests.
            max_connections: most connections open at once (50,000); accepting pauses there.
            max_memory: bytes of memory above which load is shed; by default no limit.
            memory_usage_file: a file that says how many bytes are used, as a cgroup's
                ``memory.current`` does; by default the process's own anonymous memory counts.
            bridge: the way to the filters that routes may name; by default there are none.
            backends: the doorbell of each backend inside this process, by the name that clusters
                give it: a Unix socket of type ``SEQPACKET`` that does not block. It is detached.
                For each connection to the backend, one end of it is sent through the doorbell
                (``SCM_RIGHTS``, with one byte).
        """

    def start(
        self, config: bytes, sockets: Sequence[tuple[str | None, socket.socket]] = ...
    ) -> None:
        """Compiles a configuration (IR as JSON), binds its addresses and starts serving.

        Args:
            config: the configuration.
            sockets: listening sockets, each with the listener that it is for if that is known. They
                are detached. Those bound to what the configuration asks for are used, in place of
                binding it; the others are closed.

        Raises:
            kgw.errors.ConfigError: the configuration cannot be compiled.
            kgw.errors.NotRunning: the engine was started already.
            OSError: an address cannot be bound.
        """

    def apply(self, config: bytes) -> int:
        """Compiles a configuration and publishes it; returns its generation.

        Each worker serves it from its next request on. On error the last one goes on serving.

        Raises:
            kgw.errors.ConfigError: the configuration cannot be compiled.
            kgw.errors.NotRunning: the engine is not running.
            OSError: an address cannot be bound.
        """

    def apply_delta(self, delta: bytes) -> int:
        """Compiles changes to the newest generation, publishes that and returns its number.

        What is served is what :meth:`apply` of the whole new configuration would serve; the cost
        is that of what changed. On error the last generation goes on serving, and changes can be
        made to it as before.

        Args:
            delta: the changes (``docs/ir.md``) as JSON.

        Raises:
            kgw.errors.ConfigError: the changes cannot be compiled. ``stale base`` in the message:
                they are to another generation than the newest one.
            kgw.errors.NotRunning: the engine is not running.
            OSError: an address cannot be bound.
        """

    def wait_applied(self, generation: int, timeout: float) -> bool:
        """Waits until every worker serves ``generation`` or a later one; returns whether they do.

        Args:
            generation: what :meth:`apply` or :meth:`apply_delta` returned; 1 is the configuration
                of :meth:`start`.
            timeout: seconds to wait at most.
        """

    def addresses(self) -> dict[str, list[tuple[str, int]]]:
        """Returns the bound ``(host, port)`` pairs by listener id."""

    def connect(
        self,
        listener: str,
        *,
        peer: tuple[str, int] | None = None,
        local: tuple[str, int] | None = None,
        secure: bool = False,
        server_name: str | None = None,
    ) -> int:
        """Connects to a listener from inside of the process, bound or not.

        Returns the descriptor of a Unix stream socket that does not block; the caller must close
        it. HTTP/1.1 is spoken on it, without TLS and without a PROXY header. When the caller closes
        it, or the writing half of it, the exchange under way is abandoned.

        Args:
            listener: its id.
            peer: the client, as IP address and port; by default loopback's, and port 0.
            local: what the client addressed; by default loopback's, and port 0.
            secure: whether requests count as ``https``.
            server_name: the name that the client would have asked for in TLS.

        Raises:
            kgw.errors.NotRunning: the engine is not running, or is draining.
            LookupError: there is no such listener.
            OSError: there is no descriptor left, or too many connections wait.
            ValueError: an address is none.
        """

    def stats(self) -> bytes:
        """Returns the counters, summed over workers, as a JSON object."""

    def problems(self) -> list[str]:
        """Returns what the compilation replaced or left out, in words."""

    def drain(self, min: float = 0.0) -> None:
        """Starts draining: each answer closes its connection.

        Args:
            min: seconds for which connections are accepted still. Nothing new is accepted after it.
        """

    def listening_sockets(self) -> list[tuple[str | None, int]]:
        """Returns duplicates of the listening sockets, as listener and file descriptor.

        The caller must close them. There are none once nothing is accepted any longer.
        """

    def join(self, timeout: float) -> bool:
        """Waits up to ``timeout`` seconds for the workers to end, then stops them.

        Returns whether they had ended by themselves. The engine cannot be used afterwards.
        """

    def advance(self, by: float) -> None:
        """Turns a manual clock by ``by`` seconds."""

    def next_deadline(self) -> float | None:
        """Returns the seconds to the first deadline that is waited for by a manual clock, if any.

        Whatever waits may end before, so an advance by this can change nothing.
        """

    def settle(self, timeout: float) -> bool:
        """Waits until the workers did what follows from the clock and from what they received.

        What their sockets have received when this is called, and the time as it is then, count.

        Args:
            timeout: seconds to wait at most.

        Returns:
            Whether they have.
        """

    def flush_logs(self, timeout: float) -> bool:
        """Waits up to ``timeout`` seconds until all access log lines so far are written."""

    def reopen_logs(self) -> None:
        """Opens the access logs' files anew, for log rotation."""

    def tap(self, format: str, buffer: int) -> Tap:
        """Opens a way to read a line for each request and connection that ends from now on.

        Args:
            format: a JSON format as JSON text (``docs/access-log.md``).
            buffer: bytes of lines that may wait to be read, for each worker.

        Raises:
            kgw.errors.ConfigError: the format does not compile.
            kgw.errors.NotRunning: the engine is not running.
            OSError: there is no file descriptor left.
        """
