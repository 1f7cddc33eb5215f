"""A gRPC service of bytes, channels to it, and a gateway between the two."""

from __future__ import annotations

import contextlib
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
from tests.engine.harness import WAIT, Gateway, Setup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
]

STREAMS = 120
"""Calls that the service answers at a time."""

DETAILS = b"\x08\x05\x12\x04gone"
"""What ``grpc-status-details-bin`` says of a failure."""


class Service(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Methods of each shape; what they have seen is kept."""

    def __init__(self) -> None:
        self.metadata: dict[str, str | bytes] = {}
        self.waiting = threading.Semaphore(0)
        self.cancelled = threading.Semaphore(0)
        self.methods: dict[str, Any] = {
            "/test.Service/Echo": grpc.unary_unary_rpc_method_handler(self.echo),
            "/test.Service/Fail": grpc.unary_unary_rpc_method_handler(self.fail),
            "/test.Service/Wait": grpc.unary_unary_rpc_method_handler(self.wait),
            "/test.Service/Join": grpc.stream_unary_rpc_method_handler(self.join),
            "/test.Service/Count": grpc.unary_stream_rpc_method_handler(self.count),
            "/test.Service/Chat": grpc.stream_stream_rpc_method_handler(self.chat),
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Finds a method."""
        self.metadata = dict(handler_call_details.invocation_metadata)
        return self.methods.get(handler_call_details.method)

    def echo(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        """Returns the request, and metadata before and behind it."""
        context.send_initial_metadata([("before", "1"), ("before-bin", b"\x00\xff")])
        context.set_trailing_metadata([("behind", "2"), ("behind-bin", b"\xff\x00")])
        return request

    def fail(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        """Fails with a message of the request's words."""
        context.set_trailing_metadata([("grpc-status-details-bin", DETAILS), ("why", "so")])
        context.abort(grpc.StatusCode.NOT_FOUND, request.decode())
        raise AssertionError("abort returned")

    def wait(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        """Answers once nobody waits for it any more."""
        done = threading.Event()
        context.add_callback(done.set)
        self.waiting.release()
        if done.wait(4 * WAIT):
            self.cancelled.release()
        return request

    def join(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        """Returns the requests in one."""
        return b",".join(requests)

    def count(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        """Counts up to the request."""
        for number in range(int(request)):
            yield str(number).encode()

    def chat(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """Returns each request as it comes."""
        yield from requests


@contextlib.contextmanager
def service() -> Iterator[tuple[Service, str]]:
    """A running service and its address."""
    handlers = Service()
    server = grpc.server(ThreadPoolExecutor(STREAMS), options=OPTIONS)
    server.add_generic_rpc_handlers((handlers,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield handlers, f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait(WAIT)


@contextlib.contextmanager
def channel(port: int) -> Iterator[grpc.Channel]:
    """A channel to a port."""
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=OPTIONS) as opened:
        yield opened


def setup(address: str, **more: Any) -> Setup:
    """A gateway in front of an HTTP/2 upstream."""
    return Setup(clusters={"c": {"endpoints": [address], "protocol": "http2"}}, **more)


@contextlib.contextmanager
def calling(
    change: Callable[[Setup], None] = lambda _: None,
) -> Iterator[tuple[grpc.Channel, Service, Gateway]]:
    """A channel through a gateway to a service."""
    with service() as (handlers, address):
        made = setup(address)
        change(made)
        gateway = Gateway(made)
        try:
            with channel(gateway.port) as opened:
                yield opened, handlers, gateway
        finally:
            gateway.close()


class Prefixed:
    """A listener that passes each connection on with bytes in front, as ztunnel does."""

    def __init__(self, port: int, prefix: bytes) -> None:
        self.target = port
        self.prefix = prefix
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                far = socket.create_connection(("127.0.0.1", self.target))
                far.sendall(self.prefix)
                self.open += [near, far]
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._copy, args=(source, sink), daemon=True).start()

    @staticmethod
    def _copy(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Ends every connection."""
        for sock in (self.listener, *self.open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
