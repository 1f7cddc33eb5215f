"""The whole of a configuration: everything that is attached to something."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kgw.attach import (
    client_certificates,
    delegation,
    faces,
    gateways,
    meshes,
    routes,
    streams,
    waypoints,
)
from kgw.attach.direct_responses import DirectResponses
from kgw.attach.extensions import Extensions
from kgw.attach.external import External
from kgw.attach.index import Index
from kgw.attach.options import PolicyOptions
from kgw.attach.policies import Policies
from kgw.attach.upstreams import Upstreams

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kgw.api import Resource, ResourceKey
    from kgw.attach.delegation import Delegation
    from kgw.attach.gateways import GatewayState
    from kgw.attach.index import Named
    from kgw.attach.routes import Routes
    from kgw.attach.status import Status
    from kgw.attach.streams import Streams
    from kgw.attach.waypoints import Binding


@dataclass(slots=True)
class Attachment:
    """Gateways, routes, waypoint bindings and policies, with what is wrong with each."""

    index: Index
    gateways: dict[Named, GatewayState]
    bindings: dict[ResourceKey, Binding]
    routes: Routes
    delegation: Delegation
    streams: Streams
    extensions: Extensions
    policies: Policies
    upstreams: Upstreams
    external: External
    direct_responses: DirectResponses
    #: The statuses of kgw's meshes, which nothing else depends on.
    meshes: dict[ResourceKey, Status]
    #: What routes see of Gateways: as these were before policies were applied to their listeners.
    gateway_faces: dict[Named, faces.Face]


def attach(resources: Iterable[Resource], options: PolicyOptions | None = None) -> Attachment:
    """Finds out what applies to what."""
    index = Index(resources, options or PolicyOptions())
    states = gateways.resolve(index)
    seen = {named: faces.gateway(state) for named, state in states.items()}
    bindings = waypoints.resolve(index, states)
    return complete(index, states, seen, bindings, routes.resolve(index, states, bindings))


def complete(
    index: Index,
    states: dict[Named, GatewayState],
    seen: dict[Named, faces.Face],
    bindings: dict[ResourceKey, Binding],
    attached: Routes,
) -> Attachment:
    """Finds out the rest, once routes of requests are attached."""
    connections = streams.resolve(index, states, bindings, attached)
    handed_on = delegation.resolve(index, attached)
    extensions = Extensions(index)
    policies = Policies(index, states, attached.states, extensions)
    client_certificates.apply(index, states.values(), policies)
    upstreams, outside = Upstreams(index), External(index)
    own = meshes.resolve(index)
    return Attachment(
        index,
        states,
        bindings,
        attached,
        handed_on,
        connections,
        extensions,
        policies,
        upstreams,
        outside,
        DirectResponses(index),
        own,
        seen,
    )
