"""BackendTLSPolicy: TLS from a Gateway to a Service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from kgw.api.base import Model, contradiction, repeated
from kgw.api.gateway.references import GATEWAY_GROUP
from kgw.api.meta import Resource
from kgw.api.names import Group, Hostname, Kind, ObjectName, PreciseHostname, SectionName
from kgw.diagnostics import Severity

_URI = r"^(([^:/?#]+):)(//([^/?#]*))([^?#]*)(\?([^#]*))?(#(.*))?$"


class PolicyTargetReference(Model):
    """A Service, or a port of it by name."""

    group: Group
    kind: Kind
    name: ObjectName
    section_name: SectionName | None = None


class LocalObjectReference(Model):
    """An object of the policy's own namespace."""

    group: Group
    kind: Kind
    name: ObjectName


class SubjectAltName(Model):
    """A name that the backend's certificate may have."""

    type: Literal["Hostname", "URI"]
    hostname: Hostname | None = None
    uri: Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=_URI)] | None = None

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
    well_known_ca_certificates: (
        Annotated[str, StringConstraints(min_length=1, max_length=253)] | None
    ) = None
    hostname: PreciseHostname
    subject_alt_names: Annotated[tuple[SubjectAltName, ...], Field(max_length=5)] = ()

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
    validation: BackendTLSPolicyValidation
    options: Any = None

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
