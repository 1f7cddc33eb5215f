"""Where the filters of policies are made: one match of a rule, or a port that no route serves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kgw.attach.effective import NOTHING

if TYPE_CHECKING:
    from kgw.api import Secret
    from kgw.attach.attachment import Attachment
    from kgw.attach.backends import Backend
    from kgw.attach.effective import Effective, Setting
    from kgw.attach.extensions import ExtensionState
    from kgw.attach.gateways import GatewayState
    from kgw.attach.listeners import ListenerState
    from kgw.translate.clusters import Variant
    from kgw.translate.tables import Tables


@dataclass(slots=True)
class PolicyContext:
    """What filters are made for, and what they are made with."""

    attachment: Attachment
    tables: Tables
    gateway: GatewayState
    #: The name of the route table.
    table: str
    listener: ListenerState
    #: The id of the route in the IR.
    route: str
    #: What holds at the place.
    effective: Effective = field(default=NOTHING, init=False)
    #: Whether something depends on the route: filters that do not are those of other matches, too.
    is_scoped: bool = field(default=False, init=False)

    def scope(self, setting: Setting) -> str:
        """What shares state that belongs to a setting, such as a bucket: a match for policies of
        routes, more for those of listeners and Gateways."""
        match setting.level:
            case "route":
                self.is_scoped = True
                return self.route
            case "listener":
                return f"{self.table}/{self.listener.section}"
            case _:
                return self.table

    def extension(
        self, setting: Setting, name: str, namespace: str | None = None
    ) -> ExtensionState:
        """The GatewayExtension that a policy names, which was found when the policy was checked."""
        named = (namespace or setting.policy.namespace, name)
        return self.attachment.extensions.states[named]

    def secret(self, setting: Setting, name: str, namespace: str | None = None) -> Secret | None:
        """The Secret that a policy names, which was found when the policy was checked."""
        named = (namespace or setting.policy.namespace, name)
        return self.attachment.index.secrets.get(named)

    def cluster(self, backend: Backend, *, http2: bool = False) -> str | None:
        """The cluster of a service that is called; none if there are no connections to it.

        Args:
            backend: the service.
            http2: whether calls are HTTP/2 whatever its port says, as gRPC is.
        """
        variant: Variant = "http2" if http2 else ""
        return self.tables.backend(self.gateway, backend, mesh=False, variant=variant)

    def authority(self, backend: Backend) -> str:
        """The host that calls of a service are for, where nothing else is said."""
        return self.tables.authority(backend)
