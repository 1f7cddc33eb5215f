"""TrafficPolicy `faultInjection`: delays, errors and slow answers on purpose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.policies.manifests import BASE, after, policy

if TYPE_CHECKING:
    from kgw.testing import GatewayFactory

pytestmark = pytest.mark.fields(
    "TrafficPolicy.spec.faultInjection",
    without=("TrafficPolicy.spec.faultInjection.responseRateLimit.percentage",),
)


def _fault(**fault: Any) -> dict[str, Any]:
    return policy({"faultInjection": fault})


def test_requests_are_answered_with_an_error(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy([BASE, _fault(abort={"httpStatus": 503})])
    answer = gateway.get("/").expect(status=503, flags="FI", backend=None)
    assert answer.text == "fault filter abort"
    assert answer.details == "fault_filter_abort"
    assert gateway.stats()["fault_aborted"] == 1


@pytest.mark.parametrize("grpc", [14, 8, 5, 16])
def test_calls_get_the_status_of_grpc(kgw_proxy: GatewayFactory, grpc: int) -> None:
    gateway = kgw_proxy([BASE, _fault(abort={"grpcStatus": grpc})])
    answer = gateway.post("/", headers={"content-type": "application/grpc"})
    assert answer.headers["grpc-status"] == str(grpc)
    # What is no call gets 200, as from Envoy, and the same text.
    plain = gateway.get("/").expect(status=200, flags="FI", backend=None)
    assert plain.text == "fault filter abort"
    assert "grpc-status" not in plain.headers


def test_requests_wait(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy([BASE, _fault(delay={"fixedDelay": "5s"})])
    pending = gateway.start("GET", "/")
    gateway.clock.advance(4.999)
    assert not pending.answered
    gateway.clock.advance(0.001)
    pending.answer().expect(status=200, flags="DI", backend="api")


def test_an_error_comes_after_the_delay(kgw_proxy: GatewayFactory) -> None:
    fault = _fault(delay={"fixedDelay": "5s"}, abort={"httpStatus": 418})
    answer = after(kgw_proxy([BASE, fault])).expect(status=418, flags="DI,FI")
    assert answer.at == 5


def test_shares_of_nothing_are_nothing(kgw_proxy: GatewayFactory) -> None:
    fault = _fault(
        delay={"fixedDelay": "5s", "percentage": 0}, abort={"httpStatus": 503, "percentage": 0}
    )
    gateway = kgw_proxy([BASE, fault])
    for _ in range(20):
        assert gateway.get("/").expect(status=200, flags="").at == 0


def test_a_share_is_a_share(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy([BASE, _fault(abort={"httpStatus": 503, "percentage": 50})])
    statuses = [gateway.get("/").status for _ in range(200)]
    # 200 throws of a coin are within 60 of the middle but for one in 10^16.
    assert 40 < statuses.count(503) < 160
    assert statuses.count(200) == 200 - statuses.count(503)


def test_answers_are_sent_slowly(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy([BASE, _fault(responseRateLimit={"kbitsPerSecond": 8})])
    gateway.backend("api").responds(200, body=b"x" * 4096)
    pending = gateway.start("GET", "/")
    while not pending.answered:
        gateway.clock.advance(0.01)
    for _ in range(90):
        gateway.clock.advance(1 / 16)
    answer = pending.answer()
    assert answer.body == b"x" * 4096
    # 1,024 bytes a second, the first sixteenth of which at once. Milliseconds.
    assert answer.log["duration"] == pytest.approx(4000, abs=200)


def test_no_more_requests_than_allowed_have_a_fault(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy([BASE, _fault(abort={"httpStatus": 503}, maxActiveFaults=0)])
    gateway.get("/").expect(status=200)
    assert gateway.stats()["fault_overflow"] == 1


def test_faults_are_turned_off_where_a_rule_says_so(kgw_proxy: GatewayFactory) -> None:
    off = policy({"faultInjection": {"disable": {}}}, "off", section="api")
    gateway = kgw_proxy([BASE, _fault(abort={"httpStatus": 503}), off])
    gateway.get("/api").expect(status=200)
    gateway.get("/").expect(status=503)
