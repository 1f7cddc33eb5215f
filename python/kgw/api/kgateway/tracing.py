"""Tracing of requests: which are traced, what spans say and where they go."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, Strict, model_validator

from kgw.api.base import Bool, Model, contradiction, repeated
from kgw.api.kgateway.access_log import CommonGrpcService

Percent = Annotated[int, Strict(), Field(ge=0, le=100)]
Name = Annotated[str, Field(min_length=1)]


class AttributeLiteral(Model):
    """Text."""

    value: str
    """It."""


class AttributeEnvironment(Model):
    """A variable of the proxy's environment."""

    name: Name
    """Its name."""
    default_value: str | None = None
    """What stands for one that there is not."""


class AttributeRequestHeader(Model):
    """A request header field."""

    name: Name
    """Its name; ``:path`` and the like are pseudo headers."""
    default_value: str | None = None
    """What stands for one that there is not."""


class MetadataPathSegment(Model):
    """A step on the way to a value."""

    key: Name
    """The name of a member."""


class MetadataKey(Model):
    """The way to a value."""

    key: Name
    """The namespace, which is the filter's that left it."""
    path: tuple[MetadataPathSegment, ...]
    """The members on the way, from outside."""


class AttributeMetadata(Model):
    """A value that is noted about the request."""

    kind: Literal["Request", "Route", "Cluster", "Host"]
    """Whose it is; only requests have any."""
    metadata_key: MetadataKey
    """The way to it."""
    default_value: str | None = None
    """What stands for one that there is not."""


class CustomAttribute(Model):
    """Something that spans say; nothing if it comes out empty."""

    name: Name
    """Its name."""
    environment: AttributeEnvironment | None = None
    """A variable of the proxy's environment."""
    literal: AttributeLiteral | None = None
    """Text."""
    metadata: AttributeMetadata | None = None
    """A value that filters noted about the request."""
    request_header: AttributeRequestHeader | None = None
    """A request header field."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        values = (self.environment, self.literal, self.metadata, self.request_header)
        if sum(one is not None for one in values) != 1:
            raise contradiction(
                "exactly one of the fields in [environment literal metadata requestHeader] must be "
                "set"
            )
        return self


def unique(attributes: tuple[CustomAttribute, ...]) -> None:
    """Refuses several attributes of one name."""
    twice = repeated(one.name for one in attributes)
    if twice is not None:
        raise contradiction("attribute names must be unique", "attributes", twice, "name")


class EnvironmentResourceDetector(Model):
    """``OTEL_RESOURCE_ATTRIBUTES`` in the proxy's environment, as in ``team=a,zone=b``."""

    enable: Bool = True
    """Whether it is read."""


class ResourceDetector(Model):
    """Where attributes of the resource are from."""

    environment_resource_detector: EnvironmentResourceDetector
    """The proxy's environment."""


class AlwaysOnConfig(Model):
    """All requests are traced; it has no fields."""


class Sampler(Model):
    """Which requests are traced, whatever they and the percentages say."""

    always_on_config: AlwaysOnConfig
    """All of them."""


class OpenTelemetryTracingConfig(Model):
    """An OpenTelemetry collector, which gets a span for each request that is traced."""

    grpc_service: CommonGrpcService
    """The collector."""
    resource_detectors: tuple[ResourceDetector, ...] = ()
    """Where attributes of the resource are from."""
    sampler: Sampler | None = None
    """Which requests are traced; by what they say and the percentages if nothing is given."""
    service_name: str | None = None
    """The resource's ``service.name``; ``<gateway>.<namespace>`` if nothing is given."""


class TracingProvider(Model):
    """Where spans go."""

    open_telemetry: OpenTelemetryTracingConfig
    """A collector."""


class Tracing(Model):
    """Tracing of a listener's requests."""

    provider: TracingProvider
    """Where spans go."""
    attributes: tuple[CustomAttribute, ...] = ()
    """What spans say beside the usual."""
    client_sampling: Percent | None = None
    """The share of the requests with an ``x-client-trace-id`` that are traced for it; all."""
    max_path_tag_length: Annotated[int, Strict(), Field(ge=1, le=4_294_967_295)] | None = None
    """The longest path in ``http.url``, in bytes; 256."""
    overall_sampling: Percent | None = None
    """The share of the requests to be traced that are after all; all."""
    random_sampling: Percent | None = None
    """The share of the other requests that are traced; all."""
    spawn_upstream_span: Bool = False
    """Whether attempts to get an answer have spans of their own."""
    verbose: Bool = False
    """Whether spans say when parts of requests and answers came and went."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        unique(self.attributes)
        return self
