"""Faults that are made on purpose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kgw.attach.effective import Setting
    from kgw.translate.policies.context import PolicyContext


def filters(settings: tuple[Setting, ...], _context: PolicyContext) -> list[dict[str, Any]]:
    """The filter that makes faults; none if a policy turns them off."""
    (setting,) = settings
    fault = setting.value
    if fault.disable is not None:
        return []
    found: dict[str, Any] = {"type": "fault", "max_active": fault.max_active_faults}
    if fault.delay is not None:
        found["delay"] = {
            "delay_ms": int(fault.delay.fixed_delay),
            "percent": fault.delay.percentage,
        }
    if fault.abort is not None:
        status, grpc = fault.abort.http_status, fault.abort.grpc_status
        found["abort"] = {
            # With a status of gRPC alone, Envoy answers what is no call of gRPC with 200.
            "status": 200 if status is None else status,
            "grpc_status": grpc,
            "percent": fault.abort.percentage,
        }
    if fault.response_rate_limit is not None:
        found["response_rate"] = {
            "kbits_per_second": fault.response_rate_limit.kbits_per_second,
            "percent": fault.response_rate_limit.percentage,
        }
    return [found]
