"""The bodies of requests that a service which decides about them is told."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, Strict

from kgw.api.base import Bool, Model


class BufferSettings(Model):
    """The bodies of requests that a service is told."""

    max_request_bytes: Annotated[int, Strict(), Field(ge=1, le=2**31 - 1)]
    """The longest body. Bytes. Requests with longer ones are answered with 413."""
    allow_partial_message: Bool = False
    """Whether the service is told the beginning of longer ones instead."""
    pack_as_bytes: Bool = False
    """Whether a service over gRPC gets bodies as bytes, also those that are text."""
