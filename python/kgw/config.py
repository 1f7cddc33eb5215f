"""A configuration: resources, what they come to, and everything that is wrong with them.

    config = kgw.load("manifests/")
    config.raise_for_errors()

A resource that is wrong never removes another: what can be served is in `Config.ir`, and what
cannot is in `Config.findings`. Whether errors are a reason to stop is up to the caller.
"""

from __future__ import annotations

import json
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from kgw import api, diagnostics, source
from kgw.diagnostics import Finding, Severity
from kgw.errors import ConfigError
from kgw.source import Files, Loaded
from kgw.source.memory import defined_twice
from kgw.translate import Options, Translation, translate

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Mapping

    from kgw.api import Resource
    from kgw.attach import Status
    from kgw.source import RawObject
    from kgw.source.files import Paths

__all__ = ["Config", "Manifests", "load", "watch"]


@dataclass(frozen=True)
class Config:
    """What the engine is to run, and where it came from."""

    resources: tuple[Resource, ...]
    """Every resource, also those that have no effect."""
    translation: Translation
    """What they come to: the representation for the engine, and the status of each."""
    findings: tuple[Finding, ...]
    """Everything that is wrong or worth knowing, in reading order."""
    files: tuple[str, ...] = field(default=())
    """The files that were read."""

    @classmethod
    def from_objects(
        cls, objects: Iterable[Mapping[str, Any] | Resource], *, options: Options | None = None
    ) -> Config:
        """Makes a configuration of objects: mappings as in a manifest, or models of `kgw.api`.

        Of several definitions of one object the last is used.
        """
        resources: list[Resource] = []
        findings: list[Finding] = []
        for one in objects:
            if isinstance(one, api.Resource):
                resources.append(one)
                continue
            loaded = source.from_objects([one])
            findings += loaded.findings
            for raw in loaded.objects:
                resource, found = api.parse(raw)
                findings += found
                if resource is not None:
                    resources.append(resource)
        kept: dict[api.ResourceKey, Resource] = {}
        for resource in resources:
            first = kept.pop(resource.key, None)
            if first is not None:
                findings.append(defined_twice(str(resource.key), first.origin, resource.origin))
            kept[resource.key] = resource
        return cls._make(tuple(kept.values()), findings, (), options)

    @classmethod
    def from_loaded(cls, loaded: Loaded, *, options: Options | None = None) -> Config:
        """Makes a configuration of what a source holds."""
        return _Parser().config(loaded, options)

    @classmethod
    def _make(
        cls,
        resources: tuple[Resource, ...],
        findings: Iterable[Finding],
        files: tuple[str, ...],
        options: Options | None,
    ) -> Config:
        translation = translate(resources, options)
        every = diagnostics.sort([*findings, *translation.findings])
        return cls(resources, translation, tuple(every), files)

    @property
    def ir(self) -> dict[str, Any]:
        """The representation that the engine runs, as JSON data; `docs/ir.md` describes it."""
        return self.translation.ir

    @cached_property
    def ir_bytes(self) -> bytes:
        """The representation as JSON; equal resources give equal bytes."""
        return json.dumps(self.ir, separators=(",", ":"), ensure_ascii=False).encode()

    @property
    def statuses(self) -> dict[api.ResourceKey, Status]:
        """The status of every resource that has one."""
        return self.translation.statuses

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that keep something from working as written."""
        return tuple(one for one in self.findings if one.severity is Severity.ERROR)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The findings about what works, but probably not as meant."""
        return tuple(one for one in self.findings if one.severity is Severity.WARNING)

    def raise_for_errors(self) -> None:
        """Raises if there are errors.

        Raises:
            ConfigError: with all errors as its text, and the attributes of the first.
        """
        if not self.errors:
            return
        first = self.errors[0]
        raise ConfigError(
            diagnostics.render_all(self.errors),
            resource=first.resource,
            path=first.field or None,
            code=first.code,
        )


def load(paths: Paths | Iterable[Paths], *, options: Options | None = None) -> Config:
    """Loads a configuration from a path or several: files, directories, ``-`` for standard input.

    Of a directory every ``.yaml``, ``.yml`` and ``.json`` file in it is read, as ``kubectl -f``
    does. Never raises for what is in them; see `Config.findings` and `Config.raise_for_errors`.
    """
    return Config.from_loaded(source.load(paths), options=options)


async def watch(
    paths: Paths | Iterable[Paths], *, options: Options | None = None
) -> AsyncGenerator[Config, None]:
    """Yields the configuration as it is, and again whenever the content of the files changes.

    A change is noticed in about 20 ms; only files and objects that changed are parsed again. What
    is wrong after a change is in the findings, and the caller decides whether to keep the last.
    """
    async with aclosing(Manifests(paths, options=options).changes()) as changes:
        async for config in changes:
            yield config


class Manifests:
    """Files and the configuration that is in them, read once and followed from there.

    What `load` gives needs no event loop, so a program can serve before it has one.
    """

    def __init__(self, paths: Paths | Iterable[Paths], *, options: Options | None = None) -> None:
        self._files = Files(paths)
        self._options = options
        self._parser = _Parser()
        self._loaded = Loaded([])

    def load(self) -> Config:
        """Returns the configuration as it is; see the function `load`."""
        self._loaded = self._files.load()
        return self._parser.config(self._loaded, self._options)

    async def changes(self) -> AsyncGenerator[Config, None]:
        """Yields the configuration whenever it is another than the last, or than that of `load`.

        See `watch`.
        """
        from anyio import to_thread

        async with aclosing(source.watch(self._files, since=self._loaded)) as changes:
            async for loaded in changes:
                self._loaded = loaded
                yield await to_thread.run_sync(self._parser.config, loaded, self._options)


class _Parser:
    """Parses raw objects, each only once."""

    def __init__(self) -> None:
        # By the identity of the raw object, which is kept here so that it stays unique.
        self._parsed: dict[int, tuple[RawObject, Resource | None, list[Finding]]] = {}

    def config(self, loaded: Loaded, options: Options | None) -> Config:
        before, self._parsed = self._parsed, {}
        findings = list(loaded.findings)
        resources: list[Resource] = []
        for raw in loaded.objects:
            parsed = before.get(id(raw)) or (raw, *api.parse(raw))
            self._parsed[id(raw)] = parsed
            _, resource, found = parsed
            findings += found
            if resource is not None:
                resources.append(resource)
        return Config._make(tuple(resources), findings, loaded.files, options)
