"""What `kgw.asgi.GatewayMiddleware` adds to a request, and what `kgw.httpx_transport` does.

    make optimised && .venv/bin/python -m benches.asgi_overhead

The application is called as a server calls it, so the server's own cost is in none of the numbers.
CPU time is that of the whole process, the data plane's thread included.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import httpx
from tests.asgi.apps import LISTENER, NAME, answer, http_only, resources

import kgw
from kgw.asgi import GatewayMiddleware

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from kgw.asgi.types import App, Message, Receive, Scope, Send

REQUESTS = 3_000
ROUNDS = 3


@http_only
async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers."""
    await answer(send, b"hello")


async def call(app: App, port: int) -> None:
    """One request, as a server makes it."""
    told = asyncio.get_running_loop().create_future()
    first = True

    async def receive() -> Message:
        nonlocal first
        if first:
            first = False
            return {"type": "http.request", "body": b"", "more_body": False}
        await told
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            assert message["status"] == 200, message

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"app.example"), (b"user-agent", b"bench"), (b"accept", b"*/*")],
        "client": ("192.0.2.9", port),
        "server": ("127.0.0.1", 80),
        "state": {},
    }
    await app(scope, receive, send)


async def measured(
    what: str, one: Callable[[int], Awaitable[Any]], *, clients: int, requests: int = REQUESTS
) -> None:
    """Prints wall and CPU time per request, the best of some rounds."""

    async def client(number: int) -> None:
        for _ in range(requests // clients):
            await one(number)

    await client(1)
    best = (float("inf"), float("inf"))
    for _ in range(ROUNDS):
        wall, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(client(number) for number in range(1, clients + 1)))
        count = requests // clients * clients
        times = (time.perf_counter() - wall, time.process_time() - cpu)
        best = min(best, (times[0] / count * 1e6, times[1] / count * 1e6))
    print(f"| {what} | {clients} | {best[0]:.0f} | {best[1]:.0f} |", flush=True)


async def main() -> None:
    """Prints the table."""
    print("| | clients | µs wall | µs CPU |\n|---|---|---|---|")
    gateway = GatewayMiddleware(hello, resources())
    for clients in (1, 16):
        await measured("the application alone", lambda n: call(hello, n), clients=clients)
        await measured("with the middleware", lambda n: call(gateway, n), clients=clients)
    await gateway.aclose()
    proxy = kgw.Proxy(resources(), bind="127.0.0.1:0", workers=1, backends={NAME: hello})
    async with proxy:
        host, port = proxy.addresses[LISTENER][0]
        url = f"http://{host}:{port}/"
        for name, transport in (("a port", None), ("the transport", kgw.httpx_transport(proxy))):
            async with httpx.AsyncClient(transport=transport) as client:
                what = f"httpx through {name}, to the application"
                await measured(what, lambda _: client.get(url), clients=1, requests=1_000)


if __name__ == "__main__":
    asyncio.run(main())
