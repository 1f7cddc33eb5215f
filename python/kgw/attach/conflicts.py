"""Listeners of one Gateway that want the same: which of them are served.

The listeners of a Gateway come first, then those of its ListenerSets: what an earlier object has, a
later one does not get. Among the listeners of one object there is no winner (Gateway API 1.6,
``Gateway.spec.listeners`` and ``ListenerSet.spec.listeners``).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Final

from kgw.attach import hostnames, native
from kgw.attach.status import Outcome
from kgw.diagnostics import Severity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

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
    taken: dict[tuple[int, bool], _Taken] = defaultdict(_Taken)
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
            taken[port].add(rest)


def _port(listener: ListenerState) -> tuple[int, bool]:
    """The port, of TCP or of UDP."""
    return (listener.spec.port, listener.spec.protocol == "UDP")


@dataclass(slots=True)
class _Taken:
    """What earlier listeners have of a port."""

    protocols: set[str] = field(default_factory=set)
    hostnames: set[str] = field(default_factory=set)

    def add(self, listeners: Iterable[ListenerState]) -> None:
        """Takes what listeners ask for."""
        for one in listeners:
            self.protocols.add(one.spec.protocol)
            self.hostnames.add(one.hostname)


def _between(listener: ListenerState, taken: _Taken) -> Outcome | None:
    """Why a listener cannot stand beside earlier ones of its port, if so."""
    protocol = listener.spec.protocol
    if any(not _compatible(protocol, one) for one in taken.protocols):
        return _PROTOCOL
    if taken.protocols and protocol in _ALONE:
        return _PROTOCOL
    return _HOSTNAME if listener.hostname in taken.hostnames else None


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
    names = Counter(one.hostname for one in listeners)
    return [one for one in listeners if names[one.hostname] > 1]


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
        for reason, what, names in _WHAT:
            for listener, others in _overlapping(sharing, names):
                if listener.overlap is None:
                    listener.overlap = _overlap(listener, others, reason, what)


def _overlapping(
    sharing: list[ListenerState], names: Callable[[ListenerState], tuple[str, ...]]
) -> Iterator[tuple[ListenerState, list[ListenerState]]]:
    """The listeners whose names overlap with those of others, with some of these.

    There may be thousands of listeners, so not each is compared with each.
    """
    owners: dict[str, list[ListenerState]] = defaultdict(list)
    below: dict[str, list[ListenerState]] = defaultdict(list)
    for one in sharing:
        for name in names(one):
            owners[name].append(one)
    for one in sharing:
        for name in names(one):
            for wide in hostnames.wider(name):
                if wide in owners and len(below[wide]) <= _MOST_NAMED:
                    below[wide].append(one)
    for one in sharing:
        found: dict[ListenerState, None] = {}
        for name in names(one):
            found.update(dict.fromkeys(below[name]))
            for wide in hostnames.wider(name):
                found.update(dict.fromkeys(owners.get(wide, ())[: _MOST_NAMED + 1]))
        found.pop(one, None)
        if found:
            yield one, list(found)


def _overlap(
    listener: ListenerState, others: list[ListenerState], reason: str, what: str
) -> Outcome:
    near = [one.spec.name for one in others if one.owner is listener.owner]
    more = " and others" if len(near) > _MOST_NAMED else ""
    which = f"listeners {', '.join(near[:_MOST_NAMED])}{more}" if near else _ELSEWHERE
    return Outcome(True, reason, f"the {what} with those of {which}")


def _certified(listener: ListenerState) -> tuple[str, ...]:
    """The names of a listener's certificates."""
    pairs = listener.tls.key_pairs if listener.tls is not None else ()
    return tuple(name for pair in pairs for name in native.certificate_names(pair.chain))


_ELSEWHERE: Final = "listeners of other objects"

_MOST_NAMED: Final = 4
"""Listeners that are named in a message."""

#: What may overlap: the reason, the words for it, and the names to compare.
_WHAT: Final[tuple[tuple[str, str, Callable[[ListenerState], tuple[str, ...]]], ...]] = (
    ("OverlappingHostnames", "hostname overlaps", lambda one: (one.hostname,)),
    ("OverlappingCertificates", "certificates overlap", _certified),
)
