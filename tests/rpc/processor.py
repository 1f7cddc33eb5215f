"""A gRPC service that processes messages, as Envoy's ``ext_proc`` has one do it.

Messages are made by hand, as in :mod:`tests.rpc.authorizer`. A script says what is answered: a
dictionary of answers by what is asked, or a function that is called with each stream.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc
from tests.engine.harness import WAIT
from tests.rpc.authorizer import Message, decode, encode, inside
from tests.rpc.calls import OPTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

PROCESS = "/envoy.service.ext_proc.v3.ExternalProcessor/Process"

#: What is asked, by the number of its field.
KINDS = {
    2: "request_headers",
    3: "response_headers",
    4: "request_body",
    5: "response_body",
    6: "request_trailers",
    7: "response_trailers",
}

#: The numbers of the answers.
ANSWERS = {
    "request_headers": 1,
    "response_headers": 2,
    "request_body": 3,
    "response_body": 4,
    "request_trailers": 5,
    "response_trailers": 6,
}

MODES = {
    "NONE": 0,
    "STREAMED": 1,
    "BUFFERED": 2,
    "BUFFERED_PARTIAL": 3,
    "FULL_DUPLEX_STREAMED": 4,
}


class Asked:
    """A message that the service was sent."""

    def __init__(self, message: bytes) -> None:
        self.message = decode(message)
        number = next(number for number in KINDS if number in self.message)
        self.kind = KINDS[number]
        self.content: bytes = self.message[number][-1]

    @property
    def fields(self) -> list[tuple[str, str]]:
        """Header or trailer fields."""
        found = []
        for one in decode(inside(self.content, 1)).get(1, []):
            of = decode(one)
            value: bytes = (of.get(3) or of.get(2) or [b""])[-1]
            found.append((of[1][-1].decode(), value.decode("latin-1")))
        return found

    @property
    def body(self) -> bytes:
        """Some of a body."""
        found: bytes = inside(self.content, 1)
        return found

    @property
    def end(self) -> bool:
        """Whether the message ends here."""
        number = 3 if self.kind.endswith("headers") else 2
        return bool(decode(self.content).get(number))

    def __repr__(self) -> str:
        if self.kind.endswith("body"):
            return f"{self.kind}({self.body[:40]!r}, {len(self.body)}, end={self.end})"
        return f"{self.kind}({self.fields}, end={self.end})"


Answer: TypeAlias = "bytes | list[bytes]"


class Stream:
    """One stream, as its script sees it."""

    def __init__(
        self, messages: Iterator[bytes], context: grpc.ServicerContext, asked: list[Asked]
    ) -> None:
        self.messages = messages
        self.context = context
        self.asked = asked
        #: What a script wants to know of its filter.
        self.is_duplex = False

    def __iter__(self) -> Iterator[Asked]:
        for message in self.messages:
            asked = Asked(message)
            self.asked.append(asked)
            yield asked

    def next(self) -> Asked:
        """The next message."""
        return next(iter(self))

    def fail(self, code: grpc.StatusCode, message: str) -> None:
        """Ends the stream with an error."""
        self.context.abort(code, message)


Script: TypeAlias = "Mapping[str, Answer] | Callable[[Stream], Iterator[bytes]]"


def set_header(name: str, value: str, action: int | None = None, **more: Any) -> Message:
    """A ``HeaderValueOption``; ``append`` is the field of this name, ``value`` the one of text."""
    header: Message = {1: name}
    if "text" in more:
        header[2] = more["text"]
    else:
        header[3] = value
    found: Message = {1: header}
    if "append" in more:
        found[2] = {1: int(more["append"])}
    if action is not None:
        found[3] = action
    return found


def mutation(*headers: Message, remove: tuple[str, ...] = ()) -> Message:
    """A ``HeaderMutation``."""
    return {1: list(headers), 2: list(remove)}


def answer(kind: str, **members: Any) -> bytes:
    """An answer to a question of a kind.

    ``headers``, ``remove``, ``replace`` (status ``CONTINUE_AND_REPLACE``), ``body``, ``clear``,
    ``streamed`` (data, whether it is the end), ``clear_route``; and of all kinds: ``metadata``,
    ``mode`` and ``timeout`` (milliseconds).
    """
    response: Message = {}
    changes = mutation(*members.get("headers", ()), remove=members.get("remove", ()))
    if members.get("replace"):
        response[1] = 1
    if "headers" in members or "remove" in members:
        response[2] = changes
    if "body" in members:
        response[3] = {1: members["body"]}
    if members.get("clear"):
        response[3] = {2: 1}
    if "streamed" in members:
        data, end = members["streamed"]
        response[3] = {3: {1: data, 2: int(end)}}
    if members.get("clear_route"):
        response[5] = 1
    message: Message
    if kind.endswith("trailers"):
        message = {ANSWERS[kind]: {1: response.get(2, {})}}
    else:
        message = {ANSWERS[kind]: {1: response}}
    return encode(message | of_all(**members))


def of_all(**members: Any) -> Message:
    """What answers of all kinds may have."""
    message: Message = {}
    if "metadata" in members:
        message[8] = struct(members["metadata"])
    if "mode" in members:
        names = (
            "request_header",
            "response_header",
            "request_body",
            "response_body",
            "request_trailer",
            "response_trailer",
        )
        headers = {"DEFAULT": 0, "SEND": 1, "SKIP": 2}
        mode: Message = {}
        for number, name in enumerate(names, 1):
            value = members["mode"].get(name)
            if value is not None:
                mode[number] = (MODES if name.endswith("body") else headers)[value]
        message[9] = mode
    if "timeout" in members:
        seconds, milliseconds = divmod(members["timeout"], 1000)
        message[10] = {1: seconds, 2: milliseconds * 1_000_000}
    return message


def struct(values: dict[str, Any]) -> Message:
    """A ``google.protobuf.Struct`` of texts, truths and such."""
    return {1: [{1: name, 2: _value(value)} for name, value in values.items()]}


def _value(value: Any) -> Message:
    match value:
        case bool():
            return {4: int(value)}
        case str():
            return {3: value}
        case dict():
            return {5: struct(value)}
        case _:
            raise TypeError(value)


def immediate(
    status: int | None = 403,
    body: str = "",
    *headers: Message,
    details: str = "",
    grpc_status: int | None = None,
    remove: tuple[str, ...] = (),
    **members: Any,
) -> bytes:
    """An answer for the client."""
    response: Message = {}
    if status is not None:
        response[1] = {1: status}
    if headers or remove:
        response[2] = mutation(*headers, remove=remove)
    if body:
        response[3] = body
    if grpc_status is not None:
        response[4] = {1: grpc_status}
    if details:
        response[5] = details
    return encode({7: response} | of_all(**members))


def plain(kind: str) -> bytes:
    """An answer that changes nothing."""
    return answer(kind)


class Processor(grpc.GenericRpcHandler):  # type: ignore[misc]  # it has no types
    """The service."""

    def __init__(self, script: Script | None = None) -> None:
        self.script: Script = {} if script is None else script
        self.streams: queue.Queue[list[Asked]] = queue.Queue()
        self.metadata: dict[str, str | bytes] = {}
        #: Streams that have ended, and whether the caller cancelled them.
        self.ended: queue.Queue[bool] = queue.Queue()
        self.lock = threading.Lock()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Finds the one method there is."""
        if handler_call_details.method != PROCESS:
            return None
        return grpc.stream_stream_rpc_method_handler(self._process)

    def _process(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        asked: list[Asked] = []
        self.metadata = dict(context.invocation_metadata())
        self.streams.put(asked)
        # Messages end alike where a stream is cancelled and where it is half-closed: which of both
        # it was, only the call itself knows, and grpcio tells nobody in public.
        context.add_callback(lambda: self.ended.put(context._state.client == "cancelled"))
        stream = Stream(messages, context, asked)
        try:
            if callable(self.script):
                yield from self.script(stream)
            else:
                yield from follow(stream, self.script)
        except grpc.RpcError:
            pass  # the stream was cancelled

    def stream(self) -> list[Asked]:
        """What was asked in the next stream, so far."""
        return self.streams.get(timeout=WAIT)


def follow(stream: Stream, answers: Mapping[str, Answer]) -> Iterator[bytes]:
    """Gives the answers that there are by what is asked; plain ones where there are none."""
    for asked in stream:
        given = answers.get(asked.kind, plain(asked.kind))
        yield from given if isinstance(given, list) else [given]


@contextlib.contextmanager
def serving(processor: Processor, **options: Any) -> Iterator[str]:
    """Serves a processor; gives its address."""
    with ThreadPoolExecutor(16) as threads:
        server = grpc.server(threads, handlers=(processor,), options=OPTIONS, **options)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(None).wait(WAIT)
