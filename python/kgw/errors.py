"""Every exception that kgw raises on purpose.

KgwError
├── ConfigError      a configuration that cannot be used
├── ProtocolError    bytes from the network that no peer may send
├── NotRunning       the proxy was not started, was stopped, or belongs to a parent process
└── FilterError      a Python filter broke its contract
"""

from __future__ import annotations


class KgwError(Exception):
    """The base of every exception that kgw raises on purpose."""


class ConfigError(KgwError):
    """A configuration that cannot be used.

    Attributes:
        resource: ``Kind namespace/name`` of the resource at fault, if one is.
        path: the field at fault, as in ``spec.rules[0].matches[1].path.value``.
        reason: the Gateway API condition reason, e.g. ``InvalidParameters``.
        code: the stable code of the finding, e.g. ``KGW203``.
    """

    def __init__(
        self,
        message: str,
        *,
        resource: str | None = None,
        path: str | None = None,
        reason: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.resource = resource
        self.path = path
        self.reason = reason
        self.code = code


class ProtocolError(KgwError):
    """Bytes from the network that no peer may send."""


class NotRunning(KgwError):
    """The proxy was not started, was stopped, or belongs to a parent process."""


class FilterError(KgwError):
    """A Python filter broke its contract."""
