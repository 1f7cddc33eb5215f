"""Who calls, by signed tokens: who issues them, and the keys that they are signed with."""

from __future__ import annotations

from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, Strict, model_validator

from kgw.api.base import Model, contradiction
from kgw.api.duration import Duration
from kgw.api.gateway.backend_object import BackendObjectReference

Text = Annotated[str, Strict(), Field(min_length=1, max_length=2048)]


class JWTHeaderSource(Model):
    """A header field that has the token."""

    header: Text
    """Its name."""
    prefix: Text | None = None
    """What is in front of the token, as in ``Bearer``, with the space behind it."""


class JWTTokenSource(Model):
    """Where the token is; exactly one of the fields."""

    header: JWTHeaderSource | None = None
    """In a header field."""
    query_parameter: Annotated[str, Strict()] | None = None
    """In a query parameter."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if (self.header is None) == (self.query_parameter is None):
            message = "exactly one of the fields in [header queryParameter] must be set"
            raise contradiction(message)
        return self


class JWTClaimToHeader(Model):
    """A claim that the backend gets in a header field."""

    name: Text
    """The claim, or the path to it through objects with dots."""
    header: Text
    """The header field."""


class JWTConfigMapReference(Model):
    """A ConfigMap of the extension's namespace, which has keys under ``jwks``."""

    name: Annotated[str, Strict()] = ""
    """Its name."""


class LocalJWKS(Model):
    """Keys that are in the configuration; exactly one of the fields."""

    inline: Annotated[str, Strict(), Field(min_length=1, max_length=16384)] | None = None
    """A set of keys or a key as JSON, or a public key in PEM."""
    config_map_ref: JWTConfigMapReference | None = None
    """A ConfigMap that has the same under ``jwks``."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if (self.inline is None) == (self.config_map_ref is None):
            raise contradiction("exactly one of the fields in [inline configMapRef] must be set")
        return self


class JWKSAsyncFetch(Model):
    """Keys are fetched when they are configured, and again before they are too old."""

    failed_refetch_duration: Duration | None = None
    """The pause after a failure; 1 s if nothing is given."""
    fast_listener: Annotated[bool, Strict()] | None = None
    """Whether the listener serves before the keys are there. It always does; what needs the keys
    waits for them, so the field makes no difference."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if self.failed_refetch_duration is not None and self.failed_refetch_duration < 1:
            message = "failedRefetchDuration must be at least 1ms."
            raise contradiction(message, "failedRefetchDuration")
        return self


class JWKSBackOff(Model):
    """Pauses between attempts: exponential, with full jitter."""

    base_interval: Duration
    """The interval that the first pause is taken from."""
    max_interval: Duration | None = None
    """The longest interval; ten times the first one if none is given, as in Envoy."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if self.base_interval < 1:
            raise contradiction("baseInterval must be at least 1ms.", "baseInterval")
        if self.max_interval is not None:
            if self.max_interval < 1:
                raise contradiction("maxInterval must be at least 1ms.", "maxInterval")
            if self.max_interval < self.base_interval:
                message = "maxInterval must be greater than or equal to baseInterval"
                raise contradiction(message)
        return self


class JWKSRetryPolicy(Model):
    """Attempts to fetch keys once more."""

    num_retries: Annotated[int, Strict(), Field(ge=1, le=2_147_483_647)] = 1
    """How many more attempts there are."""
    back_off: JWKSBackOff | None = None
    """The pauses between them; 1 s to 10 s if none are given, as in Envoy."""


class RemoteJWKS(Model):
    """Keys that a server has."""

    url: Text
    """What is asked for, as in ``https://issuer.example/.well-known/jwks.json``. Whether TLS is
    spoken is up to the backend."""
    backend_ref: BackendObjectReference
    """The server."""
    cache_duration: Duration | None = None
    """How long keys are good; 5 minutes if nothing is given."""
    async_fetch: JWKSAsyncFetch | None = None
    """Keys are fetched before a request needs them."""
    retry_policy: JWKSRetryPolicy | None = None
    """Attempts to fetch keys once more; none if nothing is given."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if self.cache_duration is not None and self.cache_duration < 1:
            raise contradiction("cacheDuration must be at least 1ms.", "cacheDuration")
        try:
            parts = urlsplit(self.url)
            is_whole = parts.scheme in {"http", "https"} and bool(parts.hostname)
        except ValueError:
            is_whole = False
        if not is_whole or any(one.isspace() or ord(one) < 32 for one in self.url):
            raise contradiction("url must be a URL with protocol, host and path", "url")
        return self


class JWKS(Model):
    """The keys of an issuer; exactly one of the fields."""

    local: LocalJWKS | None = None
    """They are in the configuration."""
    remote: RemoteJWKS | None = None
    """A server has them."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if (self.local is None) == (self.remote is None):
            raise contradiction("exactly one of the fields in [local remote] must be set")
        return self


class JWTProvider(Model):
    """An issuer of tokens."""

    name: Annotated[str, Strict(), Field(min_length=1, max_length=253)]
    """Its name, unique among the providers."""
    issuer: Annotated[str, Strict(), Field(max_length=2048)] | None = None
    """What claim ``iss`` has to be; anything if nothing is given."""
    audiences: Annotated[
        tuple[Annotated[str, Strict()], ...] | None, Field(min_length=1, max_length=32)
    ] = None
    """What claim ``aud`` has to have one of; anything if nothing is given."""
    token_source: JWTTokenSource | None = None
    """Where the token is; ``Authorization: Bearer`` or ``?access_token=`` if nothing is given."""
    claims_to_headers: Annotated[
        tuple[JWTClaimToHeader, ...] | None, Field(min_length=1, max_length=32)
    ] = None
    """Claims that the backend gets in header fields, which no client can send itself."""
    jwks: JWKS
    """The keys that tokens are signed with."""
    forward_token: Annotated[bool, Strict()] | None = None
    """Whether the backend gets the token as well."""


class JWT(Model):
    """Issuers of tokens, of which one has to have issued a request's."""

    validation_mode: Literal["Strict", "AllowMissing"] = "Strict"
    """Whether a request without any token is refused, or passes."""
    providers: Annotated[tuple[JWTProvider, ...], Field(max_length=32)] = ()
    """Who issues tokens. They are tried in the order of their names, as in kgateway."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        names = [one.name for one in self.providers]
        for place, name in enumerate(names):
            if name in names[:place]:
                raise contradiction(f"Duplicate value: name {name!r}", "providers", place)
        return self
