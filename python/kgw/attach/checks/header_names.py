"""Header fields that a filter adds."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from kgw.api.names import RESERVED_FIELDS

if TYPE_CHECKING:
    from kgw.attach.checking import Checking
    from kgw.source.memory import FieldPath

_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+\-.^_`|~]+")

_VALUE: Final = re.compile(r"(?:[^\x00-\x20\x7f](?:[^\x00-\x08\x0a-\x1f\x7f]*[^\x00-\x20\x7f])?)?")


def is_name(name: str) -> bool:
    """Whether a text is a name of header fields."""
    return _TOKEN.fullmatch(name) is not None


def problem(name: str) -> str | None:
    """Why a filter cannot add a field of this name, if so."""
    if not is_name(name):
        return f"{name!r} is not a header field name"
    if name.lower() in RESERVED_FIELDS:
        return f"header field {name} cannot be changed by a filter"
    return None


def check(checking: Checking, name: str, path: FieldPath) -> None:
    """Refuses a name that a filter cannot add."""
    found = problem(name)
    if found is not None:
        checking.fail("KGW407", found, path)


def check_value(checking: Checking, value: str, path: FieldPath) -> None:
    """Refuses a value that no field can have."""
    if not _VALUE.fullmatch(value):
        checking.fail("KGW407", "the value is none that a header field can have", path)
