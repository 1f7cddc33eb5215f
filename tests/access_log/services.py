"""Services that logs and spans are sent to, by grpcio: Envoy's and an OpenTelemetry collector's."""

from __future__ import annotations

import contextlib
import queue
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
from tests.access_log.messages import EXPORT_REQUEST, STREAM_MESSAGE, TRACES_REQUEST, decode, pairs
from tests.engine.harness import WAIT
from tests.rpc.calls import OPTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STREAM = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs"
TRACES = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
EXPORT = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"


class LogService(grpc.GenericRpcHandler):  # type: ignore[misc]  # it has no types
    """Both services; what they are told can be taken, in order."""

    def __init__(self) -> None:
        self.streams = 0
        self.ended = 0
        self._most: int | None = None
        self.metadata: queue.Queue[dict[str, str | bytes]] = queue.Queue()
        self.messages: queue.Queue[dict[str, Any]] = queue.Queue()
        #: What an export is answered with; may abort the call instead.
        self.answer: Callable[[grpc.ServicerContext], bytes] = lambda _: b""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Finds a method."""
        match handler_call_details.method:
            case str(method) if method == STREAM:
                return grpc.stream_unary_rpc_method_handler(self._stream)
            case str(method) if method == EXPORT:
                return grpc.unary_unary_rpc_method_handler(self._export)
            case str(method) if method == TRACES:
                return grpc.unary_unary_rpc_method_handler(self._traces)
        return None

    def _stream(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        self.streams += 1
        self.metadata.put(dict(context.invocation_metadata()))
        for number, message in enumerate(messages, 1):
            self.messages.put(decode(message, STREAM_MESSAGE))
            if number == self._most:
                break
        self.ended += 1
        return b""

    def _export(self, message: bytes, context: grpc.ServicerContext) -> bytes:
        self.metadata.put(dict(context.invocation_metadata()))
        self.messages.put(decode(message, EXPORT_REQUEST))
        return self.answer(context)

    def _traces(self, message: bytes, context: grpc.ServicerContext) -> bytes:
        self.metadata.put(dict(context.invocation_metadata()))
        self.messages.put(decode(message, TRACES_REQUEST))
        return self.answer(context)

    def stop_after(self, messages: int) -> None:
        """Ends each stream after so many messages."""
        self._most = messages

    def message(self) -> dict[str, Any]:
        """The next message."""
        return self.messages.get(timeout=WAIT)

    def entries(self, count: int, kind: str = "http_logs") -> list[dict[str, Any]]:
        """So many entries of the messages to come."""
        found: list[dict[str, Any]] = []
        while len(found) < count:
            found += self.message().get(kind, {}).get("log_entry", [])
        assert len(found) == count
        return found

    def records(self, count: int) -> list[dict[str, Any]]:
        """So many log records of the messages to come."""
        found: list[dict[str, Any]] = []
        while len(found) < count:
            (logs,) = self.message()["resource_logs"]
            (scope,) = logs["scope_logs"]
            found += scope["log_records"]
        assert len(found) == count
        return found

    def spans(self, count: int) -> list[dict[str, Any]]:
        """So many spans of the messages to come, with their attributes by name."""
        found: list[dict[str, Any]] = []
        while len(found) < count:
            (resource,) = self.message()["resource_spans"]
            (scope,) = resource["scope_spans"]
            found += scope["spans"]
        assert len(found) == count
        for one in found:
            values = pairs(one["attributes"])
            one["attributes"] = {name: value["string"] for name, value in values.items()}
        return found


@contextlib.contextmanager
def serving(service: LogService, port: int = 0) -> Iterator[str]:
    """Serves both; gives the address."""
    with ThreadPoolExecutor(8) as threads:
        server = grpc.server(threads, handlers=(service,), options=OPTIONS)
        port = server.add_insecure_port(f"127.0.0.1:{port}")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(None).wait(WAIT)
