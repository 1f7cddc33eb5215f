"""Token buckets alone, in a program that is not a proxy.

Each client may make three calls at once and then one every 20 seconds; a background task paces
itself to fifty calls a second, and each host that it calls to twenty.
Run it: `python examples/limit.py`.
"""

from __future__ import annotations

import math

import anyio

from kgw.limits import KeyedTokenBucket, RateLimited, TokenBucket

clients = KeyedTokenBucket(3, 3, 60)
hosts = KeyedTokenBucket(1, tokens_per_fill=20, fill_interval=1.0, max_waiters=1000)


def answer(client: str) -> str:
    """The answer to one call of `client`."""
    if clients.take(client):
        return "200"
    return f"429, retry-after: {math.ceil(clients.retry_after(client))}"


async def paced(calls: int) -> int:
    """Makes `calls` calls, none too early."""
    bucket = TokenBucket(1, tokens_per_fill=50, fill_interval=1.0)
    done = 0
    for call in range(calls):
        await bucket.acquire()
        await hosts.acquire(f"host {call % 2}")  # waits in the order of the callers
        done += 1
    return done


async def main() -> None:
    """Five calls of two clients, five of a task that paces itself, and one that cannot wait."""
    for client in ["alice"] * 4 + ["bob"]:
        print(f"{client}: {answer(client)}")
    print(f"the paced task made {await paced(5)} calls")
    try:
        await clients.acquire("alice", max_wait=1.0)
    except RateLimited as refused:
        print(f"alice would wait for {math.ceil(refused.retry_after)} s")


if __name__ == "__main__":
    anyio.run(main)
