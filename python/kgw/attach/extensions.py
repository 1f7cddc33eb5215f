"""GatewayExtensions: what their references lead to, and what is wrong with them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kgw.api.base import Model, kubernetes_name
from kgw.api.gateway.backend_object import BackendObjectReference
from kgw.attach import backends
from kgw.attach.policy import weight

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kgw.api import GatewayExtension, ResourceKey
    from kgw.attach.backends import Backend
    from kgw.attach.index import Index, Named
    from kgw.source.memory import FieldPath


@dataclass(slots=True, eq=False)
class ExtensionState:
    """A GatewayExtension and what it comes to."""

    extension: GatewayExtension
    errors: list[str] = field(default_factory=list)
    #: What its backendRefs lead to, by their identity: equal ones may be several.
    _backends: dict[int, Backend] = field(default_factory=dict)

    def backend(self, ref: BackendObjectReference) -> Backend:
        """What one of its backendRefs leads to."""
        return self._backends[id(ref)]

    @property
    def weight(self) -> int:
        """Its ``kgateway.dev/policy-weight``: of several at one place, the greatest comes first."""
        return weight(self.extension)

    @property
    def services(self) -> Iterator[ResourceKey]:
        """The Services that it refers to, whether there are or not."""
        for one in self._backends.values():
            if one.service is not None:
                yield one.service.key

    @property
    def face(self) -> tuple[object, ...]:
        """What policies see of it, for comparison."""
        seen = tuple(
            (one.service, one.port, one.problem, one.denial) for one in self._backends.values()
        )
        return (self.extension, tuple(self.errors), seen)


class Extensions:
    """All GatewayExtensions."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self.states: dict[Named, ExtensionState] = {
            named: self._state(one) for named, one in index.extensions.items()
        }

    def _state(self, extension: GatewayExtension) -> ExtensionState:
        state = ExtensionState(extension, [one.message for one in extension.defects])
        for ref, path in _references(extension.spec, ("spec",)):
            found = backends.resolve(self._index, extension, ref, path)
            state._backends[id(ref)] = found
            failure = found.failure(mesh=False)
            if failure is None:
                continue
            if found.denial is not None:
                backends.report_denial(self._index, extension, found, (*path, "namespace"))
            if failure.message not in state.errors:
                state.errors.append(failure.message)
        return state


def _references(value: Any, path: FieldPath) -> Iterator[tuple[BackendObjectReference, FieldPath]]:
    """The backendRefs in a model, with their places."""
    if isinstance(value, BackendObjectReference):
        yield value, path
    elif isinstance(value, Model):
        for name in type(value).model_fields:
            yield from _references(getattr(value, name), (*path, kubernetes_name(name)))
    elif isinstance(value, tuple):
        for number, item in enumerate(value):
            yield from _references(item, (*path, number))
