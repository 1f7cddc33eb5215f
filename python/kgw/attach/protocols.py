"""What a Service's port is declared to speak: `appProtocol`, else Istio's prefix of its name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from kgw.api.core.service import ServicePort

#: Protocols that are not HTTP in plain text.
NOT_HTTP: Final = frozenset(
    {"tcp", "tls", "https", "mongo", "mysql", "redis", "udp", "thrift", "kubernetes.io/wss"}
)

#: Protocols that need HTTP/2, which the data plane does not speak yet.
HTTP2: Final = frozenset({"http2", "grpc", "grpc-web", "kubernetes.io/h2c"})


def declared(port: ServicePort) -> str:
    """The declared protocol in lower case; may be any text, since names of ports are free."""
    return (port.app_protocol or port.name.partition("-")[0]).lower()
