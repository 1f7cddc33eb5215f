"""GatewayClasses of kgw's controller, and what their status says."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from kgw.api.kinds import GATEWAY_GROUP
from kgw.attach.features import SUPPORTED
from kgw.attach.index import CRD
from kgw.attach.status import CONTROLLER, Outcome, Status

if TYPE_CHECKING:
    from kgw.api import ResourceKey
    from kgw.attach.index import Index

#: The annotation of a CustomResourceDefinition that says of which release it is.
_VERSION: Final = f"{GATEWAY_GROUP}/bundle-version"

#: The releases whose resources kgw reads: what it needs has been there since 1.0.
_KNOWN: Final = re.compile(r"v1\.\d+\.\d+(-.*)?|v0\.0\.0-dev")


def statuses(index: Index) -> dict[ResourceKey, Status]:
    """The status of every GatewayClass that names kgw's controller."""
    accepted = Outcome(True, "Accepted", "GatewayClass accepted by kgateway controller")
    version = _version(index)
    found = {}
    for one in index.classes.values():
        if one.spec.controller_name != CONTROLLER:
            continue
        generation = one.metadata.generation
        conditions = (
            accepted.condition("Accepted", generation),
            version.condition("SupportedVersion", generation),
        )
        found[one.key] = Status(conditions, supported_features=SUPPORTED)
    return found


def _version(index: Index) -> Outcome:
    """Whether the Gateway API's CRDs are of a release that is known, as far as there are any."""
    unknown = sorted(
        {
            version
            for one in index.consulted(CRD).values()
            if (version := one.metadata.annotations.get(_VERSION)) and not _KNOWN.fullmatch(version)
        }
    )
    if unknown:
        message = f"Gateway API CRDs of version {', '.join(unknown)} are not supported"
        return Outcome(False, "UnsupportedVersion", message)
    return Outcome(True, "SupportedVersion", "Gateway API CRD bundle version is supported")
