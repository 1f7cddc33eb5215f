"""Streams: what a running proxy says, for as long as somebody reads it.

    async for record in proxy.access_log():
        ...

A stream has a bounded buffer that the data plane, or whatever else speaks, fills without ever
waiting for the reader; what does not fit is dropped and counted. A file descriptor says that there
is something, so a reader waits in its event loop, asyncio's or trio's, or in a thread.

Rule 1: nothing is taken out of a buffer before the last await, so a cancelled reader loses nothing.
Rule 2: a stream ends when its proxy is closed, after what was said until then. Who reads it no
longer just forgets it.
"""

from __future__ import annotations

import json
import select
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypedDict, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType
    from typing import Self

    from kgw._native.access_log import Tap

__all__ = ["DEFAULT_FIELDS", "AccessRecord", "BlockingStream", "Stream"]

_T = TypeVar("_T")
_T_co = TypeVar("_T_co", covariant=True)

_TURN: Final = 64
"""Items that a reader gets before others in its event loop have their turn."""


class Feed(Protocol[_T_co]):
    """What a stream reads from."""

    @property
    def closed(self) -> bool:
        """Whether nothing comes any more, after what a `take` from now on returns."""

    @property
    def dropped(self) -> int:
        """How many items were lost because the buffer was full."""

    @property
    def interval(self) -> float | None:
        """Seconds after which `take` may find something although the descriptor says nothing."""

    def fileno(self) -> int:
        """Returns a descriptor that is readable when there may be something, or it is closed."""

    def take(self) -> Iterable[Any]:
        """Returns what there is, not decoded yet; does not wait."""

    def decode(self, item: Any) -> _T_co:
        """Returns one item of `take` as the reader gets it."""

    def close(self) -> None:
        """Ends it."""


class _Reader(Generic[_T]):
    def __init__(self, feed: Feed[_T]) -> None:
        self._feed = feed
        self._taken: deque[Any] = deque()
        self._closed = False

    @property
    def dropped(self) -> int:
        """How many items were lost because the buffer was full."""
        return self._feed.dropped

    def _take(self) -> bool:
        """Takes what there is; returns whether there is something, or may be later."""
        # In this order: what comes before the end is found by a look after it.
        ended = self._feed.closed
        self._taken.extend(self._feed.take())
        return bool(self._taken) or not ended

    def _pop(self) -> _T:
        return self._feed.decode(self._taken.popleft())

    def _close(self) -> None:
        self._closed = True
        self._taken.clear()
        self._feed.close()


class Stream(_Reader[_T]):
    """An asynchronous iterator over what a proxy says, under asyncio or trio.

    It has one reader at a time; several streams may be read side by side. It ends when the proxy is
    closed. Cancelling a reader loses nothing. ``async with`` closes it; to forget it does as well.
    """

    _turn = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> _T:
        """Returns the next item.

        Raises:
            NotRunning: this is a forked child, which has no proxy.
            anyio.BusyResourceError: somebody else is waiting for it.
        """
        import anyio
        import anyio.lowlevel

        self._turn += 1
        if not self._taken or self._turn >= _TURN:
            self._turn = 0
            await anyio.lowlevel.checkpoint()
        while not self._taken:
            if self._closed or not self._take():
                raise StopAsyncIteration
            if not self._taken:
                with anyio.move_on_after(self._feed.interval):
                    await anyio.wait_readable(self._feed.fileno())
        return self._pop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()

    async def aclose(self) -> None:
        """Ends the stream, for a reader that waits too; what was not read is lost."""
        self._close()


class BlockingStream(_Reader[_T]):
    """An iterator over what a proxy says, which waits in its thread: what a `BlockingProxy` gives.

    It has one reader at a time, in any thread. It ends when the proxy is closed. ``with`` closes
    it; to forget it does as well.
    """

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> _T:
        """Returns the next item.

        Raises:
            NotRunning: this is a forked child, which has no proxy.
        """
        while not self._taken:
            if self._closed or not self._take():
                raise StopIteration
            if not self._taken:
                poll = select.poll()
                poll.register(self._feed.fileno(), select.POLLIN)
                interval = self._feed.interval
                poll.poll(None if interval is None else interval * 1000)
        return self._pop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()

    def close(self) -> None:
        """Ends the stream, for a reader that waits too; what was not read is lost."""
        self._close()


