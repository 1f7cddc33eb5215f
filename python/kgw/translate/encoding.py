"""The representation as JSON text: what its routes share is encoded once."""

from __future__ import annotations

import json
from json.encoder import encode_basestring
from typing import Any, Final

__all__ = ["encoded"]

_ENCODER: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)


def encoded(ir: dict[str, Any]) -> bytes:
    """Returns the representation as JSON, the same bytes as of `json.dumps` without spaces."""
    encode = _ENCODER.encode
    parts = (
        f"{encode(key)}:{_routes(value) if key == 'routes' else encode(value)}"
        for key, value in ir.items()
    )
    return f"{{{','.join(parts)}}}".encode()


def _routes(routes: dict[str, dict[str, Any]]) -> str:
    """The routes, of which many have filters and actions that are one list or mapping."""
    encode = _ENCODER.encode
    # By identity, as long as the routes hold them.
    known: dict[int, str] = {}
    texts = []
    for ident, route in routes.items():
        entries = []
        for key, value in route.items():
            if isinstance(value, str):
                text: str | None = encode_basestring(value)
            elif (text := known.get(id(value))) is None:
                text = known[id(value)] = encode(value)
            entries.append(f"{encode_basestring(key)}:{text}")
        texts.append(f"{encode_basestring(ident)}:{{{','.join(entries)}}}")
    return f"{{{','.join(texts)}}}"
