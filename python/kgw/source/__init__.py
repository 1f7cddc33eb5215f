"""Where objects come from: files and directories, and Python itself."""

from __future__ import annotations

from kgw.source.files import Files, load, parse_text
from kgw.source.follow import watch
from kgw.source.memory import (
    FieldPath,
    Loaded,
    Location,
    Origin,
    Positions,
    RawObject,
    expand,
    from_objects,
)

__all__ = [
    "FieldPath",
    "Files",
    "Loaded",
    "Location",
    "Origin",
    "Positions",
    "RawObject",
    "expand",
    "from_objects",
    "load",
    "parse_text",
    "watch",
]
