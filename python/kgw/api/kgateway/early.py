"""What a listener does to requests before they are routed."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import StringConstraints, model_validator

from kgw.api.base import Bool, Model, contradiction
from kgw.api.duration import Duration
from kgw.api.kgateway.count import Count

HealthPath = Annotated[
    str,
    StringConstraints(max_length=2048, pattern=r"^/[-a-zA-Z0-9@:%.+~#?&/=_]+$"),
]

_SAYS: Final = (None, "AppendForward", "SanitizeSet")


class HealthCheck(Model):
    """A path under which the proxy tells whether it takes requests."""

    path: HealthPath
    """The path: 200 there, and 503 once the proxy drains. No route and no policy is asked."""


class ForwardedDetails(Model):
    """What ``x-forwarded-client-cert`` says of a client's certificate beside its hash."""

    cert: Bool | None = None
    """The certificate itself, as PEM in URL encoding."""
    chain: Bool | None = None
    """The certificate and those that came with it, likewise."""
    dns: Bool | None = None
    """The DNS names."""
    subject: Bool | None = None
    """The subject."""
    uri: Bool | None = None
    """The URI."""


class ForwardClientCertDetails(Model):
    """What becomes of ``x-forwarded-client-cert``."""

    mode: (
        Literal["Sanitize", "ForwardOnly", "AppendForward", "SanitizeSet", "AlwaysForwardOnly"]
        | None
    ) = None
    """Where it comes from; it is taken off if nothing is said, and set if `details` are wanted."""
    details: ForwardedDetails | None = None
    """What is said of the client's certificate."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if self.details is not None and self.mode not in _SAYS:
            raise contradiction(
                "forwardClientCertDetails.details requires mode to be AppendForward or SanitizeSet "
                "(or unset)",
                "details",
            )
        return self


class UuidRequestIdConfig(Model):
    """What ``x-request-id`` says about traces."""

    pack_trace_reason: Bool | None = None
    """Whether it says why a request is traced; it does."""
    use_request_id_for_trace_sampling: Bool | None = None
    """Whether it decides which requests are traced, and not what they say alone; it does."""


class TCPKeepalive(Model):
    """Probes of connections on which nothing happens; absent fields are the system's."""

    keep_alive_probes: Count | None = None
    """Probes without an answer after which a connection is dropped."""
    keep_alive_time: Duration | None = None
    """The time without a byte before the first one, of at least a second."""
    keep_alive_interval: Duration | None = None
    """The time between two, of at least a second."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        for name, alias in (
            ("keep_alive_time", "keepAliveTime"),
            ("keep_alive_interval", "keepAliveInterval"),
        ):
            value = getattr(self, name)
            if value is not None and value < 1000:
                raise contradiction(f"{alias} must be at least 1 second", alias)
        return self


StripHostPortMode = Literal["MatchingPort", "AnyPort"]
"""Which ports are taken off hosts: the one that the connection came to, or any."""
