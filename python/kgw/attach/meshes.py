"""Meshes of kgw's controller, and what their status says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kgw.attach.status import CONTROLLER, Outcome, Status
from kgw.diagnostics import Severity

if TYPE_CHECKING:
    from kgw.api import ResourceKey
    from kgw.attach.index import Index

#: The features of the Gateway API that the mesh has, by the conformance suite's names and in order,
#: as the Gateway API asks of ``XMesh.status.supportedFeatures``.
FEATURES: Final = (
    "GRPCRoute",
    "HTTPRoute",
    "HTTPRoute303RedirectStatusCode",
    "HTTPRoute307RedirectStatusCode",
    "HTTPRoute308RedirectStatusCode",
    "HTTPRouteParentRefPort",
    "HTTPRouteResponseHeaderModification",
    "Mesh",
    "MeshClusterIPMatching",
    "MeshConsumerRoute",
    "MeshHTTPRouteBackendRequestHeaderModification",
    "MeshHTTPRouteNamedRouteRule",
    "MeshHTTPRouteQueryParamMatching",
    "MeshHTTPRouteRedirectPath",
    "MeshHTTPRouteRedirectPort",
    "MeshHTTPRouteRewritePath",
    "MeshHTTPRouteSchemeRedirect",
)

_ACCEPTED: Final = Outcome(True, "Accepted", "Mesh accepted by kgateway controller")


def resolve(index: Index) -> dict[ResourceKey, Status]:
    """The status of every mesh that names kgw's controller, reporting what is wrong with it."""
    found = {}
    for one in index.meshes.values():
        if one.spec.controller_name != CONTROLLER:
            continue
        outcome = _ACCEPTED
        ref = one.spec.parameters_ref
        if ref is not None:
            text = f"{ref.group}/{ref.kind} is not a kind of parameters: a mesh of kgw has none"
            index.report(one, "KGW309", Severity.ERROR, text, ("spec", "parametersRef", "kind"))
            outcome = Outcome(False, "InvalidParameters", text)
        conditions = (outcome.condition("Accepted", one.metadata.generation),)
        found[one.key] = Status(conditions, supported_features=FEATURES)
    return found
