"""Raw objects and where they came from: what every source yields, and what ``kgw.api`` parses.

An object made in Python has no origin; one read from a file can point at each of its fields.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from kgw.diagnostics import Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping

__all__ = [
    "FieldPath",
    "Loaded",
    "Location",
    "Origin",
    "Positions",
    "RawObject",
    "defined_twice",
    "expand",
    "from_objects",
    "last_definitions",
]

FieldPath = tuple[str | int, ...]
"""The way to a field: mapping keys and list indices, as in ``("spec", "rules", 0)``."""


@dataclass(frozen=True, slots=True, order=True)
class Location:
    """A place on one line of a file; lines and columns count from 1, columns in characters."""

    line: int
    column: int
    end_column: int
    """The column after the last character; equal to ``column`` when there is nothing to mark."""


class Positions(Protocol):
    """What knows the places of a document's nodes: a parsed document, or a syntax error."""

    def locate(self, path: FieldPath, key: bool = False) -> tuple[int, int, int] | None:
        """Returns ``(line, column, end_column)`` of the node at *path*, or ``None``."""

    def line(self, number: int) -> str | None:
        """Returns the text of line *number* (from 1) without its line break, or ``None``."""


class Text(Protocol):
    """What an object can be read from again: a document that is an object."""

    @property
    def value(self) -> Any:
        """The object, each time a new one."""

    @property
    def sound(self) -> bool:
        """Whether the object is known to be as the definition of its kind wants it."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an object was read: a file, the document in it, and the object in the document."""

    file: str
    """The file as the user named it; ``<stdin>`` for standard input."""
    document: int = 0
    """The index of the YAML document in the file."""
    prefix: FieldPath = ()
    """The object's path in the document: ``("items", 3)`` for a member of a ``List``."""
    positions: Positions | None = field(default=None, compare=False, repr=False)

    def __deepcopy__(self, memo: object) -> Origin:
        return self

    def __reduce__(self) -> tuple[type[Origin], tuple[str, int, FieldPath]]:
        """Supports pickling: the text stays behind, and with it the places in it."""
        return type(self), (self.file, self.document, self.prefix)

    def locate(self, path: FieldPath = (), *, key: bool = False) -> Location | None:
        """Returns the place of a field, or of its nearest ancestor that the file has.

        Args:
            path: the field, from the object's root.
            key: the name of the field rather than its value. A value that is a block mapping or
                sequence has no place of its own, so it is always shown by the name it stands
                under, or by its own first key if it has no name.
        """
        if self.positions is None:
            return None
        whole = (*self.prefix, *path)
        for end in range(len(whole), -1, -1):
            place = self.positions.locate(whole[:end], key=key and end == len(whole))
            if place is not None:
                return Location(*place)
        return None

    def line(self, number: int) -> str | None:
        """Returns the text of a line of the file (from 1), without its line break."""
        return None if self.positions is None else self.positions.line(number)

    def snippet(self, location: Location, context: int = 0) -> list[tuple[int, str]]:
        """Returns the numbered lines around *location*, *context* of them on each side."""
        first = max(1, location.line - context)
        numbered = ((n, self.line(n)) for n in range(first, location.line + context + 1))
        return [(number, text) for number, text in numbered if text is not None]

    def blind(self) -> Origin:
        """Returns the origin of an object whose lines may not be shown: places, but no text."""
        return self if self.positions is None else replace(self, positions=_Blind(self.positions))

    def sighted(self) -> tuple[Positions | None, bool]:
        """Returns the positions themselves, and whether the origin is blind."""
        if isinstance(self.positions, _Blind):
            return self.positions.positions, True
        return self.positions, False

    def describe(self, path: FieldPath = (), *, key: bool = False) -> str:
        """Returns ``file:line:column`` of a field, or only the file."""
        location = self.locate(path, key=key)
        if location is None:
            return self.file
        return f"{self.file}:{location.line}:{location.column}"


