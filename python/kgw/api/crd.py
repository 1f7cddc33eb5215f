"""CustomResourceDefinitions of kgateway's kinds, made of the models: for clusters without kgateway.

They say what the models say of the form of an object. Kubernetes wants a *structural* schema, which
is less than JSON Schema: no references, and one type for each value. The rules between fields are
not in them; ``kgw check`` knows those, and a policy that breaks one is refused when it is read.
"""

from __future__ import annotations

from typing import Any, Final

from kgw.api.jsonschema import json_schema
from kgw.api.kinds import KGATEWAY_GROUP, KINDS

__all__ = ["definition", "plurals"]

_JSON = dict[str, Any]

_KEPT: Final = frozenset(
    {
        "description",
        "enum",
        "exclusiveMaximum",
        "exclusiveMinimum",
        "maxItems",
        "maxLength",
        "maxProperties",
        "maximum",
        "minItems",
        "minLength",
        "minProperties",
        "minimum",
        "pattern",
        "required",
        "type",
    }
)
"""What means the same in both, and needs no translation."""

_TYPES: Final = {bool: "boolean", int: "integer", str: "string"}


def plurals() -> dict[str, str]:
    """The kinds of kgateway, and what each is called in paths of an API server."""
    return {
        kind: f"{kind[:-1].lower()}ies" if kind.endswith("y") else f"{kind.lower()}s"
        for group, kind in KINDS
        if group == KGATEWAY_GROUP
    }


def definition(kind: str) -> dict[str, Any]:
    """Returns the CustomResourceDefinition of one of kgateway's kinds.

    Raises:
        ValueError: kgateway has no such kind that kgw reads.
    """
    if kind not in plurals():
        raise ValueError(f"no kind {kind!r} of {KGATEWAY_GROUP} is read")
    plural = plurals()[kind]
    found = json_schema(kind)
    spec = _structural(found["properties"]["spec"], found["$defs"], ())
    spec.pop("nullable", None)
    schema = {
        "type": "object",
        "description": found["description"],
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        },
    }
    metadata: _JSON = {"name": f"{plural}.{KGATEWAY_GROUP}"}
    if kind.endswith("Policy"):
        metadata["labels"] = {"gateway.networking.k8s.io/policy": "Direct"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": metadata,
        "spec": {
            "group": KGATEWAY_GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
                "categories": ["kgateway"],
            },
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": version == KINDS[KGATEWAY_GROUP, kind].versions[0],
                    "subresources": {"status": {}},
                    "schema": {"openAPIV3Schema": schema},
                }
                for version in KINDS[KGATEWAY_GROUP, kind].versions
            ],
        },
    }


def _structural(schema: _JSON, definitions: _JSON, above: tuple[str, ...]) -> _JSON:
    """A schema as Kubernetes wants it.

    Args:
        schema: the schema.
        definitions: what references in it lead to.
        above: the references that led here; one that is among them would never end.
    """
    made = {name: value for name, value in schema.items() if name in _KEPT}
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        if name in above:
            return made | {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        return _structural(definitions[name], definitions, (*above, name)) | made
    several: list[_JSON] = schema.get("anyOf") or schema.get("oneOf") or []
    choices = [one for one in several if one != {"type": "null"}]
    if len(choices) == 1:
        made = _structural(choices[0], definitions, above) | made
    elif choices:
        made |= _either(choices)
    if isinstance(made.get("type"), list):
        made["type"] = next(one for one in made["type"] if one != "null")
        made["nullable"] = True
    if len(choices) < len(several):
        made["nullable"] = True
    if "const" in schema:
        made["enum"] = [schema["const"]]
    if "enum" in made:
        made["type"] = _TYPES[type(made["enum"][0])]
    if "properties" in schema:
        made["properties"] = {
            name: _structural(one, definitions, above) for name, one in schema["properties"].items()
        }
    if "items" in schema:
        made["items"] = _structural(schema["items"], definitions, above)
    values = schema.get("additionalProperties")
    if isinstance(values, dict):
        made["additionalProperties"] = _structural(values, definitions, above)
    elif values is True and "properties" not in schema:
        made["x-kubernetes-preserve-unknown-fields"] = True
    if "type" not in made and "x-kubernetes-int-or-string" not in made:
        made["x-kubernetes-preserve-unknown-fields"] = True
    return made


def _either(choices: list[_JSON]) -> _JSON:
    """One of several types: Kubernetes knows one such case."""
    types = {one.get("type") for one in choices}
    if types == {"integer", "string"}:
        return {"x-kubernetes-int-or-string": True}
    return {"x-kubernetes-preserve-unknown-fields": True}
