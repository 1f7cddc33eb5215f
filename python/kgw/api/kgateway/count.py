"""Numbers of things, as kgateway bounds them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, Strict

Count = Annotated[int, Strict(), Field(ge=0, le=4_294_967_295)]
"""A number of 32 bits."""
