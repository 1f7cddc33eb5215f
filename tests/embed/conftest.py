"""Fixtures of the embedding tests."""

from __future__ import annotations

from tests.embed.upstream import upstream as upstream
