"""TrafficPolicy `buffer`: requests are passed on as a whole."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
from tests.policies.manifests import BASE, policy

import kgw

if TYPE_CHECKING:
    from kgw.testing import GatewayFactory

pytestmark = pytest.mark.fields("TrafficPolicy.spec.buffer", "TrafficPolicy.spec.targetRefs")


def test_a_body_that_is_too_long_is_answered_413(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy([BASE, policy({"buffer": {"maxRequestSize": "1Ki"}})])
    answer = gateway.post("/", body=b"x" * 1024).expect(status=200)
    assert answer.received is not None
    assert answer.received.body == b"x" * 1024
    answer = gateway.post("/", body=b"x" * 1025).expect(status=413, backend=None)
    assert answer.text == "Payload Too Large"
    assert answer.details == "request_payload_too_large"


def test_a_body_of_unknown_length_gets_one(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy([BASE, policy({"buffer": {"maxRequestSize": 2048}})])
    ((address,),) = gateway.addresses.values()
    with socket.create_connection(address, timeout=10) as client:
        client.sendall(
            b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
            b"5\r\nhello\r\n0\r\n\r\n"
        )
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
    (received,) = gateway.backend("api").requests
    assert received.headers["content-length"] == "5"
    assert received.body == b"hello"


def test_it_is_turned_off_where_a_rule_says_so(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy(
        [
            BASE,
            policy({"buffer": {"maxRequestSize": "1Ki"}}),
            policy({"buffer": {"disable": {}}}, "off", section="api"),
        ]
    )
    gateway.post("/api", body=b"x" * 5000).expect(status=200)
    gateway.post("/", body=b"x" * 5000).expect(status=413)


@pytest.mark.parametrize(
    ("buffer", "message"),
    [
        ({}, "exactly one of the fields in [maxRequestSize disable] must be set"),
        ({"maxRequestSize": "4Gi"}, "maxRequestSize must be greater than 0 and less than 4Gi"),
        ({"maxRequestSize": 0}, "maxRequestSize must be greater than 0 and less than 4Gi"),
    ],
)
def test_what_the_crd_refuses_is_refused(buffer: dict[str, object], message: str) -> None:
    config = kgw.Config.from_objects([policy({"buffer": buffer})])
    assert any(message in one.message for one in config.findings)
