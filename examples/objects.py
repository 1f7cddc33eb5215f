"""A gateway made of Python objects: two routes, header edits, a rate limit, an access log."""

import asyncio
import http.client
from contextlib import closing

import kgw
from kgw.api import (
    AccessLog,
    Filter,
    Gateway,
    HTTPListenerPolicy,
    HTTPRoute,
    LocalRateLimit,
    Rule,
    Service,
    TrafficPolicy,
    dumps,
)


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers one request with what the gateway added to it."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    team = head.partition("x-team: ")[2].partition("\r\n")[0].encode()
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(team), team))
    await writer.drain()
    writer.close()


def get(host: str, port: int, path: str) -> str:
    """Sends a request and returns its answer."""
    with closing(http.client.HTTPConnection(host, port, timeout=10)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        return f"{path} {answer.status} {answer.read().decode()}".strip()


async def main() -> None:
    """Serves the objects, and asks three times of a route where two are allowed."""
    async with await asyncio.start_server(greet, "127.0.0.1", 0) as backend:
        host, port = backend.sockets[0].getsockname()
        users, *endpoints = Service.at("users", f"{host}:{port}")
        gateway = Gateway.of("edge", 8080)
        named = Filter.request_headers(set={"x-team": "blue"})
        v1 = Rule.of("/v1", to=users, filters=[named], timeout="3s")
        old = Rule.of("/old", filters=[Filter.redirect(prefix="/v1", status=301)])
        route = HTTPRoute.of("users", gateway, v1, old)
        limit = TrafficPolicy.of("limit", route, rate_limit=LocalRateLimit.of(2, per="60s"))
        log = HTTPListenerPolicy.of("log", gateway, access_log=AccessLog.of("/dev/null"))
        objects = [gateway, route, users, *endpoints, limit, log]
        assert len(dumps(objects).split("---\n")) == 6  # the manifests, for `kubectl apply`
        async with kgw.Proxy(objects, bind="127.0.0.1:0") as proxy:
            [[address]] = proxy.addresses.values()
            for path in ("/old/a", "/v1/a", "/v1/b", "/v1/c"):
                print(await asyncio.to_thread(get, *address, path))


asyncio.run(main())
