"""What TrafficPolicies do to the requests at a place, in the IR: filters, and settings of actions.

A module for each field; each makes the filters of what is set at a place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from kgw.translate.policies import (
    acl,
    api_key_auth,
    basic_auth,
    buffer,
    compression,
    cors,
    csrf,
    ext_auth,
    ext_proc,
    fault_injection,
    global_rate_limit,
    header_modifiers,
    jwt_auth,
    local_rate_limit,
    rbac,
    tracing,
    transformation,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kgw.attach.effective import Effective, Setting
    from kgw.translate.policies.context import PolicyContext

    Feature = Callable[[tuple[Setting, ...], PolicyContext], list[dict[str, Any]]]

#: What makes filters of fields, by the names that these are merged under.
FEATURES: Final[Mapping[str, Feature]] = {
    "acl": acl.filters,
    "api_key_auth": api_key_auth.filters,
    "basic_auth": basic_auth.filters,
    "buffer": buffer.filters,
    "compression.request_decompression": compression.requests,
    "compression.response_compression": compression.responses,
    "cors": cors.filters,
    "csrf": csrf.filters,
    "ext_auth": ext_auth.filters,
    "ext_proc": ext_proc.filters,
    "fault_injection": fault_injection.filters,
    "header_modifiers": header_modifiers.filters,
    "jwt_auth": jwt_auth.filters,
    "rate_limit.global_": global_rate_limit.filters,
    "rate_limit.local": local_rate_limit.filters,
    "rbac": rbac.filters,
    "tracing": tracing.filters,
    "transformation": transformation.filters,
}


def filters(effective: Effective, context: PolicyContext) -> list[dict[str, Any]]:
    """The filters of what holds at a place, in no order; those in shadow are marked."""
    found = []
    context.effective = effective
    for name, settings in effective.fields.items():
        feature = FEATURES.get(name)
        if feature is not None:
            found += feature(settings, context)
    for name, settings in effective.shadow.items():
        feature = FEATURES.get(name)
        if feature is not None:
            policy = settings[0].policy
            found += [
                {"type": "shadow", "policy": f"{policy.namespace}/{policy.name}", "filter": one}
                for one in feature(settings, context)
            ]
    return found
