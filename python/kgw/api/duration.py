"""Durations as the Gateway API writes them (GEP-2257), in whole milliseconds."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

_FORM: Final = re.compile(r"(?:[0-9]{1,5}(?:h|m|s|ms)){1,4}")
_PART: Final = re.compile(r"([0-9]{1,5})(ms|h|m|s)")
_MILLISECONDS: Final = {"h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}

#: What is legal, in words.
LEGAL: Final = "one to four of NUMBER followed by h, m, s or ms, such as 180s, 1m30s or 500ms"


def milliseconds(text: str) -> int:
    """Milliseconds of a GEP-2257 duration; repeated units add up.

    Raises:
        ValueError: if the text is not a duration.
    """
    if not _FORM.fullmatch(text):
        raise ValueError(f"{text!r} is not a duration")
    return sum(int(n) * _MILLISECONDS[unit] for n, unit in _PART.findall(text))


def text(duration_ms: int) -> str:
    """The canonical form: largest unit first, ``0s`` for nothing."""
    parts = []
    for unit, size in _MILLISECONDS.items():
        count, duration_ms = divmod(duration_ms, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def _parse(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return milliseconds(value)
        except ValueError:
            pass
    elif isinstance(value, int) and not isinstance(value, bool):
        raise PydanticCustomError(
            "duration", "{value} has no unit", {"value": str(value), "legal": LEGAL}
        )
    raise PydanticCustomError(
        "duration", "{value} is not a duration", {"value": repr(value), "legal": LEGAL}
    )


def _python(value: Any) -> Any:
    return value if isinstance(value, Milliseconds) else Milliseconds(_parse(value))


class Milliseconds(int):
    """A parsed duration; an ``int`` of milliseconds that prints as a duration."""

    def __str__(self) -> str:
        return text(self)


Duration = Annotated[int, BeforeValidator(_python), Field(ge=0)]