# === Access logs ===


class AccessRecord(TypedDict):
    """What an access log says of a request, or of a connection that carries none, by default.

    The names are those of Istio's default log; docs/access-log.md describes the operators. What
    does not exist is None: a request that was refused may have no method, one that no route took
    has no upstream.
    """

    start_time: str
    """When it began: ``2026-01-31T12:00:00.000Z``."""
    method: str | None
    path: str | None
    """The path and the query that the client sent, before rewrites."""
    protocol: str | None
    """``HTTP/1.1``."""
    authority: str | None
    """The host that was asked."""
    response_code: int
    """0 if no answer was begun."""
    response_flags: str
    """How it ended, if not as it should: ``RL``, ``URX,UT``; else ``-``."""
    response_code_details: str | None
    """Who decided about the answer, and why."""
    bytes_received: int
    """Bytes of the request's body; of a connection, from the client."""
    bytes_sent: int
    """Bytes of the answer's body; of a connection, to the client."""
    duration: int
    """Milliseconds to the end."""
    listener_name: str | None
    """``namespace/gateway/listener``."""
    route_name: str | None
    upstream_cluster: str | None
    """The backend."""
    upstream_host: str | None
    """The endpoint of the last attempt: ``10.0.0.1:80``."""
    upstream_attempts: int
    upstream_transport_failure_reason: str | None
    """Why the endpoint could not be connected to."""
    downstream_remote_address: str | None
    """The client, as a PROXY header or ``x-forwarded-for`` says where they are trusted."""
    downstream_local_address: str | None
    """The address that the client spoke to."""
    requested_server_name: str | None
    """The server name of the client's TLS handshake."""
    peer_principal: str | None
    """The client's mesh identity: ``spiffe://...``."""
    connection_id: int
    """Number of the client's connection, unique in the proxy."""
    request_id: str | None
    """``x-request-id``."""
    user_agent: str | None
    access_log_type: str
    """``DownstreamEnd`` for a request, ``TcpConnectionEnd`` for a connection."""


DEFAULT_FIELDS: Final[dict[str, str]] = {
    "start_time": "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%",
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "protocol": "%PROTOCOL%",
    "authority": "%REQ(:AUTHORITY)%",
    "response_code": "%RESPONSE_CODE%",
    "response_flags": "%RESPONSE_FLAGS%",
    "response_code_details": "%RESPONSE_CODE_DETAILS%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
    "duration": "%DURATION%",
    "listener_name": "%LISTENER_NAME%",
    "route_name": "%ROUTE_NAME%",
    "upstream_cluster": "%UPSTREAM_CLUSTER%",
    "upstream_host": "%UPSTREAM_HOST%",
    "upstream_attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "upstream_transport_failure_reason": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    "downstream_remote_address": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "downstream_local_address": "%DOWNSTREAM_LOCAL_ADDRESS%",
    "requested_server_name": "%REQUESTED_SERVER_NAME%",
    "peer_principal": "%FILTER_STATE(io.istio.peer_principal:PLAIN)%",
    "connection_id": "%CONNECTION_ID%",
    "request_id": "%STREAM_ID%",
    "user_agent": "%REQ(USER-AGENT)%",
    "access_log_type": "%ACCESS_LOG_TYPE%",
}
"""The format of an `AccessRecord`."""


class TapFeed(Generic[_T]):
    """The access log of an engine; each line is a JSON object."""

    interval: float | None = None

    def __init__(self, tap: Tap) -> None:
        self._tap = tap

    @property
    def closed(self) -> bool:
        """Whether no line comes any more."""
        return self._tap.closed

    @property
    def dropped(self) -> int:
        """How many lines did not fit."""
        return self._tap.dropped

    def fileno(self) -> int:
        """Returns the tap's descriptor."""
        return self._tap.fileno()

    def take(self) -> list[bytes]:
        """Returns the lines that are there."""
        return self._tap.take().splitlines()

    def decode(self, line: bytes) -> _T:
        """Returns a line as the object that it is."""
        return cast("_T", json.loads(line))

    def close(self) -> None:
        """Closes the tap."""
        self._tap.close()
