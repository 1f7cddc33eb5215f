"""Listeners of one Gateway that want the same: which of them are served.

The listeners of a Gateway come first, then those of its ListenerSets: what an earlier object has, a
later one does not get. Among the listeners of one object there is no winner (Gateway API 1.6,
``Gateway.spec.listeners`` and ``ListenerSet.spec.listeners``).
"""

from __future__ import annotations

from collections import defaultdict
from itertools import groupby
from typing import TYPE_CHECKING, Final

from kgw.attach import hostnames, native
from kgw.attach.status import Outcome
from kgw.diagnostics import Severity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kgw.attach.index import Index
    from kgw.attach.listeners import ListenerState

#: Protocols of which a port may have several: the server name tells whose a connection is.
SHARING: Final = frozenset({"HTTPS", "TLS"})

#: Protocols whose listeners are told apart by nothing: a port has one.
_ALONE: Final = frozenset({"TCP", "UDP"})

_PROTOCOL: Final = Outcome(
    True,
    "ProtocolConflict",
    "Found conflicting protocols on listeners, a single port can only contain listeners with "
    "compatible protocols",
)
_HOSTNAME: Final = Outcome(
    True,
    "HostnameConflict",
    "Found conflicting hostnames on listeners, all listeners on a single port must have unique "
    "hostnames",
)


def resolve(index: Index, listeners: Iterable[ListenerState]) -> None:
    """Finds the listeners that cannot be served, in order of precedence.

    What is said of a listener does not name others, which may be none of its owner's business.
    """
    taken: dict[tuple[int, bool], list[ListenerState]] = defaultdict(list)
    for _, group in groupby(listeners, key=lambda one: one.owner.key):
        left: dict[tuple[int, bool], list[ListenerState]] = defaultdict(list)
        for listener in group:
            found = _between(listener, taken[_port(listener)])
            if found is None:
                left[_port(listener)].append(listener)
                continue
            listener.displaced = True
            listener.conflicted = found
            listener.accepted = Outcome(False, *found[1:])
            _report(index, listener, found, "another object with precedence has it")
        for port, rest in left.items():
            _among(index, rest)
            taken[port] += rest


def _port(listener: ListenerState) -> tuple[int, bool]:
    """The port, of TCP or of UDP."""
    return (listener.spec.port, listener.spec.protocol == "UDP")


def _between(listener: ListenerState, earlier: list[ListenerState]) -> Outcome | None:
    """Why a listener cannot stand beside earlier ones of its port, if so."""
    protocol = listener.spec.protocol
    if any(not _compatible(protocol, one.spec.protocol) for one in earlier):
        return _PROTOCOL
    if earlier and protocol in _ALONE:
        return _PROTOCOL
    if any(one.hostname == listener.hostname for one in earlier):
        return _HOSTNAME
    return None


def _compatible(one: str, other: str) -> bool:
    return one == other or {one, other} <= SHARING


def _among(index: Index, listeners: list[ListenerState]) -> None:
    """Finds conflicts of the listeners that one object has on a port."""
    first = listeners[0].spec.protocol
    if all(_compatible(first, one.spec.protocol) for one in listeners):
        if first not in SHARING:
            return
        conflicted, why = _same_hostname(listeners), _HOSTNAME
    else:
        conflicted, why = listeners, _PROTOCOL
    for listener in conflicted:
        listener.conflicted = why
        if listener.accepted.ok:
            listener.accepted = Outcome(False, *why[1:])
        _report(index, listener, why, f"port {listener.spec.port}")


def _same_hostname(listeners: list[ListenerState]) -> list[ListenerState]:
    names = [one.hostname for one in listeners]
    return [one for one in listeners if names.count(one.hostname) > 1]


def _report(index: Index, listener: ListenerState, why: Outcome, more: str) -> None:
    path: tuple[str | int, ...] = ("spec", "listeners", listener.index)
    if why is _PROTOCOL:
        path = (*path, "protocol")
    else:
        more = f"hostname {listener.hostname}, {more}"
    index.report(listener.owner, "KGW404", Severity.ERROR, f"{why.message} ({more})", path)


# === Overlaps ===


def overlaps(listeners: Iterable[ListenerState]) -> None:
    """Notes the HTTPS listeners of a port that clients may take for one another.

    A client that has a connection may use it for another host that its certificate is for (RFC 9113
    9.1.1); one that comes for the host of a wider listener may have a narrower one's in mind.
    """
    ports: dict[int, list[ListenerState]] = defaultdict(list)
    for listener in listeners:
        if listener.spec.protocol == "HTTPS" and not listener.conflicted.ok:
            ports[listener.spec.port].append(listener)
    for sharing in ports.values():
        if len(sharing) < 2:
            continue
        for listener in sharing:
            for reason, what, names in _WHAT:
                listener.overlap = listener.overlap or _overlap(
                    listener, sharing, reason, what, names
                )


def _overlap(
    listener: ListenerState,
    sharing: list[ListenerState],
    reason: str,
    what: str,
    names: Callable[[ListenerState], tuple[str, ...]],
) -> Outcome | None:
    own = names(listener)
    same = [
        one
        for one in sharing
        if one is not listener
        and any(hostnames.intersect(name, host) is not None for name in names(one) for host in own)
    ]
    if not same:
        return None
    near = [one.spec.name for one in same if one.owner is listener.owner]
    which = f"listeners {', '.join(near)}" if near else "listeners of other objects"
    return Outcome(True, reason, f"the {what} with those of {which}")


def _certified(listener: ListenerState) -> tuple[str, ...]:
    """The names of a listener's certificates."""
    pairs = listener.tls.key_pairs if listener.tls is not None else ()
    return tuple(name for pair in pairs for name in native.certificate_names(pair.chain))


#: What may overlap: the reason, the words for it, and the names to compare.
_WHAT: Final[tuple[tuple[str, str, Callable[[ListenerState], tuple[str, ...]]], ...]] = (
    ("OverlappingHostnames", "hostname overlaps", lambda one: (one.hostname,)),
    ("OverlappingCertificates", "certificates overlap", _certified),
)
