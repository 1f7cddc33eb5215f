"""From a raw object to a resource and findings.

What an API server would refuse is an error and yields an :class:`~kgw.api.meta.Opaque` that says
so, or nothing where not even a name can be read. What it would prune (unknown fields) is a
warning, and what it would accept but this version cannot do is reported and kept as a defect of
the resource.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from kgw._native import schema
from kgw.api import admission
from kgw.api.base import TEXT, Model, shape, slim, without_nulls
from kgw.api.kinds import GATEWAY_GROUP, KGATEWAY_GROUP, KGW_GROUP, KINDS
from kgw.api.meta import ObjectMeta, Opaque, Resource
from kgw.api.names import LEGAL
from kgw.diagnostics import Finding, Severity, suggest
from kgw.source.memory import RawObject, last_definitions

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kgw.source.memory import FieldPath

#: Groups whose objects all configure a gateway: one of an unknown kind is worth a warning.
_OWN_GROUPS: Final = (GATEWAY_GROUP, KGATEWAY_GROUP, KGW_GROUP)

#: Kinds of these groups that exist but are spelled almost like one that is read.
_SIBLINGS: Final = frozenset({"GRPCRoute", "UDPRoute"})

#: Kinds that other projects have as well, such as Istio's Gateway and Knative's Service.
_COMMON: Final = frozenset({"ConfigMap", "Gateway", "Namespace", "Secret", "Service", "Test"})

#: The other kinds that another group has under the same name.
_NAMESAKES: Final = frozenset(
    {("networking.mesh.gloo.solo.io", "TrafficPolicy"), ("policy.linkerd.io", "HTTPRoute")}
)

#: How alike groups must be for one to be a slip for the other. ``networking.k8s.io`` and
#: ``gateway.networking.k8s.io`` are two groups, at 0.81.
_ALIKE: Final = 0.85


@dataclass(frozen=True, slots=True)
class Parsed:
    """The resources of a set of raw objects, and what was found on the way."""

    resources: tuple[Resource, ...]
    findings: tuple[Finding, ...]


def parse_all(raws: Iterable[RawObject]) -> Parsed:
    """Parses raw objects; of two definitions of one object the last is used and reported."""
    resources: list[Resource] = []
    kept, findings = last_definitions(raws)
    for raw in kept:
        resource, found = parse(raw)
        findings += found
        if resource is not None:
            resources.append(resource)
    return Parsed(tuple(resources), tuple(findings))


def parse(raw: RawObject) -> tuple[Resource | None, list[Finding]]:
    """Parses one raw object.

    Returns:
        The resource, an ``Opaque`` for an unknown kind or a refused object, or ``None`` if the
        object has no kind or name; and the findings.
    """
    value = raw.object
    api_version, kind = value.get("apiVersion"), value.get("kind")
    if not isinstance(api_version, str) or not isinstance(kind, str):
        return None, [
            Finding(
                "KGW201",
                Severity.ERROR,
                "the document is not an object with `apiVersion` and `kind`",
                source=raw.origin,
            )
        ]
    metadata = value.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(name, str) or not name:
        path: FieldPath = ("metadata", "name") if isinstance(metadata, dict) else ()
        if isinstance(name, bool | int | float):
            what = "a boolean" if isinstance(name, bool) else "a number"
            written = _written(raw, path) or _shown(name).strip("`")
            return None, [
                Finding(
                    "KGW205",
                    Severity.ERROR,
                    f"the name `{written}` is {what} here, not a string",
                    kind,
                    path,
                    legal="a string",
                    hint=f'put quotes around it: `name: "{written}"`',
                    source=raw.origin,
                )
            ]
        return None, [
            Finding(
                "KGW202", Severity.ERROR, "the object has no name", kind, path, source=raw.origin
            )
        ]
    reader = _Reader(raw)
    group, _, version = api_version.rpartition("/")
    model = KINDS.get((group, kind))
    resource: Resource | None
    versions = admission.served(group, kind) if model is None else model.versions
    if versions is not None and version not in versions:
        resource = reader.opaque(value, refused=True)
        reader.report(
            "KGW210",
            Severity.ERROR,
            f"version `{version}` of {kind} is not read",
            ("apiVersion",),
            legal=", ".join(f"{group}/{one}".lstrip("/") for one in versions),
        )
    elif model is None:
        wrong = reader.violations((group, kind, version), value) if versions is not None else []
        resource = reader.opaque(value, refused=any(one.kind != "unknown" for one in wrong))
        reader.findings = admission.merged(reader.findings, wrong, raw.origin)
        reader.unknown_kind(group, kind, version)
    else:
        resource = reader.known(model, (group, kind, version), value)
    return resource, reader.finish(resource)


def examine(resource: Resource) -> Resource | None:
    """Finds out what is to be said about an object made in Python, as for one that was read.

    Returns:
        The object itself, which has its findings from then on; or what `parse` makes of one that
        an API server would refuse, as there is after ``model_construct`` or ``model_copy``.
    """
    if resource.findings is not None:
        return resource
    parsed, found = parse(RawObject(resource.to_dict(secrets=True)))
    resource._findings = tuple(found)
    if parsed is None or (isinstance(parsed, Opaque) and not isinstance(resource, Opaque)):
        return parsed
    resource._defects = parsed.defects
    return resource


class _Reader:
    """Collects the findings of one object."""

    def __init__(self, raw: RawObject) -> None:
        self.origin = raw.origin
        self.raw = raw
        self.confidential = False
        self.findings: list[Finding] = []

    def report(
        self, code: str, severity: Severity, message: str, path: FieldPath, **more: Any
    ) -> None:
        self.findings.append(
            Finding(code, severity, message, None, path, source=self.origin, **more)
        )

    def finish(self, resource: Resource | None) -> list[Finding]:
        """Names the resource in the findings, and gives it its defects."""
        if resource is None:
            return [replace(one, resource=self.raw.resource) for one in self.findings]
        found: list[Finding] = []
        if self.findings:
            name = str(resource.key)
            found = [replace(one, resource=name) for one in self.findings]
        resource._origin = self.origin
        # Objects made in Python may be changed by who made them.
        if self.origin is not None or isinstance(resource, Opaque):
            resource._written = self.raw
        resource._findings = tuple(found)
        resource._defects = tuple(one for one in found if one.severity is Severity.ERROR)
        return found

    def unknown_kind(self, group: str, kind: str, version: str) -> None:
        meant = _meant(group, kind)
        if meant is None:
            self.report(
                "KGW209",
                Severity.WARNING if group in _OWN_GROUPS else Severity.INFO,
                f"kind `{kind}` of group `{group}` is not read; "
                "the object is kept and has no effect",
                ("kind",),
            )
            return
        owner, name = meant
        what = [f"kind `{kind}`"] if name != kind else []
        of = f"group `{group}`" if group else "the core group"
        what += [of] if owner != group else []
        right = [f"`kind: {name}`"] if name != kind else []
        if owner != group:
            served = KINDS[meant].versions if meant in KINDS else (version,)
            used = version if version in served else served[0]
            right.append(f"`apiVersion: {f'{owner}/{used}'.lstrip('/')}`")
        self.report(
            "KGW211",
            Severity.ERROR,
            f"no {' of '.join(what)} is known" if name != kind else f"kind `{kind}` is not of {of}",
            ("kind",) if name != kind else ("apiVersion",),
            hint=f"did you mean {' and '.join(right)}?",
        )

    def opaque(self, value: dict[str, Any], *, refused: bool = False) -> Opaque | None:
        """Keeps an object that has no model, if at least its metadata can be read."""
        try:
            metadata = ObjectMeta.model_validate(value["metadata"], by_alias=True, by_name=False)
        except ValidationError as error:
            for one in error.errors(include_url=False):
                self.invalid(one, ("metadata",), ObjectMeta)
            if not refused:
                return None
            # What the object is about still counts: a policy closes its targets.
            metadata = ObjectMeta.model_construct(
                name=value["metadata"]["name"],
                namespace=self.raw.identity[2] or None,
                labels={},
                annotations={},
            )
        return Opaque(
            api_version=value["apiVersion"],
            kind=value["kind"],
            metadata=metadata,
            refused=refused,
            scope=self.raw.identity[2],
            spec=value.get("spec"),
        )

    def violations(
        self, definition: tuple[str, str, str], value: dict[str, Any]
    ) -> list[schema.Violation]:
        """What an API server would refuse about the object; what is known to be nothing is not."""
        return [] if self.raw.sound else admission.violations(*definition, value)

    def known(
        self, model: type[Resource], definition: tuple[str, str, str], value: dict[str, Any]
    ) -> Resource | None:
        """Parses an object of a known kind, which *definition* names by group, kind and version."""
        self.confidential = model.confidential
        # What a definition does not know, the model may.
        wrong = [one for one in self.violations(definition, value) if one.kind != "unknown"]
        nulls = not schema.is_plain(_plain_fields(model), value) and self.walk(model, value, ())
        try:
            resource = model.model_validate(
                without_nulls(model, value) if nulls else value,
                by_alias=True,
                by_name=False,
                context=None if self.origin is None else TEXT,
            )
            if not wrong:
                slim(resource)
                for remark in resource.remarks():
                    self.report(*remark[:4], legal=remark.legal, hint=remark.hint)
                return resource
        except ValidationError as error:
            errors = error.errors(include_url=False)
            places = [one["loc"] for one in errors]
            for one in errors:
                # A list whose items are wrong is also "too short" for pydantic.
                place = one["loc"]
                inner = any(len(p) > len(place) and p[: len(place)] == place for p in places)
                if not (inner and one["type"] == "too_short"):
                    self.invalid(one, (), model)
        self.findings = admission.merged(self.findings, wrong, self.origin)
        before = len(self.findings)
        kept = self.opaque(value, refused=True)
        del self.findings[before:]
        return kept

    def walk(self, model: type[Model], value: Any, path: FieldPath) -> bool:
        """Reports unknown and unsupported fields; returns whether there are nulls."""
        if not isinstance(value, dict):
            return False
        fields = shape(model)
        nulls = False
        for key, item in value.items():
            if item is None:
                nulls = True
            elif key in fields:
                nested = fields[key]
                if key in model.unsupported:
                    self.unsupported(model, key, path)
                elif nested is None:
                    continue
                elif isinstance(item, list):
                    for index, one in enumerate(item):
                        nulls |= self.walk(nested, one, (*path, key, index))
                else:
                    nulls |= self.walk(nested, item, (*path, key))
            elif key in model.unsupported:
                self.unsupported(model, key, path)
            elif key not in model.ignored:
                near = suggest(str(key), [*fields, *model.unsupported, *model.ignored])
                self.report(
                    "KGW203",
                    Severity.WARNING,
                    f"unknown field `{key}`",
                    (*path, key),
                    hint=f"did you mean `{near}`?" if near else None,
                    key=True,
                )
        return nulls

    def unsupported(self, model: type[Model], key: str, path: FieldPath) -> None:
        self.report(
            "KGW501",
            model.unsupported[key],
            f"`{key}` is not supported by this version of kgw",
            (*path, key),
            key=True,
        )

    def invalid(self, error: Any, prefix: FieldPath, model: type[Model]) -> None:
        """Turns an error of pydantic into a finding."""
        if error["loc"][-1:] == ("[key]",):
            before = len(self.findings)
            self.invalid({**error, "loc": error["loc"][:-1]}, prefix, model)
            self.findings[before:] = [replace(one, key=True) for one in self.findings[before:]]
            return
        path = (*prefix, *error["loc"])
        context = error.get("ctx", {})
        if self.confidential:
            error = {**error, "input": _HIDDEN}
        match error["type"]:
            case "missing":
                required = [
                    name
                    for name, field in _model_at(model, error["loc"][:-1])
                    if field.is_required()
                ]
                self.report(
                    "KGW204",
                    Severity.ERROR,
                    f"required field `{path[-1]}` is missing",
                    path[:-1],
                    legal="required here: " + ", ".join(required) if required else None,
                )
            case "literal_error":
                expected = str(context["expected"]).replace("'", "")
                given = error["input"]
                near = (
                    suggest(given, expected.replace(" or ", ", ").split(", "))
                    if isinstance(given, str)
                    else None
                )
                self.report(
                    "KGW206",
                    Severity.ERROR,
                    f"{_shown(given)} is not a legal value",
                    path,
                    legal=expected,
                    hint=f"did you mean `{near}`?" if near else None,
                )
            case "string_pattern_mismatch":
                self.report(
                    "KGW207",
                    Severity.ERROR,
                    f"{_shown(error['input'])} does not have the required form",
                    path,
                    legal=LEGAL.get(context["pattern"], f"a string like {context['pattern']}"),
                )
            case "base64":
                self.report(
                    "KGW207", Severity.ERROR, "the value is not base64", path, legal=error["msg"]
                )
            case "cidr" | "duration" | "quantity":
                self.report("KGW207", Severity.ERROR, error["msg"], path, legal=context["legal"])
            case "contradiction":
                place = (*path, *context["path"])
                self.report("KGW208", Severity.ERROR, context["message"], place)
            case "value_error":
                self.report("KGW208", Severity.ERROR, str(context["error"]), path)
            case kind if kind.endswith("_type") or kind == "int_from_float" or "parsing" in kind:
                self.report(
                    "KGW205",
                    Severity.ERROR,
                    f"{_shown(error['input'])} has the wrong type",
                    path,
                    legal=_expectation(error["msg"]),
                    hint=_quoting(kind, error["input"]),
                )
            case _:
                self.report(
                    "KGW207",
                    Severity.ERROR,
                    f"{_shown(error['input'])} is out of bounds",
                    path,
                    legal=_expectation(error["msg"]),
                )


def _plain_fields(model: type[Model]) -> dict[str, Any]:
    """The fields of a model that there is nothing to say about, for `schema.is_plain`.

    In an object that has no others, as in most, `_Reader.walk` finds nothing.
    """
    found = _PLAIN.get(model)
    if found is None:
        # A model may be a part of itself.
        found = _PLAIN[model] = {}
        for key, nested in shape(model).items():
            if key not in model.unsupported:
                found[key] = None if nested is None else _plain_fields(nested)
    return found


_PLAIN: Final[dict[type[Model], dict[str, Any]]] = {}


def _meant(group: str, kind: str) -> tuple[str, str] | None:
    """Group and kind that are probably meant by ones that are not known; ``None`` for others'.

    What is left out in silence takes a limit or a route with it, so a slip must not pass as an
    object that is somebody else's.
    """
    owners = {owner for owner, _ in KINDS}
    near = group if group in owners else suggest(group, owners - {""}, cutoff=_ALIKE)
    if near is not None and kind not in _SIBLINGS:
        names = [name for owner, name in KINDS if owner == near]
        if kind in names:
            return (near, kind)
        if (name := suggest(kind, names)) is not None:
            return (near, name)
    owner = next((owner for owner, name in KINDS if name == kind), None)
    kubernetes = "." not in group or group.endswith(".k8s.io")
    if (
        owner is not None
        and (kubernetes or kind not in _COMMON)
        and (group, kind) not in _NAMESAKES
    ):
        return (owner, kind)
    return (near, kind) if near is not None and near != group else None


def _model_at(model: type[Model], path: FieldPath) -> Iterator[tuple[str, Any]]:
    """The fields, by alias, of the model at a path."""
    current: type[Model] | None = model
    for step in path:
        if isinstance(step, str) and current is not None:
            current = shape(current).get(step)
    if current is not None:
        for name, field in current.model_fields.items():
            yield field.alias or name, field


def _written(raw: RawObject, path: FieldPath) -> str | None:
    """A plain value as its file writes it, as in ``on`` for true."""
    place = raw.origin.locate(path) if raw.origin else None
    line = raw.origin.line(place.line) if raw.origin and place else None
    return None if line is None or place is None else line[place.column - 1 : place.end_column - 1]


def _shown(value: Any) -> str:
    if value is _HIDDEN:
        return "the value"
    text = _WORDS.get(value, repr(value)) if isinstance(value, bool | None) else repr(value)
    return f"`{text if len(text) <= 60 else text[:57] + '...'}`"


def _quoting(kind: str, value: Any) -> str | None:
    """How to write a text that YAML reads as something else: ``n`` and ``on`` are booleans."""
    if kind != "string_type" or not isinstance(value, bool | int | float):
        return None
    what = "a boolean" if isinstance(value, bool) else "a number"
    return f"without quotes it is {what}; put quotes around it"


#: Stands for a value that may not be shown.
_HIDDEN: Final = object()

_WORDS: Final = {True: "true", False: "false", None: "null"}


def _expectation(message: str) -> str:
    """``a string`` from ``Input should be a valid string``, in the words of YAML."""
    for python, yaml in (("tuple", "list"), ("Tuple", "List"), ("dictionary", "mapping")):
        message = message.replace(python, yaml)
    message = message.removesuffix(" or instance of " + message.rpartition(" ")[2])
    for prefix in ("Input should be a valid ", "Input should be ", "Input should "):
        if message.startswith(prefix):
            rest = message.removeprefix(prefix)
            article = "an" if rest[0] in "aeiou" else "a"
            return f"{article} {rest}" if prefix.endswith("valid ") else rest
    return message