@dataclass(frozen=True, slots=True)
class _Blind:
    """Positions without the text they are in."""

    positions: Positions

    def locate(self, path: FieldPath, key: bool = False) -> tuple[int, int, int] | None:
        return self.positions.locate(path, key=key)

    def line(self, number: int) -> str | None:
        return None


class RawObject:
    """A Kubernetes object as it was written: plain Python data, nothing checked or defaulted."""

    __slots__ = ("_definition", "_object", "_text", "origin")

    def __init__(
        self, object: dict[str, Any], origin: Origin | None = None, text: Text | None = None
    ) -> None:
        self._object: dict[str, Any] | None = object
        self.origin: Origin | None = origin
        self._text = text
        self._definition: Hashable = None

    def __repr__(self) -> str:
        return f"<RawObject {self.resource}>"  # the rest may hold private keys

    def __reduce__(self) -> tuple[type[RawObject], tuple[dict[str, Any], Origin | None]]:
        """Supports copying and pickling: the text stays behind."""
        return type(self), (self.object, self.origin)

    @property
    def object(self) -> dict[str, Any]:
        """The data."""
        if self._object is None:
            assert self._text is not None
            data: dict[str, Any] = self._text.value
            return data
        return self._object

    def forget(self) -> None:
        """Keeps the data no longer, if it can be read again from the text where it stands.

        Data takes ten times the memory of its text, and is of no use once it was parsed.
        """
        if self._text is not None:
            self._object = None

    @property
    def sound(self) -> bool:
        """Whether the object as it was read is known to be as the definition of its kind wants it.

        If not, that is still to be found out.
        """
        return self._text is not None and self._text.sound

    @property
    def kind(self) -> str:
        """The ``kind``, or an empty string."""
        return _text(self.object.get("kind"))

    @property
    def name(self) -> str:
        """The ``metadata.name``, or an empty string."""
        return _text(_metadata(self.object).get("name"))

    @property
    def namespace(self) -> str:
        """The ``metadata.namespace``; ``default`` where the object names none.

        Cluster-scoped kinds have no namespace; what reads such a kind ignores this.
        """
        return _text(_metadata(self.object).get("namespace")) or "default"

    @property
    def group(self) -> str:
        """The API group of ``apiVersion``; empty for the core group."""
        group, slash, _ = _text(self.object.get("apiVersion")).rpartition("/")
        return group if slash else ""

    @property
    def identity(self) -> tuple[str, str, str, str]:
        """Group, kind, namespace and name: what makes two objects the same object."""
        namespace = "" if (self.group, self.kind) in CLUSTER_SCOPED else self.namespace
        return (self.group, self.kind, namespace, self.name)

    @property
    def definition(self) -> Hashable:
        """What is equal for two definitions of one object; looked up once.

        What has no name (it may have a ``generateName``) is not the same as anything.
        """
        if self._definition is None:
            self._definition = self.identity if self.name and self.kind else id(self)
        return self._definition

    @property
    def resource(self) -> str:
        """``Kind namespace/name``, the way findings name an object."""
        _, kind, namespace, name = self.identity
        return f"{kind or 'object'} {namespace}/{name}" if namespace else f"{kind} {name}"


CLUSTER_SCOPED = frozenset(
    {
        ("", "Namespace"),
        ("", "Node"),
        ("", "PersistentVolume"),
        ("apiextensions.k8s.io", "CustomResourceDefinition"),
        ("gateway.networking.k8s.io", "GatewayClass"),
        ("rbac.authorization.k8s.io", "ClusterRole"),
        ("rbac.authorization.k8s.io", "ClusterRoleBinding"),
    }
)
"""The kinds, as ``(group, kind)``, that live outside namespaces and appear beside Gateways."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a source holds at one moment."""

    objects: list[RawObject]
    """The objects, in reading order; of several definitions of one object only the last."""
    findings: list[Finding] = field(default_factory=list)
    """What could not be read, and what was defined twice."""
    files: tuple[str, ...] = ()
    """The files that were read."""
    digest: bytes = b""
    """Equal for equal contents of the same files, empty where nothing was read."""
    place: Callable[[Finding], Finding] | None = field(default=None, compare=False, repr=False)
    """Returns a finding about an object with the place where that stands by now.

    An object keeps the origin that it was first read at, while the text around it changes.
    """


