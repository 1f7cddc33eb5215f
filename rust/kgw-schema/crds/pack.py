"""Packs CustomResourceDefinitions into the form that kgw-schema reads, one line for each kind.

    python rust/kgw-schema/crds/pack.py gateway-api CHECKOUT/config/crd

The directory has the definitions themselves, or a directory for each channel: `standard` and
`experimental`, as the Gateway API's repository has them. The result is written beside this file.

What no validation reads is left out (descriptions above all, and the schema of the metadata), and
what is the same in several places is there once: `schemas` is a list, and `{"$": 3}` stands for
its fourth member.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Final

import yaml

#: What a schema may say that does not decide whether an object is valid.
_SILENT: Final = frozenset(
    {"description", "example", "externalDocs", "title", "x-kubernetes-map-type"}
)

#: Members of a schema whose own members are schemas by name, are a schema, or are several.
_BY_NAME: Final = ("properties",)
_ONE: Final = ("additionalProperties", "items", "not")
_SEVERAL: Final = ("allOf", "anyOf", "oneOf")

#: A reference costs about as much as a schema of this many characters.
_WORTH_SHARING: Final = 24


def main() -> None:
    """Packs what the arguments name."""
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    bundle, folder = sys.argv[1], Path(sys.argv[2])
    channels = {
        channel: definitions(folder / channel)
        for channel in ("standard", "experimental")
        if (folder / channel).is_dir()
    } or {"standard": definitions(folder)}
    lines = [
        packed({channel: kinds[key] for channel, kinds in channels.items() if key in kinds})
        for key in sorted({key for kinds in channels.values() for key in kinds})
    ]
    if not lines:
        sys.exit(f"there is no CustomResourceDefinition in {folder}")
    target = Path(__file__).with_name(f"{bundle}.jsonl")
    target.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    sys.stdout.write(f"{target}: {len(lines)} kinds, {target.stat().st_size} bytes\n")


def definitions(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """The definitions in the files of a directory, by group and kind."""
    found = {}
    for file in sorted(folder.glob("*.y*ml")):
        for document in yaml.safe_load_all(file.read_text(encoding="utf-8")):
            if document and document.get("kind") == "CustomResourceDefinition":
                spec = document["spec"]
                found[spec["group"], spec["names"]["kind"]] = document
    return found


def packed(channels: dict[str, dict[str, Any]]) -> str:
    """One kind as a line."""
    schemas: list[Any] = []
    pool = _Pool()
    whole: dict[str, Any] = {}
    for channel, definition in channels.items():
        spec = definition["spec"]
        annotations = definition["metadata"].get("annotations", {})
        whole |= {
            "group": spec["group"],
            "kind": spec["names"]["kind"],
            "namespaced": spec["scope"] == "Namespaced",
            "release": annotations.get("gateway.networking.k8s.io/bundle-version", ""),
        }
        versions = []
        for version in spec["versions"]:
            if version["served"]:
                schema = stripped(version["schema"]["openAPIV3Schema"])
                # An API server validates the metadata of every kind in the same way.
                schema["properties"].pop("metadata", None)
                pool.count(schema)
                versions.append(
                    {
                        "name": version["name"],
                        "status": "status" in version.get("subresources", {}),
                        "schema": schema,
                    }
                )
        whole.setdefault("channels", {})[channel] = versions
    for versions in whole["channels"].values():
        for version in versions:
            version["schema"] = pool.put(version["schema"], schemas)
    whole["schemas"] = schemas
    return json.dumps(whole, separators=(",", ":"), ensure_ascii=False)


def stripped(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema without what decides nothing."""
    kept = {key: value for key, value in schema.items() if key not in _SILENT}
    for key in _BY_NAME:
        if key in kept:
            kept[key] = {name: stripped(one) for name, one in kept[key].items()}
    for key in _ONE:
        if isinstance(kept.get(key), dict):
            kept[key] = stripped(kept[key])
    for key in _SEVERAL:
        if key in kept:
            kept[key] = [stripped(one) for one in kept[key]]
    return kept


class _Pool:
    """Finds schemas that are in several places."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()
        self._places: dict[str, int] = {}

    def count(self, schema: dict[str, Any]) -> None:
        """Counts a schema and those in it; those inside one that is known are known."""
        text = json.dumps(schema, sort_keys=True)
        self._seen[text] += 1
        if self._seen[text] == 1:
            for one in _children(schema):
                self.count(one)

    def put(self, schema: dict[str, Any], schemas: list[Any]) -> dict[str, Any]:
        """The schema with references to what is in several places, which is put into *schemas*."""
        text = json.dumps(schema, sort_keys=True)
        if text in self._places:
            return {"$": self._places[text]}
        whole = dict(schema)
        for key in _BY_NAME:
            if key in whole:
                whole[key] = {name: self.put(one, schemas) for name, one in whole[key].items()}
        for key in _ONE:
            if isinstance(whole.get(key), dict):
                whole[key] = self.put(whole[key], schemas)
        for key in _SEVERAL:
            if key in whole:
                whole[key] = [self.put(one, schemas) for one in whole[key]]
        if self._seen[text] < 2 or len(text) < _WORTH_SHARING:
            return whole
        self._places[text] = len(schemas)
        schemas.append(whole)
        return {"$": self._places[text]}


def _children(schema: dict[str, Any]) -> list[dict[str, Any]]:
    children = [one for key in _BY_NAME for one in schema.get(key, {}).values()]
    children += [schema[key] for key in _ONE if isinstance(schema.get(key), dict)]
    children += [one for key in _SEVERAL for one in schema.get(key, [])]
    return children


if __name__ == "__main__":
    main()
