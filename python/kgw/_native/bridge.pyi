"""Filters in Python: how they are reached, and what they see.

``kgw.filters`` is the public face of it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol, TypeVar, final, overload

__all__ = ["Bridge", "Headers", "Job", "Request", "Response"]

_T = TypeVar("_T")

class _Runner(Protocol):
    """What runs the filters that take their time, and is told what happened."""

    def start(self, job: Job, result: Any) -> None:
        """A filter returned what is no decision: something to wait for, most likely."""

    def cancel(self, ident: int) -> None:
        """Nobody waits for the job of this number any longer."""

    def failed(self, number: int, error: Exception) -> None:
        """The filter of this number raised an exception."""

    def stop(self) -> None:
        """The bridge is closed."""

@final
class Bridge:
    """The way from a data plane to filters: a bounded queue and a file descriptor.

    Methods may be called from any thread. In a forked child, nothing can be drained.
    """

    def __new__(cls, declarations: bytes, capacity: int, max_bytes: int) -> Bridge:
        """Makes a bridge.

        Args:
            declarations: what the filters say of themselves, a JSON list.
            capacity: calls of filters that may wait and run at once, at least 1.
            max_bytes: bytes of bodies that may be held at once until a filter can have them whole.

        Raises:
            kgw.errors.ConfigError: the declarations are malformed.
            ValueError: *capacity* is 0.
            OSError: no file descriptor is left.
        """

    @property
    def active(self) -> int:
        """Calls of filters that wait or run."""

    @property
    def held(self) -> int:
        """Bytes of bodies that are held."""

    @property
    def sessions(self) -> int:
        """Exchanges of which a filter may see more, each counted for every filter."""

    def fileno(self) -> int:
        """Returns the descriptor that is readable when there is something to drain."""

    def drain(self, handlers: list[Callable[..., Any] | None], runner: _Runner) -> None:
        """Calls the filters that were asked, 256 at most. What is left wakes the loop again.

        Args:
            handlers: for each filter, in the order of their declarations, four: what is called with
                a request; with a request and a response; with a request, a piece of its body and
                whether it is the last; and the same with a response.
            runner: what happens to that which a call does not decide.

        Raises:
            kgw.errors.NotRunning: the bridge belongs to the parent process.
            BaseException: what a filter raised and no filter should, such as KeyboardInterrupt.
        """

    def close(self) -> None:
        """Lets all calls fail that wait or are to come; the next drain tells the runner."""

@final
class Job:
    """A call whose filter takes its time. Forgotten, it fails."""

    @property
    def id(self) -> int:
        """Its number."""

    @property
    def filter(self) -> int:
        """The number of the filter."""

    def finish(self, result: Any) -> None:
        """Decides by what the filter returned in the end. Does nothing the second time.

        Raises:
            TypeError: it is no decision.
        """

    def fail(self) -> None:
        """Says that the filter failed. Does nothing the second time."""

    def abandon(self) -> None:
        """Says that nobody runs the filter any longer. Does nothing the second time."""

@final
class Headers:
    """The header fields of a request or response. Names are compared without regard to case.

    Text is UTF-8; bytes that are none are kept as ``surrogateescape`` does it. A view: a change is
    one of the message. Changes raise :class:`ValueError` for a name or value that no message can
    have, and for fields that the proxy alone decides about (``host``, ``content-length``,
    ``connection``, …); and :class:`kgw.errors.FilterError` once the filter has decided.
    """

    def __getitem__(self, name: str, /) -> str: ...
    def __setitem__(self, name: str, value: str, /) -> None: ...
    def __delitem__(self, name: str, /) -> None: ...
    def __contains__(self, name: object, /) -> bool: ...
    def __iter__(self) -> Iterator[str]: ...
    def __len__(self) -> int: ...
    @overload
    def get(self, name: str) -> str | None: ...
    @overload
    def get(self, name: str, default: _T) -> str | _T:
        """Returns the value of a field; of several of the name, all in one, joined by ``", "``."""

    def all(self, name: str) -> list[str]:
        """Returns the values of all fields of a name."""

    def items(self) -> list[tuple[str, str]]:
        """Returns names, in lower case, and values of all fields in order."""

    def append(self, name: str, value: str) -> None:
        """Adds a field behind the others."""

@final
class Request:
    """A request on its way, as far as its head says what it is.

    A request filter may change what can be set, until it has decided; a response filter sees the
    request as it was sent on. All that a filter is asked about one exchange comes with the same
    object.
    """

    method: str
    """The method. HEAD and CONNECT stay what they are, and no other method becomes one of them."""
    target: str
    """Path and query."""
    path: str
    """The path without the query. Setting it keeps the query, and percent-encodes what must be."""
    host: str
    """The host that the client asked for, with a port if it named one."""
    @property
    def rate_limit_key(self) -> str | None:
        """What local rate limits behind the filter count this request by.

        Each key has a bucket of its own, of the size that the policy states. 1 to 256 bytes;
        10,000 keys are remembered.
        """

    @rate_limit_key.setter
    def rate_limit_key(self, value: str) -> None: ...
    @property
    def body(self) -> bytes | None:
        """The body, if the filter needs it (:class:`kgw.filters.Needs`), else None.

        It can be replaced, also where there was none (``b""``).
        """

    @body.setter
    def body(self, value: bytes | str) -> None: ...
    @property
    def upstream(self) -> str | None:
        """The backend that the filter chose.

        Setting it chooses one of :attr:`upstreams`, whatever its weight; the last filter that does
        wins. ``ValueError`` for any other.
        """

    @upstream.setter
    def upstream(self, value: str) -> None: ...
    @property
    def upstreams(self) -> tuple[str, ...]:
        """The backends of the route: ``namespace/name:port`` of a Service."""

    @property
    def state(self) -> dict[str, Any]:
        """What the filter keeps with this exchange from one call to the next; its own alone."""

    @property
    def query(self) -> str | None:
        """The query without the ``?``, if there is one."""

    @property
    def scheme(self) -> str:
        """``http`` or ``https``: what the client's connection is."""

    @property
    def version(self) -> str:
        """``HTTP/1.0``, ``HTTP/1.1`` or ``HTTP/2``."""

    @property
    def client(self) -> str:
        """The client's IP address, as far as it can be trusted (``x-forwarded-for``)."""

    @property
    def peer(self) -> tuple[str, int]:
        """Address and port that the connection comes from, by its PROXY header if it has one."""

    @property
    def principal(self) -> str | None:
        """The client's mesh identity: a SPIFFE URI."""

    @property
    def route(self) -> str:
        """The name of the route, ``namespace/name/rule/match`` for an HTTPRoute."""

    @property
    def headers(self) -> Headers:
        """The header fields."""

    @property
    def metadata(self) -> dict[str, str]:
        """What filters noted about the request: a copy."""

    def note(self, key: str, value: str) -> None:
        """Notes something about the exchange, for other filters and for access logs.

        ``%DYNAMIC_METADATA(kgw.python:KEY)%`` prints it. Response filters, and those that see
        chunks, may do so too.
        """

@final
class Response:
    """A response: an upstream's on its way, or a filter's own.

    Args:
        status: 200 to 599.
        body: what the client gets; text is sent as UTF-8.
        headers: a mapping, or pairs. ``content-type`` is ``text/plain`` unless it is given.

    Raises:
        ValueError: a field or the status is none that a response can have.
    """

    status: int
    """The status. One that allows a body (all but 204 and 304) and one that does not are no
    replacement for each other."""

    def __new__(
        cls,
        status: int = 200,
        body: str | bytes | None = None,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
    ) -> Response: ...
    @property
    def headers(self) -> Headers:
        """The header fields."""

    @property
    def body(self) -> bytes | None:
        """The body of a filter's own response, or of one that it needs as a whole; else None.

        It can be replaced, unless the response can have none (to HEAD, 204, 304).
        """

    @body.setter
    def body(self, value: bytes | str) -> None: ...
