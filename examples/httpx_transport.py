"""An egress gateway for an httpx client: what has no route is not reached."""

import asyncio

import httpx

import kgw

API, EGRESS = "gateway.networking.k8s.io/v1", {"name": "egress"}

CONFIG = [
    {
        "apiVersion": API,
        "kind": "Gateway",
        "metadata": EGRESS,
        "spec": {
            "gatewayClassName": "kgateway",
            "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}],
        },
    },
    {
        "apiVersion": API,
        "kind": "HTTPRoute",
        "metadata": {"name": "llm"},
        "spec": {
            "parentRefs": [EGRESS],
            "hostnames": ["llm.example"],
            "rules": [
                {
                    "matches": [{"path": {"value": "/v1"}}],
                    "backendRefs": [{"name": "llm", "port": 80}],
                    "timeouts": {"request": "30s"},
                }
            ],
        },
    },
    {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "llm"},
        "spec": {"ports": [{"name": "http", "port": 80}]},
    },
]


async def main() -> None:
    """Asks the service, which has no endpoints here, and somebody else."""
    async with httpx.AsyncClient(transport=kgw.httpx_transport(CONFIG)) as client:
        for url in "https://llm.example/v1/models", "https://somewhere.example/v1/models":
            answer = await client.get(url)
            print(answer.status_code, answer.text or "no route", url)


asyncio.run(main())
