"""A filter that changes bodies as they go by, piece by piece: no digit leaves the house."""

import asyncio
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
        "metadata": {"name": "shop"},
        "spec": {"parentRefs": [{"name": "edge"}], "rules": [{}]},
    },
]
DIGITS = bytes.maketrans(b"0123456789", b"##########")

proxy = kgw.Proxy(MANIFEST, bind="127.0.0.1:0")


@proxy.filter("shop", routes=["default/shop"])
def shop(_: kgw.Request) -> kgw.Response:
    """Stands for a backend."""
    return kgw.Response(200, "the card is 1234-5678\n" * 10_000)


@proxy.filter("hide", routes="*")
class Hide:
    """Sees at most 16 KiB at a time, however long the body is."""

    def on_response_chunk(
        self, request: kgw.Request, response: kgw.Response, data: bytes, end: bool
    ) -> bytes:
        """Gives what takes the piece's place."""
        return data.translate(DIGITS)


async def main() -> None:
    """Asks for what has digits in it."""
    async with proxy:
        host, port = proxy.addresses["default/edge/http"][0]
        answer = await asyncio.to_thread(urllib.request.urlopen, f"http://{host}:{port}/")
        with answer:
            lines = answer.read().decode().splitlines()
    print(f"{len(lines):,} times: {lines[-1]}")


asyncio.run(main())
