"""ASGI applications to serve, and a configuration that leads to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kgw.asgi.types import App, Receive, Scope, Send

NAME = "default/app:8080"
LISTENER = "default/web/http"


def gateway(*listeners: dict[str, Any]) -> dict[str, Any]:
    """A Gateway; with one HTTP listener unless others are given."""
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": "web"},
        "spec": {
            "gatewayClassName": "kgateway",
            "listeners": listeners or [{"name": "http", "port": 80, "protocol": "HTTP"}],
        },
    }


def service(name: str = "app", port: int = 8080, **fields: Any) -> dict[str, Any]:
    """A Service without endpoints of its own."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"clusterIP": "None", "ports": [{"name": "http", "port": port, **fields}]},
    }


def route(*rules: dict[str, Any], **spec: Any) -> dict[str, Any]:
    """An HTTPRoute of the Gateway, to the application unless the rules say otherwise."""
    whole = [{"backendRefs": [{"name": "app", "port": 8080}], **rule} for rule in rules or ({},)]
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "web"},
        "spec": {"parentRefs": [{"name": "web"}], "rules": whole, **spec},
    }


def policy(**spec: Any) -> dict[str, Any]:
    """A TrafficPolicy of the route."""
    target = {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "web"}
    return {
        "apiVersion": "gateway.kgateway.dev/v1alpha1",
        "kind": "TrafficPolicy",
        "metadata": {"name": "policy"},
        "spec": {"targetRefs": [target], **spec},
    }


def resources(
    *more: dict[str, Any], rules: tuple[dict[str, Any], ...] = (), **fields: Any
) -> list[dict[str, Any]]:
    """What leads to the application, and *more*."""
    return [gateway(), service(**fields), route(*rules), *more]


def path(prefix: str) -> dict[str, Any]:
    """A rule's match."""
    return {"matches": [{"path": {"type": "PathPrefix", "value": prefix}}]}


def limited(tokens: int) -> dict[str, Any]:
    """A policy that allows so many requests an hour."""
    bucket = {"maxTokens": tokens, "tokensPerFill": tokens, "fillInterval": "3600s"}
    return policy(rateLimit={"local": {"tokenBucket": bucket}})


async def body_of(receive: Receive) -> bytes:
    """The whole body of a request."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionResetError
        body += bytes(message.get("body", b""))
        if not message.get("more_body"):
            return body


async def answer(
    send: Send,
    body: bytes = b"",
    status: int = 200,
    headers: tuple[tuple[bytes, bytes], ...] = (),
) -> None:
    """Answers with a whole body."""
    fields = [(b"content-length", str(len(body)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})


def http_only(handler: Any) -> App:
    """An application of requests, that raises for all else, as ASGI allows."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise ValueError(f"it serves HTTP, not {scope['type']}")
        await handler(scope, receive, send)

    return app


@http_only
async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the method, the path and the length of the body."""
    body = await body_of(receive)
    said = f"{scope['method']} {scope['path']} {len(body)}".encode()
    fields = tuple((b"x-seen-" + name, value) for name, value in scope["headers"])
    await answer(send, said, headers=fields)
