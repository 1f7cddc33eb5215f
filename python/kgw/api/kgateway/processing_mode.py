"""What a service that processes messages is sent of them."""

from __future__ import annotations

from typing import Literal, TypeAlias

from kgw.api.base import Model

SendMode: TypeAlias = Literal["DEFAULT", "SEND", "SKIP"]
BodyMode: TypeAlias = Literal[
    "NONE", "STREAMED", "BUFFERED", "BUFFERED_PARTIAL", "FULL_DUPLEX_STREAMED"
]


class ProcessingMode(Model):
    """What a service is sent of requests and answers."""

    request_header_mode: SendMode = "SEND"
    """The header fields of requests."""
    response_header_mode: SendMode = "SEND"
    """The header fields of answers."""
    request_body_mode: BodyMode = "NONE"
    """The bodies of requests."""
    response_body_mode: BodyMode = "NONE"
    """The bodies of answers."""
    request_trailer_mode: SendMode = "SKIP"
    """The trailer fields of requests."""
    response_trailer_mode: SendMode = "SKIP"
    """The trailer fields of answers."""
