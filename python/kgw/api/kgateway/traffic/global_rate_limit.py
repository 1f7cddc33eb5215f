"""Rate limits that several proxies share."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field, Strict, model_validator

from kgw.api.base import Bool, Model, contradiction
from kgw.api.kgateway.extension.rate_limit import Count, Limit
from kgw.api.names import NamespaceName, ObjectName

NonEmpty = Annotated[str, Field(min_length=1)]

EntryType = Literal[
    "Generic",
    "Header",
    "RemoteAddress",
    "Path",
    # kgw's own:
    "Method",
    "Host",
    "Query",
    "Cookie",
    "Metadata",
    "Principal",
]

#: The field that an entry of a type has.
_FIELDS: Final = {
    "Generic": "generic",
    "Header": "header",
    "Query": "query",
    "Cookie": "cookie",
    "Metadata": "metadata",
}

#: What entries of a type may have beside.
_OPTIONS: Final = {"RemoteAddress": "remote_address", "Path": "path"}


class GatewayExtensionReference(Model):
    """A GatewayExtension."""

    name: ObjectName
    """Its name."""
    namespace: NamespaceName | None = None
    """Its namespace, if it is not the policy's."""


class HitsAddend(Model):
    """What a request counts. kgw's own."""

    value: Count | None = None
    """Always this."""
    header: NonEmpty | None = None
    """What this header field says: a request of 0 is not counted, one without a number counts 1."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if (self.value is None) == (self.header is None):
            raise contradiction("exactly one of the fields in [value header] must be set")
        return self


class GenericEntry(Model):
    """The same for all requests."""

    key: NonEmpty
    """The key."""
    value: NonEmpty
    """The value."""


class MetadataEntry(Model):
    """What a filter before noted, such as a claim of the request's token."""

    namespace: NonEmpty
    """Who noted it, such as ``envoy.filters.http.jwt_authn``."""
    path: Annotated[tuple[NonEmpty, ...], Field(min_length=1, max_length=16)]
    """Where it is in what was noted."""


class RemoteAddressEntry(Model):
    """Networks in place of addresses. kgw's own."""

    ipv4_prefix_length: Annotated[int, Strict(), Field(ge=1, le=32)] = 32
    """Bits of an IPv4 address that count."""
    ipv6_prefix_length: Annotated[int, Strict(), Field(ge=1, le=128)] = 128
    """Bits of an IPv6 address that count; of most clients, 64 are one network."""


class PathEntry(Model):
    """The path without the query. kgw's own."""

    query: Bool = True
    """Whether the query is part of it, as it is in Envoy."""


class DescriptorEntry(Model):
    """What requests are counted by: a key, and a value of the request."""

    type: EntryType
    """What the value is."""
    generic: GenericEntry | None = None
    """Key and value of a ``Generic`` entry."""
    header: NonEmpty | None = None
    """The header field of a ``Header`` entry; of several of its name the first counts."""
    remote_address: RemoteAddressEntry | None = None
    """kgw's own: of a ``RemoteAddress`` entry, the networks that are counted together."""
    path: PathEntry | None = None
    """kgw's own: of a ``Path`` entry, whether the query counts."""
    query: NonEmpty | None = None
    """kgw's own: the parameter of a ``Query`` entry."""
    cookie: NonEmpty | None = None
    """kgw's own: the cookie of a ``Cookie`` entry."""
    metadata: MetadataEntry | None = None
    """kgw's own: of a ``Metadata`` entry, where it is."""
    key: NonEmpty | None = None
    """kgw's own: the key; by default the name of the field, parameter or cookie, the last step of a
    ``metadata`` path, or what the type is called, as in ``remote_address``."""
    values: Literal["First", "Each"] = "First"
    """kgw's own: what becomes of a request with several values, as of a header field: the first is
    counted, or each by itself."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        wanted = _FIELDS.get(self.type)
        given = {name for name in _FIELDS.values() if getattr(self, name) is not None}
        if given != ({wanted} if wanted else set()):
            raise contradiction("exactly one entry type must be specified")
        for kind, name in _OPTIONS.items():
            if self.type != kind and getattr(self, name) is not None:
                raise contradiction("exactly one entry type must be specified")
        if self.generic is not None and self.key is not None:
            raise contradiction("the key of a Generic entry is in `generic`", "key")
        return self


class Descriptor(Model):
    """What requests are counted by: those that have all of the entries, by all of their values."""

    entries: Annotated[tuple[DescriptorEntry, ...], Field(min_length=1)]
    """The entries, in their order. A request that lacks one is not counted by this descriptor."""
    limit: Limit | None = None
    """kgw's own: its limit, in place of the one that the service or server has for it."""
    hits_addend: HitsAddend | None = None
    """kgw's own: what a request counts, in place of what it counts for all descriptors."""


class GlobalRateLimit(Model):
    """A limit that several proxies share, kept by a service or a Redis server."""

    descriptors: Annotated[tuple[Descriptor, ...], Field(min_length=1, max_length=64)]
    """What requests are counted by. A request is over the limit if it is for any of them."""
    extension_ref: GatewayExtensionReference
    """The GatewayExtension that names who keeps it."""
    hits_addend: HitsAddend | None = None
    """kgw's own: what a request counts; 1 if nothing is given."""
