"""From resources to the intermediate representation that the engine runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from kgw import diagnostics
from kgw.attach import Status, attach, statuses
from kgw.translate.listeners import Listeners
from kgw.translate.options import Options
from kgw.translate.tables import Tables

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kgw.api import Resource, ResourceKey
    from kgw.diagnostics import Finding

#: The version of the representation; `kgw_engine::config::ir::VERSION`.
VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Translation:
    """What a configuration comes to.

    Attributes:
        ir: the representation, as JSON data; equal input gives equal output, byte for byte.
        findings: what is wrong between resources, in reading order; what is wrong inside one was
            found when it was parsed.
        statuses: the status of every resource that has one.
    """

    ir: dict[str, Any] = field(repr=False)  # it holds private keys
    findings: tuple[Finding, ...]
    statuses: dict[ResourceKey, Status]


def translate(resources: Iterable[Resource], options: Options | None = None) -> Translation:
    """Translates resources; never raises for what they say.

    What cannot be used is reported, and the rest is served: a broken rule answers 500, a broken
    backend answers 500 for its share, a broken listener is not bound.
    """
    attachment = attach(resources)
    tables = Tables(attachment)
    listeners = Listeners(attachment, tables, options or Options()).build()
    attachment.policies.report_idle()
    ir = {
        "version": VERSION,
        "listeners": listeners,
        "route_tables": dict(sorted(tables.route_tables.items())),
        "routes": dict(sorted(tables.routes.items())),
        "clusters": dict(sorted(tables.clusters.items())),
    }
    found = statuses(attachment)
    return Translation(ir, tuple(diagnostics.sort(attachment.index.findings)), found)
