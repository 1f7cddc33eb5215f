"""A gateway in front of an ASGI application: one more line, and no port."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from kgw.asgi import GatewayMiddleware

API, WEB = "gateway.networking.k8s.io/v1", {"name": "web"}
TARGET = {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", **WEB}
BUCKET = {"maxTokens": 2, "tokensPerFill": 2, "fillInterval": "60s"}

CONFIG = [
    {
        "apiVersion": API,
        "kind": "Gateway",
        "metadata": WEB,
        "spec": {
            "gatewayClassName": "kgateway",
            "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}],
        },
    },
    {
        "apiVersion": API,
        "kind": "HTTPRoute",
        "metadata": WEB,
        "spec": {"parentRefs": [WEB], "rules": [{"backendRefs": [{"name": "app", "port": 80}]}]},
    },
    {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "app"},
        "spec": {"ports": [{"name": "http", "port": 80}]},
    },
    {
        "apiVersion": "gateway.kgateway.dev/v1alpha1",
        "kind": "TrafficPolicy",
        "metadata": {"name": "limit"},
        "spec": {"targetRefs": [TARGET], "rateLimit": {"local": {"tokenBucket": BUCKET}}},
    },
]


async def hello(request: Request) -> PlainTextResponse:
    """Says what it was asked for."""
    return PlainTextResponse(f"hello {request.url.path}")


app = Starlette(routes=[Route("/{path:path}", hello)])
app.add_middleware(GatewayMiddleware, config=CONFIG)

# A server, such as uvicorn, would serve `app`; this asks it three times.
with TestClient(app) as client:
    print([client.get("/").status_code for _ in range(3)])
