"""The whole of a configuration: everything that is attached to something."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kgw.attach import client_certificates, gateways, routes, streams, waypoints
from kgw.attach.index import Index
from kgw.attach.policies import Policies
from kgw.attach.upstreams import Upstreams

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kgw.api import Resource
    from kgw.attach.gateways import GatewayState
    from kgw.attach.index import Named
    from kgw.attach.routes import Routes
    from kgw.attach.streams import Streams
    from kgw.attach.waypoints import Binding


@dataclass(slots=True)
class Attachment:
    """Gateways, routes, waypoint bindings and policies, with what is wrong with each."""

    index: Index
    gateways: dict[Named, GatewayState]
    bindings: dict[Named, Binding]
    routes: Routes
    streams: Streams
    policies: Policies
    upstreams: Upstreams


def attach(resources: Iterable[Resource]) -> Attachment:
    """Finds out what applies to what."""
    index = Index(resources)
    states = gateways.resolve(index)
    bindings = waypoints.resolve(index, states)
    attached = routes.resolve(index, states, bindings)
    connections = streams.resolve(index, states, bindings, attached)
    policies = Policies(index, states, attached.states)
    client_certificates.apply(index, states.values(), policies)
    upstreams = Upstreams(index)
    return Attachment(index, states, bindings, attached, connections, policies, upstreams)
