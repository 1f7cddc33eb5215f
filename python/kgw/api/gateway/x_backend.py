"""XBackend: a destination outside of the cluster, by name (GEP-4894)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Final, Literal, Self

from pydantic import AfterValidator, StringConstraints, model_validator

from kgw.api.base import Model, Port, contradiction, given
from kgw.api.gateway.backend_tls_policy import BackendTLSPolicyValidation
from kgw.api.gateway.references import SecretObjectReference
from kgw.api.kinds import X_GATEWAY_GROUP
from kgw.api.meta import ObjectMeta, Resource
from kgw.api.names import PreciseHostname

if TYPE_CHECKING:
    from collections.abc import Mapping

_LABEL: Final = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$"


def _outside(hostname: str) -> str:
    """Services of the cluster are for backendRefs, which say who may refer to them."""
    if hostname.endswith(".cluster.local"):
        raise contradiction("hostname must not be an IP address or end with .cluster.local")
    return hostname


class BackendPort(Model):
    """The port of a destination."""

    name: Annotated[str, StringConstraints(max_length=63, pattern=_LABEL)] | None = None
    """A name for it."""
    port: Port
    """The number."""


class ExternalHostname(Model):
    """A destination outside of the cluster."""

    hostname: Annotated[PreciseHostname, AfterValidator(_outside)]
    """The name that connections are made to, and that requests are for."""


class BackendTLS(Model):
    """TLS to a destination."""

    mode: Literal["None", "ServerOnly", "ClientAndServer"]
    """Whether there is TLS, and whether the Gateway shows a certificate of its own."""
    client_certificate_ref: SecretObjectReference | None = None
    """The Secret with that certificate, for ``ClientAndServer``."""
    validation: BackendTLSPolicyValidation | None = None
    """How the destination's certificate is verified; by default for the host name, against the
    authorities of the system."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if (self.mode == "ClientAndServer") != (self.client_certificate_ref is not None):
            raise contradiction(
                "clientCertificateRef must be set if and only if mode is ClientAndServer", "mode"
            )
        return self


class XBackendSpec(Model):
    """What an XBackend says."""

    type: Literal["ExternalHostname"]
    """What kind of destination it is; the field of that name says which."""
    port: BackendPort
    """The port that connections are made to."""
    external_hostname: ExternalHostname | None = None
    """The destination."""
    protocol: Literal["TCP", "HTTP", "HTTP2", "HTTP11", "H2C", "MCP"] | None = None
    """What the destination speaks; by default what the route says that refers to it."""
    tls: BackendTLS | None = None
    """TLS to the destination; none by default."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if self.external_hostname is None:
            raise contradiction(
                "externalHostname must be set when type is ExternalHostname and must be unset "
                "otherwise",
                "type",
            )
        return self


class XBackend(Resource):
    """A destination outside of the cluster."""

    group: ClassVar[str] = X_GATEWAY_GROUP
    versions: ClassVar[tuple[str, ...]] = ("v1alpha1",)

    api_version: str = f"{X_GATEWAY_GROUP}/v1alpha1"
    kind: Literal["XBackend"] = "XBackend"
    spec: XBackendSpec
    """The destination, and how it is spoken to."""

    @property
    def hostname(self) -> str:
        """The name that connections are made to."""
        external = self.spec.external_hostname
        assert external is not None  # there is no other type
        return external.hostname

    @classmethod
    def of(
        cls,
        name: str,
        hostname: str,
        port: int = 443,
        *,
        protocol: Literal["TCP", "HTTP", "HTTP2", "HTTP11", "H2C", "MCP"] | None = None,
        tls: Literal["None", "ServerOnly"] | BackendTLS | None = None,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> Self:
        """Makes a destination.

        Args:
            name: its name.
            hostname: the host.
            port: the port.
            protocol: what is spoken there; by default what the route says that refers to it.
            tls: how it is encrypted: by default with TLS on port 443, and else not.
            namespace: its namespace.
            labels: its labels.
            annotations: its annotations.
        """
        if tls is None and port == 443:
            tls = "ServerOnly"
        if isinstance(tls, str):
            tls = BackendTLS(mode=tls)
        return cls(
            metadata=ObjectMeta.of(name, namespace, labels, annotations),
            spec=XBackendSpec(
                type="ExternalHostname",
                port=BackendPort(port=port),
                external_hostname=ExternalHostname(hostname=hostname),
                **given(protocol=protocol, tls=tls),
            ),
        )