def from_objects(objects: Iterable[Mapping[str, Any]]) -> Loaded:
    """Returns mappings made in Python as a source; each ``List`` is taken apart."""
    raw: list[RawObject] = []
    findings: list[Finding] = []
    for one in objects:
        members, found = expand(dict(one), None)
        raw += members
        findings += found
    kept, twice = last_definitions(raw)
    return Loaded(kept, findings + twice)


def expand(
    value: object, origin: Origin | None, text: Text | None = None
) -> tuple[list[RawObject], list[Finding]]:
    """Returns the objects of a document: itself, or the members of a ``List``.

    What is an object itself can be read again from its text, if that is given.

    As for the API server, whatever has a kind that ends in ``List`` and a sequence ``items`` is a
    list; members of a typed list (``HTTPRouteList``) that name no kind are of the list's.
    """
    if not isinstance(value, dict):
        what = "a list" if isinstance(value, list) else f"`{value}`"[:60]
        finding = Finding(
            "KGW201",
            Severity.ERROR,
            f"a manifest is an object with `apiVersion` and `kind`, not {what}",
            source=origin,
        )
        return [], [finding]
    kind, items = value.get("kind"), value.get("items")
    if origin is not None and _confidential(value):
        origin = origin.blind()
    if not (isinstance(kind, str) and kind.endswith("List") and isinstance(items, list)):
        return [RawObject(value, origin, text)], []
    objects: list[RawObject] = []
    findings: list[Finding] = []
    for index, item in enumerate(items):
        member = origin and replace(origin, prefix=(*origin.prefix, "items", index))
        if isinstance(item, dict) and kind != "List":
            item = {"apiVersion": value.get("apiVersion"), "kind": kind[: -len("List")]} | item
        found, wrong = expand(item, member)
        objects += found
        findings += wrong
    return objects, findings


def _confidential(value: Mapping[str, Any]) -> bool:
    """Whether a document is a Secret or has one; what has one may have it on any line."""
    kind, items = _text(value.get("kind")), value.get("items")
    if not kind.endswith("List"):
        return kind == "Secret"
    members = items if isinstance(items, list) else []
    return kind == "SecretList" or any(
        isinstance(one, dict) and _confidential(one) for one in members
    )


def last_definitions(
    objects: Iterable[RawObject],
    place: Callable[[Origin | None], Origin | None] = lambda origin: origin,
) -> tuple[list[RawObject], list[Finding]]:
    """Keeps the last definition of each object, as ``kubectl apply`` does, and reports it.

    Args:
        objects: the definitions, in order.
        place: says where an object stands by now.
    """
    kept: dict[object, RawObject] = {}
    findings: list[Finding] = []
    for one in objects:
        first = kept.pop(one.definition, None)
        kept[one.definition] = one
        if first is not None:
            origins = place(first.origin), place(one.origin)
            findings.append(defined_twice(one.resource, *origins))
    return list(kept.values()), findings


def defined_twice(resource: str, first: Origin | None, last: Origin | None) -> Finding:
    """Returns the finding about an object that is defined once more."""
    where = f", before at {first.describe()}" if first else ""
    return Finding(
        "KGW301",
        Severity.WARNING,
        f"the object is defined more than once{where}",
        resource,
        ("metadata", "name"),
        hint="only this last definition is used; remove one of them",
        source=last,
    )


def _metadata(document: Mapping[str, Any]) -> Mapping[str, Any]:
    metadata = document.get("metadata")
    return metadata if isinstance(metadata, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
