"""Token buckets alone, in a program that is not a proxy.

Each client may make three calls at once and then one every 20 seconds; a background task paces
itself to fifty calls a second. Run it: `python examples/limit.py`.
"""

from __future__ import annotations

import math

import anyio

from kgw.limits import KeyedTokenBucket, TokenBucket

clients = KeyedTokenBucket(3, 3, 60)


def answer(client: str) -> str:
    """The answer to one call of `client`."""
    if clients.take(client):
        return "200"
    return f"429, retry-after: {math.ceil(clients.retry_after(client))}"


async def paced(calls: int) -> int:
    """Makes `calls` calls, none too early."""
    bucket = TokenBucket(1, tokens_per_fill=50, fill_interval=1.0)
    done = 0
    for _ in range(calls):
        await bucket.acquire()
        done += 1
    return done


async def main() -> None:
    """Five calls of two clients, and five of a task that paces itself."""
    for client in ["alice"] * 4 + ["bob"]:
        print(f"{client}: {answer(client)}")
    print(f"the paced task made {await paced(5)} calls")


if __name__ == "__main__":
    anyio.run(main)
