"""Hostnames of listeners and routes, and what they have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ANY = "*"
"""The hostname that stands for all."""


def covers(wide: str, narrow: str) -> bool:
    """Whether every host of ``narrow`` is one of ``wide``.

    ``*.example`` covers any number of labels before ``.example``, but not ``example`` itself.
    """
    if wide in (ANY, narrow):
        return True
    if not wide.startswith("*."):
        return False
    suffix = wide[1:]
    return narrow != ANY and narrow.removeprefix("*").endswith(suffix) and narrow != suffix[1:]


def intersect(listener: str, route: str) -> str | None:
    """The hostname that stands for the hosts of both, if there are any."""
    if covers(listener, route):
        return route
    return listener if covers(route, listener) else None


def intersection(listener: str, routes: tuple[str, ...]) -> tuple[str, ...]:
    """The hosts of a route on a listener; a route without hostnames has the listener's."""
    if not routes:
        return (listener,)
    common = (intersect(listener, route) for route in routes)
    return tuple(dict.fromkeys(host for host in common if host is not None))


def narrower(host: str, others: Iterable[str]) -> list[str]:
    """The hostnames, other than a given one, all hosts of which are its as well."""
    if not host.startswith("*"):
        return []
    return [one for one in others if one != host and covers(host, one)]


def wider(host: str) -> Iterator[str]:
    """The hostnames that have all hosts of a given one, itself first."""
    yield host
    rest = host.removeprefix("*.")
    while "." in rest:
        rest = rest.partition(".")[2]
        yield f"*.{rest}"
    if host != ANY:
        yield ANY


def specificity(host: str) -> tuple[bool, int]:
    """A sort key: exact over wildcard, then longer over shorter, ``*`` least."""
    return (not host.startswith("*"), 0 if host == ANY else len(host))
