"""The filter of `benches.filters.compare` in a reverse proxy of aiohttp's server and client."""

from __future__ import annotations

import sys

import aiohttp
from aiohttp import web

HOP_BY_HOP = {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}


def proxy(backend: int) -> web.Application:
    application = web.Application()

    async def client(_: web.Application) -> object:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as application[
            SESSION
        ]:
            yield

    async def handle(request: web.Request) -> web.StreamResponse:
        authorization = request.headers.get("authorization")
        if authorization is None:
            return web.Response(status=401, text="who are you?")
        headers = {
            name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP
        }
        headers["x-user"] = authorization
        async with request.app[SESSION].request(
            request.method,
            f"http://127.0.0.1:{backend}{request.raw_path}",
            headers=headers,
            data=request.content if request.body_exists else None,
            allow_redirects=False,
        ) as answer:
            response = web.StreamResponse(status=answer.status)
            for name, value in answer.headers.items():
                if name.lower() not in HOP_BY_HOP:
                    response.headers.add(name, value)
            await response.prepare(request)
            async for piece in answer.content.iter_any():
                await response.write(piece)
            await response.write_eof()
            return response

    application.cleanup_ctx.append(client)  # type: ignore[arg-type]  # it says what it is too narrowly
    application.router.add_route("*", "/{path:.*}", handle)
    return application


SESSION = web.AppKey("session", aiohttp.ClientSession)

if __name__ == "__main__":
    web.run_app(
        proxy(int(sys.argv[2])),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        access_log=None,
        print=None,
    )
