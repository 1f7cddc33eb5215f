"""A service that processes requests and answers: the `extProc` of a GatewayExtension."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, Strict, StringConstraints, model_validator

from kgw.api.base import Model, contradiction
from kgw.api.duration import Duration
from kgw.api.kgateway.extension.grpc_service import GrpcService
from kgw.api.kgateway.processing_mode import ProcessingMode


class MetadataNamespaces(Model):
    """Namespaces of dynamic metadata."""

    typed: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Those of metadata that is a message of protobuf, of which kgw has none."""
    untyped: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Those of other metadata."""


class MetadataOptions(Model):
    """Dynamic metadata that the service is told."""

    forwarding: MetadataNamespaces | None = None
    """The namespaces that it is told."""


class FilterStage(Model):
    """Where requests go through the service among the other filters."""

    stage: Literal["Fault", "AuthN", "AuthZ", "RateLimit", "Route"]
    """A place in the chain."""
    predicate: Literal["Before", "During", "After"] = "During"
    """Before what is there, behind it, or among it."""
    weight: Annotated[int, Strict(), Field(ge=-2_147_483_648, le=2_147_483_647)] = 0
    """Of several services in the same place, the greatest comes first."""


class ExtProcProvider(Model):
    """A service that is sent messages and may change them, over `ext_proc` of Envoy."""

    grpc_service: GrpcService
    """The service."""
    fail_open: Annotated[bool, Strict()] = True
    """Requests go on without the service where it fails."""
    processing_mode: ProcessingMode | None = None
    """What it is sent: the header fields of requests and answers, if nothing is said."""
    allow_processing_mode_override: Annotated[bool, Strict()] = False
    """The service may choose another mode."""
    allowed_processing_mode_overrides: tuple[ProcessingMode, ...] = ()
    """The modes that it may choose; any if there are none."""
    message_timeout: Duration | None = None
    """The time for the answer to a message; 200 ms if nothing is given, as in Envoy."""
    max_message_timeout: Duration | None = None
    """The longest time that the service may ask for instead; it may not if nothing is given."""
    stat_prefix: Annotated[str, StringConstraints(min_length=1)] | None = None
    """The prefix of its own counters, of which kgw has none: they are of all services."""
    route_cache_action: Literal["FromResponse", "Clear", "Retain"] = "FromResponse"
    """Whether the route of a request is found anew: as the service says, always, or never."""
    metadata_options: MetadataOptions | None = None
    """Dynamic metadata that it is told."""
    request_attributes: tuple[str, ...] = ()
    """Attributes of the request that it is told, such as `request.path`."""
    filter_stage: FilterStage | None = None
    """Its place among the filters: behind authorization, if nothing is said."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        for name, time in (
            ("messageTimeout", self.message_timeout),
            ("maxMessageTimeout", self.max_message_timeout),
        ):
            if time is not None and time < 1:
                raise contradiction("timeout must be at least 1ms.", name)
        return self
