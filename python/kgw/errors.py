"""Every exception that kgw raises on purpose.

KgwError
├── BindError        an address that cannot be listened on
├── ConfigError      a configuration that cannot be used
├── FilterError      a filter that does what it may not, or comes too late
├── ProtocolError    bytes from the network that no peer may send
│   ├── ProxyProtocolError      that are not an acceptable PROXY protocol header
│   └── IncompleteProxyHeader   that may become one when more arrive
├── RateLimited      tokens that are not there in time
└── NotRunning       the proxy was not started, was stopped, or belongs to a parent process
"""

from __future__ import annotations


class KgwError(Exception):
    """The base of every exception that kgw raises on purpose."""


class BindError(KgwError, OSError):
    """An address that cannot be listened on; ``errno`` and ``strerror`` say why.

    Attributes:
        listener: ``namespace/gateway/listener``.
        address: ``host:port``.
    """

    def __init__(self, errno: int | None, message: str, listener: str, address: str) -> None:
        super().__init__(errno, message)
        self.listener = listener
        self.address = address

    def __reduce__(self) -> tuple[type[BindError], tuple[int | None, str | None, str, str]]:
        """Supports copying and pickling."""
        return type(self), (self.errno, self.strerror, self.listener, self.address)


class ConfigError(KgwError, ValueError):
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


class FilterError(KgwError):
    """A filter that does what it may not, or comes too late."""


class ProtocolError(KgwError):
    """Bytes from the network that no peer may send."""


class ProxyProtocolError(ProtocolError):
    """Bytes that are not an acceptable PROXY protocol header; the connection must be closed."""


class IncompleteProxyHeader(ProtocolError):
    """Bytes that may become a PROXY protocol header when more arrive.

    Attributes:
        need: how many bytes are needed in all before parsing again can say more. Never more than
            the header will have.
    """

    def __init__(self, need: int) -> None:
        super().__init__(f"the PROXY protocol header is incomplete: {need} bytes are needed")
        self.need = need

    def __reduce__(self) -> tuple[type[IncompleteProxyHeader], tuple[int]]:
        """Supports copying and pickling."""
        return type(self), (self.need,)


class NotRunning(KgwError):
    """The proxy was not started, was stopped, or belongs to a parent process."""


class RateLimited(KgwError):
    """Tokens are not there within the time that the caller would wait, or too many wait already.

    Attributes:
        retry_after: seconds until they are there, if nobody else takes any.
    """

    def __init__(self, retry_after: float, message: str | None = None) -> None:
        super().__init__(message or f"the tokens are there in {retry_after:.6g} s only")
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[type[RateLimited], tuple[float, str]]:
        """Supports copying and pickling."""
        return type(self), (self.retry_after, str(self))
