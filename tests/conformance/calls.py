"""gRPC backends and clients of conformance tests."""

from __future__ import annotations

import contextlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import grpc
from tests.engine.harness import WAIT
from tests.rpc.calls import OPTIONS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from tests.conformance.infra import Infra

ECHO: Final = "gateway_api_conformance.echo_basic.grpcecho.GrpcEcho"
"""The service of the suite's backends; its methods are Echo, EchoTwo and EchoThree."""

BACKENDS: Final = ("grpc-infra-backend-v1", "grpc-infra-backend-v2", "grpc-infra-backend-v3")
"""The Services that are always there, on port 8080."""


class Echo(grpc.GenericRpcHandler):  # type: ignore[misc]
    """A pod that answers every call with what it was asked."""

    def __init__(self, name: str) -> None:
        self.name = name

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Answers any method."""
        metadata: dict[str, list[str]] = {}
        for key, value in handler_call_details.invocation_metadata:
            if isinstance(value, str):
                metadata.setdefault(key, []).append(value)
        seen = {"backend": self.name, "method": handler_call_details.method, "metadata": metadata}
        return grpc.unary_unary_rpc_method_handler(lambda _, __: json.dumps(seen).encode())


@contextlib.contextmanager
def backend(name: str, certificate: tuple[str, str] | None = None) -> Iterator[str]:
    """A running pod and its address; with TLS if it has a certificate, and its key, as PEM."""
    server = grpc.server(ThreadPoolExecutor(8), options=OPTIONS)
    server.add_generic_rpc_handlers((Echo(name),))
    if certificate is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        chain, key = (one.encode() for one in certificate)
        credentials = grpc.ssl_server_credentials([(key, chain)])
        port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait(WAIT)


@contextlib.contextmanager
def backends(infra: Infra) -> Iterator[None]:
    """The suite's gRPC Services in the infra namespace, served from the next `apply` on."""
    with contextlib.ExitStack() as exits:
        for number, name in enumerate(BACKENDS):
            address = exits.enter_context(backend(name))
            infra.endpoints(
                name,
                "gateway-conformance-infra",
                [address],
                port=8080,
                app_protocol="kubernetes.io/h2c",
                cluster_ip=f"10.96.3.{number + 1}",
            )
        yield


@dataclass(frozen=True)
class Answer:
    """What became of a call."""

    code: grpc.StatusCode
    seen: Mapping[str, Any]

    @property
    def outcome(self) -> str:
        """The Service that answered, else the name of the status."""
        return str(self.seen["backend"]) if self.code is grpc.StatusCode.OK else self.code.name

    def received(self, name: str) -> str | None:
        """A field of metadata as the backend saw it, its values joined by a comma."""
        values = self.seen["metadata"].get(name.lower())
        return ",".join(values) if values is not None else None


@contextlib.contextmanager
def channel(port: int, authority: str) -> Iterator[grpc.Channel]:
    """A channel to a port of loopback, for an authority."""
    options = [*OPTIONS, ("grpc.default_authority", authority)]
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as opened:
        yield opened


def call(
    opened: grpc.Channel,
    method: str = "Echo",
    metadata: Mapping[str, str] | Iterable[tuple[str, str]] = (),
) -> Answer:
    """Makes one call of a method of `ECHO`."""
    pairs = metadata.items() if hasattr(metadata, "items") else metadata
    given = [(name.lower(), value) for name, value in pairs]
    try:
        answer = opened.unary_unary(f"/{ECHO}/{method}")(b"", metadata=given, timeout=WAIT)
    except grpc.RpcError as error:
        return Answer(error.code(), {})
    return Answer(grpc.StatusCode.OK, json.loads(answer))
