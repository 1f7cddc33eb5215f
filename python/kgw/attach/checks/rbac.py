"""Conditions on requests that can be evaluated."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kgw._native.cel import check as check_condition

if TYPE_CHECKING:
    from kgw.api.kgateway.traffic.rbac import Authorization
    from kgw.attach.checking import Checking
    from kgw.source.memory import FieldPath


def check(checking: Checking, value: Authorization, path: FieldPath) -> None:
    """Refuses what is no condition, or about what there is not.

    kgateway only looks whether it can be parsed: what does not exist never matches there.
    """
    for place, text in enumerate(value.policy.match_expressions):
        problem = check_condition(text)
        if problem is not None:
            where = (*path, "policy", "matchExpressions", place)
            checking.fail("KGW450", f"`{text}` is no condition: {problem}", where)
