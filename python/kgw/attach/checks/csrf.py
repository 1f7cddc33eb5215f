"""Origins of requests that change something."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kgw.attach import native

if TYPE_CHECKING:
    from kgw.api.kgateway.traffic.csrf import CSRF
    from kgw.attach.checking import Checking
    from kgw.source.memory import FieldPath


def check(checking: Checking, csrf: CSRF, path: FieldPath) -> None:
    """Refuses regular expressions that are none."""
    for number, origin in enumerate(csrf.additional_origins):
        if origin.safe_regex is None:
            continue
        problem = native.regex_error(origin.safe_regex)
        if problem is not None:
            where = (*path, "additionalOrigins", number, "safeRegex")
            checking.fail("KGW406", f"regular expression cannot be used: {problem}", where)
