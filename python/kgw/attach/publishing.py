"""What is written to an object whose status is to be another, and whether anything is.

A status belongs to several: other controllers have entries of their own among a route's parents and
a policy's ancestors, and anybody may add conditions. These stay as they are. What would say the
same as before is not written: whoever watches the object would wake up for nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from kgw.attach.status import CONTROLLER

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from kgw.attach.status import Status

#: The types of conditions that kgw writes: of these it takes away what does not hold any more.
TYPES: Final = frozenset(
    {
        "Accepted",
        "Attached",
        "Conflicted",
        "DefaultGateway",
        "InsecureFrontendValidationMode",
        "OverlappingTLSConfig",
        "PartiallyInvalid",
        "Programmed",
        "ResolvedRefs",
        "SupportedVersion",
        "kgateway.dev/Programmed",
    }
)

#: Members of a status of which each entry belongs to one controller, with what an entry is about.
_SHARED: Final = {"parents": "parentRef", "ancestors": "ancestorRef"}

#: Members that are the controller's alone.
_OWN: Final = ("addresses", "attachedListenerSets", "supportedFeatures")

#: Most ancestors that a policy's status may have, those of others included.
_MOST_ANCESTORS: Final = 16


def update(present: Mapping[str, Any] | None, wanted: Status, now: str) -> dict[str, Any] | None:
    """Returns the status to write; none if the present one says the same.

    Args:
        present: the object's status, as Kubernetes has it in JSON; none if it has none.
        wanted: what is to be said. An empty one takes back what kgw has said before.
        now: the time of conditions that change, as in ``2026-01-02T03:04:05Z``. A condition whose
            status stays keeps its time, whatever else is said of it.
    """
    before = dict(present or {})
    after = dict(before)
    new = wanted.to_json()
    for name in _OWN:
        _put(after, name, new.get(name))
    _put(after, "conditions", conditions(before.get("conditions"), new.get("conditions"), now))
    _put(after, "listeners", _listeners(before.get("listeners"), new.get("listeners"), now))
    for name, about in _SHARED.items():
        _put(after, name, _entries(before.get(name), new.get(name), about, now))
    if len(after.get("ancestors", ())) > _MOST_ANCESTORS:
        after["ancestors"] = after["ancestors"][:_MOST_ANCESTORS]
    return None if after == before else after


def conditions(
    present: Iterable[Mapping[str, Any]] | None,
    wanted: Sequence[Mapping[str, Any]] | None,
    now: str,
) -> list[dict[str, Any]]:
    """The conditions to write: wanted ones with their times, and those of others, in their order.

    Args:
        present: what there is.
        wanted: what is to be there of kgw's, without times.
        now: the time of what changes.
    """
    left = {one["type"]: one for one in wanted or ()}
    found = []
    for one in present or ():
        new = left.pop(one.get("type", ""), None)
        if new is not None:
            same = one.get("status") == new["status"] and one.get("lastTransitionTime")
            found.append({**new, "lastTransitionTime": same or now})
        elif one.get("type") not in TYPES:
            found.append(dict(one))
    return found + [{**new, "lastTransitionTime": now} for new in left.values()]


def _listeners(
    present: Iterable[Mapping[str, Any]] | None,
    wanted: Iterable[Mapping[str, Any]] | None,
    now: str,
) -> list[dict[str, Any]]:
    """The listeners, which are those of the object, in its order."""
    known = {one.get("name"): one for one in present or ()}
    return [
        {
            **one,
            "conditions": conditions(
                known.get(one["name"], {}).get("conditions"), one["conditions"], now
            ),
        }
        for one in wanted or ()
    ]


def _entries(
    present: Iterable[Mapping[str, Any]] | None,
    wanted: Iterable[Mapping[str, Any]] | None,
    about: str,
    now: str,
) -> list[dict[str, Any]]:
    """The entries about parents or ancestors: those of others, and kgw's own."""
    left = list(wanted or ())
    found = []
    for one in present or ():
        if one.get("controllerName") != CONTROLLER:
            found.append(dict(one))
            continue
        new = next((each for each in left if each[about] == one.get(about)), None)
        if new is not None:
            left.remove(new)
            found.append(_entry(one, new, now))
    return found + [_entry({}, new, now) for new in left]


def _entry(present: Mapping[str, Any], wanted: Mapping[str, Any], now: str) -> dict[str, Any]:
    found = conditions(present.get("conditions"), wanted["conditions"], now)
    return {**wanted, "conditions": found}


def _put(status: dict[str, Any], name: str, value: Any) -> None:
    if value in (None, []):
        status.pop(name, None)
    else:
        status[name] = value
