"""The filter of `benches.filters.compare` as an addon of mitmproxy: ``mitmdump -s`` loads it."""

from __future__ import annotations

from mitmproxy import ctx, http


def load(_: object) -> None:
    ctx.options.stream_large_bodies = "1"  # bodies pass by, as in the other programs
    ctx.options.flow_detail = 0
    ctx.options.termlog_verbosity = "error"


def request(flow: http.HTTPFlow) -> None:
    authorization = flow.request.headers.get("authorization")
    if authorization is None:
        flow.response = http.Response.make(401, b"who are you?")
    else:
        flow.request.headers["x-user"] = authorization
