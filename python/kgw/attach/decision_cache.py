"""Whether decisions of a service are remembered: an annotation of its GatewayExtension.

    kgw.dev/ext-auth-cache: ttl=30s; key=header:authorization, method, path

kgateway has nothing of the kind, so there is no field for it.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from kgw.api.duration import Duration

#: The annotation.
ANNOTATION: Final = "kgw.dev/ext-auth-cache"

#: Parts of a request.
_PARTS: Final = ("client", "host", "identity", "method", "path", "query")

_MAX_TTL_MS: Final = 3_600_000
_MAX_ENTRIES: Final = 1_000_000
_DEFAULT_ENTRIES: Final = 10_000


class DecisionCache(NamedTuple):
    """How decisions are remembered."""

    #: Milliseconds.
    ttl: int
    #: The same of decisions that a request does not pass; 0 if they are not remembered.
    denied_ttl: int
    #: What two requests have in common that one decision is for: parts, or ``header:NAME``.
    keys: tuple[str, ...]
    entries: int

    def ir(self) -> dict[str, Any]:
        """The cache in the IR."""
        keys = [
            {"header": key.removeprefix("header:")} if key.startswith("header:") else key
            for key in self.keys
        ]
        return {
            "keys": keys,
            "ttl_ms": self.ttl,
            "denied_ttl_ms": self.denied_ttl,
            "max_entries": self.entries,
        }


def parse(text: str) -> DecisionCache:
    """Reads the annotation.

    Raises:
        ValueError: what is wrong with it.
    """
    given: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        name, equals, value = part.partition("=")
        name = name.strip()
        if not equals or name not in ("ttl", "denied-ttl", "key", "max"):
            raise ValueError(f"{part!r} is none of ttl=, denied-ttl=, key= and max=")
        if name in given:
            raise ValueError(f"{name} is given twice")
        given[name] = value.strip()
    if "ttl" not in given or "key" not in given:
        raise ValueError("ttl= and key= are needed")
    entries = given.get("max", str(_DEFAULT_ENTRIES))
    if not entries.isascii() or not entries.isdigit() or not 1 <= int(entries) <= _MAX_ENTRIES:
        raise ValueError(f"max= is a number from 1 to {_MAX_ENTRIES}")
    return DecisionCache(
        ttl=_ttl("ttl", given["ttl"], least=1),
        denied_ttl=_ttl("denied-ttl", given.get("denied-ttl", "0s"), least=0),
        keys=_keys(given["key"]),
        entries=int(entries),
    )


def _ttl(name: str, value: str, *, least: int) -> int:
    try:
        found = int(Duration(value))
    except ValueError:
        raise ValueError(f"{name}= is a duration, such as 30s") from None
    if not least <= found <= _MAX_TTL_MS:
        raise ValueError(f"{name}= is at most 1h" + (" and not 0s" if least else ""))
    return found


def _keys(value: str) -> tuple[str, ...]:
    found = []
    for key in (key.strip() for key in value.split(",")):
        kind, colon, name = key.partition(":")
        if not (key in _PARTS or (kind == "header" and colon and name)):
            parts = ", ".join(_PARTS)
            raise ValueError(f"key= has {key!r}, which is none of {parts} and header:NAME")
        found.append(key)
    return tuple(found)
