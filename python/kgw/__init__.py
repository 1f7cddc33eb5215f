"""kgw: a Gateway API waypoint and ingress proxy with a Rust data plane, as a library.

Names are imported when they are first used, so ``import kgw`` costs next to nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False  # what the name means to a type checker, without half of the time: typing

if TYPE_CHECKING:
    from typing import Any

    from kgw._native import __version__ as __version__
    from kgw.client import httpx_transport as httpx_transport
    from kgw.config import Config as Config
    from kgw.config import load as load
    from kgw.diagnostics import Finding as Finding
    from kgw.errors import BindError as BindError
    from kgw.errors import ConfigError as ConfigError
    from kgw.errors import FilterError as FilterError
    from kgw.errors import IncompleteProxyHeader as IncompleteProxyHeader
    from kgw.errors import KgwError as KgwError
    from kgw.errors import NotRunning as NotRunning
    from kgw.errors import ProtocolError as ProtocolError
    from kgw.errors import ProxyProtocolError as ProxyProtocolError
    from kgw.errors import RateLimited as RateLimited
    from kgw.events import Event as Event
    from kgw.filters import Request as Request
    from kgw.filters import Response as Response
    from kgw.limits import KeyedTokenBucket as KeyedTokenBucket
    from kgw.limits import TokenBucket as TokenBucket
    from kgw.proxy import BlockingProxy as BlockingProxy
    from kgw.proxy import Proxy as Proxy
    from kgw.proxyproto import MeshIdentity as MeshIdentity
    from kgw.proxyproto import ProxyHeader as ProxyHeader
    from kgw.proxyproto import parse_proxy_header as parse_proxy_header
    from kgw.proxyproto import read_proxy_header as read_proxy_header
    from kgw.proxyproto import start_server as start_server
    from kgw.routing import HeaderMatch as HeaderMatch
    from kgw.routing import QueryMatch as QueryMatch
    from kgw.routing import Route as Route
    from kgw.routing import RouteTable as RouteTable
    from kgw.stats import Stats as Stats
    from kgw.streams import AccessRecord as AccessRecord
    from kgw.streams import BlockingStream as BlockingStream
    from kgw.streams import Stream as Stream

__all__ = [
    "AccessRecord",
    "BindError",
    "BlockingProxy",
    "BlockingStream",
    "Config",
    "ConfigError",
    "Event",
    "FilterError",
    "Finding",
    "HeaderMatch",
    "IncompleteProxyHeader",
    "KeyedTokenBucket",
    "KgwError",
    "MeshIdentity",
    "NotRunning",
    "ProtocolError",
    "Proxy",
    "ProxyHeader",
    "ProxyProtocolError",
    "QueryMatch",
    "RateLimited",
    "Request",
    "Response",
    "Route",
    "RouteTable",
    "Stats",
    "Stream",
    "TokenBucket",
    "__version__",
    "httpx_transport",
    "load",
    "parse_proxy_header",
    "read_proxy_header",
    "start_server",
]

_HOMES = {
    "AccessRecord": "kgw.streams",
    "BindError": "kgw.errors",
    "BlockingProxy": "kgw.proxy",
    "BlockingStream": "kgw.streams",
    "Config": "kgw.config",
    "ConfigError": "kgw.errors",
    "Event": "kgw.events",
    "FilterError": "kgw.errors",
    "Finding": "kgw.diagnostics",
    "HeaderMatch": "kgw.routing",
    "IncompleteProxyHeader": "kgw.errors",
    "KeyedTokenBucket": "kgw.limits",
    "KgwError": "kgw.errors",
    "MeshIdentity": "kgw.proxyproto",
    "NotRunning": "kgw.errors",
    "ProtocolError": "kgw.errors",
    "Proxy": "kgw.proxy",
    "ProxyHeader": "kgw.proxyproto",
    "ProxyProtocolError": "kgw.errors",
    "QueryMatch": "kgw.routing",
    "RateLimited": "kgw.errors",
    "Request": "kgw.filters",
    "Response": "kgw.filters",
    "Route": "kgw.routing",
    "RouteTable": "kgw.routing",
    "Stats": "kgw.stats",
    "Stream": "kgw.streams",
    "TokenBucket": "kgw.limits",
    "__version__": "kgw._native",
    "httpx_transport": "kgw.client",
    "load": "kgw.config",
    "parse_proxy_header": "kgw.proxyproto",
    "read_proxy_header": "kgw.proxyproto",
    "start_server": "kgw.proxyproto",
}


if not TYPE_CHECKING:  # for a type checker, every name would exist

    def __getattr__(name: str) -> Any:
        """Imports a public name on its first use (PEP 562)."""
        import importlib

        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module 'kgw' has no attribute {name!r}")
        value = getattr(importlib.import_module(home), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """Returns the public names, imported or not."""
    return sorted({*globals(), *__all__})
