"""A unit test of a policy: the waypoint's rate limit, without a cluster and without waiting.

pytest examples/test_policy.py
"""

from pathlib import Path

import pytest

from kgw.testing import Gateway, GatewayFactory

MANIFESTS = Path(__file__).parent / "waypoint"
CLIENT = "spiffe://cluster.local/ns/default/sa/client"


@pytest.fixture
def gateway(kgw_proxy: GatewayFactory) -> Gateway:
    """The waypoint, in front of a fake ollama."""
    gateway = kgw_proxy(MANIFESTS)
    gateway.backend("ollama").responds(200, body="Ollama is running")
    return gateway


def test_three_calls_a_minute_are_allowed(gateway: Gateway) -> None:
    for _ in range(3):
        answer = gateway.get("http://ollama/", identity=CLIENT)
        answer.expect(status=200, backend="ollama", body="Ollama is running")
        assert answer.policies[0] == "TrafficPolicy default/ratelimit"

    gateway.get("http://ollama/", identity=CLIENT).expect(
        status=429, flags="RL", backend=None, log={"client_identity": CLIENT}
    )
    assert len(gateway.backend("ollama").requests) == 3

    gateway.clock.advance(60)
    gateway.get("http://ollama/", identity=CLIENT).expect(status=200)


def test_a_model_may_take_three_minutes(gateway: Gateway) -> None:
    gateway.backend("ollama").responds(200, delay=179)
    assert gateway.post("http://ollama/api/generate", json={"prompt": "why"}).status == 200

    gateway.backend("ollama").hangs()
    answer = gateway.post("http://ollama/api/generate", json={"prompt": "why"})
    answer.expect(status=504, flags="UT", log={"duration": 180_000})
