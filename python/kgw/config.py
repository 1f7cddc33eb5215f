"""A configuration: resources, what they come to, and everything that is wrong with them.

    config = kgw.load("manifests/")
    config.raise_for_errors()

A resource that is wrong never removes another: what can be served is in `Config.ir`, and what
cannot is in `Config.findings`. Whether errors are a reason to stop is up to the caller.
"""

from __future__ import annotations

import gc
from collections import Counter
from contextlib import aclosing, contextmanager
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any

from kgw import api, diagnostics, source
from kgw.diagnostics import Finding, Severity
from kgw.errors import ConfigError
from kgw.source import Files, Loaded
from kgw.source.memory import defined_twice
from kgw.source.sequences import exchanged, part
from kgw.translate import Options, Translation, Translator
from kgw.translate.encoding import encoded

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping

    from kgw.api import Resource
    from kgw.attach import Status
    from kgw.source import RawObject
    from kgw.source.files import Paths

__all__ = ["Config", "Manifests", "Session", "load", "watch"]


class Config:
    """What the engine is to run, and where it came from.

    What follows from the resources is put together when it is asked for, and stays as it is then.
    """

    def __init__(
        self,
        resources: tuple[Resource, ...],
        translation: Translation,
        findings: Iterable[Finding] = (),
        files: tuple[str, ...] = (),
        place: Callable[[Finding], Finding] | None = None,
    ) -> None:
        self.resources = resources
        """Every resource, also those that have no effect."""
        self.translation = translation
        """What they come to: the representation for the engine, and the status of each."""
        self.files = files
        """The files that were read."""
        self._own_findings = tuple(findings)
        self._place = place

    def __repr__(self) -> str:
        return f"<kgw.Config of {len(self.resources)} resources>"

    @classmethod
    def from_objects(
        cls, objects: Iterable[Mapping[str, Any] | Resource], *, options: Options | None = None
    ) -> Config:
        """Makes a configuration of objects: mappings as in a manifest, or models of `kgw.api`.

        Of several definitions of one object the last is used.
        """
        return Session(options).from_objects(objects)

    @classmethod
    def from_loaded(cls, loaded: Loaded, *, options: Options | None = None) -> Config:
        """Makes a configuration of what a source holds."""
        return Session(options).from_loaded(loaded)

    @cached_property
    def findings(self) -> tuple[Finding, ...]:
        """Everything that is wrong or worth knowing, in reading order."""
        found: Iterable[Finding] = [*self._own_findings, *self.translation.findings]
        if self._place is not None:
            found = map(self._place, found)
        return tuple(diagnostics.sort(found))

    @property
    def ir(self) -> dict[str, Any]:
        """The representation that the engine runs, as JSON data; `docs/ir.md` describes it."""
        return self.translation.ir

    @cached_property
    def ir_bytes(self) -> bytes:
        """The representation as JSON; equal resources give equal bytes."""
        with _uncollected(len(self.resources)):
            return encoded(self.ir)

    @property
    def listeners(self) -> list[dict[str, Any]]:
        """The listeners of the representation."""
        return self.translation.listeners

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
    return Manifests(paths, options=options).load()


