"""What a Service's port carries: its `appProtocol`, else Istio's prefix of its name.

A port that declares nothing may carry anything. A waypoint then looks at the first bytes of each
connection, as Istio's does; an ordinary Gateway sends HTTP/1.1, as kgateway does. Where kgateway's
waypoint and Istio's differ, Istio's counts: kgateway serves the requests of a port that it does not
know as raw TCP.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from kgw.api.core.service import ServicePort


@dataclass(frozen=True, slots=True)
class Protocol:
    """What the connections of a port carry."""

    #: Whether they may carry requests.
    http: bool
    #: Whether they may carry anything else.
    stream: bool
    #: The version of HTTP that the endpoints speak, ``auto`` for that of each request.
    version: str = "http1"
    #: What requests may switch to.
    upgrades: tuple[str, ...] = ()


HTTP1: Final = Protocol(http=True, stream=False)
HTTP2: Final = Protocol(http=True, stream=False, version="http2")
STREAM: Final = Protocol(http=False, stream=True)
UNDECLARED: Final = Protocol(http=True, stream=True, version="auto")

_WEBSOCKET: Final = ("websocket",)

_DECLARED: Final = {
    "http": HTTP1,
    "http_proxy": HTTP1,
    "kubernetes.io/ws": Protocol(http=True, stream=False, upgrades=_WEBSOCKET),
    "http2": HTTP2,
    "grpc": HTTP2,
    "grpc-web": HTTP2,
    "kubernetes.io/h2c": HTTP2,
    # TLS that the application ends: nothing in it can be seen on the way.
    "kubernetes.io/wss": Protocol(http=False, stream=True, upgrades=_WEBSOCKET),
    "https": STREAM,
    "tls": STREAM,
    **dict.fromkeys(("tcp", "mongo", "mysql", "redis", "thrift"), STREAM),
}

#: Protocols that are HTTP in TLS, or may be.
ENCRYPTED: Final = frozenset({"https", "tls", "kubernetes.io/wss"})

#: Ports whose servers speak first, so that there are no first bytes of a client to look at.
_SERVER_FIRST: Final = frozenset({25, 53, 3306, 27017})


def declared(port: ServicePort) -> str:
    """The declared protocol in lower case; may be any text, since names of ports are free."""
    word = (port.app_protocol or port.name).lower()
    if word in _DECLARED:
        return word
    # The one protocol with a dash in it.
    if word.startswith("grpc-web-"):
        return "grpc-web"
    return word.partition("-")[0]


def of(port: ServicePort) -> Protocol:
    """What a port carries."""
    found = _DECLARED.get(declared(port))
    if found is not None:
        return found
    return STREAM if port.port in _SERVER_FIRST else UNDECLARED
