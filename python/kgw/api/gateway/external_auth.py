"""The ``ExternalAuth`` filter: a service that decides about requests (GEP-1494)."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, Strict, StringConstraints, model_validator

from kgw.api.base import Model, contradiction, repeated
from kgw.api.gateway.backend_object import BackendObjectReference
from kgw.api.names import HeaderName

_PATH = r"^(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|[%][0-9a-fA-F]{2})+$"


def _unique(names: tuple[str, ...]) -> tuple[str, ...]:
    twice = repeated(names)
    if twice is not None:
        raise contradiction(f"`{names[twice]}` is named twice")
    return names


_Names = Annotated[tuple[HeaderName, ...], Field(max_length=64), AfterValidator(_unique)]


class GRPCAuthConfig(Model):
    """How a service is called that speaks Envoy's ``ext_authz`` over gRPC."""

    allowed_headers: _Names = ()
    """The header fields of requests that it is told; all if there are none."""


class HTTPAuthConfig(Model):
    """How a service is asked that speaks HTTP."""

    path: Annotated[str, StringConstraints(max_length=1024, pattern=_PATH)] | None = None
    """What is put in front of the path of requests."""
    allowed_headers: _Names = ()
    """The header fields of requests that it is told, beside ``authorization``."""
    allowed_response_headers: _Names = ()
    """The header fields of its answers that requests get; all if there are none."""


class ForwardBody(Model):
    """The bodies of requests that a service is told."""

    max_size: Annotated[int, Strict(), Field(ge=0, le=2**31 - 1)] = 0
    """The longest body in bytes; requests with longer ones are refused. None is told if it is 0."""


class ExternalAuth(Model):
    """A service that decides about requests."""

    protocol: Literal["HTTP", "GRPC"]
    """Whether it is asked over HTTP, or called over gRPC."""
    backend_ref: BackendObjectReference
    """The service."""
    grpc: GRPCAuthConfig | None = None
    """How it is called, for ``GRPC``."""
    http: HTTPAuthConfig | None = None
    """How it is asked, for ``HTTP``."""
    forward_body: ForwardBody | None = None
    """The bodies that it is told."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        for protocol, field, value in (
            ("GRPC", "grpc", self.grpc),
            ("HTTP", "http", self.http),
        ):
            if self.protocol == protocol and value is None:
                message = f"{field} must be specified when protocol is set to '{protocol}'"
                raise contradiction(message, "protocol")
            if self.protocol != protocol and value is not None:
                message = f"protocol must be '{protocol}' when {field} is set"
                raise contradiction(message, field)
        return self

    @property
    def max_body(self) -> int:
        """The longest body that the service is told, in bytes; 0 is none."""
        return 0 if self.forward_body is None else self.forward_body.max_size

    @classmethod
    def of(
        cls,
        protocol: Literal["HTTP", "GRPC"],
        backend: BackendObjectReference,
        *,
        path: str | None = None,
        allowed_headers: tuple[str, ...] = (),
        allowed_response_headers: tuple[str, ...] = (),
        max_body: int | None = None,
    ) -> Self:
        """Makes the filter; see the fields for what is left out."""
        fields: dict[str, Any] = {"protocol": protocol, "backend_ref": backend}
        config: dict[str, Any] = {}
        if allowed_headers:
            config["allowed_headers"] = allowed_headers
        if protocol == "GRPC":
            if path is not None or allowed_response_headers:
                raise ValueError("a path and answers' headers are of services that speak HTTP")
            fields["grpc"] = GRPCAuthConfig(**config)
        else:
            if path is not None:
                config["path"] = path
            if allowed_response_headers:
                config["allowed_response_headers"] = allowed_response_headers
            fields["http"] = HTTPAuthConfig(**config)
        if max_body is not None:
            fields["forward_body"] = ForwardBody(max_size=max_body)
        return cls(**fields)
