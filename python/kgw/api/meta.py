"""Object metadata, the base of every kind, and the key that names an object."""

from __future__ import annotations

from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from pydantic import PrivateAttr

from kgw.api.base import Int, Model
from kgw.api.names import Labels, Name, NamespaceName
from kgw.diagnostics import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kgw.api.base import Remark


class ResourceKey(NamedTuple):
    """What names an object; prints as ``HTTPRoute default/ollama``."""

    group: str
    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        where = f"{self.namespace}/" if self.namespace else ""
        return f"{self.kind} {where}{self.name}"


class ObjectMeta(Model):
    """The metadata that configuration depends on."""

    ignored = frozenset(
        {
            "deletionGracePeriodSeconds",
            "deletionTimestamp",
            "finalizers",
            "generateName",
            "managedFields",
            "ownerReferences",
            "resourceVersion",
            "selfLink",
            "uid",
        }
    )

    name: Name
    namespace: NamespaceName | None = None
    labels: Labels
    annotations: Labels
    creation_timestamp: datetime | None = None
    generation: Int = 1


class Resource(Model):
    """A Kubernetes object."""

    group: ClassVar[str] = ""
    versions: ClassVar[tuple[str, ...]] = ("v1",)
    namespaced: ClassVar[bool] = True
    #: Whether no value of the object may be shown.
    confidential: ClassVar[bool] = False

    api_version: str
    kind: str
    metadata: ObjectMeta
    status: Any = None

    _origin: Any = PrivateAttr(default=None)
    _defects: tuple[Finding, ...] = PrivateAttr(default=())

    @property
    def name(self) -> str:
        """``metadata.name``."""
        return self.metadata.name

    @property
    def namespace(self) -> str:
        """``metadata.namespace``; ``default`` when it is not given, empty when cluster-scoped."""
        return (self.metadata.namespace or "default") if self.namespaced else ""

    @cached_property
    def key(self) -> ResourceKey:
        """What names this object."""
        group = self.group or self.api_version.rpartition("/")[0]
        return ResourceKey(group, self.kind, self.namespace, self.name)

    @property
    def created(self) -> int | None:
        """Creation time in seconds since 1970, if known."""
        stamp = self.metadata.creation_timestamp
        return None if stamp is None else int(stamp.timestamp())

    @property
    def origin(self) -> Any:
        """Where the object was read, if it was."""
        return self._origin

    @property
    def defects(self) -> tuple[Finding, ...]:
        """Errors of this object that do not make it unreadable: fields that are not enforced."""
        return self._defects

    def remarks(self) -> Iterator[Remark]:
        """What is to be said about the object beside what its fields' forms are."""
        return iter(())

    def age(self) -> tuple[int, int, str]:
        """The Gateway API's tie-breaker as a sort key: older, then by ``namespace/name``."""
        created = self.created
        return (created is None, created or 0, f"{self.namespace}/{self.name}")


class Opaque(Resource):
    """An object of a kind that kgw does not know, or one that cannot be read; kept as it is."""

    #: Whether the kind is known and the object was refused.
    refused: bool = False
    #: The namespace; empty for kinds that are known to have none.
    scope: str = ""
    spec: Any = None

    @property
    def namespace(self) -> str:
        """The namespace; empty for kinds that are known to have none."""
        return self.scope
