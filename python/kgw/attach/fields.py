"""What the engine refuses of names and texts that an API server lets pass.

A rule with one of them answers 500. That is said where it is written, and not found out in traffic.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from kgw.api.names import RESERVED_FIELDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kgw.api.gateway.filters import Filter, HeaderModifier
    from kgw.api.gateway.grpc_route import GRPCFilter
    from kgw.source.memory import FieldPath

#: The name of a header field (RFC 9110 5.6.2).
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")

#: What a path can be rewritten to, in ASCII, with a query or without one.
_PATH: Final = re.compile(r"[!\"$-~]*")


def modifier_fault(modifier: HeaderModifier) -> str | None:
    """Why changes of header fields cannot be made, if so."""
    names = (*(one.name for one in (*modifier.set, *modifier.add)), *modifier.remove)
    return next((wrong for name in names if (wrong := name_fault(name)) is not None), None)


def name_fault(name: str) -> str | None:
    """Why a header field of this name cannot be changed, if so."""
    if name.lower() in RESERVED_FIELDS:
        return f"header `{name}` may not be modified"
    if not _TOKEN.fullmatch(name):
        return f"`{name}` is not the name of a header"
    return None


def is_value(value: bytes) -> bool:
    """Whether bytes can be the value of a header field: visible ASCII, spaces and tabs."""
    return all(byte == 0x09 or 0x20 <= byte < 0x7F for byte in value)


def path_faults(one: Filter | GRPCFilter) -> Iterator[tuple[FieldPath, str]]:
    """The paths that a filter cannot make, with their places in it."""
    for alias, change in (
        ("urlRewrite", one.url_rewrite),
        ("requestRedirect", one.request_redirect),
    ):
        if change is None or change.path is None:
            continue
        for field, text in (
            ("replaceFullPath", change.path.replace_full_path),
            ("replacePrefixMatch", change.path.replace_prefix_match),
        ):
            if text is not None and not _PATH.fullmatch(text):
                yield (alias, "path", field), f"{text!r} is not a path: escape it with `%`"
