"""What TrafficPolicies come to at one place: field by field, and from which policies."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from kgw.api import TrafficPolicy
from kgw.attach.inheritance import DEFAULT
from kgw.attach.options import DEEP

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kgw.attach.inheritance import Strategy
    from kgw.attach.policy import PolicyState

#: Fields of which the members are merged as if they were fields themselves, as in kgateway.
_SPLIT: Final[Mapping[str, tuple[str, ...]]] = {
    "compression": ("request_decompression", "response_compression"),
    "rate_limit": ("local", "global_"),
}

#: What fields were called before, and are merged under now.
_RENAMED: Final[Mapping[str, str]] = {
    "api_key_authentication": "api_key_auth",
    "jwt": "jwt_auth",
}

_TARGETS: Final = frozenset({"target_refs", "target_selectors"})


@dataclass(frozen=True, slots=True, eq=False)
class Setting:
    """A field that a policy sets at a place."""

    value: Any
    policy: TrafficPolicy
    #: ``route``, ``listener`` or ``gateway``: what of it the policy is attached to. Places below
    #: share what has a state there, such as a bucket.
    level: str
    state: PolicyState


@dataclass(frozen=True, slots=True, eq=False)
class Effective:
    """What holds at a place."""

    #: By the names of the model's fields, or ``rate_limit.local`` where members are merged by
    #: themselves. Several settings are there only of fields that are merged deeply: the strongest
    #: comes first.
    fields: Mapping[str, tuple[Setting, ...]] = field(default_factory=dict)
    #: The same of policies that are tried out only.
    shadow: Mapping[str, tuple[Setting, ...]] = field(default_factory=dict)

    def value(self, name: str) -> Any:
        """The value of a field that is not merged deeply; none if nothing sets it."""
        settings = self.fields.get(name)
        return settings[0].value if settings else None


NOTHING: Final = Effective(MappingProxyType({}), MappingProxyType({}))
"""What holds where no policy is attached."""


def fields(policy: TrafficPolicy) -> dict[str, Any]:
    """The fields that a policy sets, by the names that they are merged under."""
    spec = policy.spec
    found: dict[str, Any] = {}
    for name in type(spec).model_fields:
        value = getattr(spec, name)
        if value is None or name in _TARGETS:
            continue
        if name not in _SPLIT:
            found.setdefault(_RENAMED.get(name, name), value)
            continue
        for member in _SPLIT[name]:
            part = getattr(value, member, None)
            if part is not None:
                found[f"{name}.{member}"] = part
    return found


class Level(NamedTuple):
    """The policies of one object at a place, and how they are merged with those below."""

    #: What each is attached to (see `Setting.level`), and the policy; the first wins.
    policies: list[tuple[str, PolicyState]]
    strategy: Strategy = DEFAULT


#: What is set at a place, by the names of fields.
_Fields = dict[str, tuple[Setting, ...]]


def merged(levels: Iterable[Level], deep: frozenset[str] = frozenset()) -> Effective:
    """What policies come to that are all valid.

    At one object the first policy that sets a field has it. What objects above have is merged with
    that as they say.

    Args:
        levels: the policies at a place, those of the most specific object first.
        deep: the fields that are merged deeply at one object, too.
    """
    found: _Fields = {}
    shadow: _Fields = {}
    for level in levels:
        # What is tried out is merged among itself.
        for into, tried in ((found, False), (shadow, True)):
            _inherit(into, _at_one(level, deep, tried), level.strategy)
    return Effective(found, shadow)


def _at_one(level: Level, deep: frozenset[str], tried: bool) -> _Fields:
    """What policies of one object set."""
    found: _Fields = {}
    for word, state in level.policies:
        policy = state.policy
        if not isinstance(policy, TrafficPolicy) or state.errors:
            continue
        for name, value in state.fields.items():
            if state.is_in_shadow(name) is not tried:
                continue
            setting = Setting(value, policy, word, state)
            if name not in found:
                found[name] = (setting,)
            elif name in deep:
                found[name] += (setting,)
    return found


def _inherit(below: _Fields, above: _Fields, strategy: Strategy) -> None:
    """Adds what is handed down to what is there."""
    for name, settings in above.items():
        own = below.get(name)
        if own is None:
            below[name] = settings
        elif strategy.deep and is_deep(name, own, settings):
            below[name] = settings + own if strategy.prefer_parent else own + settings
        elif strategy.prefer_parent:
            below[name] = settings


def is_deep(name: str, below: tuple[Setting, ...], above: tuple[Setting, ...]) -> bool:
    """Whether a field is one of those that can be merged deeply, here.

    Access lists of Gateways are never combined with those of routes, as in kgateway.
    """
    if name == "acl":
        return (below[0].level == "route") == (above[0].level == "route")
    return name in DEEP.values()
