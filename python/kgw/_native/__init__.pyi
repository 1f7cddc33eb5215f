"""The Rust extension. Not for import by users: ``kgw`` re-exports what is public."""

from . import access_log as access_log
from . import bridge as bridge
from . import cel as cel
from . import engine as engine
from . import jwt as jwt
from . import limit as limit
from . import manifest as manifest
from . import proxyproto as proxyproto
from . import route as route
from . import schema as schema
from . import template as template
from . import tls as tls
from . import watch as watch

__all__ = [
    "__version__",
    "access_log",
    "bridge",
    "cel",
    "engine",
    "jwt",
    "limit",
    "manifest",
    "proxyproto",
    "route",
    "schema",
    "template",
    "tls",
    "watch",
]

__version__: str
