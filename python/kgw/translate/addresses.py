"""Which addresses each Gateway has: those of a pool, if there is one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kgw.attach.status import Outcome
from kgw.diagnostics import Severity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kgw.attach.gateways import GatewayState
    from kgw.attach.index import Index
    from kgw.source.memory import FieldPath
    from kgw.translate.pool import AddressPool


def assign(index: Index, pool: AddressPool | None, states: Sequence[GatewayState]) -> None:
    """Gives Gateways their addresses, and says what cannot be had.

    Args:
        index: where to report to.
        pool: the addresses; without one Gateways have none of their own.
        states: the Gateways, those that come first before the others.
    """
    if pool is None:
        for state in states:
            _idle(index, state)
        return
    asked = {one.named: _asked(one) for one in states}
    given = pool.assign({named: list(values.values()) for named, values in asked.items()})
    for state in states:
        found = given[state.named]
        state.addresses = found.addresses
        if state.refusal is not None:
            continue
        for place, named, why in found.problems:
            path = list(asked[state.named])[place]
            index.report(state.gateway, "KGW417", Severity.ERROR, why, path)
            reason = "AddressNotUsable" if named else "AddressNotAssigned"
            state.unplaced = state.unplaced or Outcome(False, reason, why)


def _asked(state: GatewayState) -> dict[FieldPath, str]:
    """The addresses that a Gateway asks for, by where it says so; an empty one is any."""
    every = state.gateway.spec.addresses
    return {
        ("spec", "addresses", number): one.value
        for number, one in enumerate(every)
        if one.type == "IPAddress"
    } or {("spec",): ""}


def _idle(index: Index, state: GatewayState) -> None:
    if state.refusal is None and any(one.value for one in state.gateway.spec.addresses):
        text = "the addresses have no effect: there is no pool of addresses"
        hint = "--address-pool names one, --bind binds listeners elsewhere"
        path = ("spec", "addresses")
        index.report(state.gateway, "KGW417", Severity.WARNING, text, path, hint=hint)
