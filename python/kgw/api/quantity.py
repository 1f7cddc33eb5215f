"""Quantities as Kubernetes writes them (``64Ki``, ``1M``, ``65536``), as whole numbers."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

_FORM: Final = re.compile(r"([0-9]{1,15})(Ki|Mi|Gi|k|M|G|)")
_UNITS: Final = {
    "": 1,
    "k": 1000,
    "Ki": 1024,
    "M": 1000**2,
    "Mi": 1024**2,
    "G": 1000**3,
    "Gi": 1024**3,
}

#: What is legal, in words.
LEGAL: Final = "a whole number, or one with a unit of k, Ki, M, Mi, G or Gi, such as 64Ki"


def whole(text: str) -> int:
    """The number that a quantity is.

    Raises:
        ValueError: if the text is not a quantity of whole things.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a quantity")
    return int(match[1]) * _UNITS[match[2]]


def _parse(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str):
        try:
            return whole(value)
        except ValueError:
            pass
    raise PydanticCustomError(
        "quantity", "{value} is not a quantity", {"value": repr(value), "legal": LEGAL}
    )


Quantity = Annotated[
    int,
    BeforeValidator(_parse),
    Field(json_schema_extra={"type": ["integer", "string"], "pattern": f"^{_FORM.pattern}$"}),
]