async def watch(
    paths: Paths | Iterable[Paths], *, options: Options | None = None
) -> AsyncGenerator[Config, None]:
    """Yields the configuration as it is, and again whenever the content of the files changes.

    A file that was written is noticed at once; only documents that changed are parsed again, and
    only what they are about is translated again. What is wrong after a change is in the findings,
    and the caller decides whether to keep the last.
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
        self._session = Session(options)
        self._loaded = Loaded([])

    def load(self) -> Config:
        """Returns the configuration as it is; see the function `load`."""
        with _uncollected():
            self._loaded = self._files.load()
            return self._session.from_loaded(self._loaded)

    async def changes(self) -> AsyncGenerator[Config, None]:
        """Yields the configuration whenever it is another than the last, or than that of `load`.

        See `watch`.
        """
        from anyio import to_thread

        async with aclosing(source.watch(self._files, since=self._loaded)) as changes:
            async for loaded in changes:
                self._loaded = loaded
                yield await to_thread.run_sync(self._session.from_loaded, loaded)


class Session:
    """Makes configurations, one after another: what did not change is not done again.

    What did not change is the same Python object: a raw object of `kgw.source.Files`, or a model of
    `kgw.api`. Of one session only one configuration may be made at a time.
    """

    def __init__(self, options: Options | None = None) -> None:
        self._translator = Translator(options)
        # Raw objects, and what they are parsed to.
        self._objects: list[RawObject] = []
        self._parsed: list[Resource | None] = []
        # Of those about which there is anything to say, by their identity.
        self._findings: dict[int, list[Finding]] = {}
        # Models that were given, and how often each object is among them.
        self._models: list[Resource] = []
        self._keys: Counter[api.ResourceKey] = Counter()

    def from_loaded(self, loaded: Loaded) -> Config:
        """Makes a configuration of what a source holds."""
        gone, come = part(self._objects, loaded.objects)
        before = dict(zip(map(id, self._objects[gone]), self._parsed[gone], strict=True))
        parsed: list[Resource | None] = []
        new = loaded.objects[come]
        with _uncollected(len(new)):
            for raw in new:
                if id(raw) in before:
                    parsed.append(before.pop(id(raw)))
                    continue
                resource, found = api.parse(raw)
                raw.forget()
                parsed.append(resource)
                if found:
                    self._findings[id(raw)] = found
        for ident in before:
            self._findings.pop(ident, None)
        self._parsed = [*self._parsed[: gone.start], *parsed, *self._parsed[gone.stop :]]
        self._objects = loaded.objects
        findings = [*loaded.findings, *chain.from_iterable(self._findings.values())]
        resources = tuple(filter(None, self._parsed))
        return self._make(resources, findings, loaded.files, loaded.place)

    def from_objects(self, objects: Iterable[Mapping[str, Any] | Resource]) -> Config:
        """Makes a configuration of mappings and models; see `Config.from_objects`."""
        resources: list[Resource] = []
        findings: list[Finding] = []
        for one in objects:
            if isinstance(one, api.Resource):
                examined = api.examine(one)
                findings += one.findings or ()
                if examined is not None:
                    resources.append(examined)
                continue
            loaded = source.from_objects([one])
            findings += loaded.findings
            for raw in loaded.objects:
                resource, found = api.parse(raw)
                findings += found
                if resource is not None:
                    resources.append(resource)
        gone, come = exchanged(self._models, resources)
        self._models = resources
        self._keys.subtract(one.key for one in gone)
        self._keys.update(one.key for one in come)
        for one in gone:
            if not self._keys[one.key]:
                del self._keys[one.key]
        if len(self._keys) == len(resources):
            return self._make(tuple(resources), findings)
        self._models, self._keys = [], Counter()  # one object may be there twice
        kept: dict[api.ResourceKey, Resource] = {}
        for resource in resources:
            first = kept.pop(resource.key, None)
            if first is not None:
                findings.append(defined_twice(str(resource.key), first.origin, resource.origin))
            kept[resource.key] = resource
        return self._make(tuple(kept.values()), findings)

    def _make(
        self,
        resources: tuple[Resource, ...],
        findings: Iterable[Finding],
        files: tuple[str, ...] = (),
        place: Callable[[Finding], Finding] | None = None,
    ) -> Config:
        with _uncollected(0 if self._translator.has_state else len(resources)):
            translation = self._translator.translate(resources)
        return Config(resources, translation, findings, files, place)


@contextmanager
def _uncollected(count: int | None = None) -> Iterator[None]:
    """Looks for no garbage while many objects are made, all of which stay; or perhaps many.

    Each look goes through all that were made so far: a third of the time for 10,000 routes.
    """
    if (count is not None and count < _MANY) or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


_MANY = 1_000
"""Objects, from which on it pays."""
