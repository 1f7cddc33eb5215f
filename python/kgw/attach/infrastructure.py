"""What the objects have that a controller makes for a Gateway.

Objects that are made for a Gateway (Deployment, Service, ServiceAccount) are found by the label
``gateway.networking.k8s.io/gateway-name``. A Gateway's name may have 253 characters, the value of a
label and the name of a Service 63: longer names are cut, and end in a hash of the whole.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final, NamedTuple

from kgw.attach.index import GATEWAY_PARAMETERS
from kgw.attach.status import Outcome
from kgw.diagnostics import Severity

if TYPE_CHECKING:
    from kgw.api import Gateway
    from kgw.attach.index import Index

#: The label that says which Gateway an object was made for (GEP-1762).
GATEWAY_NAME: Final = "gateway.networking.k8s.io/gateway-name"

#: The label that says of which class that Gateway is, as Istio writes it.
GATEWAY_CLASS_NAME: Final = "gateway.networking.k8s.io/gateway-class-name"

_MOST: Final = 63
"""Characters of a label's value, and of a Service's name."""

_HASH: Final = 10
"""Characters of the hash: two names that are cut alike get the same in one of 10^12 cases."""


class GeneratedMetadata(NamedTuple):
    """What an object that is made for a Gateway has in its metadata."""

    labels: dict[str, str]
    annotations: dict[str, str]


def generated_metadata(gateway: Gateway) -> GeneratedMetadata:
    """The labels and annotations of every object that is made for a Gateway.

    They are those of ``spec.infrastructure``, and the labels by which objects are found, which
    nothing overrides.
    """
    given = gateway.spec.infrastructure
    labels = dict(given.labels) if given else {}
    labels[GATEWAY_NAME] = short_name(gateway.name)
    labels[GATEWAY_CLASS_NAME] = short_name(gateway.spec.gateway_class_name)
    return GeneratedMetadata(labels, dict(given.annotations) if given else {})


def short_name(name: str) -> str:
    """The name itself, or in its place one of 63 characters that depends on all of it.

    It can be a label's value and, where the name can be one, the name of an object.
    """
    if len(name) <= _MOST:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:_HASH]
    return f"{name[: _MOST - _HASH - 1].rstrip('-._')}-{digest}"


def refusal(index: Index, gateway: Gateway) -> Outcome | None:
    """The refusal of a Gateway whose ``parametersRef`` leads nowhere, if it does."""
    given = gateway.spec.infrastructure
    ref = given.parameters_ref if given else None
    if ref is None:
        return None
    path = ("spec", "infrastructure", "parametersRef")
    if (ref.group, ref.kind) != GATEWAY_PARAMETERS:
        message = f"{ref.group}/{ref.kind} is not a kind of parameters that kgw knows"
        legal = "/".join(GATEWAY_PARAMETERS)
        index.report(gateway, "KGW309", Severity.ERROR, message, (*path, "kind"), legal=legal)
        return Outcome(False, "InvalidParameters", message)
    if (gateway.namespace, ref.name) not in index.consulted(GATEWAY_PARAMETERS):
        message = f"{ref.kind} {gateway.namespace}/{ref.name} not found"
        index.report(gateway, "KGW314", Severity.ERROR, message, (*path, "name"))
        return Outcome(False, "InvalidParameters", message)
    message = f"kgw does not act on {ref.kind} {gateway.namespace}/{ref.name}"
    index.report(gateway, "KGW501", Severity.WARNING, message, path)
    return None
