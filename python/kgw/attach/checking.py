"""A policy that is being checked: what it refers to, and what is wrong with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from kgw.api import ResourceKey
from kgw.api.base import kubernetes_name
from kgw.api.kinds import KGATEWAY_GROUP
from kgw.attach.checks import CHECKS
from kgw.diagnostics import Severity, suggest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kgw.api import ConfigMap, Resource, Secret
    from kgw.attach.extensions import Extensions, ExtensionState
    from kgw.attach.index import Index, Named
    from kgw.attach.policy import PolicyState
    from kgw.source.memory import FieldPath

T = TypeVar("T")

_GROUPS: Final = {"GatewayExtension": KGATEWAY_GROUP}


class Checking:
    """Looks up what a policy refers to, and notes what makes it invalid."""

    def __init__(self, index: Index, extensions: Extensions, state: PolicyState) -> None:
        self.index = index
        self.extensions = extensions
        self.state = state

    @property
    def policy(self) -> Resource:
        """The policy."""
        return self.state.policy

    def run(self) -> None:
        """Checks the fields of a TrafficPolicy."""
        for name, value in self.state.fields.items():
            check = CHECKS.get(name)
            if check is not None:
                parts = (kubernetes_name(part) for part in name.split("."))
                check(self, value, ("spec", *parts))

    def fail(
        self,
        code: str,
        message: str,
        path: FieldPath,
        *,
        legal: str | None = None,
        hint: str | None = None,
    ) -> None:
        """Reports what makes the policy invalid."""
        self.index.report(self.policy, code, Severity.ERROR, message, path, legal=legal, hint=hint)
        if message not in self.state.errors:
            self.state.errors.append(message)

    def warn(self, code: str, message: str, path: FieldPath, *, hint: str | None = None) -> None:
        """Reports what is not as it seems."""
        self.index.report(self.policy, code, Severity.WARNING, message, path, hint=hint)

    def read(self, one: object) -> None:
        """Notes that the policy depends on an object beside itself."""
        self.state.reads.append(one)

    # === References ===

    def secret(self, name: str, path: FieldPath, namespace: str | None = None) -> Secret | None:
        """A Secret; none, which is reported, if the policy may not refer to it or it is missing.

        Args:
            name: its name.
            path: the path of the reference, which has a `name`.
            namespace: its namespace, if it is not the policy's.
        """
        named = (namespace or self.policy.namespace, name)
        if not self._granted("Secret", named, path):
            return None
        return self._found("Secret", self.index.secrets, named, path)

    def config_map(self, name: str, path: FieldPath) -> ConfigMap | None:
        """A ConfigMap of the policy's namespace; none, which is reported, if it is missing."""
        named = (self.policy.namespace, name)
        return self._found("ConfigMap", self.index.config_maps, named, path)

    def extension(
        self, name: str, kind: str, path: FieldPath, namespace: str | None = None
    ) -> ExtensionState | None:
        """A GatewayExtension that can be used; none, which is reported, if there is none.

        Args:
            name: its name.
            kind: what it has to be: a field of its spec, such as ``ext_auth``.
            path: the path of the reference, which has a `name`.
            namespace: its namespace, if it is not the policy's. A grant is needed in kgateway's
                strict mode only.
        """
        named = (namespace or self.policy.namespace, name)
        strict = self.index.options.reference_grants == "STRICT"
        if strict and not self._granted("GatewayExtension", named, path):
            return None
        found = self._found("GatewayExtension", self.extensions.states, named, path)
        if found is None:
            return None
        self.read(found.face)
        if found.errors:
            message = f"{found.extension.key} is not valid: {'; '.join(found.errors)}"
            self.fail("KGW430", message, (*path, "name"))
            return None
        if found.extension.spec.extension != kind:
            message = f"{found.extension.key} has no {kubernetes_name(kind)}"
            self.fail("KGW430", message, (*path, "name"))
            return None
        return found

    def _granted(self, kind: str, named: Named, path: FieldPath) -> bool:
        own, target = self.policy.key, (_GROUPS.get(kind, ""), kind, *named)
        if named[0] == own.namespace or self.index.granted(
            (KGATEWAY_GROUP, own.kind, own.namespace), target
        ):
            return True
        message = (
            f"missing reference grant: nothing in namespace {named[0]} permits {own.kind} of "
            f"namespace {own.namespace} to refer to {kind} {named[1]}"
        )
        self.fail("KGW308", message, (*path, "namespace"))
        return False

    def _found(
        self, kind: str, every: Mapping[Named, T], named: Named, path: FieldPath
    ) -> T | None:
        found = every.get(named)
        if found is not None:
            self.read(found)
            return found
        refused = self.index.refused.get(ResourceKey(_GROUPS.get(kind, ""), kind, *named))
        if refused is not None:
            why = self.index.refusal(refused.key)
            self.fail("KGW430", f"{refused.key} is not valid: {why}", (*path, "name"))
            return None
        near = suggest(named[1], (name for namespace, name in every if namespace == named[0]))
        hint = f"did you mean `{near}`?" if near else None
        self.fail("KGW307", f"{kind} {'/'.join(named)} not found", (*path, "name"), hint=hint)
        return None
