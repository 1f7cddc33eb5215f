"""Object metadata, the base of every kind, and the key that names an object."""

from __future__ import annotations

from copy import deepcopy
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from pydantic import Field, PrivateAttr

from kgw.api.base import Int, Model, given, without_nulls
from kgw.api.names import Labels, Name, NamespaceName
from kgw.diagnostics import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Self

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

    ignored: ClassVar[frozenset[str]] = frozenset(
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
    """The name, unique among the objects of a kind in a namespace."""
    namespace: NamespaceName | None = None
    """The namespace that the object is in; ``default`` if none is given."""
    labels: Labels = Field(default_factory=dict)
    """What selectors select by, and Istio's choice of a waypoint."""
    annotations: Labels = Field(default_factory=dict)
    """Notes for programs; ``kgw.dev/...`` are options of kgw."""
    creation_timestamp: datetime | None = None
    """When the object was made: of two that say different things the older one wins."""
    generation: Int = 1
    """How often what is asked for has changed; a status says which it is about."""

    @classmethod
    def of(
        cls,
        name: str,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> Self:
        """Makes metadata of what is given."""
        more = given(
            namespace=namespace, labels=dict(labels or {}), annotations=dict(annotations or {})
        )
        return cls(name=name, **more)


class Resource(Model):
    """A Kubernetes object."""

    group: ClassVar[str] = ""
    versions: ClassVar[tuple[str, ...]] = ("v1",)
    namespaced: ClassVar[bool] = True
    #: Whether no value of the object may be shown.
    confidential: ClassVar[bool] = False

    api_version: str
    """The API group and version."""
    kind: str
    """What the object is."""
    metadata: ObjectMeta
    """What names and describes the object."""
    status: Any = None
    """What a controller has found; kgw writes its own and does not read this."""

    _origin: Any = PrivateAttr(default=None)
    # The `RawObject` that it was parsed from, if any: it has the data or can read it again.
    _written: Any = PrivateAttr(default=None)
    _findings: tuple[Finding, ...] | None = PrivateAttr(default=None)
    _defects: tuple[Finding, ...] = PrivateAttr(default=())

    def __eq__(self, other: object) -> bool:
        """Whether two objects say the same, wherever they come from."""
        if not isinstance(other, Resource) or type(other) is not type(self):
            return NotImplemented
        fields = type(self).model_fields
        return self.__pydantic_extra__ == other.__pydantic_extra__ and all(
            getattr(self, name) == getattr(other, name) for name in fields
        )

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

    @property
    def findings(self) -> tuple[Finding, ...] | None:
        """All that is to be said about this object alone; ``None`` if it was not examined yet.

        An object that was read was, and so is one of a configuration: see `kgw.api.examine`.
        """
        return self._findings

    def to_dict(self, *, secrets: bool = False) -> dict[str, Any]:
        """Returns the object as its manifest has it.

        An object that was read from a manifest is returned as it stands there, with its own order
        of keys. Of one made in Python it is what was given, and no defaults.

        Args:
            secrets: whether the object may be of a kind that has no value that may be shown.

        Raises:
            ValueError: it is of such a kind.
        """
        if (self.confidential or self.kind == "Secret") and not secrets:
            raise ValueError(f"{self.key} is only written with secrets=True")
        if self._written is not None:
            written: dict[str, Any] = self._written.object
            return deepcopy(written)
        # Of a copy that was not validated it may be anything.
        metadata: Any = self.metadata
        if isinstance(metadata, ObjectMeta):
            metadata = metadata.model_dump(mode="json", by_alias=True, exclude_unset=True)
        head = {"apiVersion": self.api_version, "kind": self.kind, "metadata": metadata}
        whole = without_nulls(type(self), head | self._contents())
        assert isinstance(whole, dict)
        return whole

    def to_yaml(self, *, secrets: bool = False) -> str:
        """Returns the object as a YAML document; see `to_dict`."""
        from kgw.api.yaml import document

        return document(self.to_dict(secrets=secrets))

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Returns a copy, of which *update* is not validated before a configuration is made of it.

        A changed copy has no place in a file, and nothing is known about it.
        """
        made = super().model_copy(update=update, deep=deep)
        if update:
            made.__dict__.pop("key", None)
            made._origin = made._written = made._findings = None
            made._defects = ()
        return made

    def _contents(self) -> dict[str, Any]:
        """Everything that was given and is not what every object has."""
        every = {"api_version", "kind", "metadata"}
        return self.model_dump(
            mode="json", by_alias=True, exclude_unset=True, exclude=every, warnings=False
        )

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
    """What the object asks for, as it is."""

    @property
    def namespace(self) -> str:
        """The namespace; empty for kinds that are known to have none."""
        return self.scope

    def __eq__(self, other: object) -> bool:
        """Whether two objects say the same, also where only they know what that means."""
        return (
            super().__eq__(other) is True
            and isinstance(other, Resource)
            and self.to_dict(secrets=True) == other.to_dict(secrets=True)
        )

    def _contents(self) -> dict[str, Any]:
        # The fields that are no part of the object have names that it may have too.
        return {"spec": self.spec} | (self.model_extra or {})
