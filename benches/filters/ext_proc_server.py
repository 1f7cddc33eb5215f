"""The filter of `benches.filters.compare` as a server that Envoy's ``ext_proc`` asks."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import grpc.aio
from envoy.config.core.v3.base_pb2 import HeaderValue, HeaderValueOption
from envoy.service.ext_proc.v3 import external_processor_pb2 as messages
from envoy.service.ext_proc.v3 import external_processor_pb2_grpc as service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Processor(service.ExternalProcessorServicer):  # type: ignore[misc]  # it has no types
    async def Process(self, requests: AsyncIterator[Any], _: object) -> AsyncIterator[Any]:
        async for request in requests:
            headers = request.request_headers.headers.headers
            authorization = next((one for one in headers if one.key == "authorization"), None)
            if authorization is None:
                denied = messages.ImmediateResponse(body=b"who are you?")
                denied.status.code = 401
                yield messages.ProcessingResponse(immediate_response=denied)
                continue
            header = HeaderValue(key="x-user", raw_value=authorization.raw_value)
            mutation = messages.HeaderMutation(set_headers=[HeaderValueOption(header=header)])
            common = messages.CommonResponse(header_mutation=mutation)
            yield messages.ProcessingResponse(
                request_headers=messages.HeadersResponse(response=common)
            )


async def main(port: int) -> None:
    server = grpc.aio.server()
    service.add_ExternalProcessorServicer_to_server(Processor(), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
