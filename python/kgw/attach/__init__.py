"""Who applies to whom: listeners, routes, waypoints and policies, and the status that follows."""

from __future__ import annotations

from kgw.attach.attachment import Attachment, attach
from kgw.attach.conditions import statuses
from kgw.attach.services import ServiceRow, services
from kgw.attach.status import CONTROLLER, Condition, ListenerStatus, ParentStatus, Status

__all__ = [
    "CONTROLLER",
    "Attachment",
    "Condition",
    "ListenerStatus",
    "ParentStatus",
    "ServiceRow",
    "Status",
    "attach",
    "services",
    "statuses",
]
