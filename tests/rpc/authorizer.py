"""A gRPC service that decides about requests, as Envoy's ``ext_authz`` asks one.

Messages are made by hand, from the numbers of their public definition: a dictionary of fields by
number, where a value is a number, bytes, a dictionary (a message), or a list of these.
"""

from __future__ import annotations

import contextlib
import queue
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc
from tests.engine.harness import WAIT
from tests.rpc.calls import OPTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHECK = "/envoy.service.auth.v3.Authorization/Check"

Message: TypeAlias = "dict[int, Any]"


def varint(number: int) -> bytes:
    """Encodes a number."""
    number &= (1 << 64) - 1
    found = bytearray()
    while number >= 0x80:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*found, number))


def encode(message: Message) -> bytes:
    """Encodes a message."""
    found = b""
    for number, values in message.items():
        for value in values if isinstance(values, list) else [values]:
            if isinstance(value, int):
                found += varint(number << 3) + varint(value)
                continue
            data = encode(value) if isinstance(value, dict) else value
            data = data.encode() if isinstance(data, str) else data
            found += varint(number << 3 | 2) + varint(len(data)) + data
    return found


def decode(data: bytes) -> dict[int, list[Any]]:
    """Decodes a message, the messages in it excepted."""
    found: dict[int, list[Any]] = {}
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        tag = number()
        if tag & 7 == 0:
            value: Any = number()
        else:
            assert tag & 7 == 2, f"nothing here is of kind {tag & 7}"
            length = number()
            value = data[at : at + length]
            at += length
        found.setdefault(tag >> 3, []).append(value)
    return found


def inside(message: bytes, *numbers: int) -> Any:
    """What a message has at a path of numbers, the last of each."""
    value: Any = message
    for number in numbers:
        value = decode(value).get(number, [b""])[-1]
    return value


class Check:
    """What the service was asked."""

    def __init__(self, request: bytes, metadata: dict[str, str | bytes]) -> None:
        self.metadata = metadata
        self.attributes = inside(request, 1)
        self.http = inside(self.attributes, 4, 2)

    def text(self, number: int) -> str:
        """A text of the ``HttpRequest``."""
        found: bytes = inside(self.http, number)
        return found.decode()

    def map(self, message: bytes, number: int) -> dict[str, str]:
        """A map of texts."""
        entries = decode(message).get(number, [])
        return {inside(one, 1).decode(): inside(one, 2).decode() for one in entries}

    @property
    def headers(self) -> dict[str, str]:
        """The header fields that the service is told."""
        return self.map(self.http, 3)


def field(name: str, value: str, append: bool | None = None, action: int = 0) -> Message:
    """A ``HeaderValueOption``."""
    found: Message = {1: {1: name, 2: value}}
    if append is not None:
        found[2] = {1: int(append)}
    if action:
        found[3] = action
    return found


def allowed(**members: Any) -> bytes:
    """An answer that lets pass: ``headers``, ``remove``, ``response``, ``query``, ``metadata``."""
    ok: Message = {}
    for name, number in (("headers", 2), ("remove", 5), ("response", 6)):
        if name in members:
            ok[number] = members[name]
    for name, value in members.get("query", {}).items():
        ok.setdefault(7, []).append({1: name, 2: value})
    message: Message = {1: {1: 0}, 3: ok}
    for name, value in members.get("metadata", {}).items():
        message.setdefault(4, {}).setdefault(1, []).append({1: name, 2: {3: value}})
    return encode(message)


def denied(status: int = 403, body: str = "", headers: list[Message] | None = None) -> bytes:
    """An answer that refuses."""
    response: Message = {1: {1: status}, 2: headers or [], 3: body}
    return encode({1: {1: 7}, 2: response})


class Authorizer(grpc.GenericRpcHandler):  # type: ignore[misc]  # it has no types
    """The service: an answer is bytes, or what is called with the question and the call."""

    def __init__(self, answer: bytes | Callable[[Check, grpc.ServicerContext], bytes]) -> None:
        self.answer = answer
        self.asked: queue.Queue[Check] = queue.Queue()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Finds the one method there is."""
        if handler_call_details.method != CHECK:
            return None
        return grpc.unary_unary_rpc_method_handler(self._check)

    def _check(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        check = Check(request, dict(context.invocation_metadata()))
        self.asked.put(check)
        return self.answer if isinstance(self.answer, bytes) else self.answer(check, context)

    def question(self) -> Check:
        """The next that it was asked."""
        return self.asked.get(timeout=WAIT)


@contextlib.contextmanager
def serving(authorizer: Authorizer, **options: Any) -> Iterator[str]:
    """Serves an authorizer; gives its address."""
    with ThreadPoolExecutor(8) as threads:
        server = grpc.server(threads, handlers=(authorizer,), options=OPTIONS, **options)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(None).wait(WAIT)
