"""BackendTLSPolicy: TLS from a Gateway to a Service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from kgw.api.base import Model, contradiction, repeated
from kgw.api.gateway.references import GATEWAY_GROUP
from kgw.api.meta import ObjectMeta, Resource
from kgw.api.names import Group, Hostname, Kind, ObjectName, PreciseHostname, SectionName
from kgw.diagnostics import Severity

if TYPE_CHECKING:
    from kgw.api.core.config_map import ConfigMap
    from kgw.api.core.service import Service

_URI = r"^(([^:/?#]+):)(//([^/?#]*))([^?#]*)(\?([^#]*))?(#(.*))?$"


class PolicyTargetReference(Model):
    """A Service, or a port of it by name."""

    group: Group
    """The API group of the target; empty for a Service."""
    kind: Kind
    """The kind of the target: Service."""
    name: ObjectName
    """The name of the target, in the policy's own namespace."""
    section_name: SectionName | None = None
    """The only port that the policy is for, by name."""


class LocalObjectReference(Model):
    """An object of the policy's own namespace."""

    group: Group
    """The API group of the object; empty for a ConfigMap or Secret."""
    kind: Kind
    """The kind of the object."""
    name: ObjectName
    """The name of the object."""


class SubjectAltName(Model):
    """A name that the backend's certificate may have."""

    type: Literal["Hostname", "URI"]
    """Whether it is a host name or a URI, such as a SPIFFE ID."""
    hostname: Hostname | None = None
    """The host name, for ``Hostname``."""
    uri: Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=_URI)] | None = None
    """The URI, for ``URI``."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        for kind, field, value in (
            ("Hostname", "hostname", self.hostname),
            ("URI", "uri", self.uri),
        ):
            name = kind if kind == "URI" else "Hostname"
            if self.type == kind and not value:
                text = f"SubjectAltName element must contain {name}, if Type is set to {kind}"
                raise contradiction(text, "type")
            if self.type != kind and value:
                text = (
                    f"SubjectAltName element must not contain {name}, if Type is not set to {kind}"
                )
                raise contradiction(text, field)
        return self


class BackendTLSPolicyValidation(Model):
    """How the backend's certificate is verified."""

    ca_certificate_refs: Annotated[tuple[LocalObjectReference, ...], Field(max_length=16)] = ()
    """ConfigMaps with the authorities that are trusted."""
    well_known_ca_certificates: (
        Annotated[str, StringConstraints(min_length=1, max_length=253)] | None
    ) = None
    """``System``, to trust the system's authorities instead."""
    hostname: PreciseHostname
    """The server name (SNI), which the certificate must be for as well."""
    subject_alt_names: Annotated[tuple[SubjectAltName, ...], Field(max_length=5)] = ()
    """Names that the certificate may be for instead of the host name."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if self.ca_certificate_refs and self.well_known_ca_certificates:
            raise contradiction(
                "must not contain both CACertificateRefs and WellKnownCACertificates",
                "wellKnownCACertificates",
            )
        if not self.ca_certificate_refs and not self.well_known_ca_certificates:
            raise contradiction(
                "must specify either CACertificateRefs or WellKnownCACertificates",
                *(("caCertificateRefs",) if "ca_certificate_refs" in self.model_fields_set else ()),
            )
        return self


class BackendTLSPolicySpec(Model):
    """What a BackendTLSPolicy says."""

    unsupported: ClassVar[Mapping[str, Severity]] = {"options": Severity.WARNING}

    target_refs: Annotated[tuple[PolicyTargetReference, ...], Field(min_length=1, max_length=16)]
    """The Services, or ports of them, that TLS is spoken to."""
    validation: BackendTLSPolicyValidation
    """How the backend's certificate is verified."""
    options: Any = None
    """Options by name, which other implementations know."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        refs = [(one.group, one.kind, one.name, one.section_name) for one in self.target_refs]
        twice = repeated(refs)
        if twice is None:
            named = [one[:3] for one in refs]
            whole = (place for place, one in enumerate(refs) if one[3] is None)
            twice = next((place for place in whole if named.count(named[place]) > 1), None)
            text = (
                "sectionName must be specified when targetRefs includes 2 or more references to "
                "the same target"
            )
        else:
            text = (
                "sectionName must be unique when targetRefs includes 2 or more references to the "
                "same target"
            )
        if twice is not None:
            raise contradiction(text, "targetRefs", twice)
        return self


class BackendTLSPolicy(Resource):
    """TLS to a Service."""

    group: ClassVar[str] = GATEWAY_GROUP
    versions: ClassVar[tuple[str, ...]] = ("v1", "v1alpha3")

    api_version: str = f"{GATEWAY_GROUP}/v1"
    kind: Literal["BackendTLSPolicy"] = "BackendTLSPolicy"
    spec: BackendTLSPolicySpec
    """Which backends, and how they are verified."""

    @classmethod
    def of(
        cls,
        name: str,
        *services: Service,
        hostname: str,
        authorities: ConfigMap | None = None,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> Self:
        """Makes a policy: TLS to Services, whose certificates must be for a name.

        Args:
            name: its name.
            services: Services of its namespace.
            hostname: the name, which is also what the Services are asked for (SNI).
            authorities: the ConfigMap with the authorities that are trusted; by default those of
                the system.
            namespace: its namespace.
            labels: its labels.
            annotations: its annotations.
        """
        if authorities is None:
            trusted: dict[str, Any] = {"well_known_ca_certificates": "System"}
        else:
            named = LocalObjectReference(group="", kind="ConfigMap", name=authorities.name)
            trusted = {"ca_certificate_refs": (named,)}
        return cls(
            metadata=ObjectMeta.of(name, namespace, labels, annotations),
            spec=BackendTLSPolicySpec(
                target_refs=tuple(
                    PolicyTargetReference(group="", kind="Service", name=one.name)
                    for one in services
                ),
                validation=BackendTLSPolicyValidation(hostname=hostname, **trusted),
            ),
        )
