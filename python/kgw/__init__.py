"""kgw: a Gateway API waypoint, ingress and egress proxy with a Rust data plane, as a library."""

from __future__ import annotations

from kgw._native import __version__

__all__ = ["__version__"]
