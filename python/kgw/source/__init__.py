"""Where objects come from: files and directories, and Python itself."""

from __future__ import annotations

from kgw.source.memory import FieldPath, Location, Origin, Positions, RawObject, from_objects

__all__ = ["FieldPath", "Location", "Origin", "Positions", "RawObject", "from_objects"]
