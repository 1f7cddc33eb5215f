"""ASGI applications behind a gateway, and as its backends, in one process and without a port.

    app = GatewayMiddleware(app, "manifests/")             # a gateway in front of an application

    kgw.Proxy(config, backends={"default/app:8080": app})   # an application behind a proxy

Both speak HTTP/1.1 to the data plane on socket pairs, so every policy is the data plane's own. h11
and wsproto, which they need, come with the extra ``asgi``.
"""

from __future__ import annotations

try:
    import h11 as _h11  # noqa: F401 - whether it is there is the question
    import wsproto as _wsproto  # noqa: F401 - the same
except ImportError as _error:
    raise ImportError(
        "kgw.asgi needs h11 and wsproto (the extra 'asgi'): pip install h11 wsproto",
        name=_error.name,
    ) from None

from kgw.asgi.backend import Backend
from kgw.asgi.errors import ClientDisconnected, LifespanError, ResponseCut
from kgw.asgi.middleware import GatewayMiddleware

__all__ = ["Backend", "ClientDisconnected", "GatewayMiddleware", "LifespanError", "ResponseCut"]
