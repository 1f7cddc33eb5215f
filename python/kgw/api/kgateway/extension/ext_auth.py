"""Services that decide about requests."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from kgw.api.base import Bool, Model, contradiction
from kgw.api.duration import Duration
from kgw.api.gateway.backend_object import BackendObjectReference
from kgw.api.kgateway.extension.grpc_service import GrpcService, ServiceRetry
from kgw.api.kgateway.request_body import BufferSettings


class AuthorizationRequest(Model):
    """What a service that is asked over HTTP is told."""

    headers_to_add: dict[str, str] = Field(default_factory=dict)
    """Header fields in addition; their values may have the operators of access logs."""


class AuthorizationResponse(Model):
    """What is made of the answers of a service that is asked over HTTP."""

    headers_to_backend: tuple[str, ...] = ()
    """The header fields that requests which pass get, in place of their own."""
    headers_to_client: tuple[str, ...] = ()
    """The header fields that clients whose requests do not pass get; all if there are none."""
    headers_to_client_on_success: tuple[str, ...] = ()
    """The header fields that clients whose requests pass get, beside the upstream's."""


class HttpAuthService(Model):
    """A service that is asked over HTTP."""

    backend_ref: BackendObjectReference
    """The service."""
    path_prefix: str = ""
    """What is put in front of the path of requests."""
    request_timeout: Duration | None = None
    """The time for a decision; 2 s if nothing is given."""
    authorization_request: AuthorizationRequest | None = None
    """What it is told."""
    authorization_response: AuthorizationResponse | None = None
    """What is made of its answers."""
    retry: ServiceRetry | None = None
    """Attempts to ask once more; none if nothing is given."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if self.request_timeout is not None and self.request_timeout < 1:
            raise contradiction("timeout must be at least 1ms.", "requestTimeout")
        return self


class ExtAuthProvider(Model):
    """A service that decides about requests; exactly one of the first two fields."""

    grpc_service: GrpcService | None = None
    """A service that is called: Envoy's ``ext_authz`` over gRPC."""
    http_service: HttpAuthService | None = None
    """A service that is asked over HTTP."""
    fail_open: Bool = False
    """Whether requests that there is no decision about pass."""
    clear_route_cache: Bool = False
    """Whether the route is found anew for requests that the service changed."""
    with_request_body: BufferSettings | None = None
    """The bodies that it is told; none if nothing is given."""
    headers_to_forward: tuple[str, ...] = ()
    """The header fields of requests that it is told. If there are none: over gRPC all, over HTTP
    ``authorization`` only, which is always among them."""
    stat_prefix: Annotated[str, StringConstraints(min_length=1)] | None = None
    """The name under which its decisions are counted as well."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if (self.grpc_service is None) == (self.http_service is None):
            raise contradiction(
                "exactly one of the fields in [grpcService httpService] must be set"
            )
        return self
