"""Access lists: networks, and what is said to clients that are denied."""

from __future__ import annotations

from ipaddress import ip_network
from typing import TYPE_CHECKING

from kgw.attach.checks import header_names

if TYPE_CHECKING:
    from kgw.api.kgateway.traffic.acl import ACL
    from kgw.attach.checking import Checking
    from kgw.source.memory import FieldPath


def check(checking: Checking, acl: ACL, path: FieldPath) -> None:
    """Refuses what is no network, as kgateway does."""
    for i, rule in enumerate(acl.rules):
        for j, cidr in enumerate(rule.cidrs):
            problem = _problem(cidr)
            if problem is not None:
                checking.fail(
                    "KGW440",
                    f"acl: invalid CIDR {cidr!r} ({problem[0]})",
                    (*path, "rules", i, "cidrs", j),
                    hint=problem[1],
                )
    answer, path = acl.deny_response, (*path, "denyResponse")
    if answer is None:
        return
    if answer.status_code is not None and answer.status_code < 200:
        checking.fail(
            "KGW440",
            f"{answer.status_code} is not the status of a final answer",
            (*path, "statusCode"),
            legal="200 to 599",
        )
    for i, field in enumerate(answer.headers):
        header_names.check(checking, field.name, (*path, "headers", i, "name"))
        header_names.check_value(checking, field.value, (*path, "headers", i, "value"))
    if answer.blocked_by_header_name is not None:
        header_names.check(checking, answer.blocked_by_header_name, (*path, "blockedByHeaderName"))


def _problem(cidr: str) -> tuple[str, str | None] | None:
    """Why a text is no network, and what it may be meant to be."""
    try:
        ip_network(cidr)
    except ValueError:
        try:
            network = ip_network(cidr, strict=False)
        except ValueError:
            return "neither a network nor an address", None
        return "host bits set", f"did you mean `{network}`?"
    if "%" in cidr or ("/" in cidr and not cidr.rpartition("/")[2].isdecimal()):
        return "neither a network nor an address", None
    return None
