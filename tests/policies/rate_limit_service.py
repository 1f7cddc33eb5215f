"""A rate limit service, as Envoy's protocol describes one (``envoy.service.ratelimit.v3``).

It has limits for descriptors, by their keys and, where one is given, values. Its windows do not
end: what is counted is what a test sends. Messages are made by hand, from the numbers of their
public definition.
"""

from __future__ import annotations

import contextlib
import queue
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import grpc
from tests.engine.harness import WAIT
from tests.rpc.authorizer import decode, encode, inside
from tests.rpc.calls import OPTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

METHOD: Final = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"

OK: Final = 1
OVER_LIMIT: Final = 2

#: Numbers of units.
SECOND, MINUTE, HOUR, DAY = 1, 2, 3, 4

Entries = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Limit:
    """A limit: requests per unit, and what it is called."""

    requests: int
    unit: int = MINUTE
    name: str = ""


@dataclass(frozen=True)
class Descriptor:
    """What the service was asked about."""

    entries: Entries
    #: Requests and unit of an override.
    limit: tuple[int, int] | None = None
    hits: int | None = None


@dataclass(frozen=True)
class Question:
    """A ``RateLimitRequest``."""

    domain: str
    descriptors: tuple[Descriptor, ...]
    hits: int
    authority: str = field(compare=False, default="")
    timeout: float | None = field(compare=False, default=None)


@dataclass
class Extra:
    """What an answer has beside the decision."""

    response: tuple[tuple[str, str], ...] = ()
    request: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    metadata: Mapping[str, str] = field(default_factory=dict)


class RateLimitService(grpc.GenericRpcHandler):  # type: ignore[misc]  # it has no types
    """The service: it keeps the limits that it is given.

    Args:
        limits: by the entries of descriptors; a value of ``""`` is any, each counted by itself.
    """

    def __init__(self, limits: Mapping[Entries, Limit] | None = None) -> None:
        self.limits = dict(limits or {})
        self.extra = Extra()
        self.asked: queue.Queue[Question] = queue.Queue()
        #: Called first, where it is set; may answer by itself, or fail the call.
        self.script: Callable[[grpc.ServicerContext], bytes | None] | None = None
        self._counts: Counter[tuple[str, Entries]] = Counter()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Finds the one method there is."""
        if handler_call_details.method != METHOD:
            return None
        return grpc.unary_unary_rpc_method_handler(self._decide)

    def questions(self) -> list[Question]:
        """What it was asked since the last time."""
        found = []
        while not self.asked.empty():
            found.append(self.asked.get())
        return found

    def reset(self) -> None:
        """Forgets what was counted."""
        self._counts.clear()

    def _decide(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        question = _question(request, context)
        self.asked.put(question)
        if self.script is not None and (answer := self.script(context)) is not None:
            return answer
        code, statuses = OK, []
        for descriptor in question.descriptors:
            status = self._count(question, descriptor)
            statuses.append(status)
            code = max(code, status[1])
        extra = self.extra
        return encode(
            {
                1: code,
                2: statuses,
                3: [{1: name, 2: value} for name, value in extra.response],
                4: [{1: name, 2: value} for name, value in extra.request],
                5: extra.body,
                6: {1: [{1: key, 2: {3: value}} for key, value in extra.metadata.items()]},
            }
        )

    def _count(self, question: Question, descriptor: Descriptor) -> dict[int, Any]:
        """A ``DescriptorStatus``."""
        limit = self._limit(descriptor)
        if limit is None:
            return {1: OK}
        key = (question.domain, descriptor.entries)
        hits = question.hits or 1 if descriptor.hits is None else descriptor.hits
        self._counts[key] += hits
        left = limit.requests - self._counts[key]
        current: dict[int, Any] = {1: limit.requests, 2: limit.unit}
        if limit.name:
            current[3] = limit.name
        code = OVER_LIMIT if left < 0 else OK
        return {1: code, 2: current, 3: max(0, left), 4: {1: 17, 2: 500_000_000}}

    def _limit(self, descriptor: Descriptor) -> Limit | None:
        if descriptor.limit is not None:
            return Limit(*descriptor.limit)
        for entries, limit in self.limits.items():
            if len(entries) == len(descriptor.entries) and all(
                key == of and value in ("", have)
                for (key, value), (of, have) in zip(entries, descriptor.entries, strict=True)
            ):
                return limit
        return None


def _question(request: bytes, context: grpc.ServicerContext) -> Question:
    fields = decode(request)
    assert fields.keys() <= {1, 2, 3}, "nothing else is in a RateLimitRequest"
    metadata = dict(context.invocation_metadata())
    return Question(
        inside(request, 1).decode(),
        tuple(_descriptor(one) for one in fields.get(2, [])),
        fields.get(3, [0])[-1],
        str(metadata.get(":authority", "")),
        context.time_remaining(),
    )


def _descriptor(message: bytes) -> Descriptor:
    fields = decode(message)
    assert fields.keys() <= {1, 2, 3}, "nothing else is in a RateLimitDescriptor"
    entries = tuple((inside(one, 1).decode(), inside(one, 2).decode()) for one in fields[1])
    limit = None
    if 2 in fields:
        override = decode(fields[2][-1])
        limit = (override[1][-1], override[2][-1])
    hits = decode(fields[3][-1]).get(1, [0])[-1] if 3 in fields else None
    return Descriptor(entries, limit, hits)


@contextlib.contextmanager
def serving(service: RateLimitService) -> Iterator[str]:
    """Serves it; gives its address."""
    with ThreadPoolExecutor(8) as threads:
        server = grpc.server(threads, handlers=(service,), options=OPTIONS)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(None).wait(WAIT)
