"""The models of the kinds of which there can be an object, because something imported them.

    isinstance(policy, loaded.ListenerPolicy)

asks what ``isinstance(policy, ListenerPolicy)`` asks and imports nothing to do so: as long as the
model was not imported, no object is an instance of it, and its name stands for no class, ``()``.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from kgw.api.kinds import HOMES

if TYPE_CHECKING:
    from kgw.api import Backend as Backend
    from kgw.api import BackendConfigPolicy as BackendConfigPolicy
    from kgw.api import BackendTLSPolicy as BackendTLSPolicy
    from kgw.api import ConfigMap as ConfigMap
    from kgw.api import DirectResponse as DirectResponse
    from kgw.api import GatewayClass as GatewayClass
    from kgw.api import GatewayExtension as GatewayExtension
    from kgw.api import GRPCRoute as GRPCRoute
    from kgw.api import ListenerPolicy as ListenerPolicy
    from kgw.api import ListenerSet as ListenerSet
    from kgw.api import ReferenceGrant as ReferenceGrant
    from kgw.api import Resource
    from kgw.api import Secret as Secret
    from kgw.api import ServiceImport as ServiceImport
    from kgw.api import TCPRoute as TCPRoute
    from kgw.api import TLSRoute as TLSRoute
    from kgw.api import UDPRoute as UDPRoute
    from kgw.api import XBackend as XBackend
    from kgw.api import XBackendTrafficPolicy as XBackendTrafficPolicy
    from kgw.api import XMesh as XMesh
else:

    def __getattr__(name: str) -> type[Resource] | tuple[()]:
        if name not in HOMES:
            raise AttributeError(f"no kind is called {name!r}")
        return getattr(sys.modules.get(HOMES[name]), name, ())
