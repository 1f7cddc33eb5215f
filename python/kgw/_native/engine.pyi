"""The data plane: threads, sockets, snapshots. ``kgw.Proxy`` is the public face of it."""

from typing import final

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
    ) -> Engine:
        """Makes an engine that does nothing yet.

        Args:
            workers: number of worker threads, 1 to 1024; by default one per CPU that the process
                may use, cgroup quotas included.
            manual_clock: whether time stands still until :meth:`advance`, for tests.
            max_connections: most connections open at once on one worker (50,000).
        """

    def start(self, config: bytes) -> None:
        """Compiles a configuration (IR as JSON), binds its addresses and starts serving.

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

    def wait_applied(self, generation: int, timeout: float) -> bool:
        """Waits until every worker serves ``generation`` or a later one; returns whether they do.

        Args:
            generation: what :meth:`apply` returned; 1 is the configuration of :meth:`start`.
            timeout: seconds to wait at most.
        """

    def addresses(self) -> dict[str, list[tuple[str, int]]]:
        """Returns the bound ``(host, port)`` pairs by listener id."""

    def stats(self) -> bytes:
        """Returns the counters, summed over workers, as a JSON object."""

    def problems(self) -> list[str]:
        """Returns what the compilation replaced or left out, in words."""

    def drain(self) -> None:
        """Starts draining: no new connections, each answer closes its connection."""

    def join(self, timeout: float) -> bool:
        """Waits up to ``timeout`` seconds for the workers to end, then stops them.

        Returns whether they had ended by themselves. The engine cannot be used afterwards.
        """

    def advance(self, by: float) -> None:
        """Turns a manual clock by ``by`` seconds."""

    def flush_logs(self, timeout: float) -> bool:
        """Waits up to ``timeout`` seconds until all access log lines so far are written."""

    def reopen_logs(self) -> None:
        """Opens the access logs' files anew, for log rotation."""
