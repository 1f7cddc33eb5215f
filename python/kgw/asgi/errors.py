"""What can go wrong between an application and the data plane."""

from __future__ import annotations

from kgw.errors import KgwError


class ClientDisconnected(OSError):
    """The client is gone: what an application gets that sends to it (ASGI 2.4)."""


class LifespanError(KgwError):
    """An application could not start, or not end."""


class ResponseCut(KgwError):
    """An answer ended before its end: what its client has of it is not all."""
