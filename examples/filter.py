"""A filter that asks who is there, before the request goes anywhere."""

import asyncio
import urllib.error
import urllib.request

import kgw

MANIFEST = [
    {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": "edge"},
        "spec": {
            "gatewayClassName": "kgateway",
            "listeners": [{"name": "http", "port": 8080, "protocol": "HTTP"}],
        },
    },
    {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "api"},
        "spec": {"parentRefs": [{"name": "edge"}], "rules": [{}]},
    },
]

proxy = kgw.Proxy(MANIFEST, bind="127.0.0.1:0")


@proxy.filter("auth", routes=["default/api"], timeout=0.5)
async def auth(request: kgw.Request) -> kgw.Response | None:
    """Lets nobody pass who does not say who he is."""
    await asyncio.sleep(0)  # a database, another service
    if "authorization" not in request.headers:
        return kgw.Response(401, "who are you?\n")
    request.headers["x-user"] = "somebody"
    return None


async def main() -> None:
    """Asks without saying who it is."""
    async with proxy:
        host, port = proxy.addresses["default/edge/http"][0]
        try:
            await asyncio.to_thread(urllib.request.urlopen, f"http://{host}:{port}/")
        except urllib.error.HTTPError as answer:
            with answer:
                print(answer.code, answer.read().decode(), end="")


asyncio.run(main())
