"""deploy/crds says of the kinds what the models say, in the way Kubernetes wants it."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from tests.api.test_json_schema import FORM, manifests
from tests.kgateway.crds import FOLDER, files
from tests.kgateway.fields import accepts, since

from kgw import api
from kgw.api import Opaque
from kgw.api.crd import definition, plurals
from kgw.api.kinds import KGATEWAY_GROUP

if TYPE_CHECKING:
    from collections.abc import Iterator


@cache
def schema(kind: str) -> dict[str, Any]:
    (path,) = FOLDER.glob(f"*_{plurals()[kind]}.yaml")
    read = yaml.safe_load(path.read_text(encoding="utf-8"))
    (version,) = read["spec"]["versions"]
    found: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    return found


def nodes(one: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, one
    for name, part in one.get("properties", {}).items():
        yield from nodes(part, f"{path}.{name}".lstrip("."))
    for name in ("items", "additionalProperties"):
        if name in one:
            yield from nodes(one[name], path)


def closed(one: dict[str, Any]) -> dict[str, Any]:
    """The schema as a JSON Schema, as strict validation of an API server has it."""
    made = {name: value for name, value in one.items() if not name.startswith("x-")}
    if made.pop("nullable", False) and "type" in made:
        made["type"] = [made["type"], "null"]
        if "enum" in made:
            made["enum"] = [*made["enum"], None]
    if "properties" in made:
        made["properties"] = {name: closed(part) for name, part in one["properties"].items()}
        made["additionalProperties"] = "x-kubernetes-preserve-unknown-fields" in one
    for name in ("items", "additionalProperties"):
        if name in one:
            made[name] = closed(one[name])
    return made


def test_the_files_are_current() -> None:
    written = {path: path.read_text(encoding="utf-8") for path in FOLDER.iterdir()}
    assert written == files(), "`make deploy-crds` writes them"


@pytest.mark.parametrize("kind", sorted(plurals()))
def test_the_schema_is_structural(kind: str) -> None:
    for path, one in nodes(schema(kind)):
        if "x-kubernetes-int-or-string" in one or "x-kubernetes-preserve-unknown-fields" in one:
            continue
        assert one["type"] in {"array", "boolean", "integer", "number", "object", "string"}, path
        assert ("items" in one) == (one["type"] == "array"), path
        assert not {"anyOf", "oneOf", "allOf", "$ref", "const", "default"} & one.keys(), path
        assert not ("properties" in one and "additionalProperties" in one), path
        # Go's regular expressions cannot look ahead or behind.
        assert "(?=" not in (pattern := one.get("pattern", "")), path
        assert "(?!" not in pattern, path
        assert "(?<" not in pattern, path


@pytest.mark.parametrize("kind", sorted(plurals()))
def test_every_field_that_is_accepted_is_in_it(kind: str) -> None:
    known = {path for path, _ in nodes(schema(kind))}
    accepted = {
        field.partition(".")[2]
        for field in since()
        if field.partition(".")[0] == kind and accepts(field)
    }
    opened = [
        path for path, one in nodes(schema(kind)) if "x-kubernetes-preserve-unknown-fields" in one
    ]
    missing = {
        one for one in accepted - known if not any(one.startswith(f"{path}.") for path in opened)
    }
    assert missing == set()


def test_what_kgw_accepts_is_stored() -> None:
    seen = 0
    for raw in manifests():
        if raw.group != KGATEWAY_GROUP or raw.kind not in plurals():
            continue
        resource, findings = api.parse(raw)
        if isinstance(resource, Opaque | None) or {one.code for one in findings} & FORM:
            continue
        validator = Draft202012Validator(closed(schema(raw.kind)))
        value = {"spec": raw.object.get("spec", {})}
        assert [one.message for one in validator.iter_errors(value)] == [], raw.object
        seen += 1
    assert seen > 30


def test_an_unknown_kind_has_no_definition() -> None:
    with pytest.raises(ValueError, match="no kind 'Gateway'"):
        definition("Gateway")
