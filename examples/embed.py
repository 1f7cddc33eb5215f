"""A waypoint inside an asyncio program."""

import asyncio

import kgw


async def main() -> None:
    """Serves the manifests, and applies them once more."""
    async with kgw.Proxy("examples/waypoint", bind="127.0.0.1:0") as proxy:
        for listener, addresses in proxy.addresses.items():
            print(listener, "listens on", addresses)
        await proxy.apply("examples/waypoint")  # live when it returns; nothing was dropped


asyncio.run(main())
