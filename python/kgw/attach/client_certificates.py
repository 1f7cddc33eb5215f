"""Client certificates that listener policies ask for, beside what Gateways say of them.

A Gateway's own validation goes first. A policy that asks for certificates and cannot be used takes
its listeners out of service: who is to be let in is not known.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from kgw.api import loaded
from kgw.attach.effects import authenticates
from kgw.attach.status import Outcome
from kgw.attach.tls_options import Reader
from kgw.diagnostics import Severity

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kgw.attach.gateways import GatewayState
    from kgw.attach.index import Index
    from kgw.attach.listeners import ListenerState
    from kgw.attach.policies import Policies
    from kgw.attach.policy import PolicyState
    from kgw.source.memory import FieldPath

_PATH: Final[FieldPath] = ("spec", "default", "clientCertificateValidation")

_MODES: Final = {"Require": "require", "Optional": "optional"}


def apply(index: Index, gateways: Iterable[GatewayState], policies: Policies) -> None:
    """Asks the clients of TLS listeners for certificates where policies say so."""
    reached: set[int] = set()
    for gateway in gateways:
        for listener in gateway.listeners:
            if listener.tls is None:
                continue
            for state in policies.listener_settings(gateway.named, [listener.section]):
                if authenticates(state.policy):
                    reached.add(id(state))
                    _ask(index, listener, state)
            if listener.tls.options.subject_alt_names and listener.tls.authorities is None:
                path = ("spec", "listeners", listener.index, "tls", "options")
                reader = Reader(index, listener.owner, path)
                reader.unchecked()
                listener.accepted = Outcome(False, "UnsupportedValue", reader.error or "")
    for state in policies.states:
        if authenticates(state.policy) and state.targets and id(state) not in reached:
            _idle(index, state, "no listener of the target ends TLS")


def _ask(index: Index, listener: ListenerState, state: PolicyState) -> None:
    """Applies a policy to a listener that no policy with precedence has been applied to."""
    tls, policy = listener.tls, state.policy
    assert tls is not None
    if listener.fault is not None:
        return
    if tls.authorities is not None:
        if not tls.by_policy:
            _idle(index, state, "the Gateway itself says what is asked of clients")
        return
    if state.errors or not isinstance(policy, loaded.ListenerPolicy) or policy.validation is None:
        listener.fault = Outcome(False, "Invalid", f"{policy.key}: {state.accepted.message}")
        return
    mode = _MODES[policy.validation.mode]
    listener.tls = replace(tls, authorities=state.authorities, mode=mode, by_policy=True)


def _idle(index: Index, state: PolicyState, why: str) -> None:
    message = f"the setting has no effect: {why}"
    index.report(state.policy, "KGW413", Severity.WARNING, message, _PATH)
