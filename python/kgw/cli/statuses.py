"""The statuses of all objects as YAML: printed, or in a file that follows the configuration.

Each is a document as an API server has it: what names the object, and its ``status``.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kgw.api import Resource, ResourceKey
    from kgw.config import Config

_FIRST_LINE: Final = "# Written by kgw: the statuses of what it serves."
"""By this a file of statuses is known: no other is overwritten."""

_MANIFESTS: Final = frozenset({".json", ".yaml", ".yml"})


def objects(config: Config) -> list[dict[str, Any]]:
    """Returns the status of every object that has one, beside what names the object."""
    versions = {one.key: one for one in config.resources}
    return [
        _object(key, versions.get(key), status.to_json()) for key, status in config.statuses.items()
    ]


def _object(
    key: ResourceKey, resource: Resource | None, status: Mapping[str, Any]
) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": key.name}
    if key.namespace:
        metadata["namespace"] = key.namespace
    version = f"{key.group}/v1"
    if resource is not None:
        version = resource.api_version
        metadata["generation"] = resource.metadata.generation
    return {"apiVersion": version, "kind": key.kind, "metadata": metadata, "status": status}


class NotStatuses(Exception):
    """A file is not one that `StatusFile` may write; the text says why."""


class StatusFile:
    """A file of statuses: written as a whole, and only if something in it changes.

    Args:
        path: the file.
        manifests: what is read as manifests: the file must not be among it.

    Raises:
        NotStatuses: it holds something else, cannot be read, or is read as a manifest.
    """

    def __init__(self, path: str, manifests: Iterable[str]) -> None:
        self._path = Path(path)
        self._present: dict[tuple[str, str, str], dict[str, Any]] = {}
        where = self._path.resolve()
        for one in manifests:
            directory = Path(one).resolve()
            if where == directory or (
                where.parent == directory and where.suffix.lower() in _MANIFESTS
            ):
                raise NotStatuses(f"{path} would be read as a manifest: it is in {one}")
        try:
            self._read()
        except FileNotFoundError:
            pass
        except (OSError, UnicodeDecodeError) as error:
            raise NotStatuses(f"{path} cannot be read: {error}") from None

    @property
    def addresses(self) -> dict[tuple[str, str], list[str]]:
        """The addresses that Gateways had, by namespace and name."""
        return {
            (namespace, name): [
                one["value"] for one in status.get("addresses", ()) if one.get("value")
            ]
            for (kind, namespace, name), status in self._present.items()
            if kind == "Gateway"
        }

    def write(self, config: Config) -> bool:
        """Writes the statuses of a configuration; returns whether there was anything to write.

        Raises:
            OSError: the file cannot be written.
        """
        from kgw.api.yaml import documents
        from kgw.attach.publishing import update

        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        resources = {one.key: one for one in config.resources}
        after: dict[tuple[str, str, str], dict[str, Any]] = {}
        found = []
        for key, wanted in config.statuses.items():
            name = (key.kind, key.namespace, key.name)
            present = self._present.get(name)
            after[name] = update(present, wanted, now) or present or {}
            found.append(_object(key, resources.get(key), after[name]))
        text = f"{_FIRST_LINE}\n{documents(found)}"
        with suppress(FileNotFoundError):
            if self._path.read_text(encoding="utf-8") == text:
                self._present = after
                return False
        self._replace(text)
        self._present = after
        return True

    def _read(self) -> None:
        from kgw.source import parse_text

        text = self._path.read_text(encoding="utf-8")
        if text and not text.startswith(_FIRST_LINE):
            raise NotStatuses(f"{self._path} holds something else: nothing is overwritten")
        for one in parse_text(text, str(self._path))[0]:
            status = one.object.get("status")
            metadata = one.object.get("metadata")
            if isinstance(status, dict) and isinstance(metadata, dict):
                name = (one.kind, str(metadata.get("namespace", "")), one.name)
                self._present[name] = status

    def _replace(self, text: str) -> None:
        """Puts a whole file in the place of the old one: a reader sees one or the other."""
        # As other files are made, and not for this user alone.
        mask = os.umask(0)
        os.umask(mask)
        handle, made = tempfile.mkstemp(prefix=f".{self._path.name}.", dir=self._path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                os.fchmod(file.fileno(), 0o666 & ~mask)
            os.replace(made, self._path)
        except BaseException:
            with suppress(OSError):
                os.unlink(made)
            raise
