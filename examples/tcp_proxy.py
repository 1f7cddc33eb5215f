"""A TCP proxy of your own, behind ztunnel: who may reach what is decided by mesh identity."""

import asyncio
from contextlib import suppress

import kgw

REDIS = ("10.96.0.1", 6379)
ALLOWED = {REDIS: {"shop"}}  # service: namespaces of the clients that may reach it
UPSTREAMS = {REDIS: ("10.244.0.9", 6379)}  # service: where it really is


async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Connects a client with the service that it asked for, if it may."""
    header: kgw.ProxyHeader = writer.get_extra_info("proxy_header")
    service = writer.get_extra_info("sockname")  # not this proxy's: the one the client connected to
    if header.identity is not None and header.identity.namespace in ALLOWED.get(service, ()):
        upstream, to_upstream = await asyncio.open_connection(*UPSTREAMS[service])
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(relay(reader, to_upstream))
            tasks.create_task(relay(upstream, writer))
        to_upstream.close()
    writer.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await relay(reader, writer)
    writer.close()


async def ping(port: int, namespace: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    client = kgw.MeshIdentity("cluster.local", namespace, "web")
    writer.write(kgw.ProxyHeader(("10.244.0.7", 40000), REDIS, identity=client).encode() + b"PING")
    answer = b""
    with suppress(ConnectionResetError):  # closed before the request was read
        writer.write_eof()
        answer = await reader.read()
    print(f"{namespace}: {answer.decode() or 'refused'}")
    writer.close()


async def main() -> None:
    upstream = await asyncio.start_server(echo, "127.0.0.1", 0)
    UPSTREAMS[REDIS] = upstream.sockets[0].getsockname()
    proxy = await kgw.start_server(serve, "127.0.0.1", 0)  # allow=["10.0.0.0/8"] for a remote one
    async with upstream, proxy:
        await ping(proxy.sockets[0].getsockname()[1], "shop")
        await ping(proxy.sockets[0].getsockname()[1], "blog")


asyncio.run(main())
