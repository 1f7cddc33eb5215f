"""What makes a TrafficPolicy invalid beyond its schema, a module for each field.

A policy that is not valid takes its targets out of service: what is to be protected and cannot be
is not served.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from kgw.attach.checks import (
    acl,
    api_key_auth,
    basic_auth,
    csrf,
    ext_auth,
    ext_proc,
    global_rate_limit,
    header_modifiers,
    jwt_auth,
    rbac,
    transformation,
    url_rewrite,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kgw.attach.checking import Checking
    from kgw.source.memory import FieldPath

#: Checks by the names that fields are merged under. Each gets the field's value, and its path.
CHECKS: Final[Mapping[str, Callable[[Checking, Any, FieldPath], None]]] = {
    "acl": acl.check,
    "api_key_auth": api_key_auth.check,
    "basic_auth": basic_auth.check,
    "csrf": csrf.check,
    "ext_auth": ext_auth.check,
    "ext_proc": ext_proc.check,
    "header_modifiers": header_modifiers.check,
    "jwt_auth": jwt_auth.check,
    "rate_limit.global_": global_rate_limit.check,
    "rbac": rbac.check,
    "transformation": transformation.check,
    "url_rewrite": url_rewrite.check,
}
