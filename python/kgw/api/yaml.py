"""JSON-like data as YAML in block style, the way people write manifests.

Whatever is written reads back equal, in Kubernetes' dialect and in YAML 1.1 as well as in 1.2. A
text stands without quotes only if it cannot be taken for anything else: ``no`` and ``0644`` are
quoted, ``10.0.0.1`` and ``180s`` are not.
"""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["document", "documents"]

#: Texts that are no boolean, null, number, date or anything else in any version of YAML: words,
#: paths, names of hosts, IPv4 addresses, durations.
_PLAIN: Final = re.compile(
    r"[A-Za-z_/](?:[\w./=+@%~,-]|:(?=[\w/])| (?=[\w/]))*"
    r"|[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?:/[0-9]{1,2})?"
    r"|(?:[0-9]{1,5}(?:h|ms|m|s))+",
    re.ASCII,
)

#: What YAML 1.1 takes for a boolean or nothing.
_WORDS: Final = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})

#: Characters that must be escaped in YAML, beside those that must be in JSON.
_UNPRINTABLE: Final = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")

#: Lines that may stand as they are: no space at their ends, nothing but printable characters.
_LINE: Final = re.compile(r"(?:[^\s\x00-\x1f](?:[^\x00-\x1f]*[^\s\x00-\x1f])?)?")

#: A longer key needs a mark in front of it: parsers look no further than 1,024 characters.
_LONG_KEY: Final = 500


def documents(values: Iterable[Any]) -> str:
    """Returns a stream of documents, one for each value."""
    return "---\n".join(document(one) for one in values)


def document(value: Any) -> str:
    """Returns a document: dicts with texts for keys, lists, texts, numbers, booleans and ``None``.

    Raises:
        TypeError: if there is anything else in it.
    """
    return "".join(line + "\n" for line in _lines(value))


def _lines(value: Any) -> Iterator[str]:
    """The lines of a value that stands alone, or under a key or a dash."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"a key is a text, not {key!r}")
            name = _text(key)
            head = f"{name}:"
            if len(name) > _LONG_KEY:
                yield f"? {name}"
                head = ":"
            yield from _under(head, item, "" if isinstance(item, list | tuple) else "  ")
    elif isinstance(value, list | tuple) and value:
        for item in value:
            if isinstance(item, dict | list | tuple) and item:
                first, *rest = _lines(item)
                yield f"- {first}"
                yield from (f"  {line}" if line else line for line in rest)
            else:
                yield from _under("-", item, "  ")
    else:
        yield _scalar(value)


def _under(head: str, value: Any, indent: str) -> Iterator[str]:
    if isinstance(value, dict | list | tuple) and value:
        yield head
        yield from (f"{indent}{line}" if line else line for line in _lines(value))
    elif isinstance(value, str) and _is_block(value):
        yield f"{head} |" if value.endswith("\n") else f"{head} |-"
        yield from (f"  {line}" if line else line for line in value.removesuffix("\n").split("\n"))
    else:
        yield f"{head} {_scalar(value)}"


def _is_block(value: str) -> bool:
    """Whether a text reads back equal when its lines stand one below the other."""
    lines = value.removesuffix("\n").split("\n")
    return (
        len(lines) > 1
        and lines[0] != ""
        and lines[-1] != ""
        and _UNPRINTABLE.search(value) is None
        and all(_LINE.fullmatch(line) for line in lines)
    )


def _scalar(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int():
            return str(int(value))
        case float():
            return _float(value)
        case str():
            return _text(value)
        case dict():
            return "{}"
        case list() | tuple():
            return "[]"
        case _:
            raise TypeError(f"{type(value).__name__} is nothing that YAML has")


def _float(value: float) -> str:
    if math.isnan(value):
        return ".nan"
    if math.isinf(value):
        return ".inf" if value > 0 else "-.inf"
    digits, exponent, power = repr(float(value)).partition("e")
    # YAML 1.1 takes `1e+16` for a text.
    return f"{digits}{'' if '.' in digits else '.0'}{exponent}{power}"


def _text(value: str) -> str:
    if _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    return _UNPRINTABLE.sub(_escape, json.dumps(value, ensure_ascii=False))


def _escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"
