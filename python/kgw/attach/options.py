"""Choices of the operator about policies: where global ones are, how they merge, what is granted.

Each has the meaning that the environment variable of its name has for kgateway's controller.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, cast, get_args

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Self

__all__ = ["DEEP", "GRANT_MODES", "GrantMode", "PolicyOptions"]

#: Who has to permit references into other namespaces.
GrantMode = Literal["PERMISSIVE", "STRICT", "OFF"]

GRANT_MODES: Final[tuple[GrantMode, ...]] = get_args(GrantMode)

#: Fields of TrafficPolicies that can be merged deeply, as they are written, and the model's names.
DEEP: Final[Mapping[str, str]] = {
    "acl": "acl",
    "extAuth": "ext_auth",
    "extProc": "ext_proc",
    "transformation": "transformation",
}

_VARIABLES: Final = (
    "KGW_GLOBAL_POLICY_NAMESPACE",
    "KGW_POLICY_MERGE",
    "KGW_REFERENCE_GRANT_MODE",
)

#: What switches on, as Go's ``strconv.ParseBool`` reads it.
_TRUE: Final = ("1", "t", "true")


@dataclass(frozen=True, slots=True)
class PolicyOptions:
    """How policies are attached, merged and checked.

    Attributes:
        global_namespace: the namespace whose policies may select targets in all namespaces
            (``KGW_GLOBAL_POLICY_NAMESPACE``); otherwise there is none.
        deep_merge: the fields that policies on one target merge deeply, rather than that the first
            one that sets a field has it: some of ``acl``, ``extAuth``, ``extProc`` and
            ``transformation`` (``KGW_POLICY_MERGE``).
        reference_grants: ``PERMISSIVE``: references into other namespaces need a ReferenceGrant,
            those from policies to GatewayExtensions do not; ``STRICT``: those do, too; ``OFF``:
            none do (``KGW_REFERENCE_GRANT_MODE``).
        forward_to_loopback: hosts that requests name may be this machine, for tries on one's own
            (``KGW_FORWARD_TO_LOOPBACK``, which kgateway does not know).

    Raises:
        ValueError: a field cannot be merged deeply, or there is no such mode.
    """

    global_namespace: str | None = None
    deep_merge: frozenset[str] = frozenset()
    reference_grants: GrantMode = "PERMISSIVE"
    forward_to_loopback: bool = False

    def __post_init__(self) -> None:
        unknown = sorted(set(self.deep_merge) - DEEP.keys())
        if unknown:
            raise ValueError(f"{_listed(unknown)} cannot be merged deeply; {_listed(DEEP)} can")
        if self.reference_grants not in GRANT_MODES:
            modes = _listed(GRANT_MODES)
            raise ValueError(f"{self.reference_grants!r} is no mode of reference grants: {modes}")

    @classmethod
    def of(
        cls,
        *,
        global_namespace: str | None = None,
        merge: str | None = None,
        reference_grants: str | None = None,
        forward_to_loopback: str | None = None,
    ) -> Self:
        """Reads options as they are written for kgateway; what is empty or missing is the default.

        Args:
            global_namespace: a namespace.
            merge: as in ``{"trafficPolicy": {"extAuth": "DeepMerge"}}``.
            reference_grants: a mode.
            forward_to_loopback: ``true`` if hosts that requests name may be this machine.

        Raises:
            ValueError: one of them cannot be read.
        """
        return cls(
            global_namespace or None,
            _merge(merge) if merge else frozenset(),
            cast("GrantMode", reference_grants or "PERMISSIVE"),  # the constructor looks at it
            _is_on(forward_to_loopback),
        )

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Reads the options out of kgateway's environment variables.

        Raises:
            ValueError: one of them cannot be read.
        """
        namespace, merge, grants = (environ.get(name) for name in _VARIABLES)
        return cls.of(
            global_namespace=namespace,
            merge=merge,
            reference_grants=grants,
            forward_to_loopback=environ.get("KGW_FORWARD_TO_LOOPBACK"),
        )

    @property
    def deep(self) -> frozenset[str]:
        """The fields that are merged deeply on one target, by the model's names."""
        return frozenset(DEEP[name] for name in self.deep_merge)


def _is_on(text: str | None) -> bool:
    return (text or "").lower() in _TRUE


def _merge(text: str) -> frozenset[str]:
    """The fields that a text in JSON says are to be merged deeply."""
    try:
        given: Any = json.loads(text)
    except ValueError as error:
        raise ValueError(f"how policies merge is no JSON: {error}") from None
    policy = given.get("trafficPolicy", {}) if isinstance(given, dict) else None
    if not isinstance(policy, dict) or given.keys() - {"trafficPolicy"}:
        raise ValueError(
            'how policies merge is written {"trafficPolicy": {"extAuth": "DeepMerge"}}'
        )
    wrong = sorted(name for name, how in policy.items() if how not in ("DeepMerge", "ShallowMerge"))
    if wrong:
        raise ValueError(f"{_listed(wrong)}: policies merge by DeepMerge or ShallowMerge")
    PolicyOptions(deep_merge=frozenset(policy))  # also what is shallow has to be a field
    return frozenset(name for name, how in policy.items() if how == "DeepMerge")


def _listed(words: Iterable[str]) -> str:
    return ", ".join(words)
