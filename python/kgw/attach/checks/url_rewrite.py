"""Rewrites of paths: expressions that cannot be used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kgw.attach import native

if TYPE_CHECKING:
    from kgw.api.kgateway.traffic.url_rewrite import PolicyURLRewrite
    from kgw.attach.checking import Checking
    from kgw.source.memory import FieldPath


def check(checking: Checking, value: PolicyURLRewrite, path: FieldPath) -> None:
    """Checks the expression and what takes the place of its matches."""
    one = value.path_regex
    if one is None:
        return
    problem = native.substitution_error(one.pattern, one.substitution)
    if problem is not None:
        message = f"the replacement of {one.pattern!r} cannot be used: {problem}"
        checking.fail("KGW406", message, (*path, "pathRegex"))
