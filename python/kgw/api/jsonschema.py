"""JSON Schema (draft 2020-12) of the kinds, for editors and validators of manifests.

A schema says what form an object has: names, types, legal values, and no field that is unknown, as
``kubectl`` checks with strict validation. It does not have the rules between fields, which ``kgw
check`` knows. What kgw does not support is allowed, because other implementations do, and marked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from kgw._native import schema as native
from kgw.api import descriptions
from kgw.api.kinds import HOMES, KINDS
from kgw.api.meta import Resource
from kgw.diagnostics import Severity

if TYPE_CHECKING:
    from pydantic_core import CoreSchema, core_schema

    from kgw.api.base import Model

__all__ = ["json_schema"]

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

_JSON = dict[str, Any]

_FOUND: Final = {Severity.ERROR: "an error", Severity.WARNING: "a warning", Severity.INFO: "a note"}

#: Bounds that pydantic does not translate, of what is a number or a text.
_BOUNDS: Final = {"ge": "minimum", "le": "maximum"}


def json_schema(kind: str | None = None) -> dict[str, Any]:
    """Returns the JSON Schema of a kind, or one that chooses by ``apiVersion`` and ``kind``.

    That one asks nothing of objects of other kinds but to be some, and goes into a ``List``.

    Args:
        kind: the kind, as in ``HTTPRoute``.

    Raises:
        ValueError: kgw does not read such a kind.
    """
    if kind is None:
        return _of_every_kind()
    found = [model for (_, name), model in KINDS.items() if name == kind]
    if not found:
        raise ValueError(f"no kind {kind!r} is read; there are: {', '.join(sorted(HOMES))}")
    definitions = _definitions(found)
    return {"$schema": DIALECT, **definitions.pop(kind), "$defs": definitions}


def _of_every_kind() -> _JSON:
    choices = [
        {
            "if": {
                "properties": {
                    "apiVersion": {"pattern": f"^{group}/".replace(".", r"\.")}
                    if group
                    else {"pattern": "^[^/]*$"},
                    "kind": {"const": kind},
                }
            },
            "then": {"$ref": f"#/$defs/{kind}"},
        }
        for group, kind in KINDS
    ]
    members = {
        "if": {"properties": {"kind": {"const": "List"}}},
        "then": {"properties": {"items": {"type": "array", "items": {"$ref": "#"}}}},
    }
    return {
        "$schema": DIALECT,
        "title": "Kubernetes objects that kgw reads",
        "type": "object",
        "required": ["apiVersion", "kind"],
        "properties": {
            "apiVersion": {"type": "string", "description": "The API group and version."},
            "kind": {"type": "string", "description": "What the object is."},
        },
        "allOf": [*choices, members],
        "$defs": _definitions(list(KINDS.values())),
    }


def _definitions(models: list[type[Resource]]) -> dict[str, _JSON]:
    """The schemas of kinds, and of their parts, by name."""
    _, schema = models_json_schema(
        [(model, "validation") for model in models], schema_generator=_Generator
    )
    definitions: dict[str, _JSON] = _bounded(schema["$defs"])
    return definitions


def _bounded(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_bounded(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        _BOUNDS.get(name, name) if isinstance(value, int) else name: _bounded(value)
        for name, value in schema.items()
    }


class _Generator(GenerateJsonSchema):
    """Makes schemas of manifests rather than of what Python may give to a model."""

    def model_schema(self, schema: core_schema.ModelSchema) -> _JSON:
        made = super().model_schema(schema)
        model: type[Model] = schema["cls"]
        made["description"] = descriptions.summary(model)
        made["additionalProperties"] = False
        properties: dict[str, _JSON] = made.setdefault("properties", {})
        meanings = descriptions.fields(model)
        demanded = _demanded(model) if issubclass(model, Resource) else set()
        if demanded:
            made["required"] = sorted(demanded.union(made.get("required", ())))
        for name, field in model.model_fields.items():
            alias = field.alias or name
            if not field.is_required() and alias not in demanded:
                properties[alias] = _nullable(properties[alias])
            if name in meanings:
                properties[alias]["description"] = meanings[name]
        for name in sorted(model.ignored - properties.keys()):
            properties[name] = {"description": "Has no meaning for a proxy."}
        for name, severity in model.unsupported.items():
            text = f"Not supported by this version of kgw: {_FOUND[severity]} of `kgw check`."
            properties.setdefault(name, {"description": text})
            properties[name] |= {"deprecated": True, "deprecationMessage": text}
        if issubclass(model, Resource):
            _identify(model, made)
        return made

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def bytes_schema(self, schema: core_schema.BytesSchema) -> _JSON:
        return {
            "type": "string",
            "contentEncoding": "base64",
            "pattern": "^[A-Za-z0-9+/=\r\n]*$",
        }

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> _JSON:
        made = super().default_schema(schema)
        # What is empty is as good as absent.
        return made if made.get("default") else {k: v for k, v in made.items() if k != "default"}

    def function_before_schema(self, schema: core_schema.BeforeValidatorFunctionSchema) -> _JSON:
        # What such a function accepts is in the type it is part of.
        return self.generate_inner(schema["schema"])

    def handle_invalid_for_json_schema(self, schema: CoreSchema, error_info: str) -> _JSON:
        raise TypeError(error_info)


def _demanded(model: type[Resource]) -> set[str]:
    """The fields that the definition of a kind demands, whatever its model has without them."""
    wrong = native.validate(model.group, model.__name__, model.versions[0], {}) or ()
    return {str(one.value) for one in wrong if one.kind == "required" and not one.path}


def _nullable(schema: _JSON) -> _JSON:
    """A field that may be ``null``, which is as good as absent."""
    if {"type": "null"} in schema.get("anyOf", ()) or not schema:
        return schema
    kept = {"default": schema.pop("default")} if "default" in schema else {}
    if isinstance(schema.get("type"), str) and "enum" not in schema and "const" not in schema:
        return schema | kept | {"type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}], **kept}


def _identify(model: type[Resource], schema: _JSON) -> None:
    """Says of a kind which objects are of it."""
    properties = schema["properties"]
    versions = [f"{model.group}/{one}".lstrip("/") for one in model.versions]
    for name, legal in (
        ("apiVersion", {"enum": versions}),
        ("kind", {"const": model.__name__}),
    ):
        properties[name] = {
            "type": "string",
            **legal,
            "description": properties[name]["description"],
        }
    schema["required"] = sorted({*schema.get("required", ()), "apiVersion", "kind"})
    schema["x-kubernetes-group-version-kind"] = [
        {"group": model.group, "version": one, "kind": model.__name__} for one in model.versions
    ]
