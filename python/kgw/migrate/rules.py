"""What earlier versions of kgateway wrote in another way, and what it is now.

One rule for each. The models accept the old forms as well, and mean the same by them.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from kgw.api.kinds import KGATEWAY_GROUP
from kgw.attach.inheritance import OLD_PRIORITY, PRIORITY
from kgw.diagnostics import Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kgw.source.memory import FieldPath, RawObject

#: Fields that were renamed, by kind: all of them are in the spec.
RENAMED: Final[Mapping[str, Mapping[str, str]]] = {
    "TrafficPolicy": {"apiKeyAuthentication": "apiKeyAuth", "jwt": "jwtAuth"},
}

#: Fields that have no meaning any more: they say again which other field there is.
DROPPED: Final[Mapping[str, str]] = {"Backend": "type", "GatewayExtension": "type"}

#: What no later version has in any form.
_GONE: Final[Mapping[tuple[str, str], str]] = {
    ("Backend", "ai"): "language models are no backends of kgateway from 2.2 on",
    ("Backend", "mcp"): "MCP servers are no backends of kgateway from 2.2 on",
    ("TrafficPolicy", "ai"): "there are no policies for language models from kgateway 2.2 on",
}

_OWNERS: Final = frozenset({"Gateway", "HTTPRoute", "ListenerSet", "XListenerSet"})

TARGETS: Final = ("targetRefs", "targetSelectors")


@dataclass(frozen=True)
class Change:
    """One form, and its successor."""

    path: FieldPath
    """Where the old form stands."""
    message: str
    """What is changed, in a few words."""
    name: str | None = None
    """The new name of the field; ``None`` for one that is left out."""
    value: Any = field(default=None, hash=False)
    """The new value, if that changes, too."""
    whole: bool = False
    """Whether an HTTPListenerPolicy becomes a ListenerPolicy."""
    blocked: str | None = None
    """Why it cannot be done, if so."""

    def applied(self, value: dict[str, Any]) -> dict[str, Any]:
        """The object with the change."""
        value = copy.deepcopy(value)
        if self.whole:
            value["kind"] = "ListenerPolicy"
            spec = value.get("spec")
            settings = [name for name in spec or () if name not in TARGETS]
            if spec and settings:
                moved = {name: spec.pop(name) for name in settings}
                spec["default"] = {"httpSettings": moved}
            return value
        place: Any = value
        for step in self.path[:-1]:
            place = place[step]
        old = place.pop(self.path[-1])
        if self.name is not None:
            place[self.name] = old if self.value is None else self.value
        return value


def changes(value: Mapping[str, Any]) -> Iterator[Change]:
    """Everything in an object that has a successor."""
    kind, group = value.get("kind"), str(value.get("apiVersion", "")).partition("/")[0]
    if kind in _OWNERS and group.startswith("gateway.networking."):
        yield from _annotations(value)
    if group != KGATEWAY_GROUP or not isinstance(kind, str):
        return
    if kind == "HTTPListenerPolicy":
        yield Change(("kind",), "HTTPListenerPolicy is ListenerPolicy", whole=True)
    spec = value.get("spec")
    if not isinstance(spec, dict):
        return
    for old, new in RENAMED.get(kind, {}).items():
        if old in spec:
            yield _renamed(("spec", old), new, spec)
    dropped = DROPPED.get(kind)
    if dropped is not None and dropped in spec:
        yield Change(("spec", dropped), f"`{dropped}` has no meaning any more")
    auth = spec.get("extAuth")
    if kind == "TrafficPolicy" and isinstance(auth, dict) and "enablement" in auth:
        path = ("spec", "extAuth", "enablement")
        yield _renamed(path, "disable", auth, {})


def _annotations(value: Mapping[str, Any]) -> Iterator[Change]:
    metadata = value.get("metadata")
    notes = metadata.get("annotations") if isinstance(metadata, dict) else None
    if isinstance(notes, dict) and OLD_PRIORITY in notes:
        yield _renamed(("metadata", "annotations", OLD_PRIORITY), PRIORITY, notes)


def _renamed(path: FieldPath, new: str, beside: Mapping[str, Any], value: Any = None) -> Change:
    blocked = f"as `{new}` is there, too" if new in beside else None
    return Change(path, f"`{path[-1]}` is `{new}`", new, value, blocked=blocked)


def leftovers(raw: RawObject) -> Iterator[Finding]:
    """What of an object has no successor."""
    value = raw.object
    spec = value.get("spec")
    if raw.group != KGATEWAY_GROUP or not isinstance(spec, dict):
        return
    for (kind, name), why in _GONE.items():
        if kind == raw.kind and name in spec:
            yield Finding(
                "KGW604",
                Severity.ERROR,
                f"`{name}` has no successor: {why}",
                raw.resource,
                ("spec", name),
                source=raw.origin,
                key=True,
            )
