"""Read PROXY protocol headers in an asyncio server of your own, and send one as ztunnel does."""

from __future__ import annotations

import asyncio

from kgw.proxyproto import MeshIdentity, ProxyHeader, ProxyProtocolError, read_proxy_header


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Greets the workload that the connection comes from."""
    try:
        header = await read_proxy_header(reader, v1=False)
    except (ProxyProtocolError, TimeoutError):
        writer.close()
        return
    request = await reader.readline()
    match header:
        case ProxyHeader(
            identity=MeshIdentity(_, namespace, account),
            source=(client, client_port),
            destination=(service, port),
        ):
            writer.write(
                f"{account} in {namespace} wants {service}:{port}\n"
                f"source {client}:{client_port}\n"
                f"request {request.decode('latin-1').strip()}\n".encode()
            )
        case _:
            writer.write(b"who are you?\n")
    writer.close()


async def main() -> None:
    """Runs the server and one client."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    header = ProxyHeader(
        ("10.244.0.24", 46238),
        ("10.96.0.1", 80),
        identity=MeshIdentity.parse("spiffe://cluster.local/ns/default/sa/curl"),
    )
    writer.write(header.encode() + b"GET / HTTP/1.1\r\n\r\n")
    print((await reader.read()).decode(), end="")
    writer.close()
    server.close()


if __name__ == "__main__":
    asyncio.run(main())
