"""Durations as the Gateway API writes them (GEP-2257), in whole milliseconds."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any, Final, Self

from pydantic_core import PydanticCustomError, core_schema

_FORM: Final = re.compile(r"(?:[0-9]{1,5}(?:h|m|s|ms)){1,4}")
_PART: Final = re.compile(r"([0-9]{1,5})(ms|h|m|s)")
_MILLISECONDS: Final = {"h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}

_MILLISECOND: Final = timedelta(milliseconds=1)

#: The longest duration that one number can be of: five digits of hours.
LONGEST: Final = 99_999 * _MILLISECONDS["h"]

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


class Duration(int):
    """A duration: an ``int`` of milliseconds that prints as the Gateway API writes it.

        Duration("1m30s") == Duration(timedelta(seconds=90)) == Duration(90_000) == 90_000

    It is written as it was read: what was ``180s`` does not become ``3m``.
    """

    _written: str | None

    def __new__(cls, value: str | timedelta | int) -> Self:
        """Makes a duration of a text, a `timedelta`, or milliseconds.

        Raises:
            ValueError: the text is not a duration, or there are none of that many milliseconds.
            TypeError: it is something else. A fraction is most likely meant to be of seconds.
        """
        if isinstance(value, timedelta):
            whole, part = divmod(value, _MILLISECOND)
            if part:
                raise ValueError(f"{value} is not a whole number of milliseconds")
        elif isinstance(value, str):
            whole = milliseconds(value)
        elif isinstance(value, int) and not isinstance(value, bool):
            whole = value
        else:
            raise TypeError(f"a duration is a text, a timedelta or milliseconds, not {value!r}")
        if not 0 <= whole <= LONGEST:
            raise ValueError(f"a duration is from 0s to {text(LONGEST)}")
        made = super().__new__(cls, whole)
        made._written = value if isinstance(value, str) else None
        return made

    def __str__(self) -> str:
        return text(self)

    def __repr__(self) -> str:
        return f"Duration({self.as_written()!r})"

    def as_written(self) -> str:
        """The text that it was made of, or the canonical one."""
        return self._written or text(self)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            _read,
            serialization=core_schema.plain_serializer_function_ser_schema(
                _as_written, when_used="json"
            ),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> dict[str, Any]:
        return {"type": "string", "pattern": f"^{_FORM.pattern}$", "examples": ["10s", "1m30s"]}


def _read(value: Any) -> Duration:
    if isinstance(value, Duration):
        return value
    if isinstance(value, str | timedelta):
        try:
            return Duration(value)
        except ValueError:
            pass
    elif isinstance(value, int) and not isinstance(value, bool):
        raise PydanticCustomError(
            "duration", "{value} has no unit", {"value": str(value), "legal": LEGAL}
        )
    raise PydanticCustomError(
        "duration", "{value} is not a duration", {"value": repr(value), "legal": LEGAL}
    )


def _as_written(value: Any) -> str:
    return value.as_written() if isinstance(value, Duration) else str(value)
